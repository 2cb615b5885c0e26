//! `opsctl doctor --canary`: jobs that print a planted secret in every way they can, and then a search for it in all that
//! comes out of the stack: answers, streams, tables, logs.

use std::time::Duration;

use jobs::Name;
use serde_json::json;
use service::Secret;
use service::ids::random_hex;
use tokio::time::sleep;
use uuid::Uuid;

use super::{Came, Doctor, Finding};
use crate::client::ControlPlane;
use crate::dev::Stack;
use crate::error::Error;
use crate::jobs::{has_ended, status};
use crate::screen::Screen;
use crate::settings::{Access, Settings};

const PAUSE: Duration = Duration::from_millis(100);
/// What a runner writes in a secret's place.
const MASK: &str = "[masked]";

pub(super) async fn look(
    doctor: &Doctor,
    patience: Duration,
    settings: &Settings,
    screen: &Screen,
) -> Result<Vec<Finding>, Error> {
    if let Some(access) = settings.given_access()? {
        let Some(secret) = settings.canary_secret()? else {
            return Err(Error::Usage(
                "CANARY_SECRET is not set: set it to what the env of the job type has (docs/operations.md)".to_owned(),
            ));
        };
        let database = settings.optional_database_url()?;
        let search = Search::new(access, &secret, doctor.job_type.clone())?;
        return Ok(search
            .all(database.as_ref(), doctor, settings, patience)
            .await);
    }
    let secret = Secret::new(format!("canary{}", random_hex::<16>()));
    let work = async |stop: service::Stop| {
        let stack = Stack::start_with_canary(settings, screen, &secret).await?;
        let search = Search::new(stack.access(), &secret, doctor.job_type.clone())?;
        let looked = tokio::select! {
            biased;
            () = stop.requested() => Err(Error::Failed("stopped before everything was looked at".to_owned())),
            looked = search.all(Some(stack.database_url()), doctor, settings, patience) => Ok(looked),
        };
        let log = search.in_text("log of the programs", &stack.whole_log());
        let stopped = stack.stop().await;
        let mut findings = looked?;
        findings.push(log);
        stopped.map(|()| findings)
    };
    service::until_signals(work)
        .await
        .map_err(|source| Error::Io {
            doing: "listen for signals".to_owned(),
            source,
        })?
}

struct Search {
    control_plane: ControlPlane,
    job_type: Name,
    needles: Vec<String>,
}

impl Search {
    fn new(access: Access, secret: &Secret, job_type: Name) -> Result<Self, Error> {
        Ok(Self {
            control_plane: ControlPlane::new(access)?,
            job_type,
            needles: needles(secret.expose()),
        })
    }

