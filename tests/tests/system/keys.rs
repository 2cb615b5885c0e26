//! Keys that the control plane keeps digests of: what each opens, what it is named by, and when it opens nothing any more.

use serde_json::{Value, json};
use tests::{API_KEY, Client, Start, System, wait_until};

async fn opsctl(system: &System, arguments: &[&str]) -> (i32, String, String) {
    Start::of("opsctl")
        .arguments(arguments)
        .set("OPS_URL", &format!("http://{}", system.ops.authority()))
        .set("OPS_API_KEY", API_KEY)
        .run()
        .await
}

/// A caller with a new key of a scope, as an operator makes it, and what events name it by.
async fn key(system: &System, scope: &str) -> (Client, String) {
    let (key, id) = raw_key(system, scope).await;
    (system.ops.anonymous().with("x-ops-key", &key), id)
}

async fn raw_key(system: &System, scope: &str) -> (String, String) {
    let arguments = [
        "--output", "json", "keys", "new", "--scope", scope, "--name", "a test",
    ];
    let (code, told, said) = opsctl(system, &arguments).await;
    assert_eq!(code, 0, "{said}");
    let made: Value = serde_json::from_str(&told).expect("JSON");
    let text = |member: &str| made[member].as_str().expect(member).to_owned();
    (text("key"), text("id"))
}

#[tokio::test]
async fn each_scope_opens_what_it_says_and_what_is_before_it_and_nothing_else() {
    let system = System::builder().runners(0).start().await;
    let id = system.submit_type("a").await;
    let job = json!({"job_type": "a"});
    let abort = format!("/jobs/{id}/abort");
    for (place, scope) in ["read", "enqueue", "operate", "admin"]
        .into_iter()
        .enumerate()
    {
        let (client, key_id) = key(&system, scope).await;
        client.get("/jobs").await.expect(200);
        let answers = [
            ("enqueue", client.post("/jobs", &job).await),
            ("operate", client.press("/fleet/resume").await),
            ("admin", client.get("/keys").await),
        ];
        for (needed_place, (needed, answer)) in answers.into_iter().enumerate() {
            if needed_place < place {
                assert!(answer.status < 300, "{scope} {needed}: {answer:?}");
                if needed == "enqueue" {
                    assert_eq!(answer.json()["created_by"], key_id.as_str());
                }
            } else {
                let problem = answer.problem(403);
                assert_eq!(problem["scope_needed"], needed, "{scope}");
                let detail = problem["detail"].as_str().expect("text");
                assert!(
                    detail.contains(needed) && detail.contains(scope),
                    "{detail}"
                );
            }
        }
        // What is not there is not there for anybody with a key, and what is wrong is said after who may ask.
        client.get("/nothing").await.problem(404);
        client.call("PATCH", "/jobs").send().await.problem(405);
        if scope == "operate" {
            client.press(&abort).await.expect(202);
            let aborted = &system.events(&id).await[1];
            assert_eq!(aborted["actor"], key_id.as_str(), "{aborted}");
        } else if scope != "admin" {
            client.press(&abort).await.problem(403);
        }
    }
    let listed = system.ops.get("/keys").await.expect(200).json();
    let keys = listed["keys"].as_array().expect("keys");
    assert_eq!(keys.len(), 4);
    assert!(
        keys.iter().all(|key| key["last_used_at"].is_string()),
        "{keys:?}"
    );
    assert!(!listed.to_string().contains("opsd_"));
    system.stop().await;
}

#[tokio::test]
async fn a_revoked_key_opens_nothing_any_more_at_any_copy() {
    let system = System::builder().runners(0).control_planes(2).start().await;
    let (key, id) = raw_key(&system, "read").await;
    let [client, other] = [0, 1].map(|copy| {
        system
            .control_plane(copy)
            .anonymous()
            .with("authorization", &format!("Bearer {key}"))
    });
    let (code, listed, _) = opsctl(&system, &["keys", "list"]).await;
    assert!(
        code == 0 && listed.contains(&id) && !listed.contains("opsd_"),
        "{listed}"
    );
    client.get("/jobs").await.expect(200);
    other.get("/jobs").await.expect(200);
    let (code, _, said) = opsctl(&system, &["keys", "revoke", &id]).await;
    assert_eq!(code, 0, "{said}");
    let refused = client.get("/jobs").await;
    assert_eq!(
        refused.problem(401)["detail"],
        "Invalid or missing X-Ops-Key"
    );
    wait_until("the other copy has heard of it", async || {
        (other.get("/jobs").await.status == 401).then_some(())
    })
    .await;
    let (code, ..) = opsctl(&system, &["keys", "revoke", "key:00000000"]).await;
    assert_eq!(code, 3);
    system.stop().await;
}

#[tokio::test]
async fn a_copy_that_remembers_a_key_hears_of_its_revocation_soon() {
    let system = System::builder().runners(0).start().await;
    let (client, id) = key(&system, "read").await;
    client.get("/jobs").await.expect(200);
    // By hand, so that this copy is not told.
    sqlx::query("update ops_api_keys set revoked_at = now(), revoked_by = 'me' where id = $1")
        .bind(&id)
        .execute(&system.database.psql)
        .await
        .expect("revoked");
    wait_until("the key opens nothing", async || {
        (client.get("/jobs").await.status == 401).then_some(())
    })
    .await;
    system.stop().await;
}

#[tokio::test]
async fn wrong_keys_are_told_to_the_log_without_themselves_and_too_many_are_429() {
    let system = System::builder().runners(0).control_planes(0).start().await;
    let mut program = Start::of("control-plane")
        .environment(system.environment())
        .set("LOG_FORMAT", "json")
        .set("AUTH_FAILURES_PER_MINUTE", "5")
        .start();
    let anyone = Client::new(&format!("http://{}", program.address().await)).at("/api/ops");
    let guesser = anyone.with("x-ops-key", "canary-guess");
    let mut statuses = Vec::new();
    for _ in 0..8 {
        statuses.push(guesser.get("/jobs").await.status);
    }
    assert_eq!(statuses[..5], [401; 5]);
    let limited = guesser.get("/jobs").await;
    limited.problem(429);
    assert!(!limited.header("retry-after").is_empty());
    anyone.get("/jobs").await.problem(401);
    let right = anyone.with("x-ops-key", API_KEY);
    let counts = right.get("/keys").await.expect(200).json();
    assert_eq!(counts["failed_authentications"]["missing"], 1);
    assert_eq!(counts["failed_authentications"]["wrong"], 9);
    let told = program.logged("authentication_failed");
    assert!(
        told[0]["peer"] == "127.0.0.1" && told[0]["reason"] == "wrong",
        "{told:?}"
    );
    assert!(!program.stdout().contains("canary-guess"));
    program.terminate();
    assert_eq!(program.exit_code().await, 0);
    system.stop().await;
}

#[tokio::test]
async fn what_a_token_of_a_runner_records_bears_its_id() {
    let system = System::builder().shell("quick", "true", "").start().await;
    let run = json!({"job_type": "quick"});
    let answer = system.runner(0).post("/run", &run).await.expect(202).json();
    let id = answer["job_id"].as_str().expect("an id");
    let job = system.job(id).await;
    let by = job["created_by"].as_str().expect("text");
    assert!(by.starts_with("key:"), "{by}");
    assert_eq!(system.events(id).await[0]["actor"], by);
    system.stop().await;
}
