//! Statements on lent connections, each within its bound, as sqlx's queries ask for them.

use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};
use sqlx::postgres::{PgQueryResult, PgRow, PgStatement, PgTypeInfo};
use sqlx::{Describe, Either, Error, Execute, Executor, PgConnection, Postgres, SqlStr};
use tokio::time::timeout;

use super::unnamed::Unnamed;
use super::{Connection, Pool, Pooler, timed_out};

/// What a statement gives, rows and counts in their order.
type Given = Vec<Either<PgQueryResult, PgRow>>;

async fn collect<'q>(
    connection: &mut PgConnection,
    query: impl Execute<'q, Postgres> + 'q,
) -> Result<Given, Error> {
    connection.fetch_many(query).try_collect().await
}

impl Connection {
    async fn run<'q>(&mut self, query: impl Execute<'q, Postgres> + 'q) -> Result<Given, Error> {
        let (limit, pooler) = (self.limit, self.pooler);
        let raw = self.raw()?;
        let given = async {
            match pooler {
                Pooler::None => collect(raw, query).await,
                Pooler::Transaction => collect(raw, Unnamed(query)).await,
            }
        };
        timeout(limit, given)
            .await
            .unwrap_or_else(|_| Err(timed_out()))
    }
}

impl Pool {
    async fn run<'q>(&self, query: impl Execute<'q, Postgres> + 'q) -> Result<Given, Error> {
        let mut connection = self.lend().await?;
        let given = match self.pooler() {
            Pooler::None => connection.run(query).await,
            // A statement is sent in two steps, which only a transaction keeps in one session.
            Pooler::Transaction => match self.in_transaction(&mut connection, query).await {
                Err(error @ Error::Database(_)) => {
                    connection.say("rollback".to_owned()).await?;
                    Err(error)
                }
                other => other,
            },
        };
        // A connection on which PostgreSQL itself said no is as good as before, if it did not say farewell.
        match &given {
            Ok(_) => self.take_back(connection, true),
            Err(Error::Database(_)) => self.take_back(connection, false),
            Err(_) => drop(connection),
        }
        given
    }

    async fn in_transaction<'q>(
        &self,
        connection: &mut Connection,
        query: impl Execute<'q, Postgres> + 'q,
    ) -> Result<Given, Error> {
        connection.say(self.begin_statement()).await?;
        let given = connection.run(query).await?;
        connection.say("commit".to_owned()).await?;
        Ok(given)
    }
}

fn streamed<'e>(
    given: BoxFuture<'e, Result<Given, Error>>,
) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>, Error>> {
    stream::once(given)
        .map_ok(|given| stream::iter(given.into_iter().map(Ok)))
        .try_flatten()
        .boxed()
}

fn first_row(given: Given) -> Option<PgRow> {
    given.into_iter().find_map(Either::right)
}

/// Our statements are never prepared apart from being run.
fn not_here<'e, T: Send + 'e>() -> BoxFuture<'e, Result<T, Error>> {
    let refused = Error::Configuration("a lent connection only runs statements".into());
    Box::pin(std::future::ready(Err(refused)))
}

impl<'c> Executor<'c> for &'c Pool {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(
        self,
        query: E,
    ) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        streamed(Box::pin(self.run(query)))
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        Box::pin(async move { self.run(query).await.map(first_row) })
    }

    fn prepare_with<'e>(
        self,
        _sql: SqlStr,
        _parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement, Error>>
    where
        'c: 'e,
    {
        not_here()
    }

    fn describe<'e>(self, _sql: SqlStr) -> BoxFuture<'e, Result<Describe<Postgres>, Error>>
    where
        'c: 'e,
    {
        not_here()
    }
}

impl<'c> Executor<'c> for &'c mut Connection {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(
        self,
        query: E,
    ) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        streamed(Box::pin(self.run(query)))
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        Box::pin(async move { self.run(query).await.map(first_row) })
    }

    fn prepare_with<'e>(
        self,
        _sql: SqlStr,
        _parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement, Error>>
    where
        'c: 'e,
    {
        not_here()
    }

    fn describe<'e>(self, _sql: SqlStr) -> BoxFuture<'e, Result<Describe<Postgres>, Error>>
    where
        'c: 'e,
    {
        not_here()
    }
}
