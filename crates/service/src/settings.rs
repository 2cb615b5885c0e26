//! What a program can be told from outside, declared once and read once.
//!
//! A program lists its [`Setting`]s in static tables; the tables make the documentation, and
//! [`Values`] reads them from defaults, file and environment, in that order, later wins. Nothing
//! else in the workspace may look at the environment. No message made here bears a value.

mod artifact_store;
mod environment;
mod error;
mod file;
mod getters;
mod notion;
mod parse;
mod shared;
mod table;
#[cfg(test)]
mod tests;
mod values;
mod webhooks;

pub use artifact_store::{ArtifactStore, Bucket};
pub use environment::Environment;
pub use error::{SettingProblem, SettingsError};
pub use notion::NotionSettings;
pub use parse::is_loopback;
pub use shared::{AppEnv, Pooler, SharedSettings};
pub use table::{Fallback, Kind, Setting, markdown};
pub use values::{Source, Sources, Values};
pub use webhooks::WebhookSettings;
