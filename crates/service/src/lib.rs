#![doc = include_str!("../README.md")]

pub mod auth;
pub mod cli;
pub mod edge;
pub mod egress;
pub mod extract;
pub mod flags;
pub mod health;
pub mod http_client;
pub mod ids;
pub mod limits;
pub mod metrics;
pub mod problem;
pub mod serve;
pub mod settings;
pub mod telemetry;
pub mod trace;

mod around;
mod cors;
mod crypto;
mod secret;
mod stop;

pub use around::around;
pub use auth::{Caller, FailureCounts, Guard, Keeper, Scope};
pub use cors::Cors;
pub use crypto::install_crypto;
pub use egress::{Egress, Forbidden};
pub use extract::{
    Fields, FilePart, Json, Multipart, OptionalJson, Parse, Part, Path, Query, is_multipart, read,
};
pub use flags::{Flag, Flags};
pub use health::Readiness;
pub use limits::{Concurrency, Limits};
pub use problem::{FieldError, Problem};
pub use secret::{KeyDigest, KeyId, KeySet, Secret};
pub use serve::{ConnectionLimits, Listener, ServeError, TlsFiles, serve};
pub use settings::{
    AppEnv, ArtifactStore, Bucket, Environment, NotionSettings, Pooler, SettingsError,
    SharedSettings, Sources, Values, WebhookSettings,
};
pub use stop::{Stop, Stopper, until_signals};
