//! Renews every lease of the runner in one statement, from the claim to the committed finish, and rings the bell of
//! work whose lease is lost or about to end. It runs on a thread and a connection of its own, so that no handler,
//! however greedy, can make it late. It starts and finishes no work.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use jobs::{LeaseKey, Store, StoreError, StoreOptions};
use service::{Stop, Stopper};
use tokio::sync::oneshot;

use crate::interruption::{Bell, Interruption};
use crate::process::{BootTime, Term};
use crate::supervised::Loops;

/// Work is killed so long before its lease ends, or a quarter of the lease where that is less.
const LONGEST_MARGIN: Duration = Duration::from_secs(2);

/// How long before its end the work of a lease of this length is killed.
fn margin(lease: Duration) -> Duration {
    LONGEST_MARGIN.min(lease / 4)
}

/// The leases that this runner holds.
#[derive(Debug)]
pub(crate) struct Leases {
    lease: Duration,
    held: Mutex<HashMap<LeaseKey, Entry>>,
    /// Those whose work is over and whose end could not be recorded: they must run out, and so be counted.
    forsaken: Mutex<Vec<(LeaseKey, Instant)>>,
}

#[derive(Debug)]
struct Entry {
    deadline: Instant,
    bell: Bell,
    term: Term,
}

/// A lease that is being renewed until this is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    leases: Arc<Leases>,
    key: LeaseKey,
    pub(crate) bell: Bell,
    pub(crate) term: Term,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.leases.with(|held| held.remove(&self.key));
    }
}

impl Leases {
    /// None yet, each of this length.
    pub(crate) fn new(lease: Duration) -> Self {
        Self {
            lease,
            held: Mutex::default(),
            forsaken: Mutex::default(),
        }
    }

    /// Takes a lease into care; called by whoever claimed, in the same breath.
    pub(crate) fn hold(self: &Arc<Self>, key: LeaseKey, deadline: Instant) -> Held {
        let bell = Bell::new();
        let kill_at = deadline.checked_sub(margin(self.lease)).unwrap_or(deadline);
        let term = Term::new(BootTime::of(kill_at));
        let entry = Entry {
            deadline,
            bell: bell.clone(),
            term: term.clone(),
        };
        self.with(|held| held.insert(key, entry));
        Held {
            leases: Arc::clone(self),
            key,
            bell,
            term,
        }
    }

    /// Rings the bell of a job whose end was asked for, without waiting for the next renewal to say so.
    pub(crate) fn abort(&self, job_id: uuid::Uuid) {
        self.with(|held| {
            held.iter()
                .filter(|(key, _)| key.job_id == job_id)
                .for_each(|(_, entry)| entry.bell.ring(Interruption::Aborted));
        });
    }

    /// Rings the bell of everything that runs.
    pub(crate) fn interrupt_all(&self, why: Interruption) {
        self.with(|held| held.values().for_each(|entry| entry.bell.ring(why)));
    }

    /// Notes that the end of this lease's work could not be recorded.
    pub(crate) fn forsake(&self, key: LeaseKey) {
        self.forsaken
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((key, Instant::now()));
    }

    /// Forgets those that have run out: for whoever has just seen them swept.
    pub(crate) fn forget_forsaken(&self) {
        self.forget_forsaken_before(Instant::now().checked_sub(2 * self.lease));
    }

    fn forget_forsaken_before(&self, instant: Option<Instant>) {
        let mut forsaken = self.forsaken.lock().unwrap_or_else(PoisonError::into_inner);
        forsaken.retain(|(_, at)| instant.is_none_or(|instant| *at > instant));
    }

    /// Every lease that this runner knows of; one that it does not know was claimed without its hearing of it.
    pub(crate) fn known(&self) -> Vec<LeaseKey> {
        let mut known = self.keys();
        let forsaken = self.forsaken.lock().unwrap_or_else(PoisonError::into_inner);
        known.extend(forsaken.iter().map(|(key, _)| *key));
        known
    }

    /// How many jobs are at work: a slot may also be taken for a claim that finds nothing.
    pub(crate) fn count(&self) -> usize {
        self.with(|held| held.len())
    }

    fn keys(&self) -> Vec<LeaseKey> {
        self.with(|held| held.keys().copied().collect())
    }

