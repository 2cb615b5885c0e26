//! The program: arguments, settings, logs, then [`control_plane::start`]. Decides nothing.

use std::process::ExitCode;

use control_plane::{Config, StartError};
use service::cli::{self, Exit};
use service::{Environment, Sources, Stop, telemetry, until_signals};

#[tokio::main]
async fn main() -> ExitCode {
    service::install_crypto();
    let about = "Records jobs over HTTP, answers questions about them, and nudges the runner";
    let arguments = cli::read("control-plane", env!("CARGO_PKG_VERSION"), about);
    let sources = Sources {
        config: arguments.config,
        environment: Environment::of_process(),
    };
    let config = match Config::load(sources) {
        Ok(config) => config,
        Err(error) => return cli::refuse_settings("control-plane", &error).into(),
    };
    telemetry::init(&config.shared.log);
    allow_many_files();
    let ended = until_signals(|stop| run(config, stop))
        .await
        .map_err(StartError::Signals);
    match ended.flatten() {
        Ok(()) => Exit::Ok.into(),
        Err(error) => cli::fail("control-plane", &error).into(),
    }
}

/// Every connection is a file, and the usual soft limit is fewer than there may be streams.
fn allow_many_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // Where it is refused, the old limit holds.
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    );
}

async fn run(config: Config, stop: Stop) -> Result<(), StartError> {
    control_plane::start(config).await?.run_until(stop).await;
    Ok(())
}
