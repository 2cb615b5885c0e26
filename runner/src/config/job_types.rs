//! The `[job_types.NAME]` tables of the settings file, parsed into types that cannot be wrong. Starts and sends nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jobs::{Backoff, Name, OnLost, TypeTerms};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;
use service::settings::Values;

use crate::payload_schema::PayloadSchema;
use crate::process::Limits;

/// The highest limit of a type: each place is a row.
const MOST_AT_ONCE: i32 = 1000;
/// The longest wait before a retry, in seconds: a day.
const LONGEST_WAIT: u64 = 86_400;

/// A job type that the settings file declares.
#[derive(Debug)]
pub(crate) struct DeclaredType {
    pub(crate) terms: TypeTerms,
    pub(crate) schema: Option<PayloadSchema>,
    pub(crate) work: DeclaredWork,
}

/// What such a type does.
#[derive(Debug)]
pub(crate) enum DeclaredWork {
    Command(CommandLine),
    Http(HttpCall),
}

/// A program, its arguments, and what its environment has beside the inherited part.
pub(crate) struct CommandLine {
    pub(crate) argv: Vec<String>,
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) limits: Limits,
}

/// A request; its address and headers may hold secrets.
pub(crate) struct HttpCall {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    /// Statuses that count as success; empty: every 2xx.
    pub(crate) expect: Vec<StatusCode>,
}

impl fmt::Debug for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CommandLine(…)")
    }
}

