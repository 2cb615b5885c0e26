//! One round: takes what is to be done next, does it in its turn, and records what came of it. A round that is cut off loses
//! nothing: the outcome is taken by the next once its lease is over, who looks for the page before making one.

use std::time::{Duration, Instant};

use jobs::{
    ClaimedOutcome, NotionCame, NotionCheck, NotionOutcome, NotionRecord, NotionWork, Store,
    StoreError,
};
use service::NotionSettings;

use crate::api::{Api, Failure, FailureKind, Found, TIMEOUT};
use crate::page;

/// Between two requests of one outcome; the database has kept the second turn too.
const APART: Duration = Duration::from_millis(350);
/// Nothing is written so long after an outcome was taken: its lease is about to end.
const USABLE: Duration = Duration::from_secs(90);
/// Answers without any result that a search goes on after.
const MOST_SEARCHES: usize = 10;

/// What a round did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    /// There was nothing to do, or nobody may do it just now.
    Nothing,
    /// It looked whether the token and the database are good for publishing.
    Checked,
    /// An outcome was published.
    Published,
    /// An outcome could not be published this time.
    Failed,
}

impl Round {
    /// Whether there was anything to do.
    pub fn found_work(self) -> bool {
        self != Self::Nothing
    }
}

/// Publishes what is due, as one of any number of programs.
#[derive(Debug)]
pub struct Publisher {
    store: Store,
    api: Api,
    key: String,
    database_id: String,
}

impl Publisher {
    /// The longest that a round takes.
    pub const LONGEST: Duration = Duration::from_secs(60);

    /// Prepares it; connects to nothing.
    ///
    /// # Errors
    /// When no client can be made here.
    pub fn new(store: Store, settings: NotionSettings) -> Result<Self, reqwest::Error> {
        let api = Api::new(settings)?;
        Ok(Self {
            store,
            key: api.key(),
            database_id: api.database_id(),
            api,
        })
    }

    /// Whether the token and the database are good for publishing: `Err` with what is wrong. Asks Notion once, and nobody
    /// else; for whoever looks at a set-up by hand.
    ///
    /// # Errors
    /// What is wrong, and what to do.
    pub async fn look(settings: NotionSettings) -> Result<(), String> {
        let api = Api::new(settings).map_err(|error| error.to_string())?;
        match check(&api, TIMEOUT).await {
            NotionCheck::Right => Ok(()),
            NotionCheck::Faulty(error) | NotionCheck::Busy { error, .. } => Err(error),
        }
    }

    /// Does what is to be done next, once; no request begins after `longest`.
    ///
    /// # Errors
    /// When the database does not answer; what was done and not recorded is looked for, and written again.
    pub async fn round(&self, actor: &str, longest: Duration) -> Result<Round, StoreError> {
        let until = Instant::now() + longest.min(USABLE);
        let work = self
            .store
            .claim_notion(actor, &self.key, &self.database_id)
            .await?;
        match work {
            NotionWork::Nothing => Ok(Round::Nothing),
            NotionWork::Check(wait) => {
                tokio::time::sleep(wait).await;
                self.check(left(until)).await?;
                Ok(Round::Checked)
            }
            NotionWork::Publish(claimed) => self.publish(actor, &claimed, until).await,
        }
    }

    /// Looks whether the token and the database are good, and records it.
    async fn check(&self, longest: Duration) -> Result<NotionCheck, StoreError> {
        let check = check(&self.api, longest).await;
        self.record_check(&check).await?;
        Ok(check)
    }

    async fn record_check(&self, check: &NotionCheck) -> Result<(), StoreError> {
        self.store.record_notion_check(&self.key, check).await?;
        match check {
            NotionCheck::Right => {
                tracing::info!(event = "notion_checked", key = self.key);
            }
            NotionCheck::Faulty(error) => tracing::error!(
                event = "notion_held",
                key = self.key,
                error,
                "nothing is published with it; it is looked at again every 5 minutes"
            ),
            NotionCheck::Busy { error, .. } => {
                tracing::warn!(event = "notion_not_checked", key = self.key, error);
            }
        }
        Ok(())
    }

    async fn publish(
        &self,
        actor: &str,
        claimed: &ClaimedOutcome,
        until: Instant,
    ) -> Result<Round, StoreError> {
        let written = self.write(claimed, until).await?;
        let (came, failure) = match written {
            Ok(page_id) => (NotionCame::Published(page_id), None),
            Err(failure) => (self.came_of(claimed, &failure, until).await?, Some(failure)),
        };
        let outcome = NotionOutcome {
            came,
            status: match &failure {
                None => Some(200),
                Some(failure) => failure.status.map(|status| i32::from(status.as_u16())),
            },
            error: failure.as_ref().map(|failure| failure.error.clone()),
            retry_after: failure.as_ref().and_then(|failure| failure.retry_after),
        };
        let record = self
            .store
            .record_notion(actor, &self.database_id, claimed, &outcome)
            .await?;
        let job_id = claimed.job_id;
        match (record, failure) {
            (NotionRecord::Published, _) => {
                tracing::debug!(event = "notion_published", %job_id, attempt = claimed.attempt);
                Ok(Round::Published)
            }
            (record @ (NotionRecord::Retry | NotionRecord::Dead | NotionRecord::Late), failure) => {
                tracing::warn!(
                    event = "notion_failed",
                    %job_id,
                    attempt = claimed.attempt,
                    became = record.as_str(),
                    error = failure.map(|failure| failure.short)
                );
                Ok(Round::Failed)
            }
        }
    }

