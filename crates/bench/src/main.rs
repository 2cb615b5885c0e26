//! The program: starts a cluster, runs the workloads that are asked for, and tells what came of them.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for a person at a terminal"
)]

use std::path::PathBuf;
use std::process::ExitCode;

use bench::Result;
use bench::cluster::Bench;
use bench::peer;
use bench::report::Report;
use bench::scale::Scale;
use bench::serve::{Service, serve};
use bench::workloads::{Run, Workload};
use clap::{Args, Parser, Subcommand, ValueEnum as _};
use local_postgres::Mode;

/// How fast ops-jobs is, beside raw SQL and its peers, in one run on one cluster.
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    serve: Option<Serve>,
    #[command(flatten)]
    asked: Asked,
}

#[derive(Debug, Subcommand)]
enum Serve {
    /// Serve in this process, for a run in another.
    #[command(hide = true)]
    Serve {
        service: Service,
        url: String,
        runner_url: String,
    },
}

#[derive(Debug, Args)]
struct Asked {
    /// What to measure; everything when nothing is named
    workloads: Vec<Workload>,
    /// Small sizes, for trying: minutes in all
    #[arg(long)]
    small: bool,
    /// How often everything is measured
    #[arg(long)]
    rounds: Option<usize>,
    /// Queued jobs of a drain, several separated by commas
    #[arg(long, value_delimiter = ',')]
    jobs: Option<Vec<u64>>,
    /// Jobs queued behind, for `depth`
    #[arg(long)]
    behind: Option<u64>,
    /// Finished jobs that lie there, for `retained`
    #[arg(long)]
    retained: Option<u64>,
    /// How long a snapshot is held, for `bloat`
    #[arg(long)]
    held_seconds: Option<u64>,
    /// A JSON list of peers; see the README
    #[arg(long)]
    peers: Option<PathBuf>,
    /// Where the cluster lives and stays; else in a temporary folder that is removed
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Where the report goes as JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

impl Asked {
    fn scale(&self) -> Scale {
        let mut scale = if self.small {
            Scale::small()
        } else {
            Scale::full()
        };
        scale.rounds = self.rounds.unwrap_or(scale.rounds);
        scale.drains = self.jobs.clone().unwrap_or(scale.drains);
        scale.behind = self.behind.unwrap_or(scale.behind);
        scale.retained = self.retained.unwrap_or(scale.retained);
        scale.held = self
            .held_seconds
            .map_or(scale.held, std::time::Duration::from_secs);
        scale
    }
}

fn main() -> ExitCode {
    // The runner starts this program again to watch over its commands.
    if let Some(code) = runner::serve_as_shim() {
        return code;
    }
    service::install_crypto();
    let cli = Cli::parse();
    let ended = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Into::into)
        .and_then(|runtime| runtime.block_on(run(cli)));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<()> {
    if let Some(Serve::Serve {
        service,
        url,
        runner_url,
    }) = cli.serve
    {
        return serve(service, &url, &runner_url).await;
    }
    let asked = cli.asked;
    let peers = asked
        .peers
        .as_deref()
        .map_or_else(|| Ok(Vec::new()), peer::read)?;
    let bench = Bench::start(Mode::Measured, asked.folder.clone()).await?;
    let (mut report, scale) = (Report::default(), asked.scale());
    let all = Workload::value_variants();
    let workloads = if asked.workloads.is_empty() {
        all
    } else {
        &asked.workloads
    };
    for workload in workloads {
        let mut run = Run {
            bench: &bench,
            scale: &scale,
            peers: &peers,
            program: None,
            report: &mut report,
        };
        if let Err(error) = workload.run(&mut run).await {
            report.note(format!("{workload:?} failed: {error}"));
        }
    }
    bench.stop().await?;
    if let Some(path) = asked.json {
        std::fs::write(path, report.json()?)?;
    }
    println!("\n{report}");
    Ok(())
}
