#![doc = include_str!("../README.md")]
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a suite that cannot go on fails, and says why"
)]

pub mod checker;
mod clients;
pub mod clock;
mod database;
mod faults;
pub mod history;
pub mod ledger;
mod leftovers;
pub mod profile;
mod programs;
mod report;
mod run;
pub mod schedule;
pub mod seed;
pub mod sink;
mod system;

pub use report::Report;
pub use run::run;
