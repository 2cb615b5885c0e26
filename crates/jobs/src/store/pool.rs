//! The connections, lent one use at a time. Every use ends within its bound, also where a connection died without a
//! word: one that was not given back in order is closed hard, and its place is free at once. Knows no statement of ours.

mod bounded;
mod returning;
mod unnamed;

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use sqlx::pool::{PoolConnection, PoolConnectionMetadata};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection as _, Error, PgConnection, PgPool, Postgres};
use tokio::time::timeout;

use super::StoreOptions;
use returning::Returning;

/// A healthy connection answers a sign of life at once.
const SIGN_OF_LIFE: Duration = Duration::from_millis(500);
/// Whoever used a connection just now need not ask it whether it lives.
const FRESH: Duration = Duration::from_secs(1);
/// A pool that lends nothing for so long, while the database takes new connections, has lost its own.
const HOPELESS: Duration = Duration::from_secs(10);

/// How connections reach PostgreSQL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pooler {
    /// Each is a session of its own.
    #[default]
    None,
    /// Through a pooler that lends a session for one transaction, as PgBouncer does with `pool_mode = transaction`.
    Transaction,
}

/// How the connections of a pool are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolUse {
    /// Lent.
    pub used: u32,
    /// Open, and at nobody's service.
    pub idle: u32,
    /// Not opened; more may be.
    pub free: u32,
}

/// Connections to the one database. Cheap to clone.
#[derive(Clone)]
pub(super) struct Pool {
    inner: Arc<Inner>,
}

struct Inner {
    /// Replaced when it is beyond help.
    pool: RwLock<PgPool>,
    pool_options: PgPoolOptions,
    connect: PgConnectOptions,
    pooler: Pooler,
    /// How long a statement may take, its way and back included.
    limit: Duration,
    /// What a transaction through a pooler says first, in place of the session's settings.
    begin: String,
    failing_since: Mutex<Option<Instant>>,
    returning: Returning,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("size", &self.current().size())
            .finish_non_exhaustive()
    }
}

impl Pool {
    pub(super) fn new(connect: PgConnectOptions, options: &StoreOptions) -> Self {
        let settings = settings(options);
        let connect = connect.application_name(options.application_name);
        let connect = match options.pooler {
            Pooler::None => connect.options(settings.iter().map(|(name, value)| (*name, value))),
            // A pooler refuses startup parameters that it does not know, and another transaction is another session.
            Pooler::Transaction => connect.extra_float_digits(None).statement_cache_capacity(0),
        };
        let begin = settings
            .iter()
            .fold("begin".to_owned(), |begin, (name, value)| {
                format!("{begin}; set local {name} = '{value}'")
            });
        let pool_options = PgPoolOptions::new()
            .max_connections(options.max_connections)
            .acquire_timeout(options.acquire_timeout)
            .max_lifetime(Duration::from_secs(1800))
            .idle_timeout(Duration::from_secs(300))
            // The sign of life that sqlx asks for has no bound.
            .test_before_acquire(false)
            .before_acquire(|connection, met| Box::pin(is_alive(connection, met)));
        Self {
            inner: Arc::new(Inner {
                pool: RwLock::new(pool_options.clone().connect_lazy_with(connect.clone())),
                pool_options,
                connect,
                pooler: options.pooler,
                limit: options.statement_timeout + Duration::from_secs(1),
                begin,
                failing_since: Mutex::new(None),
                returning: Returning::default(),
            }),
        }
    }

