//! PostgreSQL away: silent, killed, behind a pooler, unsafe; and what was done meanwhile is not lost.
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot be set up must fail"
)]

mod black_hole;
mod bouncer;
mod database;
mod gates;
mod locked;
mod outcomes;
mod postmaster;
mod safety;
