//! Logs on standard output: one JSON object a line, or lines for people on a terminal; or in a file.
//!
//! Levels and formats are settings, not the environment's; a panic is logged by its place only,
//! because its message may quote what must not be shown.

mod json;

use std::fs::File;
use std::io::IsTerminal;
use std::panic::PanicHookInfo;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt};

use crate::settings::Values;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// Lines for people.
    Pretty,
}

/// How and how much a program logs.
#[derive(Debug, Clone)]
pub struct LogSettings {
    /// How log lines look.
    pub format: LogFormat,
    /// A level, or directives like `info,sqlx=warn`.
    pub level: String,
}

impl LogSettings {
    /// Reads `LOG_FORMAT` and `LOG_LEVEL`.
    pub fn read(values: &mut Values) -> Self {
        let format = match values.choice("LOG_FORMAT") {
            Some("json") => LogFormat::Json,
            Some("pretty") => LogFormat::Pretty,
            _ if std::io::stdout().is_terminal() => LogFormat::Pretty,
            _ => LogFormat::Json,
        };
        let level = values.text("LOG_LEVEL");
        if EnvFilter::try_new(&level).is_err() {
            values.refuse(
                "LOG_LEVEL",
                "is no level: set it to error, warn, info, debug, trace or directives like info,sqlx=warn",
            );
        }
        Self { format, level }
    }
}

/// Starts logging for the whole process, panics included; the first call wins.
pub fn init(settings: &LogSettings) {
    let registry = tracing_subscriber::registry().with(filter(settings));
    let started = match settings.format {
        LogFormat::Json => registry.with(json::JsonLines::Stdout).try_init(),
        LogFormat::Pretty => {
            let ansi = std::io::stdout().is_terminal();
            registry
                .with(fmt::layer().with_ansi(ansi).with_target(false))
                .try_init()
        }
    };
    if started.is_ok() {
        std::panic::set_hook(Box::new(log_panic));
    }
}

/// As [`init`], but as JSON lines to a file, whatever the format: for a program whose standard output is for people.
pub fn init_to_file(settings: &LogSettings, file: File) {
    let started = tracing_subscriber::registry()
        .with(filter(settings))
        .with(json::JsonLines::File(file))
        .try_init();
    if started.is_ok() {
        std::panic::set_hook(Box::new(log_panic));
    }
}

fn filter(settings: &LogSettings) -> EnvFilter {
    let filter = EnvFilter::try_new(&settings.level).unwrap_or_else(|_| EnvFilter::new("info"));
    // It quotes the parameters of DATABASE_URL that it does not know.
    match "sqlx_postgres::options=off".parse() {
        Ok(silence) => filter.add_directive(silence),
        Err(_) => filter,
    }
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let place = panic
        .location()
        .map(ToString::to_string)
        .unwrap_or_default();
    tracing::error!(event = "panic", place, "panicked");
}
