//! The store on a real PostgreSQL: the state machine, and callers that race.

mod claims;
mod database;
mod operations;
mod schema;
mod sweeps;
