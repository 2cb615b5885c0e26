//! What a flag that is off hides.

use serde_json::json;
use tests::{Answer, System};

fn without_request_id(answer: &Answer) -> serde_json::Value {
    let mut problem = answer.problem(404);
    problem
        .as_object_mut()
        .expect("an object")
        .remove("request_id");
    problem
}

#[tokio::test]
async fn routes_behind_a_flag_that_is_off_are_as_if_they_did_not_exist() {
    let builder = System::builder()
        .set("JOBS_ENABLED", "0")
        .set("RUNNER_ENABLED", "0")
        .set("FEATURE_METRICS", "0");
    let system = builder.runners(0).start().await;
    let id = "0190163d-8694-739b-aea5-966c26f8ad90";
    for base in ["/api/v1/ops", "/api/ops"] {
        let ops = system.ops.at(base);
        let unknown = without_request_id(&ops.get("/there/is/no/such/path").await);
        for (method, path) in [
            ("GET", "/jobs".to_owned()),
            ("POST", "/jobs".to_owned()),
            ("PUT", "/jobs".to_owned()),
            ("POST", "/jobs/batch".to_owned()),
            ("GET", format!("/jobs/{id}")),
            ("GET", format!("/jobs/{id}/events")),
            ("GET", format!("/jobs/{id}/log")),
            ("POST", format!("/jobs/{id}/abort")),
            ("POST", format!("/jobs/{id}/retry")),
            ("POST", "/trigger_runner".to_owned()),
            ("GET", "/runners".to_owned()),
            ("GET", "/health/metrics".to_owned()),
            ("GET", "/metrics".to_owned()),
            ("GET", "/schedules".to_owned()),
            ("GET", "/notion".to_owned()),
        ] {
            let answer = ops.call(method, &path).text("{").send().await;
            assert_eq!(without_request_id(&answer), unknown, "{method} {path}");
            assert_eq!(answer.header("allow"), "", "{method} {path}");
        }
        ops.get("/meta").await.expect(200);
        ops.get("/openapi.json").await.expect(200);
    }
    let openapi = system.ops.get("/openapi.json").await.json();
    assert!(
        openapi["paths"]
            .as_object()
            .is_some_and(|paths| paths.keys().all(|path| !path.contains("/jobs")))
    );
    system.stop().await;
}

#[tokio::test]
async fn job_types_behind_a_flag_that_is_off_are_refused_and_nothing_is_recorded() {
    let system = System::builder().set("FEATURE_METRICS", "0").start().await;
    for (job_type, flag) in [
        ("metrics_refresh", "FEATURE_METRICS"),
        ("nearsight_collect_refresh", "NEARSIGHT_ENABLED"),
        ("captorator_compose", "CAPTORATOR_ENABLED"),
    ] {
        let job = json!({ "job_type": job_type });
        for (path, body) in [
            ("/jobs", job.clone()),
            (
                "/jobs/batch",
                json!({ "jobs": [{"job_type": "other"}, job] }),
            ),
            ("/trigger_runner", job.clone()),
        ] {
            let problem = system.ops.post(path, &body).await.problem(403);
            assert!(problem.to_string().contains(flag), "{path}: {problem}");
        }
        system.runner(0).post("/run", &job).await.problem(403);
    }
    assert_eq!(
        system.database.count("select count(*) from ops_jobs").await,
        0
    );
    system.stop().await;
}

#[tokio::test]
async fn meta_tells_version_flags_types_and_limits_and_can_be_switched_off() {
    let system = System::builder()
        .shell("mine", "true", "")
        .set("MAX_BODY_BYTES", "4321")
        .start()
        .await;
    tests::wait_until("the runner has reported", async || {
        let meta = system.ops.get("/meta").await.expect(200).json();
        let types = meta["job_types"].as_array().cloned().unwrap_or_default();
        (types == [json!("metrics_refresh"), json!("mine")]).then_some(())
    })
    .await;
    let meta = system.ops.get("/meta").await.expect(200).json();
    assert_eq!(meta["flags"]["JOBS_ENABLED"], true);
    assert_eq!(meta["flags"]["GATES_ENABLED"], false);
    assert_eq!(meta["limits"]["max_body_bytes"], 4321);
    assert!(
        meta["version"]
            .as_str()
            .is_some_and(|version| version.contains('.')),
        "{meta}"
    );
    system.stop().await;
    let system = System::builder()
        .set("META_ENABLED", "0")
        .runners(0)
        .start()
        .await;
    system.ops.get("/meta").await.problem(404);
    system.stop().await;
}
