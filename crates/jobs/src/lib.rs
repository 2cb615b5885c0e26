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
mod verify;

pub use error::StoreError;
pub use job::{Event, Job, NewJob};
pub use lease::{Lease, LeaseKey, LeasedJob, OnLost, RunnerIdentity, TypeTerms};
pub use name::{Name, NotAName};
pub use outcome::{LONGEST_ERROR, Outcome};
pub use retry::Backoff;
pub use state::{Status, UnknownStatus};
pub use storable::{storable_json, storable_text};
pub use store::{
    AbortAnswer, Admission, ClaimRequest, Finished, JobFilter, LogChunk, Matched, Migration, Page,
    Pooler, ProgressKind, ROLES, RetryFilter, Rollup, Runner, RunnerReport, SchemaStatus, Store,
    StoreOptions, Submitted, Swept, UNUSABLE_ADDRESS, Unfinished, Verified, expected_version,
    is_usable_address, schema_fingerprint,
};
pub use trigger::{Trigger, TriggerAccepted};
pub use verify::{Finding, Fold, Standing};
