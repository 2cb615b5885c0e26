//! What the jobs of these tests do, in shell.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use tests::System;

/// Goes on when the file that its payload names is there.
pub(crate) const HOLD: &str = r#"
go=$(tr -d '"' < "$OPS_PAYLOAD_FILE")
while [ ! -e "$go" ]; do sleep 0.05; done"#;

/// What a job of the type `hold` waits for.
pub(crate) struct Door(PathBuf);

impl Door {
    /// A door that is shut.
    pub(crate) fn of(system: &System) -> Self {
        Self(system.folder().join(format!("door-{}", service::ids::random_hex::<4>())))
    }

    /// The job that waits before it.
    pub(crate) fn job(&self) -> Value {
        json!({ "job_type": "hold", "payload": self.payload() })
    }

    /// The payload of that job.
    pub(crate) fn payload(&self) -> Value {
        json!(self.0)
    }

    /// Lets the jobs before it end.
    pub(crate) fn open(&self) {
        fs::write(&self.0, "").expect("a file");
    }
}
