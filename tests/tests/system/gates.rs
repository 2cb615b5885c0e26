//! Stages and gates over HTTP: decided once, behind their flag, by key and by signed link.

use serde_json::{Value, json};
use tests::{Builder, Start, System};
use tokio::task::JoinSet;

const ECHO: &str = "cat > \"$OPS_RESULT_FILE\"";

fn gated() -> Value {
    json!({
        "job_type": "echo",
        "payload": {"text": "<b>bad</b>"},
        "stages": [{"name": "draft", "gate": {}}, {"name": "send", "payload": {"sent": true}}],
    })
}

fn builder() -> Builder {
    System::builder()
        .shell("echo", ECHO, "")
        .set("GATES_ENABLED", "1")
}

#[tokio::test]
async fn of_fifty_decisions_at_once_one_stands_and_the_others_are_told_which() {
    let system = builder()
        .set("DATABASE_MAX_CONNECTIONS", "30")
        .start()
        .await;
    let id = system.submit(&gated()).await;
    system.until(&id, "waiting").await;
    let mut deciding = JoinSet::new();
    for number in 0..50 {
        let ops = system.ops.clone();
        let verb = if number % 2 == 0 { "approve" } else { "reject" };
        let path = format!("/jobs/{id}/gates/draft/{verb}");
        let body = json!({"reason": format!("number {number}")});
        deciding.spawn(async move { ops.post(&path, &body).await });
    }
    let answers = deciding.join_all().await;
    let (stood, late): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
    assert_eq!((stood.len(), late.len()), (1, 49));
    let gate = stood[0].json()["gate"].clone();
    for answer in late {
        let decision = answer.problem(409)["decision"].clone();
        assert_eq!(
            (
                &decision["state"],
                &decision["reason"],
                &decision["decided_by"]
            ),
            (&gate["state"], &gate["reason"], &gate["decided_by"])
        );
    }
    if gate["state"] == "rejected" {
        system
            .ops
            .press(&format!("/jobs/{id}/resume"))
            .await
            .expect(202);
        system.until(&id, "waiting").await;
        system.abort(&id).await.expect(202);
    } else {
        system.until(&id, "succeeded").await;
    }
    system.stop().await;
}

#[tokio::test]
async fn a_patch_is_applied_whole_or_nothing_is_decided() {
    let system = builder().start().await;
    let id = system.submit(&gated()).await;
    let path = format!("/jobs/{id}/gates/draft/approve");
    system.until(&id, "waiting").await;
    for patch in [
        json!([{"op": "replace", "path": "/text", "value": "x"}, {"op": "remove", "path": "/none"}]),
        json!([{"op": "replace", "path": "/job_type", "value": "other"}]),
        json!({"text": "x"}),
    ] {
        let refused = system.ops.post(&path, &json!({ "patch": patch })).await;
        refused.problem(422);
        assert_eq!(refused.wrong_fields(), ["/patch"], "{patch}");
    }
    let hash = "0".repeat(64);
    let changed = system
        .ops
        .post(&path, &json!({ "document_hash": hash }))
        .await;
    assert_eq!(
        changed.problem(409)["type"],
        "urn:ops-jobs:problem:gate-changed"
    );
    assert_eq!(system.job(&id).await["status"], "waiting");
    let patch = json!([{"op": "replace", "path": "/text", "value": "good"}]);
    let decided = system
        .ops
        .post(&path, &json!({ "patch": patch }))
        .await
        .expect(200)
        .json();
    assert_eq!(decided["gate"]["patched"], json!({"text": "good"}));
    let job = system.until(&id, "succeeded").await;
    assert_eq!(job["stages"][0]["result"], json!({"text": "good"}));
    assert_eq!(
        (&job["result"], &job["job_type"]),
        (&json!({"sent": true}), &json!("echo"))
    );
    for (path, status) in [
        (format!("/jobs/{id}/gates/other/approve"), 404),
        (format!("/jobs/{id}/gates/send/approve"), 404),
        (
            "/jobs/0190163d-8694-739b-aea5-966c26f8ad90/gates/draft/approve".to_owned(),
            404,
        ),
        ("/jobs/nonsense/gates/draft/reject".to_owned(), 404),
        (format!("/jobs/{id}/gates/draft/reject"), 409),
    ] {
        system.ops.press(&path).await.problem(status);
    }
    system.stop().await;
}

#[tokio::test]
async fn with_the_flag_off_there_are_no_gates_and_no_jobs_with_stages() {
    let system = System::builder().shell("echo", ECHO, "").start().await;
    let refused = system.ops.post("/jobs", &gated()).await.problem(403);
    assert_eq!(refused["flag"], "GATES_ENABLED");
    system
        .ops
        .post(
            "/jobs/batch",
            &json!({"jobs": [{"job_type": "echo"}, gated()]}),
        )
        .await
        .problem(403);
    system
        .ops
        .post("/trigger_runner", &gated())
        .await
        .problem(403);
    let id: String =
        sqlx::query_scalar("select ops_enqueue('echo', stages => '[{\"name\": \"draft\"}]')::text")
            .fetch_one(&system.database.psql)
            .await
            .expect("recorded by hand");
    let plain = system.submit_type("echo").await;
    system.until(&plain, "succeeded").await;
    assert_eq!(system.job(&id).await["status"], "queued", "not touched");
    system
        .runner(0)
        .post("/run", &json!({ "job_id": id }))
        .await
        .problem(403);
    for path in ["/gates", &format!("/jobs/{id}/gates")] {
        system.ops.get(path).await.problem(404);
    }
    system
        .ops
        .press(&format!("/jobs/{id}/gates/draft/approve"))
        .await
        .problem(404);
    system
        .ops
        .anonymous()
        .at("")
        .get("/gates/x")
        .await
        .problem(404);
    system.stop().await;
}

