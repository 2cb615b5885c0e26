#![doc = include_str!("../README.md")]

mod error;
mod job;
mod lease;
mod name;
mod outcome;
mod retry;
mod state;
mod storable;
mod store;
mod trigger;

pub use error::StoreError;
pub use job::{Event, Job, NewJob};
pub use lease::{Lease, LeaseKey, LeasedJob, RunnerIdentity, TypeTerms};
pub use name::{Name, NotAName};
pub use outcome::{LONGEST_ERROR, Outcome};
pub use retry::{LONGEST_BACKOFF, backoff_ceiling};
pub use state::{Status, UnknownStatus};
pub use storable::{storable_json, storable_text};
pub use store::{
    AbortAnswer, ClaimRequest, Finished, JobFilter, LogChunk, Migration, Page, Pooler,
    ProgressKind, ROLES, Rollup, Runner, RunnerReport, SchemaStatus, Store, StoreOptions,
    Submitted, Swept, Unfinished, expected_version, schema_fingerprint,
};
pub use trigger::{Trigger, TriggerAccepted};
