//! What watched jobs have to tell, read once for all who watch: one reader a process asks the database in one statement
//! for every watched job, and everybody is served from what it found. Nobody who watches has a connection of its own.

mod reader;
mod topic;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jobs::Store;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;

pub(crate) use topic::{Item, Standing, Taken, Topic};

/// A stream is cut after so long; its client goes on where it was.
pub(crate) const OLDEST: Duration = Duration::from_secs(3600);
/// How many pages of what is older than the shared memory are read at once.
const CATCHING_UP: usize = 2;

/// What of a job is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    Events,
    Log,
}

type Topics = HashMap<(Kind, Uuid), Arc<Topic>>;

/// All that is watched in this process. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Live(Arc<Inner>);

struct Inner {
    topics: Mutex<Topics>,
    /// Rung when somebody begins to watch, and when this process itself has changed a job.
    bell: Notify,
    places: Arc<Semaphore>,
    catching_up: Semaphore,
}

impl Live {
    /// Nothing is watched yet; at most so many streams will be at once.
    pub(crate) fn new(most_streams: usize) -> Self {
        Self(Arc::new(Inner {
            topics: Mutex::default(),
            bell: Notify::new(),
            places: Arc::new(Semaphore::new(most_streams.min(Semaphore::MAX_PERMITS))),
            catching_up: Semaphore::new(CATCHING_UP),
        }))
    }

    /// Begins to watch; `None` when as many streams are open as may be.
    pub(crate) fn watch(&self, kind: Kind, id: Uuid) -> Option<Watch> {
        let place = Arc::clone(&self.0.places).try_acquire_owned().ok()?;
        let mut topics = self.topics();
        let topic = topics
            .entry((kind, id))
            .or_insert_with(|| Arc::new(Topic::new(kind, id)));
        if topic.has_ended() {
            // Somebody slow may still read what was; the job itself may have been retried since.
            *topic = Arc::new(Topic::new(kind, id));
        }
        let topic = Arc::clone(topic);
        drop(topics);
        if topic.standing() == Standing::Unknown {
            self.0.bell.notify_one();
        }
        Some(Watch {
            live: self.clone(),
            topic,
            _place: place,
        })
    }

    /// This process has changed a job: whoever watches it need not wait for the next look.
    pub(crate) fn changed(&self, id: Uuid) {
        let topics = self.topics();
        if topics.contains_key(&(Kind::Events, id)) || topics.contains_key(&(Kind::Log, id)) {
            self.0.bell.notify_one();
        }
    }

    /// This process may have changed any job.
    pub(crate) fn changed_many(&self) {
        self.0.bell.notify_one();
    }

    /// Looks after what is watched until this is dropped.
    pub(crate) async fn look_after(self, store: Store) {
        reader::look_after(&self, &store).await;
    }

    /// Ends every stream.
    pub(crate) fn end(&self) {
        self.0.places.close();
        for topic in self.topics().values() {
            topic.close();
        }
    }

    fn topics(&self) -> MutexGuard<'_, Topics> {
        self.0.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place among those who watch a job; dropping it gives it up.
pub(crate) struct Watch {
    live: Live,
    pub(crate) topic: Arc<Topic>,
    _place: OwnedSemaphorePermit,
}

impl Watch {
    /// Waits for a turn to read what is older than the shared memory, so that many who come back at once keep the
    /// connections free for others.
    pub(crate) async fn turn(&self) -> Option<tokio::sync::SemaphorePermit<'_>> {
        self.live.0.catching_up.acquire().await.ok()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut topics = self.live.topics();
        let key = (self.topic.kind, self.topic.id);
        let is_present = topics
            .get(&key)
            .is_some_and(|topic| Arc::ptr_eq(topic, &self.topic));
        // The map's own and this one: nobody else watches, and nobody can begin to while the map is locked.
        if is_present && Arc::strong_count(&self.topic) <= 2 {
            topics.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_after_the_end_is_not_told_what_was_by_somebody_slow() {
        let live = Live::new(9);
        let id = Uuid::nil();
        let slow = live.watch(Kind::Events, id).expect("a place");
        slow.topic.begins_after(0);
        let other = live.watch(Kind::Events, id).expect("a place");
        assert!(Arc::ptr_eq(&slow.topic, &other.topic), "one for all");
        slow.topic.ends_at(0);
        let late = live.watch(Kind::Events, id).expect("a place");
        assert_eq!(
            late.topic.standing(),
            Standing::Unknown,
            "it is looked at again"
        );
        drop((slow, other));
        let later = live.watch(Kind::Events, id).expect("a place");
        assert!(
            Arc::ptr_eq(&late.topic, &later.topic),
            "who is gone took nothing along"
        );
        drop((late, later));
        assert!(live.topics().is_empty());
    }
}
