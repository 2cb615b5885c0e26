//! I11: a deploy costs nothing. Within its window no request fails, no attempt is used up and no job fails, but where a
//! handler itself said so.

use super::{Invariant, Verdict, work::Runs};
use crate::history::{History, What};
use crate::ledger::Phase;

pub(super) fn check(history: &History, runs: &Runs, verdict: &mut Verdict) {
    let windows = history
        .faults
        .iter()
        .filter(|fault| fault.what == What::Deploy);
    for window in windows {
        let within = |at| window.from_wall <= at && at <= window.until_wall;
        for answer in history.answers.iter().filter(|answer| within(answer.at)) {
            if answer.status == 0 || answer.status >= 500 {
                verdict.add(
                    Invariant::Deploy,
                    None,
                    format!("a request failed: {answer:?}"),
                );
            }
        }
        for (job, events) in &history.events {
            let mut fence = None;
            for event in events {
                fence = event.fence().or(fence);
                let said_so = fence
                    .and_then(|fence| runs.get(job)?.get(&fence)?.end)
                    .is_some_and(|end| matches!(end, Phase::Again | Phase::Refused));
                let costs = match event.kind.as_str() {
                    "lease_expired" | "held" => true,
                    "retry_scheduled" | "failed" => !said_so,
                    _ => false,
                };
                if costs && within(event.at) {
                    verdict.add(
                        Invariant::Deploy,
                        *job,
                        format!("event {} {} {}", event.seq, event.kind, event.data),
                    );
                }
            }
        }
    }
}
