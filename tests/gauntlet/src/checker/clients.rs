//! I1, I2, I21: what clients were promised and how they were answered.

use std::collections::{HashMap, HashSet};

use super::{Invariant, Verdict};
use crate::history::History;

pub(super) fn check(history: &History, verdict: &mut Verdict) {
    let asked: HashSet<&str> = history.acks.iter().map(|ack| ack.key.as_str()).collect();
    let mut told: HashMap<&str, uuid::Uuid> = HashMap::new();
    for ack in &history.acks {
        let Some(job) = ack.job else { continue };
        match history.rows.get(&job) {
            None => verdict.add(
                Invariant::NoLoss,
                job,
                format!("acknowledged for {}, and not there", ack.key),
            ),
            Some(row) if row.key.as_deref() != Some(&ack.key) => {
                verdict.add(
                    Invariant::NoDouble,
                    job,
                    format!("{} was told of a job of {:?}", ack.key, row.key),
                );
            }
            Some(_) => {}
        }
        if told
            .insert(&ack.key, job)
            .is_some_and(|before| before != job)
        {
            verdict.add(
                Invariant::NoDouble,
                job,
                format!("{} was told of two jobs", ack.key),
            );
        }
    }
    let mut seen = HashSet::new();
    for (job, row) in &history.rows {
        match row.key.as_deref() {
            Some(key) if !asked.contains(key) => {
                verdict.add(Invariant::NoDouble, *job, format!("nobody asked for {key}"));
            }
            None => verdict.add(Invariant::NoDouble, *job, "nobody asked for it"),
            Some(key) if !seen.insert(key) => {
                verdict.add(Invariant::NoDouble, *job, format!("a second job of {key}"));
            }
            Some(_) => {}
        }
    }
    for answer in &history.answers {
        let wrong = match answer.status {
            500 => true,
            429 | 503 => !answer.retry_after || !answer.problem,
            400.. => !answer.problem,
            // 0 is an end of the connection, which the faults bring about.
            _ => false,
        };
        if wrong {
            verdict.add(Invariant::Answers, None, format!("{answer:?}"));
        }
    }
}