    fn earliest_deadline(&self) -> Option<Instant> {
        self.with(|held| {
            held.values()
                .filter(|entry| entry.bell.rung().is_none())
                .map(|entry| entry.deadline)
                .min()
        })
    }

    fn ring_those_ending_before(&self, instant: Instant) {
        self.with(|held| {
            for entry in held.values().filter(|entry| entry.deadline <= instant) {
                entry.bell.ring(Interruption::LeaseEnding);
            }
        });
    }

    /// Notes the answer to a renewal of `asked` that was sent at `sent`: what it does not name is lost.
    fn note(&self, asked: &[LeaseKey], renewed: &[(LeaseKey, bool)], sent: Sent) {
        let lease = self.lease;
        let renewed: HashMap<_, _> = renewed.iter().copied().collect();
        self.with(|held| {
            for key in asked {
                // Whoever has finished meanwhile is gone from here, and rightly missing there.
                let Some(entry) = held.get_mut(key) else {
                    continue;
                };
                match renewed.get(key) {
                    Some(abort_requested) => {
                        entry.deadline = sent.at + lease;
                        entry.term.extend(sent.of_boot.after(lease - margin(lease)));
                        if *abort_requested {
                            entry.bell.ring(Interruption::Aborted);
                        }
                    }
                    None => entry.bell.ring(Interruption::LeaseLost),
                }
            }
        });
    }

