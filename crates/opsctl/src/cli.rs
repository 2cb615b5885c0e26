//! The command line: every group of commands with its arguments. Does nothing.

use std::path::PathBuf;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::screen::{Color, Output};
use crate::{
    artifacts, db, dev, doctor, exit, fleet, gates, jobs, keys, load_test, logs, notion, reference,
    retention, run, runners, schedules, smoke, webhooks,
};

/// The operator's command of ops-jobs: a development set-up, the database, the jobs.
#[derive(Debug, Parser)]
#[command(name = "opsctl", version, after_help = exit::TABLE, propagate_version = false)]
pub struct Cli {
    /// Settings file, .toml or .yaml; without it, the one that OPS_CONFIG names
    #[arg(
        long,
        global = true,
        help_heading = "Options of every command",
        value_name = "FILE"
    )]
    pub(crate) config: Option<PathBuf>,
    /// In which form data are written to standard output
    #[arg(
        long,
        global = true,
        help_heading = "Options of every command",
        value_enum,
        default_value = "text",
        value_name = "FORM"
    )]
    pub(crate) output: Output,
    /// Colours; `auto` heeds NO_COLOR
    #[arg(
        long,
        global = true,
        help_heading = "Options of every command",
        value_enum,
        default_value = "auto",
        value_name = "WHEN"
    )]
    pub(crate) color: Color,
    #[command(subcommand)]
    pub(crate) group: Group,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Group {
    /// Serve everything on this machine, with a real first job to look at
    Dev(dev::Dev),
    /// The database's schema and roles; needs DATABASE_URL
    #[command(subcommand)]
    Db(db::Command),
    /// Fold the events of every job and report what they do not explain; needs DATABASE_URL
    Verify,
    /// Record, follow and steer jobs; needs OPS_URL and OPS_API_KEY
    #[command(subcommand)]
    Jobs(jobs::Command),
    /// Show and decide what waits for a person; needs OPS_URL and OPS_API_KEY
    #[command(subcommand)]
    Gates(gates::Command),
    /// Print what a job printed, or prints; `summarize` reads the services' own lines
    Logs(logs::Logs),
    /// What jobs left: list and fetch it
    #[command(subcommand)]
    Artifacts(artifacts::Command),
    /// Record a job with files, and, if asked to, wait for it and fetch what it left
    Run(run::Run),
    /// Work that nobody starts by hand: make, look ahead, pause, fire; needs OPS_URL and OPS_API_KEY
    #[command(subcommand)]
    Schedules(schedules::Command),
    /// Endpoints that are told what happens to jobs: make, try, follow what was sent; needs OPS_URL and OPS_API_KEY
    #[command(subcommand)]
    Webhooks(webhooks::Command),
    /// Finished jobs as pages of a Notion database: how that fares, publish again; needs OPS_URL and OPS_API_KEY
    #[command(subcommand)]
    Notion(notion::Command),
    /// Run a real job down every road and check each answer: on the stack at OPS_URL, else on one of its own
    Smoke(smoke::Smoke),
    /// Rounds of real jobs by several callers, with limits: on the stack at OPS_URL, else on one of its own
    LoadTest(load_test::LoadTest),
    /// How long ended jobs are kept: show, set, apply; needs DATABASE_URL
    #[command(subcommand)]
    Retention(retention::Command),
    /// Look at all that a stack stands on, from here: settings, reach, schema, clock, roles, certificates, leaks
    Doctor(doctor::Doctor),
    /// Keep every runner from taking jobs, or let them again
    #[command(subcommand)]
    Fleet(fleet::Command),
    /// The runners, their slots and when they were last seen; drain and forget single ones
    Runners {
        #[command(subcommand)]
        command: Option<runners::Command>,
    },
    /// Make, list and revoke keys
    #[command(subcommand)]
    Keys(keys::Command),
    /// The control plane's version, flags, job types and limits
    Meta,
    /// Write the references that are made from the code
    Reference(reference::Reference),
    /// Print the completions of a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the manual page
    Man,
}