    /// The connections themselves, for what brings its own order: the migrator.
    pub(super) fn current(&self) -> PgPool {
        let pool = self.inner.pool.read();
        pool.unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn pooler(&self) -> Pooler {
        self.inner.pooler
    }

    /// How the connections are used just now.
    pub(super) fn usage(&self) -> PoolUse {
        let pool = self.current();
        let idle = u32::try_from(pool.num_idle()).unwrap_or(u32::MAX);
        PoolUse {
            used: pool.size().saturating_sub(idle),
            idle,
            free: pool
                .options()
                .get_max_connections()
                .saturating_sub(pool.size()),
        }
    }

    /// Begins a transaction; one that is dropped is rolled back with its connection.
    pub(super) async fn begin(&self) -> Result<Transaction, Error> {
        let mut connection = self.lend().await?;
        connection.say(self.begin_statement()).await?;
        let pool = self.clone();
        Ok(Transaction { connection, pool })
    }

    fn begin_statement(&self) -> String {
        match self.inner.pooler {
            Pooler::None => "begin".to_owned(),
            Pooler::Transaction => self.inner.begin.clone(),
        }
    }

    /// Closes every connection.
    pub(super) async fn close(&self) {
        let _ = timeout(self.inner.limit, self.current().close()).await;
    }

    async fn lend(&self) -> Result<Connection, Error> {
        let pool = self.current();
        let _promise = self.inner.returning.idle_one(&pool).await;
        match pool.acquire().await {
            Ok(raw) => {
                *self.failing_since() = None;
                Ok(Connection::new(raw, self))
            }
            Err(Error::PoolTimedOut) if self.looks_hopeless() => {
                self.replace_if_the_database_is_there().await;
                Err(Error::PoolTimedOut)
            }
            Err(error) => Err(error),
        }
    }

    fn failing_since(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        let since = self.inner.failing_since.lock();
        since.unwrap_or_else(PoisonError::into_inner)
    }

    /// Says yes to one caller only, and then not again for a while.
    fn looks_hopeless(&self) -> bool {
        let mut since = self.failing_since();
        let hopeless = since
            .get_or_insert_with(Instant::now)
            .elapsed()
            .ge(&HOPELESS);
        if hopeless {
            *since = Some(Instant::now());
        }
        hopeless
    }

    async fn replace_if_the_database_is_there(&self) {
        let fresh = timeout(
            SIGN_OF_LIFE,
            PgConnection::connect_with(&self.inner.connect),
        );
        let Ok(Ok(fresh)) = fresh.await else { return };
        let _ = timeout(SIGN_OF_LIFE, fresh.close()).await;
        let options = self.inner.pool_options.clone();
        let new = options.connect_lazy_with(self.inner.connect.clone());
        *self
            .inner
            .pool
            .write()
            .unwrap_or_else(PoisonError::into_inner) = new;
        tracing::error!(
            event = "pool_replaced",
            "no connection could be had for {HOPELESS:?} while the database took new ones"
        );
    }
}

/// What holds for every session, or through a pooler for every transaction.
fn settings(options: &StoreOptions) -> [(&'static str, String); 4] {
    let statement = options.statement_timeout.as_millis();
    [
        ("statement_timeout", format!("{statement}ms")),
        ("lock_timeout", format!("{}ms", statement / 2)),
        ("idle_in_transaction_session_timeout", "10s".to_owned()),
        ("TimeZone", "UTC".to_owned()),
    ]
}

async fn is_alive(
    connection: &mut PgConnection,
    met: PoolConnectionMetadata,
) -> Result<bool, Error> {
    if met.idle_for < FRESH {
        return Ok(true);
    }
    match timeout(SIGN_OF_LIFE, connection.ping()).await {
        Ok(Ok(())) => Ok(true),
        Ok(Err(error)) => Err(error),
        // An error, because then sqlx closes it without another word to it.
        Err(_) => Err(timed_out()),
    }
}

fn timed_out() -> Error {
    Error::Io(std::io::ErrorKind::TimedOut.into())
}

/// A connection that is lent. Dropped before it was given back, it is closed without waiting for anything: what it was
/// doing may be half done, and a connection that died without a word would never say so.
#[derive(Debug)]
pub(super) struct Connection {
    raw: Option<PoolConnection<Postgres>>,
    pooler: Pooler,
    limit: Duration,
}

impl Connection {
    fn new(raw: PoolConnection<Postgres>, pool: &Pool) -> Self {
        Self {
            raw: Some(raw),
            pooler: pool.inner.pooler,
            limit: pool.inner.limit,
        }
    }

    /// Lets the statements that follow take so long.
    pub(super) fn allow(&mut self, limit: Duration) {
        self.limit = limit;
    }

    /// Runs words that have no values and give no rows.
    async fn say(&mut self, words: String) -> Result<(), Error> {
        let limit = self.limit;
        let said = sqlx::raw_sql(sqlx::AssertSqlSafe(words)).execute(self.raw()?);
        timeout(limit, said)
            .await
            .unwrap_or_else(|_| Err(timed_out()))
            .map(drop)
    }

    fn raw(&mut self) -> Result<&mut PgConnection, Error> {
        self.raw.as_deref_mut().ok_or(Error::PoolClosed)
    }

    /// Puts it back, after it has shown once more that it lives and is clean.
    async fn give_back(mut self) {
        if let Some(mut raw) = self.raw.take() {
            // What is not back in time is dropped, with its place in the pool free again.
            let _ = timeout(SIGN_OF_LIFE, raw.return_to_pool()).await;
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(raw) = self.raw.take() {
            // Left to itself, sqlx would wait for a sign of life from it, for ever, and keep its place for as long.
            drop(raw.detach());
        }
    }
}

/// Some statements, all or none.
#[derive(Debug)]
pub(super) struct Transaction {
    connection: Connection,
    pool: Pool,
}

impl Transaction {
    pub(super) async fn commit(mut self) -> Result<(), Error> {
        self.connection.say("commit".to_owned()).await?;
        self.pool.inner.returning.begin(self.connection);
        Ok(())
    }
}

impl Deref for Transaction {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl DerefMut for Transaction {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }
}

#[cfg(test)]
mod tests {
    use local_postgres::testing::{TestDatabase, database};

    use super::*;

    async fn pool(max_connections: u32) -> (Pool, TestDatabase) {
        let database = database("empty", async |_| Ok(()))
            .await
            .expect("a database");
        let options = StoreOptions {
            acquire_timeout: Duration::from_millis(300),
            ..StoreOptions::new(database.url.clone(), max_connections, "pool tests")
        };
        let connect = database.url.parse().expect("an address");
        (Pool::new(connect, &options), database)
    }

    async fn works(pool: &Pool) -> bool {
        sqlx::query("select 1").execute(pool).await.is_ok()
    }

    #[tokio::test]
    async fn a_pool_that_has_lost_its_connections_for_long_is_replaced() {
        let (pool, _database) = pool(2).await;
        for _ in 0..2 {
            let _leaked = pool.current().acquire().await.expect("one").leak();
        }
        assert!(!works(&pool).await);
        assert!(!works(&pool).await, "not at once: it may only be busy");
        let long_ago = Instant::now().checked_sub(HOPELESS);
        *pool.failing_since() = long_ago;
        assert!(!works(&pool).await, "this one notices");
        assert!(works(&pool).await);
        assert!(pool.failing_since().is_none());
    }

    #[tokio::test]
    async fn a_connection_that_is_not_given_back_frees_its_place_at_once() {
        let (pool, _database) = pool(2).await;
        for _ in 0..5 {
            let _both = (
                pool.lend().await.expect("one"),
                pool.lend().await.expect("two"),
            );
        }
        drop(pool.begin().await.expect("a transaction"));
        assert!(works(&pool).await);
        assert_eq!(pool.current().size(), 1);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn two_who_use_it_at_once_need_no_more_connections_than_two() {
        let (pool, _database) = pool(10).await;
        let mut users = tokio::task::JoinSet::new();
        for _ in 0..2 {
            let pool = pool.clone();
            users.spawn(async move {
                for _ in 0..200 {
                    assert!(works(&pool).await);
                }
            });
        }
        users.join_all().await;
        assert_eq!(pool.current().size(), 2);
    }

    #[tokio::test]
    async fn one_use_after_another_needs_one_connection() {
        let (pool, _database) = pool(2).await;
        for _ in 0..200 {
            assert!(works(&pool).await);
            let transaction = pool.begin().await.expect("a transaction");
            transaction.commit().await.expect("committed");
        }
        assert_eq!(pool.current().size(), 1);
    }
}
