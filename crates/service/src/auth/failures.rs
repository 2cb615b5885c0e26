//! Callers that show wrong keys: counted, told to the log, and refused more shortly when there are too many of them.
//!
//! Keeps at most [`MOST_PEERS`] addresses in mind, whatever is sent. It never sees a key.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

/// So many addresses are told apart; those beyond share one budget.
const MOST_PEERS: usize = 4096;

/// One line a peer and this long is enough to know of it.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// What was wrong with the key of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// There was none.
    Missing,
    /// It is not accepted.
    Wrong,
}

/// How many requests were refused for want of a key since the process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FailureCounts {
    /// Without a key.
    pub missing: u64,
    /// With a key that is not accepted.
    pub wrong: u64,
    /// Of these, answered 429, because too many came from one address.
    pub limited: u64,
}

/// The failures of one guard.
#[derive(Debug)]
pub(super) struct Failures {
    /// Wrong keys that one address may show at once, and in a minute.
    budget: f64,
    peers: Mutex<Peers>,
    missing: AtomicU64,
    wrong: AtomicU64,
    limited: AtomicU64,
}

#[derive(Debug, Default)]
struct Peers {
    known: HashMap<Option<IpAddr>, Peer>,
    cleared: Option<Instant>,
}

#[derive(Debug)]
struct Peer {
    /// How much of the budget is used.
    spent: f64,
    /// When that was so.
    at: Instant,
    /// Failures since the last line about it.
    untold: u64,
    told: Option<Instant>,
}

impl Failures {
    /// Lets one address show so many wrong keys a minute.
    pub(super) fn new(per_minute: u32) -> Self {
        Self {
            budget: f64::from(per_minute),
            peers: Mutex::default(),
            missing: AtomicU64::new(0),
            wrong: AtomicU64::new(0),
            limited: AtomicU64::new(0),
        }
    }

    pub(super) fn counts(&self) -> FailureCounts {
        FailureCounts {
            missing: self.missing.load(Ordering::Relaxed),
            wrong: self.wrong.load(Ordering::Relaxed),
            limited: self.limited.load(Ordering::Relaxed),
        }
    }

    /// How long an address must wait before another wrong key of it is looked at, if it must.
    pub(super) fn wait_of(&self, peer: Option<IpAddr>) -> Option<Duration> {
        self.wait_at(peer, Instant::now())
    }

    fn wait_at(&self, peer: Option<IpAddr>, now: Instant) -> Option<Duration> {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let peer = peers.of(peer, now, self.budget);
        peer.refill(now, self.budget);
        let over = peer.spent + 1.0 - self.budget;
        (over > 0.0).then(|| Duration::from_secs_f64((over * 60.0 / self.budget).max(1.0)))
    }

    /// Counts a failure and tells of it, not more often than is good for the log.
    pub(super) fn note(&self, peer: Option<IpAddr>, failure: Failure) {
        self.note_at(peer, failure, Instant::now());
    }

    fn note_at(&self, address: Option<IpAddr>, failure: Failure, now: Instant) {
        let (count, reason) = match failure {
            Failure::Missing => (&self.missing, "missing"),
            Failure::Wrong => (&self.wrong, "wrong"),
        };
        count.fetch_add(1, Ordering::Relaxed);
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let peer = peers.of(address, now, self.budget);
        peer.refill(now, self.budget);
        if failure == Failure::Wrong {
            // No further than full, or a flood would keep its address out for as long as it lasted.
            peer.spent = (peer.spent + 1.0).min(self.budget);
        }
        peer.untold += 1;
        if peer
            .told
            .is_none_or(|told| now.duration_since(told) >= TELL_EVERY)
        {
            let failures = std::mem::take(&mut peer.untold);
            peer.told = Some(now);
            drop(peers);
            tracing::warn!(
                event = "authentication_failed",
                outcome = "unauthorized",
                peer = address.map(tracing::field::display),
                reason,
                failures,
            );
        }
    }

