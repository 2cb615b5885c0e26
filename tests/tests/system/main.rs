//! The system from outside: everything here goes over HTTP, through a program's exit code, or through psql.
#![expect(clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails, and says why")]

mod authentication;
mod batch;
mod commands;
mod control_planes;
mod crash;
mod database_away;
mod dev;
mod flags;
mod handlers;
mod health;
mod idempotency;
mod job;
mod limits;
mod listing;
mod opsctl;
mod runner;
mod scripts;
mod secrets;
mod startup;
mod submit;
mod trigger;