    /// Changes the page of the job, or makes it, and gives its id.
    async fn write(
        &self,
        claimed: &ClaimedOutcome,
        until: Instant,
    ) -> Result<Result<String, Failure>, StoreError> {
        tokio::time::sleep(claimed.wait).await;
        let properties = page::properties(claimed);
        let known = match &claimed.page_id {
            Some(page_id) => Some(page_id.clone()),
            None if claimed.look => {
                let begun = Instant::now();
                let found = match self.find(claimed, until).await? {
                    Ok(found) => found,
                    Err(failure) => return Ok(Err(failure)),
                };
                tokio::time::sleep(APART.saturating_sub(begun.elapsed())).await;
                found
            }
            None => None,
        };
        if left(until).is_zero() {
            return Ok(Err(Failure::no_time()));
        }
        Ok(match known {
            Some(page_id) => {
                let updated = self.api.update(&page_id, properties, left(until)).await;
                updated.map(|()| page_id)
            }
            None => self.api.create(properties, left(until)).await,
        })
    }

    /// Looks for a page of the job, of which nothing is known here.
    async fn find(
        &self,
        claimed: &ClaimedOutcome,
        until: Instant,
    ) -> Result<Result<Option<String>, Failure>, StoreError> {
        let mut cursor = None;
        for _ in 0..MOST_SEARCHES {
            let search = self
                .api
                .find(claimed.job_id, cursor.as_deref(), left(until));
            let found = match search.await {
                Ok(found) => found,
                Err(failure) => return Ok(Err(failure)),
            };
            let Found {
                page_id,
                several,
                cursor: next,
            } = found;
            if several {
                tracing::warn!(
                    event = "notion_page_twice",
                    job_id = %claimed.job_id,
                    "the oldest page is kept up to date; delete the others"
                );
            }
            if page_id.is_some() || next.is_none() {
                return Ok(Ok(page_id));
            }
            cursor = next;
            if !self.turn(until).await? {
                return Ok(Err(Failure::no_time()));
            }
        }
        Ok(Ok(None))
    }

    /// Waits for a turn to make one more request; `false`: it would not come in time.
    async fn turn(&self, until: Instant) -> Result<bool, StoreError> {
        let wait = self.store.reserve_notion().await?;
        if wait > left(until) {
            return Ok(false);
        }
        tokio::time::sleep(wait).await;
        Ok(true)
    }

    /// What a failure means for the outcome. Where the token or the database may be what is wrong, that is looked at first, so
    /// that no job pays for it.
    async fn came_of(
        &self,
        claimed: &ClaimedOutcome,
        failure: &Failure,
        until: Instant,
    ) -> Result<NotionCame, StoreError> {
        match failure.kind {
            FailureKind::Busy => Ok(NotionCame::Busy),
            FailureKind::Unknown if claimed.page_id.is_some() => Ok(NotionCame::Busy),
            FailureKind::Unknown => Ok(NotionCame::Unknown),
            FailureKind::Conflict => Ok(NotionCame::Conflict),
            FailureKind::Unauthorized => {
                self.record_check(&NotionCheck::Faulty(fault(failure)))
                    .await?;
                Ok(NotionCame::Held)
            }
            FailureKind::Missing | FailureKind::Refused => {
                if !self.turn(until).await? {
                    return Ok(NotionCame::Conflict);
                }
                Ok(match self.check(left(until)).await? {
                    NotionCheck::Faulty(_) => NotionCame::Held,
                    NotionCheck::Busy { .. } => NotionCame::Conflict,
                    NotionCheck::Right if failure.kind == FailureKind::Missing => NotionCame::Gone,
                    NotionCheck::Right => NotionCame::Refused,
                })
            }
        }
    }
}

fn left(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now())
}

async fn check(api: &Api, longest: Duration) -> NotionCheck {
    match api.database(longest).await {
        Ok(database) => {
            let faults = page::faults(&database);
            if faults.is_empty() {
                NotionCheck::Right
            } else {
                let faults = faults.join("; ");
                NotionCheck::Faulty(format!(
                    "{faults}: see docs/notion.md for what it must have"
                ))
            }
        }
        Err(failure) => match failure.kind {
            FailureKind::Busy | FailureKind::Unknown | FailureKind::Conflict => NotionCheck::Busy {
                retry_after: failure.retry_after,
                error: failure.error,
            },
            FailureKind::Unauthorized | FailureKind::Missing | FailureKind::Refused => {
                NotionCheck::Faulty(fault(&failure))
            }
        },
    }
}

/// What is wrong with the token or the database, by an answer that says so, and what to do.
fn fault(failure: &Failure) -> String {
    let short = &failure.short;
    match failure.kind {
        FailureKind::Unauthorized => {
            format!("the token is refused, {short}: set NOTION_TOKEN to one that holds, everywhere")
        }
        FailureKind::Missing => format!(
            "the database is not there for this token, {short}: check NOTION_DATABASE_ID, and give the integration access to it (Connections, in the database's menu)"
        ),
        FailureKind::Busy | FailureKind::Unknown | FailureKind::Conflict | FailureKind::Refused => {
            format!("the database cannot be used, {short}")
        }
    }
}
