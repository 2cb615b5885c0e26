//! Control plane and runner of `opsctl dev`, in this process, every feature on but Notion, unless that is set. Owns both; whoever drops it ends both.

use std::fs;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::pin::pin;

use control_plane::ControlPlane;
use runner::{Handlers, RunningRunner};
use service::{Environment, Flag, Secret, Sources, Stop};

use super::keys::Keys;
use crate::error::Error;
use crate::screen::Screen;
use crate::settings::{Access, HandedOn};

pub(super) const RUNNER_FILE: &str = "runner.toml";
/// The folder in which the runner works, where there is a state folder to have it in.
pub(super) const RUNS: &str = "runs";
const RUNNER_TOML: &str = include_str!("runner.toml");

/// Which ports were asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports {
    pub(super) control_plane: Option<u16>,
    pub(super) runner: Option<u16>,
}

/// Both services, serving.
#[derive(Debug)]
pub(super) struct Services {
    control_plane: ControlPlane,
    runner: RunningRunner,
    runner_file: PathBuf,
}

/// What both services are started with.
pub(super) struct Start<'a> {
    pub(super) ports: Ports,
    pub(super) keys: &'a Keys,
    pub(super) database: &'a Secret,
    pub(super) folder: &'a Path,
    /// `None`: a temporary one.
    pub(super) work_dir: Option<PathBuf>,
    pub(super) handed_on: &'a HandedOn,
    /// What both are told of Notion; empty: its flag is off.
    pub(super) notion: &'a [(&'static str, String)],
}

impl Services {
    /// Starts the runner, then the control plane that triggers it.
    pub(super) async fn start(start: Start<'_>, screen: &Screen) -> Result<Self, Error> {
        let runner_file = runner_file(start.folder)?;
        if let Some(work_dir) = &start.work_dir {
            clear(work_dir)?;
        }
        let runner_config = runner::Config::load(Sources {
            config: Some(runner_file.clone()),
            environment: start.runner_environment(port(start.ports.runner, 8010, screen)),
        })
        .inspect_err(|_| {
            screen.say(&format!(
                "the runner's settings are in {}",
                runner_file.display()
            ));
        })?;
        let runner = runner::start(runner_config, Handlers::default())
            .await
            .map_err(runner_ended)?;
        let runner_url = runner.url().to_owned();
        let environment = start
            .control_plane_environment(port(start.ports.control_plane, 8000, screen), &runner_url);
        let control_plane = control_plane(environment).await;
        match control_plane {
            Ok(control_plane) => Ok(Self {
                control_plane,
                runner,
                runner_file,
            }),
            Err(error) => {
                runner.stop();
                // What went wrong first is what counts.
                let _ = runner.join().await;
                Err(error)
            }
        }
    }

    pub(super) fn control_plane_url(&self) -> String {
        self.control_plane.url()
    }

    pub(super) fn runner_url(&self) -> String {
        self.runner.url().to_owned()
    }

    /// The file in which the runner's job types stand.
    pub(super) fn runner_file(&self) -> &Path {
        &self.runner_file
    }

    /// How a caller gets at the control plane.
    pub(super) fn access(&self, keys: &Keys) -> Access {
        Access {
            url: self.control_plane_url(),
            key: keys.api_key.clone(),
        }
    }

    /// Ends both, the one that gives work first.
    pub(super) async fn stop(self) -> Result<(), Error> {
        self.control_plane.stop().await;
        self.runner.stop();
        self.runner.join().await.map_err(runner_ended)
    }

    /// Serves until stopping is requested, then ends both; asked again, at once. Fails when one ends by itself.
    pub(super) async fn run_until(self, stop: &Stop) -> Result<(), Error> {
        let mut runner = pin!(self.runner.join_with(stop.clone()));
        let mut control_plane = pin!(self.control_plane.run_until(stop.clone()));
        tokio::select! {
            ended = &mut runner => {
                if stop.is_requested() {
                    control_plane.await;
                }
                ended.map_err(runner_ended)
            }
            () = &mut control_plane => {
                if stop.is_requested() {
                    return runner.await.map_err(runner_ended);
                }
                Err(Error::Failed("the control plane ended by itself: see the log".to_owned()))
            }
        }
    }
}

fn runner_ended(error: runner::StartError) -> Error {
    Error::Service {
        name: "runner",
        source: Box::new(error),
    }
}

async fn control_plane(environment: Environment) -> Result<ControlPlane, Error> {
    let config = control_plane::Config::load(Sources {
        config: None,
        environment,
    })?;
    let started = control_plane::start(config).await;
    started.map_err(|error| Error::Service {
        name: "control plane",
        source: Box::new(error),
    })
}