    fn with<T>(&self, see: impl FnOnce(&mut HashMap<LeaseKey, Entry>) -> T) -> T {
        see(&mut self.held.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// When a renewal was sent, by both clocks: a machine may have slept before the answer.
#[derive(Clone, Copy, Debug)]
struct Sent {
    at: Instant,
    of_boot: BootTime,
}

impl Sent {
    fn now() -> Self {
        Self {
            at: Instant::now(),
            of_boot: BootTime::now(),
        }
    }
}

/// The thread that renews.
#[derive(Debug)]
pub(crate) struct LeaseKeeper {
    stopper: Stopper,
    ended: oneshot::Receiver<()>,
    thread: JoinHandle<()>,
}

impl LeaseKeeper {
    /// Starts it; `options` name the database, the limits are its own.
    pub(crate) fn start(
        leases: Arc<Leases>,
        loops: Arc<Loops>,
        options: StoreOptions,
        lease: Duration,
    ) -> io::Result<Self> {
        let (stopper, stop) = Stop::new();
        let (tell, ended) = oneshot::channel();
        let patience = lease / 4;
        let options = StoreOptions {
            max_connections: 1,
            acquire_timeout: patience,
            statement_timeout: patience,
            ..options
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let keep = move || {
            let begin = || keep(Arc::clone(&leases), options.clone(), lease, stop.clone());
            match runtime.block_on(loops.keep("lease keeper", begin)) {
                Some(Ok(())) => {}
                Some(Err(error)) => tracing::error!(event = "lease_keeper_failed", %error),
                None => tracing::error!(event = "lease_keeper_failed", "it does not stop to panic"),
            }
            let _ = tell.send(());
        };
        let thread = std::thread::Builder::new()
            .name("lease-keeper".to_owned())
            .spawn(keep)?;
        Ok(Self {
            stopper,
            ended,
            thread,
        })
    }

    /// Ends when the thread has ended, as it should not before it was stopped.
    pub(crate) async fn ended(&mut self) {
        let _ = (&mut self.ended).await;
    }

    /// Ends the thread; every lease must have been given up before.
    pub(crate) async fn stop(mut self) {
        self.stopper.stop();
        self.ended().await;
        if self.thread.join().is_err() {
            tracing::error!(event = "lease_keeper_failed", "the lease keeper panicked");
        }
    }
}

async fn keep(
    leases: Arc<Leases>,
    options: StoreOptions,
    lease: Duration,
    stop: Stop,
) -> Result<(), StoreError> {
    // Made here, because a pool belongs to the runtime in which it was made.
    let store = Store::new(&options)?;
    let margin = margin(lease);
    // At once, for a keeper that panicked has renewed nothing since.
    let mut next = Instant::now();
    loop {
        let end = leases
            .earliest_deadline()
            .and_then(|deadline| deadline.checked_sub(margin));
        tokio::select! {
            () = stop.requested() => break,
            () = tokio::time::sleep_until(end.map_or(next, |end| end.min(next)).into()) => {}
        }
        leases.ring_those_ending_before(Instant::now() + margin);
        if Instant::now() >= next {
            let sent = Instant::now();
            let wait = if renew(&leases, &store, lease, margin).await {
                lease / 3
            } else {
                lease / 12
            };
            next = sent + wait;
        }
    }
    store.close().await;
    Ok(())
}

/// Renews all, or gives up in time to kill what then ends; says whether it was done.
async fn renew(leases: &Leases, store: &Store, lease: Duration, margin: Duration) -> bool {
    let keys = leases.keys();
    if keys.is_empty() {
        return true;
    }
    let sent = Sent::now();
    let end = leases
        .earliest_deadline()
        .and_then(|deadline| deadline.checked_sub(margin));
    let patience = sent.at + lease / 4;
    let give_up = end.map_or(patience, |end| end.min(patience));
    match tokio::time::timeout_at(give_up.into(), store.renew(&keys, lease)).await {
        Ok(Ok(renewed)) => {
            leases.note(&keys, &renewed, sent);
            true
        }
        Ok(Err(error)) => {
            tracing::warn!(event = "renewal_failed", leases = keys.len(), %error);
            false
        }
        Err(_) => {
            tracing::warn!(
                event = "renewal_failed",
                leases = keys.len(),
                "the database did not answer in time"
            );
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    const LEASE: Duration = Duration::from_secs(30);

    fn key(job: u128, fence: i64) -> LeaseKey {
        LeaseKey {
            job_id: Uuid::from_u128(job),
            fence,
            attempt: 1,
        }
    }

    #[test]
    fn the_answer_to_a_renewal_extends_aborts_or_ends_each_lease() {
        let leases = Arc::new(Leases::new(LEASE));
        let begun = Instant::now();
        let [kept, aborted, lost] = [1, 2, 3].map(|job| leases.hold(key(job, 7), begun + LEASE));
        let asked = leases.keys();
        let sent = Sent {
            at: begun + LEASE / 3,
            of_boot: BootTime::of(begun + LEASE / 3),
        };
        leases.note(
            &asked,
            &[(key(1, 7), false), (key(2, 7), true), (key(3, 8), false)],
            sent,
        );
        assert_eq!(kept.bell.rung(), None);
        assert_eq!(aborted.bell.rung(), Some(Interruption::Aborted));
        assert_eq!(lost.bell.rung(), Some(Interruption::LeaseLost));
        assert_eq!(leases.earliest_deadline(), Some(sent.at + LEASE));
        let kill_at = sent.of_boot.after(LEASE - LONGEST_MARGIN);
        assert_eq!(kept.term.kill_at(), kill_at);
        assert!(lost.term.kill_at() < kill_at);
    }

    #[test]
    fn a_lease_that_was_claimed_or_given_up_during_a_renewal_is_not_lost() {
        let leases = Arc::new(Leases::new(LEASE));
        let given_up = leases.hold(key(1, 1), Instant::now() + LEASE);
        let asked = leases.keys();
        drop(given_up);
        let fresh = leases.hold(key(2, 2), Instant::now() + LEASE);
        leases.note(&asked, &[], Sent::now());
        assert_eq!(fresh.bell.rung(), None);
        assert_eq!(leases.keys(), [key(2, 2)]);
    }

    #[test]
    fn a_forsaken_lease_is_known_until_it_has_run_out_and_not_for_ever() {
        let leases = Leases::new(LEASE);
        leases.forsake(key(1, 1));
        leases.forget_forsaken();
        assert_eq!(leases.known(), [key(1, 1)], "it has not run out");
        leases.forget_forsaken_before(Some(Instant::now()));
        assert!(leases.known().is_empty());
    }

    #[test]
    fn work_is_told_to_end_before_its_lease_does() {
        let leases = Arc::new(Leases::new(LEASE));
        let now = Instant::now();
        let [soon, later] = [1_u32, 60].map(|seconds| {
            leases.hold(
                key(seconds.into(), 1),
                now + Duration::from_secs(seconds.into()),
            )
        });
        leases.ring_those_ending_before(now + LONGEST_MARGIN);
        assert_eq!(soon.bell.rung(), Some(Interruption::LeaseEnding));
        assert_eq!(later.bell.rung(), None);
    }
}
