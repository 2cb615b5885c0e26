#![doc = include_str!("../README.md")]
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a fuzzer that cannot go on must say why"
)]

mod attack;
mod case;
mod hostile;
mod json;
mod mutation;
mod oracle;
mod programs;
mod request;
mod routes;
mod system;
mod tally;
mod wire;
mod witness;

pub use attack::{Plan, attack};
pub use request::{Keys, Side, Target};
pub use system::System;
pub use tally::Tally;