    /// Counts a request that was refused without a look at its key.
    pub(super) fn note_limited(&self, peer: Option<IpAddr>) {
        self.limited.fetch_add(1, Ordering::Relaxed);
        self.note(peer, Failure::Wrong);
    }
}

impl Peers {
    fn of(&mut self, address: Option<IpAddr>, now: Instant, budget: f64) -> &mut Peer {
        let mut key = address.map(network);
        if !self.known.contains_key(&key) && self.known.len() >= MOST_PEERS {
            self.clear(now, budget);
            if self.known.len() >= MOST_PEERS {
                key = None;
            }
        }
        self.known.entry(key).or_insert(Peer {
            spent: 0.0,
            at: now,
            untold: 0,
            told: None,
        })
    }

    /// Forgets who has its whole budget again; looking at all of them is done once a second at most.
    fn clear(&mut self, now: Instant, budget: f64) {
        let due = |cleared: Instant| now.duration_since(cleared) >= Duration::from_secs(1);
        if self.cleared.is_none_or(due) {
            self.cleared = Some(now);
            self.known.retain(|_, peer| {
                peer.refill(now, budget);
                peer.spent > 0.0
            });
        }
    }
}

impl Peer {
    fn refill(&mut self, now: Instant, budget: f64) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.spent = (self.spent - passed * budget / 60.0).max(0.0);
        self.at = now;
    }
}

/// Whoever has one IPv6 address has a whole network of them.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u32) -> Option<IpAddr> {
        Some(IpAddr::V4(number.into()))
    }

    #[test]
    fn wrong_keys_use_up_a_budget_that_comes_back_with_time() {
        let failures = Failures::new(60);
        let begun = Instant::now();
        for _ in 0..60 {
            assert_eq!(failures.wait_at(peer(1), begun), None);
            failures.note_at(peer(1), Failure::Wrong, begun);
        }
        let wait = failures.wait_at(peer(1), begun).expect("used up");
        assert_eq!(wait.as_secs(), 1);
        assert_eq!(
            failures.wait_at(peer(2), begun),
            None,
            "others are not meant"
        );
        let later = begun + Duration::from_secs(2);
        assert_eq!(failures.wait_at(peer(1), later), None);
        assert_eq!(failures.counts().wrong, 60);
    }

    #[test]
    fn whoever_shows_no_key_guesses_none() {
        let failures = Failures::new(1);
        let now = Instant::now();
        for _ in 0..10 {
            failures.note_at(peer(1), Failure::Missing, now);
        }
        assert_eq!(failures.wait_at(peer(1), now), None);
        assert_eq!(failures.counts().missing, 10);
    }

    #[test]
    fn memory_is_bounded_whoever_comes() {
        let failures = Failures::new(60);
        let now = Instant::now();
        for number in 0..20_000 {
            failures.note_at(peer(number), Failure::Wrong, now);
        }
        let known = |failures: &Failures| failures.peers.lock().expect("unpoisoned").known.len();
        assert!(known(&failures) <= MOST_PEERS + 1);
        let later = now + Duration::from_secs(61);
        failures.note_at(peer(30_000), Failure::Wrong, later);
        assert!(known(&failures) <= 2, "forgotten once they are quiet");
    }

    #[test]
    fn one_ipv6_network_is_one_caller() {
        let one: IpAddr = "2001:db8::1".parse().expect("an address");
        let same: IpAddr = "2001:db8::ffff:1".parse().expect("an address");
        let other: IpAddr = "2001:db8:0:1::1".parse().expect("an address");
        assert_eq!(network(one), network(same));
        assert_ne!(network(one), network(other));
        let mapped: IpAddr = "::ffff:10.0.0.1".parse().expect("an address");
        assert_eq!(network(mapped), IpAddr::from([10, 0, 0, 1]));
    }
}
