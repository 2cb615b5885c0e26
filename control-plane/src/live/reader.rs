//! The one reader of a process: looks after every watched job in one statement, again and again while somebody watches.

use std::sync::Arc;
use std::time::Duration;

use jobs::{Store, StoreError};
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::{Item, Kind, Live, Topic};
use crate::api::frame::event_frame;
use crate::app::DATABASE_DEADLINE;

/// How long it waits between two looks while something happens …
const BUSY: Duration = Duration::from_millis(60);
/// … and once nothing has for a while.
const QUIET: Duration = Duration::from_millis(150);
const QUIET_AFTER: Duration = Duration::from_secs(10);
/// Never closer than this, however often it is woken.
const CLOSEST: Duration = Duration::from_millis(10);
/// A look that takes long is followed by a wait of so many times as long, up to the longest.
const SHARE: u32 = 4;
const LONGEST: Duration = Duration::from_secs(2);
/// So many jobs are looked at for the first time at once.
const MOST_NEW: usize = 64;
/// So many logs are read on at once, a page each.
const MOST_LOGS: usize = 16;
/// How much of a log is read on at a look.
const PIECE_BYTES: i64 = 128 * 1024;

/// What a look found.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    Nothing,
    Something,
    /// There is more, or there are jobs that were not looked at.
    More,
}

pub(super) async fn look_after(live: &Live, store: &Store) {
    let mut last_found = Instant::now();
    let mut trouble = None;
    let mut round = 0_usize;
    loop {
        if live.topics().is_empty() {
            live.0.bell.notified().await;
        }
        let begun = Instant::now();
        round = round.wrapping_add(1);
        let looked = timeout(DATABASE_DEADLINE, look(live, store, round)).await;
        let pause = match looked {
            Ok(Ok(found)) => {
                trouble = None;
                if found != Found::Nothing {
                    last_found = Instant::now();
                }
                let usual = if last_found.elapsed() < QUIET_AFTER {
                    BUSY
                } else {
                    QUIET
                };
                match found {
                    Found::More => CLOSEST,
                    _ => usual.max(begun.elapsed() * SHARE).min(LONGEST),
                }
            }
            Ok(Err(error)) => worse(&mut trouble, &error.to_string()),
            Err(_) => worse(&mut trouble, "no answer within the deadline"),
        };
        sleep(CLOSEST).await;
        tokio::select! {
            () = sleep(pause.saturating_sub(CLOSEST)) => {}
            () = live.0.bell.notified(), if trouble.is_none() => {}
        }
    }
}

/// How long to wait after another look in vain; says so once.
fn worse(trouble: &mut Option<Duration>, why: &str) -> Duration {
    if trouble.is_none() {
        tracing::warn!(
            event = "database_unavailable",
            cause = why,
            "streams wait for it"
        );
    }
    let pause = trouble.map_or(2 * QUIET, |before| 2 * before).min(LONGEST);
    *trouble = Some(pause);
    pause
}

async fn look(live: &Live, store: &Store, round: usize) -> Result<Found, StoreError> {
    let Watched { events, logs, more } = watched(live);
    let of_events = look_at_events(store, &events).await?;
    let of_logs = look_at_logs(store, &logs, round).await?;
    Ok(match (of_events, of_logs) {
        _ if more => Found::More,
        (Found::More, _) | (_, Found::More) => Found::More,
        (Found::Nothing, Found::Nothing) => Found::Nothing,
        (Found::Something, _) | (_, Found::Something) => Found::Something,
    })
}

/// What is looked at this time.
#[derive(Default)]
struct Watched {
    events: Vec<Arc<Topic>>,
    logs: Vec<Arc<Topic>>,
    /// Whether some were left for the next time.
    more: bool,
}

fn watched(live: &Live) -> Watched {
    let mut watched = Watched::default();
    let mut new = 0;
    let mut topics = live.topics();
    // One whose last watcher left while it was being looked at.
    topics.retain(|_, topic| Arc::strong_count(topic) > 1);
    for topic in topics.values().filter(|topic| !topic.is_settled()) {
        if topic.read_up_to().is_none() {
            new += 1;
            if new > MOST_NEW {
                watched.more = true;
                continue;
            }
        }
        match topic.kind {
            Kind::Events => watched.events.push(Arc::clone(topic)),
            Kind::Log => watched.logs.push(Arc::clone(topic)),
        }
    }
    watched
}

fn places(topics: &[Arc<Topic>]) -> Vec<(Uuid, Option<i64>)> {
    topics
        .iter()
        .map(|topic| (topic.id, topic.read_up_to()))
        .collect()
}

async fn look_at_events(store: &Store, topics: &[Arc<Topic>]) -> Result<Found, StoreError> {
    if topics.is_empty() {
        return Ok(Found::Nothing);
    }
    // Many that have much to tell at once are read in several looks.
    let most_each = (4000 / topics.len()).clamp(10, 200);
    let mut seen = store
        .watch_events(&places(topics), most_each as i64)
        .await?;
    let mut found = Found::Nothing;
    for topic in topics {
        let Some(seen) = seen.remove(&topic.id) else {
            if topic.read_up_to().is_none() {
                topic.is_missing();
            }
            continue;
        };
        if topic.read_up_to().is_none() {
            let first = seen
                .events
                .first()
                .map_or(seen.last_seq, |event| i64::from(event.seq) - 1);
            topic.begins_after(first);
        }
        let whole = seen
            .events
            .last()
            .is_none_or(|last| i64::from(last.seq) >= seen.last_seq);
        topic.add(seen.events.into_iter().map(|event| Item::Event {
            seq: i64::from(event.seq),
            frame: event_frame(event),
        }));
        if seen.ended {
            topic.ends_at(seen.last_seq);
        }
        found = match found {
            Found::More => Found::More,
            _ if !whole => Found::More,
            _ => Found::Something,
        };
    }
    Ok(found)
}

async fn look_at_logs(
    store: &Store,
    topics: &[Arc<Topic>],
    round: usize,
) -> Result<Found, StoreError> {
    if topics.is_empty() {
        return Ok(Found::Nothing);
    }
    let seen = store.watch_logs(&places(topics)).await?;
    let mut behind = Vec::new();
    for topic in topics {
        match (seen.get(&topic.id), topic.read_up_to()) {
            (None, None) => topic.is_missing(),
            (None, Some(_)) => {}
            // Who comes to a long log reads what there is so far for himself.
            (Some(seen), None) => topic.begins_after(seen.last_seq),
            (Some(seen), Some(read)) if seen.last_seq > read => {
                behind.push(topic);
            }
            (Some(_), Some(_)) => {}
        }
    }
    let more = behind.len() > MOST_LOGS;
    // Every look begins at another one, so that all get their turn.
    let turns = behind
        .iter()
        .cycle()
        .skip(round.wrapping_mul(MOST_LOGS) % behind.len().max(1));
    for topic in turns.take(behind.len().min(MOST_LOGS)) {
        let after = topic.read_up_to().unwrap_or_default();
        if let Some(page) = store.log_page(topic.id, after, PIECE_BYTES).await? {
            topic.add(
                page.pieces
                    .into_iter()
                    .map(|piece| Item::Lines(Arc::new(piece))),
            );
        }
    }
    for topic in topics {
        if let Some(seen) = seen.get(&topic.id)
            && seen.ended
        {
            topic.ends_at(seen.last_seq);
        }
    }
    Ok(match (more || !behind.is_empty(), seen.is_empty()) {
        (true, _) => Found::More,
        (false, false) => Found::Something,
        (false, true) => Found::Nothing,
    })
}