impl Start<'_> {
    fn runner_environment(&self, port: u16) -> Environment {
        let mut pairs = self.shared();
        pairs.extend(self.handed_on.0.iter().cloned());
        pairs.push((
            "RUNNER_TOKEN".to_owned(),
            self.keys.runner_token.expose().to_owned(),
        ));
        pairs.push(("RUNNER_BIND".to_owned(), format!("127.0.0.1:{port}")));
        pairs.push((
            "WEBHOOK_SIGNING_KEY".to_owned(),
            webhooks::derived_signing_key(&self.keys.secret_key)
                .expose()
                .to_owned(),
        ));
        if let Some(work_dir) = &self.work_dir {
            pairs.push(("RUNNER_WORK_DIR".to_owned(), work_dir.display().to_string()));
        }
        // Whoever ends a development set-up does not want to wait for its jobs.
        pairs.push(("RUNNER_DRAIN_SECONDS".to_owned(), "2".to_owned()));
        Environment::from_pairs(pairs)
    }

    fn control_plane_environment(&self, port: u16, runner_url: &str) -> Environment {
        let mut pairs = self.shared();
        let own = [
            ("SECRET_KEY", self.keys.secret_key.expose().to_owned()),
            ("OPS_API_KEY", self.keys.api_key.expose().to_owned()),
            ("CONTROL_PLANE_BIND", format!("127.0.0.1:{port}")),
            ("RUNNER_URL", runner_url.to_owned()),
            (
                "RUNNER_TOKEN_OUTBOUND",
                self.keys.runner_token.expose().to_owned(),
            ),
        ];
        pairs.extend(own.map(|(name, value)| (name.to_owned(), value)));
        Environment::from_pairs(pairs)
    }

    fn shared(&self) -> Vec<(String, String)> {
        let both = [
            ("APP_ENV", "dev"),
            ("DATABASE_URL", self.database.expose()),
            // A receiver that is being developed runs on the same machine.
            ("WEBHOOK_ALLOW", "127.0.0.0/8,::1"),
        ];
        // That one cannot do without an account there.
        let flags = Flag::all().filter(|flag| *flag != Flag::Notion);
        let flags = flags.map(|flag| (flag.name(), "1"));
        let notion = self.notion.iter();
        both.into_iter()
            .chain(flags)
            .chain(notion.map(|(name, value)| (*name, value.as_str())))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }
}

/// Makes the runner's settings file with one job type more, for a stack that goes with a proof.
pub(super) fn with_job_type(folder: &Path, name: &str, table: &str) -> Result<(), Error> {
    let path = folder.join(RUNNER_FILE);
    let allowed = RUNNER_TOML.replacen("\"smoke\"]", &format!("\"smoke\", \"{name}\"]"), 1);
    fs::write(&path, allowed + table).map_err(Error::io("write", &path))
}

/// The runner's settings file, made at the first start and the user's own from then on.
fn runner_file(folder: &Path) -> Result<PathBuf, Error> {
    let path = folder.join(RUNNER_FILE);
    if !path.exists() {
        fs::write(&path, RUNNER_TOML).map_err(Error::io("write", &path))?;
    }
    Ok(path)
}

/// Removes what a runner that was killed left behind; the state folder's lock is proof that none lives.
pub(super) fn clear(work_dir: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(work_dir) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(Error::io("clear", work_dir)(error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The port that was asked for; else the usual one if nobody has it, else 0, which takes a free one.
fn port(asked: Option<u16>, usual: u16, screen: &Screen) -> u16 {
    if let Some(port) = asked {
        return port;
    }
    match TcpListener::bind(("127.0.0.1", usual)) {
        Ok(_) => usual,
        Err(_) => {
            screen.say(&format!("port {usual} is taken: using a free one"));
            0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_that_dev_makes_are_accepted_with_every_flag_on() {
        let folder = tempfile::tempdir().expect("a folder");
        let keys = Keys::of(folder.path()).expect("made");
        let database = Secret::new("postgres://u@localhost/d");
        let handed_on = HandedOn(vec![("HOME".to_owned(), "/h".to_owned())]);
        let ports = Ports {
            control_plane: None,
            runner: None,
        };
        let start = Start {
            ports,
            keys: &keys,
            database: &database,
            folder: folder.path(),
            work_dir: None,
            handed_on: &handed_on,
            notion: &[],
        };
        let config = Some(runner_file(folder.path()).expect("written"));
        let runner = runner::Config::load(Sources {
            config,
            environment: start.runner_environment(0),
        });
        assert_eq!(
            runner.expect("right").shared.flags,
            service::Flags::all_on().without(Flag::Notion)
        );
        let environment = start.control_plane_environment(0, "http://127.0.0.1:1");
        let control_plane = control_plane::Config::load(Sources {
            config: None,
            environment,
        })
        .expect("right");
        assert!(
            control_plane
                .ops_keys
                .accepts(keys.api_key.expose())
                .is_some()
        );
        assert_eq!(
            control_plane.shared.flags,
            service::Flags::all_on().without(Flag::Notion)
        );
        let notion = [
            ("NOTION_ENABLED", "1".to_owned()),
            ("NOTION_TOKEN", "t".to_owned()),
            ("NOTION_DATABASE_ID", "0".repeat(32)),
            ("NOTION_API_URL", String::new()),
        ];
        let start = Start {
            notion: &notion,
            ..start
        };
        let control_plane = control_plane::Config::load(Sources {
            config: None,
            environment: start.control_plane_environment(0, "http://127.0.0.1:1"),
        });
        assert_eq!(
            control_plane.expect("right").shared.flags,
            service::Flags::all_on()
        );
    }

    #[test]
    fn the_users_job_types_are_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = runner_file(folder.path()).expect("written");
        fs::write(&path, "mine").expect("written");
        runner_file(folder.path()).expect("kept");
        assert_eq!(fs::read_to_string(path).expect("read"), "mine");
    }

    #[test]
    fn a_taken_port_gives_way_to_a_free_one_unless_it_was_asked_for() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("bound");
        let number = taken.local_addr().expect("bound").port();
        assert_eq!(port(None, number, &Screen::plain()), 0);
        assert_eq!(port(Some(number), 1, &Screen::plain()), number);
        drop(taken);
        assert_eq!(port(None, number, &Screen::plain()), number);
    }
}