/// The whole command line, as the parser, the completions and the reference see it.
pub fn command() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn right_usage_is_taken_and_wrong_usage_refused() {
        for right in [
            "opsctl dev",
            "opsctl dev --exit --ephemeral --control-plane-port 0 --runner-port 9000",
            "opsctl dev reset --yes --state /tmp/x",
            "opsctl db migrate --output json",
            "opsctl --output json db rollback --to 2",
            "opsctl db rollback --all --yes",
            "opsctl jobs submit hello --payload {} --label a=b --label c=d --priority -3 --wait --trigger",
            "opsctl jobs list --status queued --label a=b --stalled --limit 10",
            "opsctl jobs abort 0190163d-8694-739b-aea5-966c26f8ad90 --reason late",
            "opsctl jobs why 0190163d-8694-739b-aea5-966c26f8ad90",
            "opsctl jobs log 0190163d-8694-739b-aea5-966c26f8ad90",
            "opsctl jobs watch 0190163d-8694-739b-aea5-966c26f8ad90 --after 3",
            "opsctl logs 0190163d-8694-739b-aea5-966c26f8ad90 --follow --after 3",
            "opsctl logs summarize a.log b.log - --output json",
            "opsctl artifacts list 0190163d-8694-739b-aea5-966c26f8ad90",
            "opsctl artifacts get 0190163d-8694-739b-aea5-966c26f8ad90 deep/a.txt --to b.txt --force",
            "opsctl artifacts zip 0190163d-8694-739b-aea5-966c26f8ad90",
            "opsctl run a.docx b.json --type document_render --payload {} --wait --zip out.zip",
            "opsctl schedules create nightly --cron @daily --timezone Europe/Berlin --type a --catch-up all --overlap skip",
            "opsctl schedules update nightly --jitter 60",
            "opsctl schedules pause nightly --reason moon",
            "opsctl schedules fires nightly --outcome missed --limit 5",
            "opsctl schedules preview @daily --timezone UTC --count 3",
            "opsctl webhooks create deploys --url https://h/ --event failed --queue a --give-up-after 60",
            "opsctl webhooks resend deploys --since 2026-01-01T00:00:00Z",
            "opsctl webhooks secret deploys",
            "opsctl webhooks signing-key",
            "opsctl notion status",
            "opsctl notion retry 0190163d-8694-739b-aea5-966c26f8ad90",
            "opsctl fleet show",
            "opsctl fleet pause --reason moving",
            "opsctl fleet resume",
            "opsctl runners",
            "opsctl runners list --output json",
            "opsctl runners drain r1 --reason disk",
            "opsctl runners undrain r1",
            "opsctl runners forget r1",
            "opsctl keys new",
            "opsctl keys new --for runner-token",
            "opsctl keys new --scope enqueue --name ci --expires-in-days 90",
            "opsctl keys list",
            "opsctl keys revoke key:ba7816bf",
            "opsctl db rights",
            "opsctl doctor --output json",
            "opsctl doctor --canary --type canary --log a.log --log b.log",
            "opsctl verify --output json",
            "opsctl retention show",
            "opsctl retention set --status succeeded --status failed --type a --keep 7d",
            "opsctl retention run --dry-run",
            "opsctl db backup --to x",
            "opsctl db restore x.dump --yes",
            "opsctl db drill x.dump",
            "opsctl gates list",
            "opsctl gates links 0190163d-8694-739b-aea5-966c26f8ad90 draft --expires-in 60",
            "opsctl gates reject 0190163d-8694-739b-aea5-966c26f8ad90 draft --patch [] --reason late --revision 2",
            "opsctl jobs retry 0190163d-8694-739b-aea5-966c26f8ad90 --from-start",
            "opsctl load-test --rounds 2 --warm-up 0 --jobs 5 --concurrency 3 --results r --max-wait-p95-ms 9",
            "opsctl smoke --type smoke --patience 5 --output json",
            "opsctl reference --check",
            "opsctl completions bash",
            "opsctl man",
        ] {
            assert!(Cli::try_parse_from(right.split(' ')).is_ok(), "{right}");
        }
        for wrong in [
            "opsctl",
            "opsctl dev --state a reset",
            "opsctl dev --control-plane-port 70000",
            "opsctl db rollback --to 1 --all",
            "opsctl jobs submit",
            "opsctl run",
            "opsctl logs",
            "opsctl logs summarize",
            "opsctl logs not-an-id",
            "opsctl keys new --scope enqueue",
            "opsctl keys new --scope all --name ci",
            "opsctl runners drain",
            "opsctl doctor --log a.log",
            "opsctl load-test --rounds 0",
            "opsctl smoke --patience 0",
            "opsctl retention set --keep 7d",
            "opsctl retention set --status running --keep 7d",
            "opsctl retention set --status failed --keep soon",
            "opsctl db restore",
            "opsctl run a.docx --zip out.zip",
            "opsctl jobs submit hello --label a",
            "opsctl jobs submit hello --label =a",
            "opsctl jobs get not-an-id",
            "opsctl --output xml meta",
            "opsctl --key secret meta",
        ] {
            let error = Cli::try_parse_from(wrong.split(' ')).expect_err(wrong);
            assert!(error.use_stderr(), "{wrong}");
        }
    }

    #[test]
    fn no_argument_takes_a_secret() {
        fn arguments(command: &clap::Command) -> Vec<String> {
            let own = command
                .get_arguments()
                .map(|argument| argument.get_id().to_string());
            own.chain(command.get_subcommands().flat_map(arguments))
                .collect()
        }
        for argument in arguments(&command()) {
            let secret = ["key", "token", "password", "secret", "database"]
                .iter()
                .any(|word| argument.contains(word));
            assert!(!secret || argument == "idempotency_key", "{argument}");
        }
    }
}
