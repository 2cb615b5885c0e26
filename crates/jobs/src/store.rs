//! The store: everything that is asked of PostgreSQL, one function a statement. The only crate with SQL.

mod api_keys;
mod backups;
mod claim;
mod counts;
mod databases;
mod deliveries;
mod doctor;
mod drains;
mod figures;
mod files;
mod finish;
mod finish_group;
mod fires;
mod firing;
mod fleet;
mod gates;
mod group;
mod hint;
mod log;
mod low_water;
mod metrics;
mod notion;
mod operate;
mod persist;
mod pool;
mod ration;
mod reach;
mod read;
mod renew;
mod replay;
mod retention;
mod rights;
mod roles;
mod row;
mod runners;
mod safety;
mod schedules;
mod schema;
mod sealing;
mod seals;
mod slots;
mod snapshot;
mod stages;
mod submit;
mod sweep;
mod take;
mod tasks;
mod triggers;
mod turns;
mod verify;
mod watch;
mod webhooks;
mod why;

pub use api_keys::{ApiKey, NewApiKey};
pub use backups::{BackupRecord, DrillRecord, RestoredCopy, after_restore};
pub use claim::ClaimRequest;
pub use databases::DatabaseFacts;
pub use deliveries::DeliveryPage;
pub use drains::{Closed, RUNNER_PROTOCOL, Steered};
pub use figures::{Depth, Durations, HowOften, LastDone, OldestDue, Totals, Upkeep, Window};
pub use finish::{Finished, Unfinished};
pub use fires::FirePage;
pub use firing::Fired;
pub use fleet::{FleetChange, Pause};
pub use gates::DecisionRequest;
pub use hint::Hints;
pub use log::{LogChunk, LogPage, LogPiece, ProgressKind};
pub use metrics::Rollup;
pub use operate::{AbortAnswer, RetryFrom};
pub use pool::{PoolUse, Pooler};
pub use read::{JobFilter, Page};
pub use replay::{Matched, RetryFilter};
pub use retention::{Expired, Keep, Removed, RetentionTerm};
pub use rights::{EXPECTED_RIGHTS, RightsApart};
pub use roles::ROLES;
pub use runners::{Admission, Runner, RunnerReport};
pub use schedules::{Changed, SchedulePage};
pub use schema::{Migration, SchemaStatus, expected_version, schema_fingerprint};
pub use snapshot::{ObjectRecord, Snapshot, TableFigures};
pub use submit::Submitted;
pub use sweep::{LastSweep, Swept};
pub use verify::Verified;
pub use watch::{EventsSeen, LogSeen};
pub use webhooks::{WebhookChanged, WebhookPage};
pub use why::Reason;

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;

use crate::error::StoreError;
use group::{Crowd, Group, Lanes, Settle};
use low_water::LowWater;
use pool::Pool;
use reach::Reaches;

/// How the store connects.
#[derive(Clone)]
pub struct StoreOptions {
    /// `postgres://…`; may hold a password, so it is never printed.
    pub url: String,
    /// Pool size.
    pub max_connections: u32,
    /// Shown in `pg_stat_activity`.
    pub application_name: &'static str,
    /// How long a caller waits for a connection before it is told that the database is away.
    pub acquire_timeout: Duration,
    /// No statement runs longer.
    pub statement_timeout: Duration,
    /// What stands between the store and PostgreSQL.
    pub pooler: Pooler,
    /// A look through the queue or the running jobs that takes longer is dear: it passes by very many rows that only an old
    /// snapshot still needs. After some of them in a row, most looks are cut short.
    pub dear_look: Duration,
}

impl StoreOptions {
    /// The usual limits: 2 s for a connection, 5 s for a statement, 10 ms for a look.
    pub fn new(url: String, max_connections: u32, application_name: &'static str) -> Self {
        Self {
            url,
            max_connections,
            application_name,
            acquire_timeout: Duration::from_secs(2),
            statement_timeout: Duration::from_secs(5),
            pooler: Pooler::None,
            dear_look: Duration::from_millis(10),
        }
    }
}

/// What to tell of an address that [`is_usable_address`] refuses; never quotes it.
pub const UNUSABLE_ADDRESS: &str =
    "cannot be used as it is written: check its parameters, sslmode for example";

