//! The store on a real PostgreSQL: the state machine, and callers that race.
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot be set up must fail"
)]

mod alone;
mod api_keys;
mod away;
mod bouncer;
mod claims;
mod counts;
mod crowds;
mod database;
mod drains;
mod files;
mod fleet;
mod gates;
mod groups;
mod lost;
mod notion;
mod operations;
mod order;
mod prepared;
mod races;
mod recorder;
mod releases;
mod replay;
mod restored;
mod retention;
mod rights;
mod schedules;
mod schema;
mod seals;
mod slots;
mod sweeps;
mod verify;
mod webhooks;
mod why;
