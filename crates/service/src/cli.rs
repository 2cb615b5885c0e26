//! The command line that every service program has, and its exit codes.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Command, FromArgMatches};

use crate::settings::SettingsError;

/// How a program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It did what it was asked.
    Ok,
    /// It could not.
    Failed,
    /// It was asked wrongly, or configured wrongly.
    WrongUsage,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Ok => Self::SUCCESS,
            Exit::Failed => Self::from(1),
            Exit::WrongUsage => Self::from(2),
        }
    }
}

/// The arguments of a service program.
#[derive(Debug, Clone, Default, Args)]
pub struct ServiceArgs {
    /// Settings file, .toml or .yaml; without it, the one that OPS_CONFIG names
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Reads the arguments of this process; `--help` and `--version` end it with 0, wrong usage with 2.
pub fn read(program: &'static str, version: &'static str, about: &'static str) -> ServiceArgs {
    let matches = command(program, version, about).get_matches();
    ServiceArgs::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

fn command(program: &'static str, version: &'static str, about: &'static str) -> Command {
    // The doc comment of the arguments would else stand for what the program does.
    ServiceArgs::augment_args(Command::new(program).version(version)).about(about)
}

/// Tells every wrong setting on standard error; a `main` ends with what comes back.
pub fn refuse_settings(program: &str, error: &SettingsError) -> Exit {
    complain(&format!(
        "{program}: the configuration is wrong:\n{error}\n"
    ));
    Exit::WrongUsage
}

/// Tells an error and its causes on standard error; a `main` ends with what comes back.
pub fn fail(program: &str, error: &dyn std::error::Error) -> Exit {
    let mut text = format!("{program}: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text.push('\n');
    complain(&text);
    Exit::Failed
}

fn complain(text: &str) {
    // Where standard error is closed, the exit code is all that can be said.
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<ServiceArgs, clap::Error> {
        let matches = command("p", "1.2.3", "does things").try_get_matches_from(arguments)?;
        ServiceArgs::from_arg_matches(&matches)
    }

    #[test]
    fn a_configuration_file_is_taken() {
        let arguments = parse(&["p", "--config", "a.toml"]).expect("right");
        assert_eq!(arguments.config, Some(PathBuf::from("a.toml")));
        assert_eq!(parse(&["p"]).expect("right").config, None);
    }

    #[test]
    fn help_and_version_end_well_and_wrong_usage_does_not() {
        for (arguments, code) in [
            (["p", "--help"].as_slice(), 0),
            (&["p", "--version"], 0),
            (&["p", "--confg"], 2),
            (&["p", "--config"], 2),
            (&["p", "extra"], 2),
        ] {
            let error = parse(arguments).expect_err("ends");
            assert_eq!(error.exit_code(), code, "{arguments:?}");
        }
    }
}