    async fn all(
        &self,
        database: Option<&Secret>,
        doctor: &Doctor,
        settings: &Settings,
        patience: Duration,
    ) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut ids = Vec::new();
        for (what, end) in [
            ("a job that succeeds", "succeeded"),
            ("a job that fails", "failed"),
        ] {
            let job = tokio::time::timeout(patience, self.job(end)).await;
            match job {
                Ok(Ok(id)) => {
                    findings.push(Finding::new(what, Came::Right(format!("job {id}"))));
                    ids.push(id);
                }
                Ok(Err(error)) => {
                    let said = crate::error::sentence(&error);
                    findings.push(Finding::new(what, Came::Wrong(said)));
                }
                Err(_) => {
                    let said = format!("no end within {} s", patience.as_secs());
                    findings.push(Finding::new(what, Came::Wrong(said)));
                }
            }
        }
        let answers = tokio::time::timeout(patience, self.in_answers(&ids)).await;
        findings.extend(answers.unwrap_or_else(|_| {
            let said = format!("not all of them came within {} s", patience.as_secs());
            vec![Finding::new("answers", Came::Wrong(said))]
        }));
        findings.push(match database {
            Some(url) => Finding::new("tables", self.in_tables(url, &ids, settings).await),
            None => Finding::new(
                "tables",
                Came::Skipped("DATABASE_URL is not set here".to_owned()),
            ),
        });
        for file in &doctor.logs {
            findings.push(match std::fs::read(file) {
                Ok(bytes) => self.in_text("log file", &String::from_utf8_lossy(&bytes)),
                Err(error) => Finding::new(
                    "log file",
                    Came::Wrong(format!("{}: {error}", file.display())),
                ),
            });
        }
        findings
    }

    /// Records a job that prints the secret, and waits for its end.
    async fn job(&self, end: &str) -> Result<String, Error> {
        let body = json!({
            "job_type": self.job_type.as_str(),
            "payload": {"end": end},
            "labels": {"proof": "canary"},
            "max_attempts": 1,
            "ttl_seconds": 600,
        });
        let mut job = self.control_plane.post("/jobs", &body, &[]).await?;
        let id = job["id"].as_str().unwrap_or_default().to_owned();
        while !has_ended(&job) {
            sleep(PAUSE).await;
            job = self.control_plane.get(&format!("/jobs/{id}"), &[]).await?;
        }
        if status(&job) == end {
            Ok(id)
        } else {
            let error = job["error"].as_str().unwrap_or_default();
            Err(Error::Failed(format!(
                "job {id} ended as {}: {error}",
                status(&job)
            )))
        }
    }

    async fn in_answers(&self, ids: &[String]) -> Vec<Finding> {
        let mut findings = Vec::new();
        for id in ids {
            let log = format!("/jobs/{id}/log");
            let text = self.text(&log, "text/plain").await;
            // Otherwise nothing was printed, and nothing is proved.
            if !text.contains(MASK) && !self.is_in(&text) {
                let said = format!(
                    "the log of job {id} shows no trace of what it should have printed: is its command the one of docs/operations.md, and CANARY_SECRET the same on both sides?"
                );
                findings.push(Finding::new("log", Came::Wrong(said)));
            }
            findings.push(self.in_text("log", &text));
            for (what, path, accept) in [
                ("job", format!("/jobs/{id}"), "application/json"),
                ("events", format!("/jobs/{id}/events"), "application/json"),
                ("log lines", log, "application/json"),
                ("why", format!("/jobs/{id}/why"), "application/json"),
                (
                    "artifacts",
                    format!("/jobs/{id}/artifacts"),
                    "application/json",
                ),
                (
                    "event stream",
                    format!("/jobs/{id}/events/stream"),
                    "text/event-stream",
                ),
                (
                    "log stream",
                    format!("/jobs/{id}/log/stream"),
                    "text/event-stream",
                ),
            ] {
                let text = self.text(&path, accept).await;
                findings.push(self.in_text(what, &text));
            }
        }
        for (what, path) in [
            ("list of jobs", "/jobs?limit=200"),
            ("runners", "/runners"),
            ("meta", "/meta"),
            ("debug/env", "/debug/env"),
            ("health/metrics", "/health/metrics"),
            ("metrics", "/metrics"),
        ] {
            let text = self.text(path, "*/*").await;
            findings.push(self.in_text(what, &text));
        }
        findings
    }

    /// Whatever is answered, refusals too.
    async fn text(&self, path: &str, accept: &str) -> String {
        let request = self
            .control_plane
            .request(reqwest::Method::GET, path)
            .header("accept", accept);
        match request.send().await {
            Ok(answer) => answer.text().await.unwrap_or_default(),
            Err(error) => error.to_string(),
        }
    }

    async fn in_tables(&self, url: &Secret, ids: &[String], settings: &Settings) -> Came {
        let ids: Vec<Uuid> = ids.iter().filter_map(|id| id.parse().ok()).collect();
        let found = async {
            let store = crate::db::open(url.expose(), settings.pooler()?)?;
            let found = store.tables_that_hold(&self.needles, &ids).await;
            store.close().await;
            found.map_err(Error::database("search the tables"))
        };
        match found.await {
            Ok(tables) if tables.is_empty() => Came::Right("it is in none".to_owned()),
            Ok(tables) => Came::Wrong(format!("it stands in {}", tables.join(", "))),
            Err(error) => Came::Wrong(crate::error::sentence(&error)),
        }
    }

    fn is_in(&self, text: &str) -> bool {
        self.needles.iter().any(|needle| text.contains(needle))
    }

    fn in_text(&self, what: &'static str, text: &str) -> Finding {
        let came = if self.is_in(text) {
            Came::Wrong("the secret stands in it".to_owned())
        } else {
            Came::Right("it is not there".to_owned())
        };
        Finding::new(what, came)
    }
}

/// The secret as it is, in hexadecimal, and in base64 wherever in a longer text it may stand.
fn needles(secret: &str) -> Vec<String> {
    let hexadecimal: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
    let mut needles = vec![secret.to_owned(), hexadecimal];
    for before in ["", "-", "--"] {
        let encoded = base64(format!("{before}{secret}").as_bytes());
        // The first and the last characters hold bits of what stands around it.
        if let Some(middle) = encoded.get(4..encoded.len().saturating_sub(4)) {
            needles.push(middle.to_owned());
        }
    }
    needles.retain(|needle| needle.len() >= 8);
    needles
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().enumerate().fold(0_u32, |bits, (place, byte)| {
            bits | u32::from(*byte) << (16 - 8 * place)
        });
        for place in 0..=chunk.len() {
            let letter = (bits >> (18 - 6 * place)) & 63;
            text.push(char::from(LETTERS[letter as usize]));
        }
    }
    text
}

/// The type that prints what it must not, for a stack of one's own: the rest of a runner's settings file.
pub(crate) fn job_type(secret: &Secret) -> String {
    format!(
        "\n{JOB_TYPE}env = {{ CANARY_SECRET = \"{}\" }}\n",
        secret.expose()
    )
}

const JOB_TYPE: &str = include_str!("canary.toml");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_as_everybody_writes_it() {
        for (plain, encoded) in [
            ("", ""),
            ("f", "Zg"),
            ("fo", "Zm8"),
            ("foo", "Zm9v"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
    }

    #[test]
    fn a_secret_is_found_wherever_it_stands_in_what_was_encoded() {
        let needles = needles("canary0123456789");
        for around in ["", "a", "ab", "abc"] {
            let text = base64(format!("{around}canary0123456789{around}").as_bytes());
            assert!(
                needles.iter().any(|needle| text.contains(needle.as_str())),
                "{text}"
            );
        }
    }
}