impl fmt::Debug for HttpCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HttpCall(…)")
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TypeTable {
    command: Option<Vec<String>>,
    http: Option<HttpTable>,
    timeout_seconds: Option<i32>,
    max_attempts: Option<i32>,
    concurrency: Option<i32>,
    on_lost: Option<String>,
    backoff: Option<BackoffTable>,
    payload_schema: Option<PathBuf>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default)]
    limits: Limits,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BackoffTable {
    base_seconds: Option<u64>,
    cap_seconds: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HttpTable {
    url: String,
    method: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    expect: Vec<u16>,
}

/// Reads every table, refusing all that is wrong with each.
pub(super) fn read(values: &mut Values) -> Vec<DeclaredType> {
    let tables: BTreeMap<String, TypeTable> = values.tables("job_types");
    let folder = values
        .config_file()
        .and_then(Path::parent)
        .map(PathBuf::from)
        .unwrap_or_default();
    let mut types = Vec::new();
    for (name, table) in tables {
        let mut faults = Faults(Vec::new());
        let declared = parse(&name, table, &folder, &mut faults);
        for (key, fault) in faults.0 {
            let place = if key.is_empty() {
                format!("job_types.{name}")
            } else {
                format!("job_types.{name}.{key}")
            };
            values.refuse(&place, fault);
        }
        types.extend(declared);
    }
    types
}

struct Faults(Vec<(&'static str, String)>);

impl Faults {
    fn refuse(&mut self, key: &'static str, fault: impl Into<String>) {
        self.0.push((key, fault.into()));
    }

    fn within(&mut self, key: &'static str, value: Option<i32>, high: i32) -> Option<i32> {
        if value.is_some_and(|value| !(1..=high).contains(&value)) {
            self.refuse(
                key,
                format!("is out of range: set it to a whole number from 1 to {high}"),
            );
        }
        value
    }
}

fn parse(name: &str, table: TypeTable, folder: &Path, faults: &mut Faults) -> Option<DeclaredType> {
    let job_type: Option<Name> = name
        .parse()
        .map_err(|why| faults.refuse("", format!("is no job type: it {why}")))
        .ok();
    let max_attempts = faults
        .within("max_attempts", table.max_attempts, 1000)
        .unwrap_or(1);
    let timeout_seconds = faults.within("timeout_seconds", table.timeout_seconds, 2_592_000);
    let concurrency = faults.within("concurrency", table.concurrency, MOST_AT_ONCE);
    let on_lost = on_lost(table.on_lost.as_deref(), faults);
    let backoff = backoff(table.backoff, faults);
    let schema = table
        .payload_schema
        .and_then(|path| schema(&folder.join(path), faults));
    let work = match (table.command, table.http) {
        (Some(argv), None) => {
            command(argv, table.env, table.limits, folder, faults).map(DeclaredWork::Command)
        }
        (None, Some(http)) => {
            if !table.env.is_empty() {
                faults.refuse("env", "goes with a command only: remove it");
            }
            if !table.limits.is_empty() {
                faults.refuse("limits", "go with a command only: remove them");
            }
            http_call(http, faults).map(DeclaredWork::Http)
        }
        (Some(_), Some(_)) => {
            faults.refuse("", "has both a command and http: leave one of them out");
            None
        }
        (None, None) => {
            faults.refuse("", "has neither a command nor http: set one of them");
            None
        }
    };
    let terms = TypeTerms {
        job_type: job_type?,
        max_attempts,
        timeout_seconds,
        concurrency,
        on_lost,
        backoff,
    };
    Some(DeclaredType {
        terms,
        schema,
        work: work?,
    })
}

fn on_lost(word: Option<&str>, faults: &mut Faults) -> OnLost {
    match word {
        None | Some("retry") => OnLost::Retry,
        Some("hold") => OnLost::Hold,
        Some(_) => {
            faults.refuse("on_lost", "is unknown: set it to retry or hold");
            OnLost::default()
        }
    }
}

fn backoff(table: Option<BackoffTable>, faults: &mut Faults) -> Backoff {
    let usual = Backoff::default();
    let Some(table) = table else {
        return usual;
    };
    let base = table.base_seconds.unwrap_or(usual.base.as_secs());
    let cap = table.cap_seconds.unwrap_or(usual.cap.as_secs().max(base));
    if cap > LONGEST_WAIT || base > cap {
        faults.refuse(
            "backoff",
            format!(
                "is out of range: set base_seconds up to cap_seconds, and that up to {LONGEST_WAIT}"
            ),
        );
    }
    Backoff {
        base: Duration::from_secs(base),
        cap: Duration::from_secs(cap),
    }
}

fn schema(path: &Path, faults: &mut Faults) -> Option<PayloadSchema> {
    match PayloadSchema::read(path) {
        Ok(schema) => Some(schema),
        Err(fault) => {
            faults.refuse("payload_schema", fault);
            None
        }
    }
}

fn command(
    mut argv: Vec<String>,
    environment: BTreeMap<String, String>,
    limits: Limits,
    folder: &Path,
    faults: &mut Faults,
) -> Option<CommandLine> {
    let before = faults.0.len();
    for (key, floor) in limits.too_small() {
        faults.refuse(key, format!("is too small: set it to at least {floor}"));
    }
    if argv.iter().any(|argument| argument.contains('\0')) {
        faults.refuse("command", "contains U+0000: remove it");
    }
    for (name, value) in &environment {
        let is_name = name.bytes().enumerate().all(|(place, byte)| {
            byte == b'_' || byte.is_ascii_alphabetic() || (place > 0 && byte.is_ascii_digit())
        });
        if name.is_empty() || !is_name || name.starts_with("OPS_") || value.contains('\0') {
            faults.refuse("env", "holds a name or value that cannot be set: names match [A-Za-z_][A-Za-z0-9_]* without OPS_");
        }
    }
    match argv.first_mut() {
        Some(program) if !program.is_empty() => {
            // A path is taken from the settings file's folder; a bare name is looked up in PATH.
            if program.contains('/') && !program.starts_with('/') {
                let path = std::path::absolute(folder.join(program.as_str())).ok()?;
                *program = path.to_str()?.to_owned();
            }
        }
        _ => faults.refuse(
            "command",
            "names no program: set it to a list, the program first",
        ),
    }
    (faults.0.len() == before).then_some(CommandLine {
        argv,
        environment,
        limits,
    })
}

fn http_call(table: HttpTable, faults: &mut Faults) -> Option<HttpCall> {
    let before = faults.0.len();
    let url = Url::parse(&table.url)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    if url.is_none() {
        faults.refuse(
            "http.url",
            "is no http:// or https:// address: write it like https://host/path",
        );
    }
    let method = match table.method.as_deref() {
        None | Some("POST") => Method::POST,
        Some("PUT") => Method::PUT,
        Some("PATCH") => Method::PATCH,
        Some("GET") => Method::GET,
        Some("DELETE") => Method::DELETE,
        Some(_) => {
            faults.refuse(
                "http.method",
                "is no method: set it to POST, PUT, PATCH, GET or DELETE",
            );
            Method::POST
        }
    };
    let mut headers = HeaderMap::new();
    for (name, value) in &table.headers {
        match (name.parse::<HeaderName>(), value.parse::<HeaderValue>()) {
            (Ok(name), Ok(mut value)) => {
                value.set_sensitive(true);
                headers.insert(name, value);
            }
            _ => faults.refuse(
                "http.headers",
                "holds a name or value that is no header: correct it",
            ),
        }
    }
    let mut expect = Vec::new();
    for status in table.expect {
        match StatusCode::from_u16(status) {
            Ok(status) => expect.push(status),
            Err(_) => faults.refuse(
                "http.expect",
                "holds what is no status: use numbers from 100 to 599",
            ),
        }
    }
    (faults.0.len() == before).then_some(HttpCall {
        method,
        url: url?,
        headers,
        expect,
    })
}
