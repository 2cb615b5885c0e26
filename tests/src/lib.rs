//! The harness of the system tests: a whole system in this process, the real programs as children, and what a test
//! needs to look at them from outside. It knows nothing of how the services work inside.
#![expect(clippy::expect_used, clippy::panic, reason = "a harness that cannot go on fails the test, and says why")]

mod call;
mod database;
mod leftovers;
mod peer;
mod program;
mod system;
mod wait;

pub use call::{Answer, Call, Client};
pub use database::{Database, migrate, rows};
pub use leftovers::{command_line, end_processes_of, processes_in, processes_of};
pub use peer::Peer;
pub use program::{Program, Start, repository};
pub use system::{API_KEY, Builder, RUNNER_TOKEN, SECRET_KEY, System};
pub use wait::{LIMIT, wait_until};
