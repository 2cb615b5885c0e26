//! The store on a real PostgreSQL: the state machine, and callers that race.
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot be set up must fail"
)]

mod alone;
mod away;
mod bouncer;
mod claims;
mod crowds;
mod database;
mod files;
mod fleet;
mod gates;
mod groups;
mod lost;
mod operations;
mod order;
mod races;
mod recorder;
mod releases;
mod replay;
mod schedules;
mod schema;
mod seals;
mod slots;
mod sweeps;
mod verify;
mod why;
