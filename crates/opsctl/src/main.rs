//! The program: hands its arguments and environment to the library, and ends with its exit code.

use std::process::ExitCode;

use service::Environment;

#[tokio::main]
async fn main() -> ExitCode {
    service::install_crypto();
    opsctl::run(std::env::args_os(), Environment::of_process())
        .await
        .into()
}
