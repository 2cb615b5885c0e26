//! What the events tell against what the row says.

use std::fmt;

use time::OffsetDateTime;

use super::step::Step;
use super::{Fence, Finding, Fold, Standing, or_none};
use crate::state::Status;

impl Fold {
    /// Compares with the row, and gives everything that was found; `None` stands for events without a row.
    pub fn compare(mut self, row: Option<&Standing>) -> Vec<Finding> {
        let Some(row) = row else {
            self.find(None, "row", "there are events, but no job".to_owned());
            return self.findings;
        };
        if let Some(last) = self
            .previous
            .as_ref()
            .filter(|last| last.step == Step::Cause)
        {
            let detail = format!("{} is the last, and nothing came of it", last.kind);
            self.find(Some(last.seq), "language", detail);
        }
        let seq = self.previous.as_ref().map_or(0, |last| last.seq);
        self.differ("numbering", &row.event_seq, &seq);
        self.differ(
            "status",
            &row.status.as_str(),
            &self.status.map_or("nothing", Status::as_str),
        );
        let attempt = self.attempt;
        self.differ("attempt", &row.attempt, &attempt);
        let (holds, held) = (
            or_none(row.runner_id.as_ref()),
            or_none(self.runner_id.as_ref()),
        );
        self.differ("runner_id", &holds, &held);
        match self.fence {
            Fence::Is(fence) => self.differ("fence", &row.fence, &fence),
            Fence::Beyond(fence) if row.fence <= fence => {
                let detail = format!("{} is not beyond {fence}", row.fence);
                self.find(None, "fence", detail);
            }
            Fence::Beyond(_) => {}
        }
        self.differ(
            "started_at",
            &instant(row.started_at),
            &instant(self.started_at),
        );
        self.differ(
            "finished_at",
            &instant(row.finished_at),
            &instant(self.finished_at),
        );
        self.compare_dead_letter(row);
        self.findings
    }

    /// It is taken a moment before the event's own instant, in the same statement.
    fn compare_dead_letter(&mut self, row: &Standing) {
        let explained = match (row.dead_lettered_at, self.dead_lettered) {
            (None, None) => true,
            (Some(at), Some((earliest, latest))) => earliest <= at && at <= latest,
            (Some(_), None) | (None, Some(_)) => false,
        };
        if !explained {
            let told = self.dead_lettered.map(|(_, at)| at);
            let detail = differs(&instant(row.dead_lettered_at), &instant(told));
            self.find(None, "dead_lettered_at", detail);
        }
    }

    fn differ<T: PartialEq + fmt::Display>(&mut self, subject: &'static str, row: &T, told: &T) {
        if row != told {
            self.find(None, subject, differs(row, told));
        }
    }
}

fn differs(row: &impl fmt::Display, told: &impl fmt::Display) -> String {
    format!("the row says {row}, its events say {told}")
}

fn instant(at: Option<OffsetDateTime>) -> String {
    at.map_or("none".to_owned(), |at| at.to_string())
}
