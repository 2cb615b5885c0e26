//! Both programs over HTTP, as they are reached from here: whether they answer, are ready, know the key and the token, fit
//! each other, and show a certificate that lasts.

use std::time::Duration;

use reqwest::tls::TlsInfo;
use serde_json::Value;
use service::http_client;
use url::Url;

use super::{Came, Finding, certificate};
use crate::client::ControlPlane;
use crate::error::{Error, sentence};
use crate::settings::{Settings, Trigger};

const TIMEOUT: Duration = Duration::from_secs(10);

pub(super) async fn look(settings: &Settings) -> Vec<Finding> {
    let mut findings = Vec::new();
    let meta = control_plane(settings, &mut findings).await;
    let runner = runner(settings, &mut findings).await;
    if let (Some(meta), Some(runner)) = (meta, runner) {
        findings.push(Finding::new(
            "releases and flags",
            agreement(&meta, &runner),
        ));
    }
    findings
}

/// What an open route says.
struct Seen {
    status: u16,
    detail: String,
    certificate: Option<Came>,
}

async fn ask(url: &str, token: Option<&str>) -> Result<(Seen, Value), String> {
    let agent = concat!("opsctl/", env!("CARGO_PKG_VERSION"));
    let client =
        http_client::client_that_tells_of_tls(TIMEOUT, agent).map_err(|error| error.to_string())?;
    let mut request = client.get(url);
    if let Some(token) = token {
        request = request.header("x-runner-token", token);
    }
    let answer = request.send().await.map_err(|error| {
        let error = error.without_url();
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(deeper) = cause {
            text = deeper.to_string();
            cause = deeper.source();
        }
        text
    })?;
    let certificate = answer
        .extensions()
        .get::<TlsInfo>()
        .and_then(TlsInfo::peer_certificate)
        .map(certificate::lasts);
    let status = answer.status().as_u16();
    let body: Value = answer
        .bytes()
        .await
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default();
    let detail = body["detail"].as_str().unwrap_or_default().to_owned();
    let seen = Seen {
        status,
        detail,
        certificate,
    };
    Ok((seen, body))
}

