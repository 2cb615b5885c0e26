//! What came of an attack: counts, and every finding with what is needed to see it again.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Something that must not be.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The case that it was seen in.
    pub case: u64,
    /// What is wrong.
    pub fault: String,
    /// The request, as far as it can be shown.
    pub request: String,
}

/// The counts and the findings.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Requests sent.
    pub requests: u64,
    /// Cases played to their end.
    pub cases: u64,
    /// Answers by status; 0: the connection ended, as it may after half a request.
    pub statuses: BTreeMap<u16, u64>,
    /// Requests by the route that they were made from.
    pub routes: BTreeMap<String, u64>,
    /// Refusals after which the database was looked at, and nothing had changed.
    pub unchanged: u64,
    /// What must not be; the first hundred.
    pub findings: Vec<Finding>,
    /// How many there were in all.
    pub found: u64,
    /// How long it took.
    pub took: Duration,
}

/// More are only counted.
const MOST_FINDINGS: usize = 100;

impl Tally {
    /// Notes a finding.
    pub fn find(&mut self, finding: Finding) {
        self.found += 1;
        if self.findings.len() < MOST_FINDINGS {
            self.findings.push(finding);
        }
    }

    /// Takes the counts of another worker.
    pub fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.cases += other.cases;
        self.unchanged += other.unchanged;
        for (status, count) in other.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
        for (route, count) in other.routes {
            *self.routes.entry(route).or_default() += count;
        }
        let shown = self.found + other.found;
        for finding in other.findings {
            self.find(finding);
        }
        self.found = shown;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            writeln!(
                f,
                "FOUND in case {}: {}\n  {}",
                finding.case, finding.fault, finding.request
            )?;
        }
        writeln!(f, "requests by route:")?;
        for (route, count) in &self.routes {
            writeln!(f, "  {count:>8}  {route}")?;
        }
        writeln!(f, "answers by status (0: an end after half a request):")?;
        for (status, count) in &self.statuses {
            writeln!(f, "  {count:>8}  {status}")?;
        }
        let seconds = self.took.as_secs_f64();
        write!(
            f,
            "{} requests in {} cases, {seconds:.0} s, {:.0} a second; {} refusals looked at and nothing changed; {} findings",
            self.requests,
            self.cases,
            // Only for the eye.
            self.requests as f64 / seconds.max(0.001),
            self.unchanged,
            self.found,
        )
    }
}
