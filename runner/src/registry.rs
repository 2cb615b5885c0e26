//! The job types that this runner takes, and why it takes no others. The one place that answers "may this run here?".

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use jobs::{Name, Store, TypeTerms};
use serde_json::Value;
use service::{FieldError, Flag, Flags, Problem, Secret};

use crate::config::{CgroupSetting, Config, DeclaredType, DeclaredWork, Masking};
use crate::error::StartError;
use crate::handlers::command::Command;
use crate::handlers::document::{self, DocumentRender};
use crate::handlers::http::{Http, USUAL_LIMIT};
use crate::handlers::metrics_refresh::{self, MetricsRefresh};
use crate::handlers::{Added, Handlers, Work};
use crate::mask::Masks;
use crate::payload_schema::PayloadSchema;
use crate::process::{Cgroup, Watch};
use crate::secrets;

/// A job type and what runs it.
pub(crate) struct JobType {
    pub(crate) terms: TypeTerms,
    pub(crate) work: Arc<dyn Work>,
    /// What is kept out of its log, its events and its errors.
    pub(crate) masks: Arc<Masks>,
    schema: Option<PayloadSchema>,
}

impl JobType {
    /// What is wrong with a payload; empty when it fits.
    pub(crate) fn faults(&self, payload: &Value) -> Vec<FieldError> {
        self.schema
            .as_ref()
            .map(|schema| schema.faults(payload))
            .unwrap_or_default()
    }
}

/// Why a job type is not taken here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotTaken {
    NotInAllowlist,
    NoHandler,
    FlagOff(Flag),
}

impl From<NotTaken> for Problem {
    fn from(why: NotTaken) -> Self {
        match why {
            NotTaken::NotInAllowlist => {
                Self::forbidden("This job type is not in the runner's allowlist.")
            }
            NotTaken::NoHandler => Self::forbidden("This runner has no handler for this job type."),
            NotTaken::FlagOff(flag) => Self::forbidden(format!(
                "This job type is switched off; {} would switch it on.",
                flag.name()
            )),
        }
    }
}

/// All of them.
pub(crate) struct Registry {
    taken: BTreeMap<Name, JobType>,
    terms: Vec<TypeTerms>,
    names: Vec<String>,
    allowlist: BTreeSet<Name>,
    flags: Flags,
    /// Who watches over the commands.
    pub(crate) watch: Arc<Watch>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Registry").field(&self.names).finish()
    }
}

impl Registry {
    /// Brings built-in, declared and added types together, and keeps those that are allowed and switched on.
    pub(crate) fn new(
        config: &mut Config,
        handlers: Handlers,
        store: &Store,
    ) -> Result<Self, StartError> {
        // Whatever was configured: a command may print another's settings, or the settings file.
        let own = std::mem::take(&mut config.secrets);
        let of_types: Vec<String> = config.job_types.iter().flat_map(secrets::of_type).collect();
        let all = own.iter().map(Secret::expose);
        let all = all.chain(of_types.iter().map(String::as_str));
        let masks = Arc::new(match config.masking {
            Masking::On => Masks::new(all),
            Masking::Off => Masks::new([]),
        });
        let mut known = built_in(store, &masks)?;
        let mut faults = Vec::new();
        let inherited: Arc<[_]> = config.child_environment.clone().into();
        let watch = Arc::new(watch(config, &mut faults));
        let mut offered = Vec::new();
        for table in std::mem::take(&mut config.job_types) {
            offered.push(declared(table, &inherited, &watch, Arc::clone(&masks))?);
        }
        for handler in handlers.0 {
            match added(handler, &masks) {
                Ok(job_type) => offered.push(job_type),
                Err(fault) => faults.push(fault),
            }
        }
        for job_type in offered {
            let name = job_type.terms.job_type.clone();
            if known.contains_key(&name) {
                faults.push(format!("{name} has two handlers"));
            }
            known.insert(name, job_type);
        }
        if !faults.is_empty() {
            return Err(StartError::JobTypes(faults));
        }
        Ok(Self::allowed(
            known,
            config.allowlist.clone(),
            config.shared.flags,
            watch,
        ))
    }

    fn allowed(
        known: BTreeMap<Name, JobType>,
        allowlist: BTreeSet<Name>,
        flags: Flags,
        watch: Arc<Watch>,
    ) -> Self {
        let mut taken = BTreeMap::new();
        for (name, job_type) in known {
            if !allowlist.contains(&name) {
                if Flag::of_job_type(name.as_str()).is_none() && name.as_str() != document::NAME {
                    tracing::warn!(event = "job_type_not_allowed", job_type = %name, "has a handler but is not in RUNNER_ALLOWLIST");
                }
            } else if flags.allow_job_type(name.as_str()) {
                taken.insert(name, job_type);
            }
        }
        let terms: Vec<TypeTerms> = taken
            .values()
            .map(|job_type| job_type.terms.clone())
            .collect();
        let names = taken.keys().map(Name::to_string).collect();
        Self {
            taken,
            terms,
            names,
            allowlist,
            flags,
            watch,
        }
    }

