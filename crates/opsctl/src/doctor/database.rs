//! The database: whether it answers, fits, keeps what it acknowledges, and gives each role its rights and no more.

use std::time::Duration;

use jobs::Store;
use time::OffsetDateTime;

use super::{Came, Finding};
use crate::error::{Error, sentence};
use crate::settings::Settings;

/// Nothing of ours is decided by a host's clock; logs and certificates are read by it.
const SKEW: Duration = Duration::from_secs(2);

pub(super) async fn look(settings: &Settings) -> Vec<Finding> {
    const WHAT: &str = "database";
    let store = match settings.optional_database_url() {
        Ok(None) => {
            let said = "DATABASE_URL is not set here".to_owned();
            return vec![Finding::new(WHAT, Came::Skipped(said))];
        }
        Ok(Some(url)) => settings
            .pooler()
            .map_err(Error::from)
            .and_then(|pooler| crate::db::open(url.expose(), pooler)),
        Err(error) => Err(error.into()),
    };
    let store = match store {
        Ok(store) => store,
        Err(error) => return vec![Finding::new(WHAT, Came::Wrong(sentence(&error)))],
    };
    let mut findings = Vec::new();
    match store.ping().await {
        Ok(()) => {
            findings.push(Finding::new(WHAT, Came::Right("it answers".to_owned())));
            findings.push(Finding::new("schema", schema(&store).await));
            findings.push(Finding::new("clock", clock(&store).await));
            findings.push(Finding::new("durability", durability(&store).await));
            findings.push(Finding::new("roles", roles(&store).await));
            findings.push(Finding::new("pooler", pooler(&store, settings).await));
        }
        Err(error) => findings.push(Finding::new(WHAT, unread(error))),
    }
    store.close().await;
    findings
}

fn unread(error: jobs::StoreError) -> Came {
    Came::Wrong(sentence(&Error::database("ask the database")(error)))
}

async fn schema(store: &Store) -> Came {
    match store.schema_status().await {
        Ok(schema) if schema.is_expected() => Came::Right(format!("version {}", schema.current)),
        Ok(schema) => Came::Wrong(format!(
            "version {} is applied, this release needs {}: run opsctl db migrate, or the release that fits",
            schema.current, schema.expected
        )),
        Err(error) => unread(error),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the host's clock is what is looked at; nothing is decided by it"
)]
async fn clock(store: &Store) -> Came {
    let before = OffsetDateTime::now_utc();
    let there = match store.now().await {
        Ok(there) => there,
        Err(error) => return unread(error),
    };
    let after = OffsetDateTime::now_utc();
    let took: time::Duration = after - before;
    // It was asked somewhere between the two.
    let apart: time::Duration = there - (before + took / 2);
    let (apart, unsure) = (apart.unsigned_abs(), took.unsigned_abs() / 2);
    let said = format!("{:.3} s apart", apart.as_secs_f64());
    if apart > SKEW + unsure {
        Came::Doubtful(format!(
            "{said}: look after NTP on both; jobs go by the database's clock, logs and certificates by the host's"
        ))
    } else {
        Came::Right(said)
    }
}

async fn durability(store: &Store) -> Came {
    match store.dangers().await {
        Ok(dangers) if dangers.is_empty() => {
            Came::Right("what is acknowledged is on disk".to_owned())
        }
        Ok(dangers) => Came::Wrong(format!(
            "what is acknowledged may be lost: {}",
            dangers.join("; ")
        )),
        Err(error) => unread(error),
    }
}

async fn roles(store: &Store) -> Came {
    let apart = match store.rights_apart().await {
        Ok(apart) => apart,
        Err(error) => return unread(error),
    };
    let some = |rights: &[String]| {
        let first = rights.first().map(String::as_str).unwrap_or_default();
        format!("{} ({first} …)", rights.len())
    };
    let advice = "run opsctl db bootstrap as the owner of the tables";
    match (apart.missing.as_slice(), apart.surplus.as_slice()) {
        ([], []) => Came::Right("each role has its rights and no more".to_owned()),
        (missing, []) => Came::Wrong(format!("rights are missing: {}; {advice}", some(missing))),
        ([], surplus) => Came::Wrong(format!(
            "rights that nobody should have: {}; {advice}",
            some(surplus)
        )),
        (missing, surplus) => Came::Wrong(format!(
            "rights are missing: {}; rights that nobody should have: {}; {advice}",
            some(missing),
            some(surplus)
        )),
    }
}

async fn pooler(store: &Store, settings: &Settings) -> Came {
    let keeps = match store.keeps_sessions().await {
        Ok(keeps) => keeps,
        Err(error) => return unread(error),
    };
    match (settings.pooler(), keeps) {
        (Ok(service::Pooler::None), true) => {
            Came::Right("a connection is one session, as DATABASE_POOLER says".to_owned())
        }
        (Ok(service::Pooler::None), false) => Came::Wrong(
            "a pooler lends sessions for one transaction: set DATABASE_POOLER=transaction"
                .to_owned(),
        ),
        (Ok(service::Pooler::Transaction), _) => {
            Came::Right("DATABASE_POOLER=transaction, which works with and without one".to_owned())
        }
        (Err(error), _) => Came::Wrong(error.to_string()),
    }
}