#[tokio::test]
async fn a_stage_of_a_type_that_no_runner_allows_is_never_run() {
    let system = builder().start().await;
    let sneaky = json!({
        "job_type": "echo",
        "stages": [{"name": "first"}, {"name": "second", "job_type": "forbidden"}],
    });
    let id = system.submit(&sneaky).await;
    tests::wait_until("the first stage is done", async || {
        let job = system.job(&id).await;
        (job["stages"][0]["status"] == "succeeded").then_some(())
    })
    .await;
    system
        .runner(0)
        .post("/run", &json!({ "job_id": id }))
        .await
        .problem(403);
    system.runner(0).press("/tick").await.expect(200);
    let job = system.job(&id).await;
    assert_eq!(
        (&job["status"], &job["stages"][1]["attempts"]),
        (&json!("queued"), &json!(0))
    );
    system.stop().await;
}

#[tokio::test]
async fn a_signed_link_shows_without_deciding_and_decides_once() {
    let system = builder().start().await;
    let id = system.submit(&gated()).await;
    system.until(&id, "waiting").await;
    let made = system
        .ops
        .press(&format!("/jobs/{id}/gates/draft/links"))
        .await
        .expect(200)
        .json();
    let path = |number: usize| {
        made["links"][number]["path"]
            .as_str()
            .expect("a path")
            .to_owned()
    };
    let (approve, reject) = (path(0), path(1));
    let anyone = system.ops.anonymous().at("");
    for _ in 0..3 {
        let page = anyone.get(&approve).await.expect(200);
        assert!(
            page.body.contains("&lt;b&gt;bad") && !page.body.contains("<b>bad"),
            "{}",
            page.body
        );
        assert_eq!(page.header("referrer-policy"), "no-referrer");
    }
    assert_eq!(
        system.job(&id).await["status"],
        "waiting",
        "looking decides nothing"
    );
    let mut forged = approve.clone();
    forged.pop();
    anyone.press(&forged).await.problem(404);
    anyone.press(&approve).await.expect(200);
    for used in [&approve, &reject] {
        anyone.press(used).await.problem(409);
        anyone.get(used).await.problem(409);
    }
    let job = system.until(&id, "succeeded").await;
    let gates = system
        .ops
        .get(&format!("/jobs/{id}/gates"))
        .await
        .expect(200)
        .json();
    assert_eq!(gates["gates"][0]["decided_by"], job["created_by"]);
    system
        .ops
        .press(&format!("/jobs/{id}/gates/draft/links"))
        .await
        .problem(409);

    let id = system.submit(&gated()).await;
    system.until(&id, "waiting").await;
    let made = system
        .ops
        .post(
            &format!("/jobs/{id}/gates/draft/links"),
            &json!({"expires_in_seconds": 1}),
        )
        .await
        .expect(200)
        .json();
    let link = made["links"][0]["path"]
        .as_str()
        .expect("a path")
        .to_owned();
    tests::wait_until("the link has expired", async || {
        (anyone.get(&link).await.status == 410).then_some(())
    })
    .await;
    anyone.press(&link).await.problem(410);
    assert_eq!(system.job(&id).await["status"], "waiting");
    system.abort(&id).await.expect(202);
    system.stop().await;
}

#[tokio::test]
async fn time_approves_without_anybody() {
    let system = builder().start().await;
    let mut job = gated();
    job["stages"][0]["gate"] = json!({"auto_approve_after_seconds": 0});
    let id = system.submit(&job).await;
    system.until(&id, "succeeded").await;
    let gates = system
        .ops
        .get(&format!("/jobs/{id}/gates"))
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&gates["gates"][0]["automatic"], &gates["gates"][0]["state"]),
        (&json!(true), &json!("approved"))
    );
    system.stop().await;
}

#[tokio::test]
async fn the_operators_command_shows_and_decides() {
    let system = builder().start().await;
    let id = system.submit(&gated()).await;
    system.until(&id, "waiting").await;
    let opsctl = async |arguments: &[&str]| {
        let start = Start::of("opsctl")
            .environment(system.environment())
            .set("OPS_URL", &system.ops.at("").url(""))
            .arguments(&["--output", "json"])
            .arguments(arguments);
        let (code, stdout, stderr) = start.run().await;
        assert_eq!(code, 0, "{arguments:?}: {stderr}");
        serde_json::from_str::<Value>(&stdout).expect("JSON")
    };
    assert_eq!(opsctl(&["gates", "list"]).await["gates"][0]["job_id"], id);
    let links = opsctl(&["gates", "links", &id, "draft", "--expires-in", "60"]).await;
    let path = links["links"][0]["path"].as_str().expect("a path");
    let page = system.ops.at("").anonymous().get(path).await.expect(200);
    assert!(page.body.contains("draft"), "{page:?}");
    let patch = r#"[{"op": "replace", "path": "/text", "value": "good"}]"#;
    let said = [
        "gates", "reject", &id, "draft", "--reason", "bad", "--patch", patch,
    ];
    assert_eq!(opsctl(&said).await["gate"]["state"], "rejected");
    opsctl(&["jobs", "resume", &id]).await;
    let open = tests::wait_until("the gate is open again", async || {
        let gates = opsctl(&["gates", "show", &id]).await;
        (gates["gates"][1]["state"] == "open").then_some(gates)
    })
    .await;
    assert_eq!(open["gates"][1]["document"], json!({"text": "good"}));
    opsctl(&["gates", "approve", &id, "draft", "--revision", "2"]).await;
    system.until(&id, "succeeded").await;
    system.stop().await;
}
