//! A whole runner program: arguments, settings, logs, signals, exit code. A user's `main` is one call of it.

use std::process::ExitCode;

use service::ServeError;
use service::cli::{self, Exit};
use service::settings::{Environment, Sources};

use crate::config::Config;
use crate::error::StartError;
use crate::handlers::{Handler, Handlers, Terms};
use crate::process::serve_as_shim;
use crate::running::start;

/// A runner program; see [`Runner::builder`].
#[derive(Debug)]
pub struct Runner;

impl Runner {
    /// Begins a program that runs the built-in and declared job types, and the handlers that are added to it.
    pub fn builder() -> Builder {
        Builder {
            program: "runner",
            version: env!("CARGO_PKG_VERSION"),
            handlers: Handlers::default(),
        }
    }
}

/// A runner program in the making.
#[derive(Debug)]
#[must_use = "a runner runs when run() is called"]
pub struct Builder {
    program: &'static str,
    version: &'static str,
    handlers: Handlers,
}

impl Builder {
    /// Names the program in its help, its version line and its errors.
    pub fn program(mut self, program: &'static str, version: &'static str) -> Self {
        self.program = program;
        self.version = version;
        self
    }

    /// Adds a handler for a job type: one attempt, no limits.
    pub fn handler(self, job_type: &str, handler: impl Handler) -> Self {
        self.handler_with(job_type, Terms::default(), handler)
    }

    /// Adds a handler for a job type with terms that hold where the caller of a job left them open.
    pub fn handler_with(mut self, job_type: &str, terms: Terms, handler: impl Handler) -> Self {
        self.handlers.add(job_type, terms, handler);
        self
    }

    /// Reads arguments and settings, and serves until SIGTERM or SIGINT; gives the exit code of `main`.
    ///
    /// Call it before anything else in `main`: the same program, started with the hidden first argument `exec-shim`,
    /// watches over a command, and this is where it does.
    pub fn run(self) -> ExitCode {
        if let Some(code) = serve_as_shim() {
            return code;
        }
        service::install_crypto();
        keep_memory_private();
        let about = "Claims jobs, runs them, and records how they ended";
        let arguments = cli::read(self.program, self.version, about);
        let sources = Sources {
            config: arguments.config,
            environment: Environment::of_process(),
        };
        let config = match Config::load(sources) {
            Ok(config) => config,
            Err(error) => return cli::refuse_settings(self.program, &error).into(),
        };
        service::telemetry::init(&config.shared.log);
        let runtime = match tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
        {
            Ok(runtime) => runtime,
            Err(error) => return cli::fail(self.program, &error).into(),
        };
        match runtime.block_on(serve(config, self.handlers)) {
            Ok(()) => Exit::Ok.into(),
            Err(
                error @ (StartError::JobTypes(_)
                | StartError::NameTaken(_)
                | StartError::Serve(ServeError::Pem(..) | ServeError::Tls(_))),
            ) => {
                let _ = cli::fail(self.program, &error);
                Exit::WrongUsage.into()
            }
            Err(error) => cli::fail(self.program, &error).into(),
        }
    }
}

async fn serve(config: Config, handlers: Handlers) -> Result<(), StartError> {
    let run = |stop: service::Stop| async move {
        let running = start(config, handlers).await?;
        running.join_with(stop).await
    };
    service::until_signals(run)
        .await
        .map_err(StartError::Signals)?
}

/// Jobs run as the same user: without this they could read the runner's secrets from its memory and environment.
fn keep_memory_private() {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{DumpableBehavior, set_dumpable_behavior};
        // Where the kernel refuses, nothing is worse than before.
        let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    }
}