    /// The type, or why it is not taken. Names are compared byte by byte.
    pub(crate) fn get(&self, name: &Name) -> Result<&JobType, NotTaken> {
        if !self.allowlist.contains(name) {
            return Err(NotTaken::NotInAllowlist);
        }
        match (Flag::of_job_type(name.as_str()), self.taken.get(name)) {
            (Some(flag), _) if !self.flags.is_on(flag) => Err(NotTaken::FlagOff(flag)),
            (_, Some(job_type)) => Ok(job_type),
            (_, None) => Err(NotTaken::NoHandler),
        }
    }

    /// Whether jobs with stages are taken: their flag is on.
    pub(crate) fn takes_stages(&self) -> bool {
        self.flags.is_on(Flag::Gates)
    }

    pub(crate) fn terms(&self) -> &[TypeTerms] {
        &self.terms
    }

    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }
}

fn built_in(store: &Store, masks: &Arc<Masks>) -> Result<BTreeMap<Name, JobType>, StartError> {
    let fault = |why: String| StartError::JobTypes(vec![why]);
    let metrics = MetricsRefresh {
        store: store.clone(),
    };
    let all: [(&str, Value, Arc<dyn Work>); 2] = [
        (
            metrics_refresh::NAME,
            metrics_refresh::schema(),
            Arc::new(metrics),
        ),
        (document::NAME, document::schema(), Arc::new(DocumentRender)),
    ];
    let mut known = BTreeMap::new();
    for (name, schema, work) in all {
        let name: Name = name
            .parse()
            .map_err(|why| fault(format!("a built-in type {why}")))?;
        let schema = Some(PayloadSchema::new(&schema).map_err(fault)?);
        let terms = TypeTerms::new(name.clone());
        known.insert(
            name,
            JobType {
                terms,
                work,
                schema,
                masks: Arc::clone(masks),
            },
        );
    }
    Ok(known)
}

/// Who watches over the commands; says so where that is less than it should be.
fn watch(config: &mut Config, faults: &mut Vec<String>) -> Watch {
    let cgroup = cgroup(&config.cgroup, faults);
    let watch = Watch::best(config.shim.take(), cgroup);
    let commands = || {
        config
            .job_types
            .iter()
            .filter_map(|table| match &table.work {
                DeclaredWork::Command(line) => Some((&table.terms.job_type, line)),
                DeclaredWork::Http(_) => None,
            })
    };
    if matches!(watch, Watch::Group) && commands().next().is_some() {
        tracing::warn!(
            event = "no_shim",
            "this program is no shim for its commands: children that leave their process group are not killed"
        );
        let limited = commands().filter(|(_, line)| !line.limits.is_empty());
        faults.extend(limited.map(|(name, _)| {
            format!("{name} has limits, which a shim sets, and this program is none")
        }));
    }
    watch
}

/// Says what there is: the one that was named must be there.
fn cgroup(setting: &CgroupSetting, faults: &mut Vec<String>) -> Option<Cgroup> {
    let found = match setting {
        CgroupSetting::Off => Err("RUNNER_CGROUP is off".to_owned()),
        CgroupSetting::Auto => Cgroup::find(None),
        CgroupSetting::At(path) => Cgroup::find(Some(path)).inspect_err(|why| {
            faults.push(format!("RUNNER_CGROUP cannot be used: {why}"));
        }),
    };
    match found {
        Ok(cgroup) => {
            tracing::info!(
                event = "cgroup",
                base = %cgroup.base().display(),
                memory = cgroup.memory,
                pids = cgroup.pids,
                "each command has a cgroup of its own"
            );
            Some(cgroup)
        }
        Err(why) => {
            tracing::info!(event = "no_cgroup", why, "commands are watched without");
            None
        }
    }
}

fn declared(
    declared: DeclaredType,
    inherited: &Arc<[(String, String)]>,
    watch: &Arc<Watch>,
    masks: Arc<Masks>,
) -> Result<JobType, StartError> {
    let work: Arc<dyn Work> = match declared.work {
        DeclaredWork::Command(line) => Arc::new(Command {
            line,
            inherited: Arc::clone(inherited),
            watch: Arc::clone(watch),
        }),
        DeclaredWork::Http(call) => {
            let agent = concat!("ops-jobs-runner/", env!("CARGO_PKG_VERSION"));
            let client =
                service::http_client::client(USUAL_LIMIT, agent).map_err(StartError::HttpClient)?;
            Arc::new(Http { client, call })
        }
    };
    Ok(JobType {
        terms: declared.terms,
        work,
        masks,
        schema: declared.schema,
    })
}

fn added(added: Added, masks: &Arc<Masks>) -> Result<JobType, String> {
    let job_type: Name = added
        .job_type
        .parse()
        .map_err(|why| format!("{:?} {why}", added.job_type))?;
    let timeout_seconds = added
        .terms
        .timeout
        .map(|limit| i32::try_from(limit.as_secs()).unwrap_or(i32::MAX));
    let terms = TypeTerms {
        job_type,
        max_attempts: i32::from(added.terms.max_attempts),
        timeout_seconds,
        concurrency: added.terms.concurrency.map(i32::from),
        on_lost: added.terms.on_lost,
        backoff: added.terms.backoff,
    };
    Ok(JobType {
        terms,
        work: added.work,
        masks: Arc::clone(masks),
        schema: None,
    })
}
