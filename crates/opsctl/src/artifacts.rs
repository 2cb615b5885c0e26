//! `opsctl artifacts`: what jobs left, listed and fetched. What a name says is never where a file is written, beyond its
//! last part.

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::client::ControlPlane;
use crate::error::Error;
use crate::exit::Exit;
use crate::jobs::rows;
use crate::screen::{Output, Screen};
use crate::settings::Settings;
use crate::table::table;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List what a job left
    List {
        /// The job
        id: Uuid,
    },
    /// Fetch one file
    Get {
        /// The job
        id: Uuid,
        /// The file's name in the list
        name: String,
        /// Where to write it; without it, its own name in this folder
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
        /// Write over a file that is there
        #[arg(long)]
        force: bool,
    },
    /// Fetch everything as a ZIP archive
    Zip {
        /// The job
        id: Uuid,
        /// Where to write it; without it, JOB.zip in this folder
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
        /// Write over a file that is there
        #[arg(long)]
        force: bool,
    },
}

pub(crate) async fn run(
    command: Command,
    settings: &Settings,
    screen: &Screen,
) -> Result<Exit, Error> {
    let control_plane = ControlPlane::new(settings.access()?)?;
    match command {
        Command::List { id } => {
            list(
                &control_plane
                    .get(&format!("/jobs/{id}/artifacts"), &[])
                    .await?,
                screen,
            );
        }
        Command::Get {
            id,
            name,
            to,
            force,
        } => {
            let path = format!("/jobs/{id}/artifacts/{}", encoded(&name));
            let to = to.unwrap_or_else(|| own_name(&name));
            fetch(&control_plane, &path, to, force, screen).await?;
        }
        Command::Zip { id, to, force } => {
            let to = to.unwrap_or_else(|| PathBuf::from(format!("{id}.zip")));
            fetch(
                &control_plane,
                &format!("/jobs/{id}/artifacts.zip"),
                to,
                force,
                screen,
            )
            .await?;
        }
    }
    Ok(Exit::Ok)
}

/// What a job left, for people or as it came.
pub(crate) fn list(answer: &Value, screen: &Screen) {
    match screen.output() {
        Output::Json => screen.json(answer),
        Output::Text => {
            let rows = rows(
                answer,
                "artifacts",
                &["name", "size", "content_type", "sha256"],
            );
            table(screen, &["NAME", "SIZE", "CONTENT TYPE", "SHA-256"], &rows);
        }
    }
}

async fn fetch(
    control_plane: &ControlPlane,
    path: &str,
    to: PathBuf,
    force: bool,
    screen: &Screen,
) -> Result<(), Error> {
    if to.exists() && !force {
        let what = format!(
            "{} is there already: name another file with --to, or write over it with --force",
            to.display()
        );
        return Err(Error::Usage(what));
    }
    let size = control_plane.download(path, &to).await?;
    match screen.output() {
        Output::Json => screen.json(&json!({ "file": to, "size": size })),
        Output::Text => screen.line(&format!("{} ({size} bytes)", to.display())),
    }
    Ok(())
}

/// Each part of the name as it may stand in an address.
fn encoded(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    name.bytes()
        .map(|byte| {
            if plain(byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}

/// The last part of a name, in this folder, never hidden.
fn own_name(name: &str) -> PathBuf {
    let last = name
        .rsplit(['/', '\\'])
        .next()
        .unwrap_or_default()
        .trim_start_matches('.');
    PathBuf::from(if last.is_empty() { "artifact" } else { last })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_written_under_the_last_part_of_its_name_only() {
        for (name, written) in [
            ("a/b/c.txt", "c.txt"),
            ("../../etc/passwd", "passwd"),
            ("..", "artifact"),
            (".bashrc", "bashrc"),
            ("a\\b", "b"),
        ] {
            assert_eq!(own_name(name), PathBuf::from(written), "{name}");
        }
        assert_eq!(encoded("deep/ü 1?.txt"), "deep/%C3%BC%201%3F.txt");
    }
}
