//! The system from outside: everything here goes over HTTP, through a program's exit code, or through psql.
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails, and says why"
)]

mod authentication;
mod batch;
mod claims;
mod clocks;
mod commands;
mod control_planes;
mod crash;
mod database_away;
mod deploy;
mod dev;
mod doctor;
mod drains;
mod endings;
mod files;
mod flags;
mod fleet;
mod gates;
mod handlers;
mod harness;
mod health;
mod idempotency;
mod job;
mod keys;
mod limits;
mod listing;
mod live;
mod logs;
mod metrics;
mod notion;
mod object_store;
mod object_store_away;
mod opsctl;
mod restore;
mod rotation;
mod runner;
mod schedules;
mod scripts;
mod seals;
mod secrets;
mod startup;
mod strange_requests;
mod submit;
mod sync_run;
mod traces;
mod trigger;
mod webhooks;
