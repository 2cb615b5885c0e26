#![doc = include_str!("../README.md")]
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a suite that cannot go on fails, and says why"
)]

pub mod chain;
pub mod checker;
mod clients;
pub mod clock;
mod database;
pub mod directed;
mod faults;
pub mod figures;
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
pub mod terms;

pub use report::Report;
pub use run::run;