/// Whether a `postgres://` address can be used: its parameters (`sslmode` and the like) are known and well-formed.
pub fn is_usable_address(url: &str) -> bool {
    PgConnectOptions::from_str(url).is_ok()
}

/// Creates come one by one, from a few or from many: a statement has a price of its own, so many go together, and there is
/// always one group that waits for the disk while the next gathers.
const SUBMITTING: Lanes = Lanes {
    most: 4,
    crowd: Crowd::HalfUnderWay {
        patience: Duration::from_millis(50),
    },
    linger: None,
};
/// Finishes come in shoals, and claims are at work beside them: few large groups cost least.
const FINISHING: Lanes = Lanes {
    most: 2,
    crowd: Crowd::Of(group::MOST),
    linger: Some(Duration::from_millis(1)),
};
/// One hint after the other: the next tells of all that came meanwhile.
const HINTING: Lanes = Lanes {
    most: 1,
    crowd: Crowd::Of(1),
    linger: None,
};

/// Commands begin in shoals, and each asks what its job was given.
const GIVING: Lanes = Lanes {
    most: 1,
    crowd: Crowd::Of(1),
    linger: None,
};

/// A pool of connections to the one database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    pool: Pool,
    /// How long a finish may take in all.
    patience: Duration,
    /// For so long it is worth asking again.
    persistence: Duration,
    /// Jobs that are being recorded.
    submitting: Group<submit::Asked, submit::Recorded>,
    /// Attempts whose ends are being recorded.
    finishing: Group<finish_group::Ended, finish_group::Answered>,
    /// Runners that are being told.
    hinting: Group<(), ()>,
    /// Jobs whose files are being asked for.
    giving: Group<uuid::Uuid, files::Given>,
    /// Where claims begin to look.
    low_water: Arc<LowWater>,
    /// How far back sweeps look.
    reaches: Arc<Reaches>,
    /// Where a session of its own can be had.
    direct: Option<PgConnectOptions>,
}

impl Store {
    /// Prepares a pool. Connects only when first asked, so that a service starts while its database is still away.
    ///
    /// # Errors
    /// When the address is not one of PostgreSQL; the error never holds the address.
    pub fn new(options: &StoreOptions) -> Result<Self, StoreError> {
        let connect = PgConnectOptions::from_str(&options.url).map_err(|_| {
            StoreError::Refused("DATABASE_URL is not an address of PostgreSQL".to_owned())
        })?;
        let direct = match options.pooler {
            Pooler::None => Some(connect.clone()),
            Pooler::Transaction => None,
        };
        let pool = Pool::new(connect, options);
        let patience = options.acquire_timeout + options.statement_timeout + Duration::from_secs(1);
        Ok(Self {
            pool,
            patience,
            persistence: options.acquire_timeout,
            submitting: Group::new(SUBMITTING),
            finishing: Group::new(FINISHING),
            hinting: Group::new(HINTING),
            giving: Group::new(GIVING),
            low_water: Arc::new(LowWater::new(options.dear_look)),
            reaches: Arc::new(Reaches::new(options.dear_look)),
            direct,
        })
    }

    /// Asks the database for a sign of life.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when it gives none.
    pub async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query_scalar!("select 1 as \"one!\"")
            .fetch_one(&self.pool)
            .await?;
        Ok(())
    }

    /// How its connections are used just now.
    pub fn pool_use(&self) -> PoolUse {
        self.pool.usage()
    }

    /// Closes every connection.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// What serves a group of callers, on a store of its own; made only for whoever finds a lane free.
    fn serving<Asked, Answer, Work>(
        &self,
        settle: impl Fn(Self, Vec<Asked>) -> Work + Send + 'static,
    ) -> impl FnOnce() -> Settle<Asked, Answer>
    where
        Work: Future<Output = Vec<Answer>> + Send + 'static,
    {
        || {
            let store = self.clone();
            Box::new(move |asked| Box::pin(settle(store.clone(), asked)))
        }
    }
}

/// Seconds as PostgreSQL's `make_interval(secs => …)` takes them.
fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}
