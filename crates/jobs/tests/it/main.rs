//! The store on a real PostgreSQL: the state machine, and callers that race.
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot be set up must fail"
)]

mod away;
mod bouncer;
mod claims;
mod database;
mod lost;
mod operations;
mod replay;
mod schema;
mod slots;
mod sweeps;
mod verify;
