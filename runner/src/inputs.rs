//! What a job is given: its files, put into the run's input folder under safe names, and a list that says which was which.
//! Names from outside are written into that list and nowhere else.

use std::io::Write as _;
use std::sync::Arc;

use files::{Depot, FileError, unique_file_names};
use futures_util::StreamExt as _;
use jobs::File;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::error::JobError;
use crate::keeping::blocking;
use crate::run_folder::{RunFolder, private_file};

/// What a job is given, and under which names its handler finds it.
pub(crate) struct Given {
    files: Vec<File>,
    names: Vec<String>,
}

impl Given {
    /// What this job is given.
    pub(crate) async fn of(depot: &Depot, job_id: Uuid) -> Result<Self, JobError> {
        let files = depot.store().inputs(job_id).await;
        let files = files.map_err(|error| not_placed(error.into()))?;
        let names = unique_file_names(files.iter().map(|file| file.name.as_str()));
        Ok(Self { files, names })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Writes the list of it.
    pub(crate) fn write_list(&self, folder: &RunFolder) -> std::io::Result<()> {
        let files = self.files.iter().zip(&self.names);
        let list: Vec<Value> = files.map(|(file, name)| entry(file, name)).collect();
        let text = json!({ "inputs": list }).to_string();
        private_file(&folder.inputs_list())?.write_all(text.as_bytes())
    }

    /// Puts it where the handler finds it, and the list last.
    pub(crate) async fn place(
        self,
        depot: &Depot,
        folder: &Arc<RunFolder>,
    ) -> Result<(), JobError> {
        for (file, name) in self.files.iter().zip(&self.names) {
            place_one(depot, file, folder, name).await?;
        }
        let folder = Arc::clone(folder);
        blocking(move || self.write_list(&folder))
            .await
            .map_err(|error| not_written(&error))
    }
}

async fn place_one(
    depot: &Depot,
    file: &File,
    folder: &Arc<RunFolder>,
    name: &str,
) -> Result<(), JobError> {
    let path = folder.inputs().join(name);
    let mut to = blocking(move || private_file(&path))
        .await
        .map_err(|error| not_written(&error))?;
    let mut pieces = depot.read_all(file);
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(not_placed)?;
        to = blocking(move || {
            to.write_all(&piece)?;
            Ok(to)
        })
        .await
        .map_err(|error| not_written(&error))?;
    }
    Ok(())
}

fn entry(file: &File, name: &str) -> Value {
    let sha256: String = file
        .sum
        .sha256
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    json!({
        "file": name,
        "name": file.name,
        "content_type": file.content_type,
        "size": file.sum.size,
        "sha256": sha256,
    })
}

#[expect(clippy::needless_pass_by_value, reason = "errors are mapped by it")]
fn not_placed(error: FileError) -> JobError {
    let told = format!("the job's files could not be had: {error}");
    if error.passes() {
        JobError::Retry(told)
    } else {
        JobError::Fail(told)
    }
}

fn not_written(error: &std::io::Error) -> JobError {
    JobError::retry(format!("the job's files could not be written: {error}"))
}
