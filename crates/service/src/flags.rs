//! The flag registry: every feature that can be switched, and what it gates. All off by default.

use std::fmt::Write as _;

use crate::settings::{Fallback, Kind, Setting, Values};

/// A feature that is off until its setting of the same name says `1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Flag {
    /// Every `/jobs` route.
    Jobs,
    /// Triggering runners and listing them.
    Runner,
    /// Roll-ups and metrics routes.
    Metrics,
    /// The collector's job type.
    Nearsight,
    /// The composer's job type.
    Captorator,
    /// Publishing to Notion.
    Notion,
    /// Schedules.
    Schedules,
    /// Stages that wait for a person.
    Gates,
    /// The file inbox.
    Inbox,
    /// Synchronous runs.
    SyncRun,
}

/// Every flag with its name and what it gates, in the order of the documentation.
const REGISTRY: [(Flag, &str, &str); 10] = [
    (
        Flag::Jobs,
        "JOBS_ENABLED",
        "every `/jobs` route, the console's job pages",
    ),
    (
        Flag::Runner,
        "RUNNER_ENABLED",
        "`trigger_runner`, the runners list",
    ),
    (
        Flag::Metrics,
        "FEATURE_METRICS",
        "`/health/metrics`, `/metrics`, job type `metrics_refresh`, its tables",
    ),
    (
        Flag::Nearsight,
        "NEARSIGHT_ENABLED",
        "job type `nearsight_collect_refresh`, its tables",
    ),
    (
        Flag::Captorator,
        "CAPTORATOR_ENABLED",
        "job type `captorator_compose`, its tables",
    ),
    (
        Flag::Notion,
        "NOTION_ENABLED",
        "publishing finished jobs to a Notion database",
    ),
    (
        Flag::Schedules,
        "SCHEDULES_ENABLED",
        "schedules: routes, firing, tables",
    ),
    (
        Flag::Gates,
        "GATES_ENABLED",
        "stages that wait for a person: routes, tables",
    ),
    (
        Flag::Inbox,
        "INBOX_ENABLED",
        "file inbox: watcher, `/targets`, uploads into it",
    ),
    (
        Flag::SyncRun,
        "SYNC_RUN_ENABLED",
        "the runner's `POST /v1/run`",
    ),
];

/// The declarations of the flags; a program lists them beside its own settings.
pub const SETTINGS: &[Setting] = &declare();

const fn declare() -> [Setting; REGISTRY.len()] {
    let mut settings = [Setting::new("", Kind::Switch, Fallback::Is("0"), ""); REGISTRY.len()];
    let mut index = 0;
    while index < REGISTRY.len() {
        settings[index].name = REGISTRY[index].1;
        settings[index].meaning = REGISTRY[index].2;
        index += 1;
    }
    settings
}

/// The job types that a flag gates.
const BUILT_IN: [&str; 3] = [
    "metrics_refresh",
    "nearsight_collect_refresh",
    "captorator_compose",
];

impl Flag {
    /// Every flag, in the order of the documentation.
    pub fn all() -> impl Iterator<Item = Self> {
        REGISTRY.iter().map(|(flag, _, _)| *flag)
    }

    /// The name of its setting, for example `JOBS_ENABLED`.
    pub fn name(self) -> &'static str {
        REGISTRY[self as usize].1
    }

    /// What it gates, for the documentation.
    pub fn gates(self) -> &'static str {
        REGISTRY[self as usize].2
    }

    /// The flag that a built-in job type needs, if it needs one.
    pub fn of_job_type(job_type: &str) -> Option<Self> {
        match job_type {
            "metrics_refresh" => Some(Self::Metrics),
            "nearsight_collect_refresh" => Some(Self::Nearsight),
            "captorator_compose" => Some(Self::Captorator),
            _ => None,
        }
    }
}

/// Which features are on; none, unless said otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags([bool; REGISTRY.len()]);

impl Flags {
    /// Reads the flags from their settings.
    pub fn read(values: &mut Values) -> Self {
        Flag::all().fold(Self::default(), |flags, flag| {
            if values.switch(flag.name()) {
                flags.with(flag)
            } else {
                flags
            }
        })
    }

    /// Every feature on, as `opsctl dev` runs.
    pub fn all_on() -> Self {
        Self([true; REGISTRY.len()])
    }

    /// The same features and this one.
    #[must_use]
    pub fn with(mut self, flag: Flag) -> Self {
        self.0[flag as usize] = true;
        self
    }

    /// The same features without this one.
    #[must_use]
    pub fn without(mut self, flag: Flag) -> Self {
        self.0[flag as usize] = false;
        self
    }

    /// Whether a feature is on.
    pub fn is_on(self, flag: Flag) -> bool {
        self.0[flag as usize]
    }

    /// The built-in job types whose flag is off.
    pub fn closed_job_types(self) -> Vec<&'static str> {
        BUILT_IN
            .into_iter()
            .filter(|name| !self.allow_job_type(name))
            .collect()
    }

    /// Whether a job type may be used: types without a flag always may.
    pub fn allow_job_type(self, job_type: &str) -> bool {
        Flag::of_job_type(job_type).is_none_or(|flag| self.is_on(flag))
    }
}

/// Renders the registry as a Markdown table.
pub fn markdown() -> String {
    let mut table = String::from("| flag | gates |\n| --- | --- |\n");
    for (_, name, gates) in REGISTRY {
        // Writing to a String cannot fail.
        let _ = writeln!(table, "| `{name}` | {gates} |");
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registry_lists_each_flag_at_its_own_place() {
        for (index, (flag, name, _)) in REGISTRY.iter().enumerate() {
            assert_eq!(*flag as usize, index, "{name}");
            assert_eq!(flag.name(), *name);
            assert_eq!(SETTINGS[index].name, *name);
        }
    }

    #[test]
    fn every_flag_is_off_by_default_and_switched_alone() {
        for flag in Flag::all() {
            assert!(!Flags::default().is_on(flag));
            let one = Flags::default().with(flag);
            let on: Vec<_> = Flag::all().filter(|other| one.is_on(*other)).collect();
            assert_eq!(on, [flag]);
            assert_eq!(one.without(flag), Flags::default());
        }
    }

    #[test]
    fn a_built_in_job_type_follows_its_flag_and_others_are_free() {
        let off = Flags::default();
        assert!(!off.allow_job_type("metrics_refresh"));
        assert!(!off.allow_job_type("nearsight_collect_refresh"));
        assert!(!off.allow_job_type("captorator_compose"));
        assert!(off.allow_job_type("rebuild_search_index"));
        assert!(off.with(Flag::Metrics).allow_job_type("metrics_refresh"));
        assert_eq!(off.closed_job_types(), BUILT_IN);
        assert_eq!(Flags::all_on().closed_job_types(), [""; 0]);
    }

    #[test]
    fn the_table_has_a_line_a_flag() {
        assert_eq!(markdown().lines().count(), 2 + REGISTRY.len());
    }
}
