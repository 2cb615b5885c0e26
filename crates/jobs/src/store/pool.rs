//! The connections, lent one use at a time. Every use ends within its bound, also where a connection died without a
//! word: one that was not given back in order is closed hard, and its place is free at once. Knows no statement of ours.

mod bounded;
mod unnamed;
mod warm;

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use sqlx::pool::PoolConnectionMetadata;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection as _, Error, PgConnection, PgPool};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::StoreOptions;
use warm::{AtHand, Session};

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
    source: RwLock<Source>,
    pool_options: PgPoolOptions,
    connect: PgConnectOptions,
    pooler: Pooler,
    /// How long a statement may take, its way and back included.
    limit: Duration,
    /// What a transaction through a pooler says first, in place of the session's settings.
    begin: String,
    failing_since: Mutex<Option<Instant>>,
    at_hand: AtHand,
}

/// Where connections come from.
#[derive(Clone)]
struct Source {
    pool: PgPool,
    /// One for each connection that may be lent. What is lent and what is at hand never are more together than the pool may
    /// have open, so whoever has a place and finds none at hand gets one from the pool.
    places: Arc<Semaphore>,
}

impl Source {
    fn new(options: &PgPoolOptions, connect: &PgConnectOptions) -> Self {
        Self {
            places: Arc::new(Semaphore::new(options.get_max_connections() as usize)),
            pool: options.clone().connect_lazy_with(connect.clone()),
        }
    }
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
                source: RwLock::new(Source::new(&pool_options, &connect)),
                pool_options,
                connect,
                pooler: options.pooler,
                limit: options.statement_timeout + Duration::from_secs(1),
                begin,
                failing_since: Mutex::new(None),
                at_hand: AtHand::default(),
            }),
        }
    }

    fn source(&self) -> Source {
        let source = self.inner.source.read();
        source.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn current(&self) -> PgPool {
        self.source().pool
    }

    pub(super) fn pooler(&self) -> Pooler {
        self.inner.pooler
    }

    /// How the connections are used just now.
    pub(super) fn usage(&self) -> PoolUse {
        let pool = self.current();
        // sqlx's own figure is beyond all bounds for a moment while one comes and another goes.
        let idle = pool.num_idle().saturating_add(self.inner.at_hand.count());
        let idle = u32::try_from(idle).unwrap_or(u32::MAX);
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
        let Source { pool, places } = self.source();
        places.close();
        let closed = async {
            // It takes none back from now on.
            let closed = pool.close();
            let at_hand = self.inner.at_hand.take_all();
            join_all(at_hand.into_iter().map(Session::give_back)).await;
            closed.await;
        };
        let _ = timeout(self.inner.limit, closed).await;
    }

    /// Lends one; one that is dropped is closed.
    pub(super) async fn lend(&self) -> Result<Connection, Error> {
        let limit = self.inner.pool_options.get_acquire_timeout();
        let lent = timeout(limit, self.place_and_session()).await;
        match lent.unwrap_or(Err(Error::PoolTimedOut)) {
            Ok((place, session)) => {
                *self.failing_since() = None;
                Ok(Connection {
                    session,
                    place,
                    pooler: self.inner.pooler,
                    limit: self.inner.limit,
                })
            }
            Err(Error::PoolTimedOut) if self.looks_hopeless() => {
                self.replace_if_the_database_is_there().await;
                Err(Error::PoolTimedOut)
            }
            Err(error) => Err(error),
        }
    }

    async fn place_and_session(&self) -> Result<(OwnedSemaphorePermit, Session), Error> {
        let Source { pool, places } = self.source();
        let place = places.acquire_owned().await;
        let place = place.map_err(|_| Error::PoolClosed)?;
        let session = match self.inner.at_hand.warmest().await {
            Some(session) => session,
            None => Session::new(pool.acquire().await?),
        };
        Ok((place, session))
    }

    /// Takes one back. One that did not do its last statement well is asked whether it lives before it is lent again.
    fn take_back(&self, connection: Connection, is_sound: bool) {
        let Connection { session, place, .. } = connection;
        let pool = self.current();
        let at_hand = &self.inner.at_hand;
        let is_done = || pool.is_closed();
        let not_kept = if session.is_due() {
            Err(session)
        } else {
            at_hand.keep(session, is_sound, is_done)
        };
        if let Err(session) = not_kept {
            at_hand.see_off(async move {
                session.give_back().await;
                drop(place);
            });
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
        if self.current().is_closed() {
            return;
        }
        let new = Source::new(&self.inner.pool_options, &self.inner.connect);
        *self
            .inner
            .source
            .write()
            .unwrap_or_else(PoisonError::into_inner) = new;
        // What is left of the other one has no place here.
        drop(self.inner.at_hand.take_all());
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

/// A connection that is lent. Dropped before it was taken back, it is closed.
#[derive(Debug)]
pub(super) struct Connection {
    session: Session,
    place: OwnedSemaphorePermit,
    pooler: Pooler,
    limit: Duration,
}

impl Connection {
    /// Lets the statements that follow take so long.
    pub(super) fn allow(&mut self, limit: Duration) {
        self.limit = limit;
    }

    /// The connection itself, for what brings its own order: the migrator.
    pub(super) fn raw(&mut self) -> Result<&mut PgConnection, Error> {
        self.session.raw()
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
        self.pool.take_back(self.connection, true);
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
    async fn those_who_hold_every_connection_of_a_pool_that_is_replaced_keep_nobody_from_the_new_one()
     {
        let (pool, _database) = pool(1).await;
        let held = pool.lend().await.expect("the one there is");
        assert!(!works(&pool).await);
        *pool.failing_since() = Instant::now().checked_sub(HOPELESS);
        assert!(!works(&pool).await, "this one notices");
        assert!(works(&pool).await);
        pool.take_back(held, true);
        assert!(works(&pool).await);
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

    async fn backend(pool: &Pool) -> i32 {
        let asked = sqlx::query_scalar("select pg_backend_pid()").fetch_one(pool);
        asked.await.expect("its process")
    }

    #[tokio::test]
    async fn the_one_used_last_is_lent_first_and_what_is_not_used_goes_back() {
        let (pool, _database) = pool(3).await;
        let (first, second) = (
            pool.begin().await.expect("one"),
            pool.begin().await.expect("two"),
        );
        first.commit().await.expect("committed");
        let mut second = second;
        let asked = sqlx::query_scalar("select pg_backend_pid()");
        let mut last: i32 = asked.fetch_one(&mut *second).await.expect("its process");
        let mut used = Instant::now();
        second.commit().await.expect("committed");
        let mut proved = 0;
        while proved < 20 {
            let lent = backend(&pool).await;
            // On a machine that stood still for so long it may have gone back.
            if used.elapsed() < FRESH {
                assert_eq!(lent, last);
                proved += 1;
            }
            (last, used) = (lent, Instant::now());
        }
        while pool.current().num_idle() < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(pool.inner.at_hand.count(), 0);
        assert_eq!(pool.usage().idle, 2);
        assert!(works(&pool).await);
    }

    #[tokio::test]
    async fn no_more_are_lent_than_the_pool_may_have() {
        let (pool, _database) = pool(2).await;
        for _ in 0..3 {
            let (one, two) = (pool.lend().await, pool.lend().await);
            let (one, two) = (one.expect("one"), two.expect("two"));
            let third = pool.lend().await;
            assert!(matches!(third, Err(Error::PoolTimedOut)), "{third:?}");
            pool.take_back(one, true);
            pool.take_back(two, true);
            assert_eq!(pool.inner.at_hand.count(), 2);
        }
        assert_eq!(pool.current().size(), 2);
    }

    #[tokio::test]
    async fn one_that_the_database_has_cut_off_is_not_lent_again() {
        let (pool, _database) = pool(1).await;
        let before = backend(&pool).await;
        let ended = sqlx::query("select pg_terminate_backend(pg_backend_pid())");
        let refused = ended.execute(&pool).await.expect_err("its own end");
        assert!(matches!(refused, Error::Database(_)), "{refused}");
        assert_eq!(pool.inner.at_hand.count(), 1);
        assert_ne!(backend(&pool).await, before);
    }

    #[tokio::test]
    async fn closing_closes_those_at_hand_too() {
        let (pool, database) = pool(2).await;
        let backend = backend(&pool).await;
        assert_eq!(pool.inner.at_hand.count(), 1);
        pool.close().await;
        assert_eq!(pool.inner.at_hand.count(), 0);
        assert!(!works(&pool).await);
        let connect = database.url.parse().expect("an address");
        let mut other = PgConnection::connect_with(&connect).await.expect("another");
        let left = "select exists (select from pg_stat_activity where pid = $1)";
        while sqlx::query_scalar(left)
            .bind(backend)
            .fetch_one(&mut other)
            .await
            .expect("an answer")
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
