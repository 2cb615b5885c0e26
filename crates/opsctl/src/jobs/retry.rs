//! `opsctl jobs retry`: one job by its id, or all that a filter matches, counted first.

use clap::Args;
use jobs::Name;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::show;
use crate::client::ControlPlane;
use crate::error::Error;
use crate::screen::{Output, Screen};

#[derive(Debug, Args)]
pub(crate) struct Retry {
    /// The job; without it, a filter that begins with --status
    #[arg(
        required_unless_present = "status",
        conflicts_with_all = [
            "status", "job_type", "queue", "error_contains", "created_after", "created_before", "limit", "dry_run",
        ]
    )]
    id: Option<Uuid>,
    /// A job with stages begins anew, instead of going on with the stage that failed
    #[arg(long, requires = "id")]
    from_start: bool,
    /// All of this status: failed or aborted
    #[arg(long, value_parser = ["failed", "aborted"])]
    status: Option<String>,
    /// Only of this type
    #[arg(long = "type", value_name = "TYPE", requires = "status")]
    job_type: Option<Name>,
    /// Only of this queue
    #[arg(long, requires = "status")]
    queue: Option<Name>,
    /// Only those whose error has this text in it
    #[arg(long, value_name = "TEXT", requires = "status")]
    error_contains: Option<String>,
    /// Recorded at this instant (RFC 3339) or later
    #[arg(long, value_name = "INSTANT", requires = "status")]
    created_after: Option<String>,
    /// Recorded before this instant (RFC 3339)
    #[arg(long, value_name = "INSTANT", requires = "status")]
    created_before: Option<String>,
    /// At most so many, the oldest first
    #[arg(long, value_name = "COUNT", requires = "status")]
    limit: Option<u32>,
    /// Only count them
    #[arg(long, requires = "status")]
    dry_run: bool,
    /// Why, for the events
    #[arg(long)]
    reason: Option<String>,
}

impl Retry {
    /// The request for all that the filter matches.
    fn body(self) -> Value {
        let filter = [
            ("status", self.status.map(Value::from)),
            ("job_type", self.job_type.map(String::from).map(Value::from)),
            ("queue", self.queue.map(String::from).map(Value::from)),
            ("error_contains", self.error_contains.map(Value::from)),
            ("created_after", self.created_after.map(Value::from)),
            ("created_before", self.created_before.map(Value::from)),
        ];
        let filter: Map<String, Value> = filter
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?)))
            .collect();
        json!({ "filter": filter, "dry_run": self.dry_run, "limit": self.limit, "reason": self.reason })
    }
}

pub(super) async fn run(
    retry: Retry,
    control_plane: &ControlPlane,
    screen: &Screen,
) -> Result<(), Error> {
    if let Some(id) = retry.id {
        let from = if retry.from_start {
            "start"
        } else {
            "failed_stage"
        };
        let body = json!({ "reason": retry.reason, "from": from });
        let path = format!("/jobs/{id}/retry");
        let job = control_plane.post(&path, &body, &[]).await?;
        show::job(&job, screen);
        return Ok(());
    }
    let answer = control_plane
        .post("/jobs/retry", &retry.body(), &[])
        .await?;
    match screen.output() {
        Output::Json => screen.json(&answer),
        Output::Text => {
            for name in ["matched", "retried"] {
                screen.line(&format!("{name:<18} {}", answer[name]));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        retry: Retry,
    }

    fn parse(arguments: &[&str]) -> Result<Retry, clap::Error> {
        Line::try_parse_from([&["x"], arguments].concat()).map(|line| line.retry)
    }

    #[test]
    fn a_retry_names_a_job_or_a_status_and_never_everything() {
        let id = Uuid::nil().to_string();
        assert_eq!(parse(&[&id]).expect("right").id, Some(Uuid::nil()));
        for wrong in [
            [].as_slice(),
            &["--type", "a"],
            &["--dry-run"],
            &["--status", "queued"],
            &[&id, "--status", "failed"],
            &[&id, "--dry-run"],
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_filter_is_sent_as_it_was_said() {
        let retry = parse(&[
            "--status",
            "failed",
            "--type",
            "a",
            "--error-contains",
            "x y",
            "--dry-run",
        ]);
        assert_eq!(
            retry.expect("right").body(),
            json!({
                "filter": { "status": "failed", "job_type": "a", "error_contains": "x y" },
                "dry_run": true, "limit": null, "reason": null,
            })
        );
    }
}
