//! The program: hands its arguments and environment to the library, and ends with its exit code.

use std::process::ExitCode;

use service::Environment;

fn main() -> ExitCode {
    // The runner of `opsctl dev` has its commands watched by copies of this program.
    match runner::serve_as_shim() {
        Some(code) => code,
        None => run(),
    }
}

#[tokio::main]
async fn run() -> ExitCode {
    service::install_crypto();
    opsctl::run(std::env::args_os(), Environment::of_process())
        .await
        .into()
}
