#![doc = include_str!("../README.md")]

mod api;
mod app;
mod builder;
mod config;
mod context;
mod dispatcher;
mod error;
mod events_file;
mod executions;
mod executor;
mod handlers;
mod housekeeping;
mod identity;
mod interruption;
mod late_outcomes;
mod lease_keeper;
mod lines;
mod outcome_file;
mod output;
mod payload_schema;
mod process;
mod registry;
mod run_folder;
mod running;
mod slots;
mod work_dir;

pub use builder::{Builder, Runner};
pub use config::{Config, SETTINGS};
pub use context::Context;
pub use error::{JobError, StartError};
pub use handlers::{Handler, Handlers, Terms};
pub use process::serve_as_shim;
pub use running::{RunningRunner, start};
