#![doc = include_str!("../README.md")]

mod error;
mod file;
mod gate;
mod job;
mod lease;
mod name;
mod notion;
mod outcome;
mod retry;
mod schedule;
mod stage;
mod state;
mod storable;
mod store;
mod trigger;
mod verify;
mod webhook;

pub use error::StoreError;
pub use file::{File, Inputs, NewFile, Sum};
pub use gate::{Decision, Gate, GateState, OnExpiry, PatchRefused, Verdict, apply_patch};
pub use job::{CurrentStage, Event, Job, NewJob};
pub use lease::{Lease, LeaseKey, LeasedJob, OnLost, RunnerIdentity, TypeTerms};
pub use name::{Name, NotAName};
pub use notion::{
    ClaimedOutcome, NotionCame, NotionCheck, NotionHealth, NotionKey, NotionOutcome, NotionRecord,
    NotionWork, RefusedOutcome,
};
pub use outcome::{LONGEST_ERROR, Outcome};
pub use retry::Backoff;
pub use schedule::{
    CatchUp, Fire, FireOutcome, Grid, NoGrid, Overlap, Schedule, ScheduleName, ScheduleTerms,
};
pub use stage::{GateTerms, NewStage, Part, Stage, StageAtWork};
pub use state::{Status, UnknownStatus};
pub use storable::{storable_json, storable_text};
pub use store::{
    AbortAnswer, Admission, ApiKey, BackupRecord, Changed, ClaimRequest, Closed, DatabaseFacts,
    DecisionRequest, DeliveryPage, Depth, DrillRecord, Durations, EXPECTED_RIGHTS, EventsSeen,
    Expired, Finished, FirePage, Fired, FleetChange, Hints, HowOften, JobFilter, Keep, LastDone,
    LastSweep, LogChunk, LogPage, LogPiece, LogSeen, Matched, Migration, NewApiKey, ObjectRecord,
    OldestDue, Page, Pause, PoolUse, Pooler, ProgressKind, ROLES, RUNNER_PROTOCOL, Reason, Removed,
    RestoredCopy, RetentionTerm, RetryFilter, RetryFrom, RightsApart, Rollup, Runner, RunnerReport,
    SchedulePage, SchemaStatus, Snapshot, Steered, Store, StoreOptions, Submitted, Swept,
    TableFigures, Totals, UNUSABLE_ADDRESS, Unfinished, Upkeep, Verified, WebhookChanged,
    WebhookPage, Window, after_restore, expected_version, is_usable_address, schema_fingerprint,
};
pub use trigger::{Trigger, TriggerAccepted};
pub use verify::{Finding, Fold, Standing};
pub use webhook::{
    ClaimedDelivery, Delivery, DeliveryAttempt, DeliveryState, USUAL_WEBHOOK_KINDS, WEBHOOK_KINDS,
    Webhook, WebhookName, WebhookOutcome, WebhookRecord, WebhookTerms,
};