/// Whether it is ready; `false` where nobody answers.
async fn readiness(
    base: &str,
    whats: [&'static str; 2],
    setting: &str,
    findings: &mut Vec<Finding>,
) -> bool {
    let url = format!("{}/readyz", base.trim_end_matches('/'));
    match ask(&url, None).await {
        Err(why) => {
            let said =
                format!("it is not reached from here: {why}; check {setting}, and that it runs");
            findings.push(Finding::new(whats[0], Came::Wrong(said)));
            false
        }
        Ok((seen, _)) => {
            let came = match seen.status {
                200 => Came::Right("it is reached from here, and ready".to_owned()),
                503 => Came::Wrong(format!("it is not ready: {}", seen.detail)),
                other => Came::Wrong(format!(
                    "what answers {other} there is not ours: check {setting}"
                )),
            };
            findings.push(Finding::new(whats[0], came));
            if let Some(certificate) = seen.certificate {
                findings.push(Finding::new(whats[1], certificate));
            }
            seen.status == 200 || seen.status == 503
        }
    }
}

async fn control_plane(settings: &Settings, findings: &mut Vec<Finding>) -> Option<Value> {
    const KEY: &str = "key of the control plane";
    let access = match settings.access() {
        Ok(access) => access,
        Err(error) => {
            let came = Came::Skipped(error.to_string().replace('\n', " "));
            findings.push(Finding::new("control plane", came));
            return None;
        }
    };
    let whats = ["control plane", "certificate of the control plane"];
    if !readiness(&access.url, whats, "OPS_URL", findings).await {
        return None;
    }
    let client = ControlPlane::new(access).ok()?;
    let meta = match client.get("/meta", &[]).await {
        Ok(meta) => meta,
        Err(Error::Refused(refusal)) if refusal.status == 401 => {
            let said = "it is not accepted: OPS_API_KEY here is none of those there".to_owned();
            findings.push(Finding::new(KEY, Came::Wrong(said)));
            return None;
        }
        Err(error) => {
            findings.push(Finding::new(KEY, Came::Doubtful(sentence(&error))));
            return None;
        }
    };
    findings.push(Finding::new(KEY, Came::Right("it is accepted".to_owned())));
    match client.get("/runners", &[]).await {
        Ok(runners) => findings.push(Finding::new("runners", fleet(&runners))),
        Err(error) => findings.push(Finding::new("runners", Came::Doubtful(sentence(&error)))),
    }
    Some(meta)
}

fn fleet(answer: &Value) -> Came {
    let runners = answer["runners"].as_array().cloned().unwrap_or_default();
    let named = |is: &dyn Fn(&Value) -> bool| -> Vec<String> {
        let those = runners.iter().filter(|runner| is(runner));
        those
            .filter_map(|runner| runner["id"].as_str().map(str::to_owned))
            .collect()
    };
    let misfits = named(&|runner| runner["fits"] == false);
    let drained = named(&|runner| !runner["drain_requested_at"].is_null());
    if runners.is_empty() {
        Came::Wrong("the database knows of no runner: start one".to_owned())
    } else if !misfits.is_empty() {
        Came::Wrong(format!(
            "of a release that does not fit the database: {}; deploy one that does",
            misfits.join(", ")
        ))
    } else if !answer["pause"].is_null() {
        Came::Doubtful("the fleet is paused: opsctl fleet show".to_owned())
    } else if !drained.is_empty() {
        Came::Doubtful(format!("drained: {}", drained.join(", ")))
    } else {
        Came::Right(format!("{} known, and all fit", runners.len()))
    }
}

async fn runner(settings: &Settings, findings: &mut Vec<Finding>) -> Option<Value> {
    const TOKEN: &str = "token of the runner";
    let Trigger { url, token } = match settings.trigger() {
        Ok(Some(trigger)) => trigger,
        Ok(None) => {
            let said = "RUNNER_URL is not set here".to_owned();
            findings.push(Finding::new("runner", Came::Skipped(said)));
            return None;
        }
        Err(error) => {
            let came = Came::Wrong(error.to_string().replace('\n', " "));
            findings.push(Finding::new("runner", came));
            return None;
        }
    };
    let base = base(&url);
    let whats = ["runner", "certificate of the runner"];
    if !readiness(&base, whats, "RUNNER_URL", findings).await {
        return None;
    }
    let Some(token) = token else {
        let said = "RUNNER_TOKEN_OUTBOUND is not set here".to_owned();
        findings.push(Finding::new(TOKEN, Came::Skipped(said)));
        return None;
    };
    let (came, meta) = match ask(&format!("{base}/v1/meta"), Some(token.expose())).await {
        Ok((seen, meta)) if seen.status == 200 => {
            (Came::Right("it is accepted".to_owned()), Some(meta))
        }
        Ok((seen, _)) if seen.status == 401 => (
            Came::Wrong(
                "it is not accepted: RUNNER_TOKEN_OUTBOUND is none of the runner's RUNNER_TOKEN"
                    .to_owned(),
            ),
            None,
        ),
        Ok((seen, _)) => (Came::Wrong(format!("it is answered {}", seen.status)), None),
        Err(why) => (Came::Wrong(why), None),
    };
    findings.push(Finding::new(TOKEN, came));
    meta
}

fn base(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    url.as_str().trim_end_matches('/').to_owned()
}

/// The same release, and the same features, on both sides.
fn agreement(control_plane: &Value, runner: &Value) -> Came {
    let flags = |side: &Value| side["flags"].as_object().cloned().unwrap_or_default();
    let (here, there) = (flags(control_plane), flags(runner));
    let apart: Vec<String> = here
        .iter()
        .filter(|(name, on)| there.get(*name).is_some_and(|other| other != *on))
        .map(|(name, on)| {
            let word = if *on == Value::Bool(true) {
                "on"
            } else {
                "off"
            };
            format!("{name} is {word} for the control plane only")
        })
        .collect();
    if !apart.is_empty() {
        return Came::Wrong(
            apart
                .join("; ")
                .replace("off for the control plane only", "on for the runner only"),
        );
    }
    if control_plane["version"] != runner["version"] {
        return Came::Doubtful(format!(
            "the control plane is {}, the runner {}",
            control_plane["version"], runner["version"]
        ));
    }
    Came::Right("the same on both sides".to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn flags_that_differ_are_named_with_the_side_that_has_them_on() {
        let side = |on: bool| json!({"version": "1", "flags": {"GATES_ENABLED": on}});
        assert!(matches!(
            agreement(&side(true), &side(true)),
            Came::Right(_)
        ));
        for (here, said) in [
            (true, "GATES_ENABLED is on for the control plane only"),
            (false, "GATES_ENABLED is on for the runner only"),
        ] {
            let Came::Wrong(wrong) = agreement(&side(here), &side(!here)) else {
                panic!("right");
            };
            assert_eq!(wrong, said);
        }
    }
}
