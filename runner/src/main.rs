//! The runner as it is shipped: the library's builder with nothing added.

use std::process::ExitCode;

fn main() -> ExitCode {
    runner::Runner::builder().run()
}
