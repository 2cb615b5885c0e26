//! `POST /jobs` as multipart: a part `job` of JSON, and files in any order. The files are stored as they come; what comes
//! to nothing is forgotten.

use std::sync::Arc;

use axum::extract::{FromRequest, Request};
use files::{FileError, Uploaded, digest_of};
use jobs::Inputs;
use service::{FieldError, Multipart, Part, Problem};
use uuid::Uuid;

use super::new_job::JobRequest;
use crate::app::App;
use crate::error;

/// The name of the part that is the job.
const JOB: &str = "job";

/// What was uploaded: the job that is asked for, and the files for it.
pub(super) struct Upload {
    pub(super) job: JobRequest,
    pub(super) inputs: Inputs,
}

/// Reads a whole upload.
///
/// # Errors
/// What is wrong with it; nothing of it is kept then.
pub(super) async fn read(app: &Arc<App>, request: Request) -> Result<Upload, Problem> {
    let mut multipart = Multipart::from_request(request, &()).await?;
    let mut stored = Vec::new();
    let read = read_parts(app, &mut multipart, &mut stored).await;
    let ids: Vec<Uuid> = stored.iter().map(|file| file.id).collect();
    match read {
        Ok(job) => {
            let digest = digest_of(&stored);
            Ok(Upload {
                job,
                inputs: Inputs { ids, digest },
            })
        }
        Err(problem) => {
            forget(app, &ids).await;
            Err(problem)
        }
    }
}

/// Gives uploaded files up; what cannot be forgotten now is swept one day.
pub(super) async fn forget(app: &App, ids: &[Uuid]) {
    if !ids.is_empty() {
        let _ = crate::app::ask(app.store.discard_files(ids)).await;
    }
}

async fn read_parts(
    app: &App,
    multipart: &mut Multipart,
    stored: &mut Vec<Uploaded>,
) -> Result<JobRequest, Problem> {
    let mut job = None;
    while let Some(part) = multipart.next_part(JOB).await? {
        match part {
            Part::Json(text) if job.is_none() => {
                let request: JobRequest = Part::parse_json(&text)?;
                // Whoever may not have the job need not send its files.
                app.check_flag_of(&request.0.job_type)?;
                job = Some(request);
            }
            Part::Json(_) => return Err(wrong_job("must be sent once")),
            Part::File(file) => {
                let sent = file.file_name().map(str::to_owned);
                let place = i32::try_from(stored.len()).unwrap_or(i32::MAX);
                let id = service::ids::uuid_v7();
                let pieces = multipart.pieces(*file);
                let taken = app
                    .depot
                    .take_in(id, sent.as_deref(), place, pieces, problem);
                stored.push(taken.await?);
            }
        }
    }
    job.ok_or_else(|| wrong_job("is required, as a part of JSON beside the files"))
}

fn wrong_job(why: &str) -> Problem {
    Problem::invalid_fields(vec![FieldError::new(JOB, why)])
}

fn problem(error: FileError) -> Problem {
    match error {
        FileError::Store(error) => error::problem_of(error),
        other => {
            tracing::error!(event = "file_not_stored", error = %error::chain(&other));
            Problem::unavailable(
                "The files cannot be stored just now; try again.",
                std::time::Duration::from_secs(5),
            )
        }
    }
}
