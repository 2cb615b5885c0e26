//! The settings of both programs, as they are set here, and whether they fit each other. Asks nobody.

use service::SettingsError;

use super::{Came, Finding};
use crate::settings::Settings;

pub(super) fn look(settings: &Settings) -> Vec<Finding> {
    let control_plane = settings
        .has_any(&["SECRET_KEY", "CONTROL_PLANE_BIND", "RUNNER_URL"])
        .then(|| control_plane::Config::load(settings.sources()));
    let runner = settings
        .has_any(&["RUNNER_TOKEN", "RUNNER_BIND", "RUNNER_ALLOWLIST"])
        .then(|| runner::Config::load(settings.sources()));
    let mut findings = vec![
        Finding::new(
            "settings of the control plane",
            loaded(control_plane.as_ref()),
        ),
        Finding::new("settings of the runner", loaded(runner.as_ref())),
    ];
    if let (Some(Ok(control_plane)), Some(Ok(runner))) = (control_plane, runner) {
        let came = agreement(&control_plane, &runner);
        findings.push(Finding::new("settings together", came));
    }
    findings
}

fn loaded<T>(config: Option<&Result<T, SettingsError>>) -> Came {
    match config {
        None => Came::Skipped("none of them is set here".to_owned()),
        Some(Ok(_)) => Came::Right("nothing is wrong with them".to_owned()),
        Some(Err(error)) => {
            let problems = error.problems.iter();
            let told: Vec<_> = problems
                .map(|problem| format!("{} {}", problem.name, problem.detail))
                .collect();
            Came::Wrong(told.join("; "))
        }
    }
}

fn agreement(control_plane: &control_plane::Config, runner: &runner::Config) -> Came {
    let mut wrong = Vec::new();
    if let Some(address) = &control_plane.runner
        && !runner.accepts_token(&address.token)
    {
        wrong.push(
            "RUNNER_TOKEN_OUTBOUND is none of RUNNER_TOKEN: triggers will be answered 401"
                .to_owned(),
        );
    }
    let lease = runner.lease();
    if control_plane.stall_after >= lease {
        wrong.push("STALL_THRESHOLD_SECONDS is not below RUNNER_LEASE_SECONDS: no job will read as stalled before it is lost".to_owned());
    } else if control_plane.stall_after <= lease / 3 {
        wrong.push("STALL_THRESHOLD_SECONDS is not above a third of RUNNER_LEASE_SECONDS: healthy jobs will read as stalled".to_owned());
    }
    if wrong.is_empty() {
        Came::Right("they fit each other".to_owned())
    } else {
        Came::Wrong(wrong.join("; "))
    }
}
