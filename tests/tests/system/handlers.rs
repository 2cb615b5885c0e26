//! Handlers that are no commands: HTTP calls, the built-in rollup, and those of a program of a user's own.

use std::time::Duration;

use runner::{Context, Handler, Handlers, JobError, Terms};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tests::{Peer, Start, System, wait_until};
use uuid::Uuid;

#[tokio::test]
async fn the_answer_to_an_http_call_decides_how_the_job_ends() {
    let peer = Peer::answering().await;
    let mut builder = System::builder();
    for (name, status) in [("good", 200), ("gone", 404), ("busy", 503)] {
        let table = format!(
            "http = {{ url = \"{}/{status}\", headers = {{ X-From = \"us\" }} }}\nmax_attempts = 1",
            peer.url()
        );
        builder = builder.job_type(name, &table);
    }
    let system = builder
        .job_type("nobody", "http = { url = \"http://127.0.0.1:1/\" }")
        .start()
        .await;
    let good = system
        .run_until(
            &json!({"job_type": "good", "payload": {"a": "ü"}}),
            "succeeded",
        )
        .await;
    assert_eq!(good["result"], json!({"said": 200}));
    let heard = peer.heard().concat();
    assert!(
        heard.starts_with("POST /200 ") && heard.ends_with(r#"{"a":"ü"}"#),
        "{heard}"
    );
    assert!(
        heard.contains("x-from: us")
            && heard.contains(&format!(
                "x-ops-job-id: {}",
                good["id"].as_str().expect("an id")
            )),
        "{heard}"
    );
    for (job_type, attempts, kinds) in [
        ("gone", 3, vec!["queued", "running", "failed"]),
        (
            "busy",
            1,
            vec!["queued", "running", "failed", "dead_lettered"],
        ),
        (
            "nobody",
            1,
            vec!["queued", "running", "failed", "dead_lettered"],
        ),
    ] {
        let job = system
            .run_until(
                &json!({"job_type": job_type, "max_attempts": attempts}),
                "failed",
            )
            .await;
        assert_eq!(
            system.kinds(job["id"].as_str().expect("an id")).await,
            kinds,
            "{job_type}"
        );
        assert!(
            !job["error"].as_str().unwrap_or("http").contains("http"),
            "no address in {job}"
        );
    }
    let id = system
        .submit(&json!({"job_type": "busy", "max_attempts": 9}))
        .await;
    tests::wait_until("a 503 is tried again", async || {
        system
            .kinds(&id)
            .await
            .contains(&"retry_scheduled".to_owned())
            .then_some(())
    })
    .await;
    system.stop().await;
}

#[tokio::test]
async fn metrics_refresh_rolls_up_what_has_happened() {
    let system = System::builder()
        .shell("fine", "true", "")
        .shell("broken", "exit 75", "")
        .start()
        .await;
    for _ in 0..2 {
        system
            .run_until(&json!({"job_type": "fine"}), "succeeded")
            .await;
    }
    system
        .run_until(&json!({"job_type": "broken"}), "failed")
        .await;
    let job = system
        .run_until(&json!({"job_type": "metrics_refresh"}), "succeeded")
        .await;
    assert!(
        job["result"]["rows"].as_u64().is_some_and(|rows| rows >= 2),
        "{job}"
    );
    let count = |query| system.database.count(query);
    assert_eq!(
        count("select sum(succeeded)::bigint from ops_metrics where job_type = 'fine'").await,
        2
    );
    assert_eq!(
        count("select sum(failed)::bigint from ops_metrics where job_type = 'broken'").await,
        1
    );
    assert_eq!(
        count("select sum(dead_lettered)::bigint from ops_metrics where job_type = 'broken'").await,
        1
    );
    assert_eq!(
        count(
            "select count(*) from ops_metrics where job_type = 'fine' and run_ms_p95 is not null"
        )
        .await,
        1
    );
    system
        .ops
        .post(
            "/trigger_runner",
            &json!({"job_type": "metrics_refresh", "payload": {"hours": "canary"}}),
        )
        .await
        .problem(502);
    system.stop().await;
}

const LEASE: Duration = Duration::from_secs(3);

/// A user's handler that does what its payload says.
struct Obedient;

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Order {
    Succeed,
    SucceedAtLast,
    Fail,
    Panic,
    Wait,
    Block,
}

#[derive(Serialize)]
struct Done {
    attempt: i32,
}

impl Handler for Obedient {
    type Payload = Order;
    type Output = Done;

    async fn run(&self, context: &Context, order: Order) -> Result<Done, JobError> {
        context.log("an order");
        context.progress(0.5, "halfway").await?;
        match order {
            Order::Succeed => Ok(Done {
                attempt: context.attempt(),
            }),
            Order::SucceedAtLast if context.attempt() < 2 => Err(JobError::retry("not yet")),
            Order::SucceedAtLast => Ok(Done {
                attempt: context.attempt(),
            }),
            Order::Fail => Err(JobError::fail("as ordered")),
            Order::Panic => panic!("as ordered"),
            Order::Block => {
                std::thread::sleep(2 * LEASE);
                Ok(Done {
                    attempt: context.attempt(),
                })
            }
            Order::Wait => {
                context.cancelled().await;
                Err(JobError::retry("cancelled"))
            }
        }
    }
}

fn handlers() -> Handlers {
    let mut handlers = Handlers::default();
    handlers.add("obey", Terms::default().max_attempts(3), Obedient);
    handlers
}

fn order(word: &str) -> Value {
    json!({"job_type": "obey", "payload": word})
}

#[tokio::test]
async fn a_users_typed_handler_succeeds_retries_fails_and_may_panic() {
    let system = System::builder()
        .handlers(handlers)
        .allow("obey")
        .start()
        .await;
    let job = system.run_until(&order("succeed"), "succeeded").await;
    let id = job["id"].as_str().expect("an id");
    assert_eq!(
        (&job["result"], system.log(id).await.as_str()),
        (&json!({"attempt": 1}), "an order\n")
    );
    assert_eq!(
        system.kinds(id).await,
        ["queued", "running", "progress", "succeeded"]
    );
    let job = system
        .run_until(&order("succeed_at_last"), "succeeded")
        .await;
    assert_eq!(
        (&job["result"], &job["attempt"]),
        (&json!({"attempt": 2}), &json!(2))
    );
    for (word, error) in [("fail", "as ordered"), ("panic", "the handler panicked")] {
        let job = system.run_until(&order(word), "failed").await;
        assert_eq!(
            (&job["error"], &job["attempt"]),
            (&json!(error), &json!(1)),
            "{word}"
        );
    }
    let job = system.run_until(&order("dance"), "failed").await;
    assert!(
        job["error"]
            .as_str()
            .is_some_and(|error| error.contains("payload")),
        "{job}"
    );
    system.run_until(&order("succeed"), "succeeded").await;
    system.stop().await;
}

#[tokio::test]
async fn a_users_handler_hears_of_an_abort() {
    let builder = System::builder()
        .handlers(handlers)
        .allow("obey")
        .set("RUNNER_LEASE_SECONDS", "6");
    let system = builder.start().await;
    let id = system.submit(&order("wait")).await;
    system.until(&id, "running").await;
    system.abort(&id).await.expect(202);
    system.until(&id, "aborted").await;
    system.stop().await;
}

/// All that runs here, the runner too, shares the one thread of this test.
#[tokio::test]
async fn a_handler_that_blocks_every_thread_of_its_runner_keeps_its_lease() {
    let system = System::builder()
        .handlers(handlers)
        .allow("obey")
        .set("RUNNER_LEASE_SECONDS", "3")
        .start()
        .await;
    // Not over HTTP, whose limits are on the blocked thread too.
    let psql = &system.database.psql;
    let id: Uuid = sqlx::query_scalar("select ops_enqueue('obey', '\"block\"')")
        .fetch_one(psql)
        .await
        .expect("recorded");
    let renewed = wait_until("it has succeeded", async || {
        sqlx::query_scalar::<_, bool>(
            "select heartbeat_at > started_at + interval '3 seconds' from ops_jobs
             where id = $1 and status = 'succeeded' and attempt = 1",
        )
        .bind(id)
        .fetch_optional(psql)
        .await
        .expect("an answer")
    })
    .await;
    assert!(
        renewed,
        "it was renewed after its first lease would have ended"
    );
    system.stop().await;
}

#[tokio::test]
async fn the_example_of_a_users_program_runs_its_job() {
    let system = System::builder().runners(0).start().await;
    let start = Start::of("examples/typed_handler").environment(system.environment());
    let mut program = start.set("RUNNER_ALLOWLIST", "warm_cache").start();
    program.address().await;
    let job = system
        .run_until(
            &json!({"job_type": "warm_cache", "payload": {"pages": ["a", "b"]}}),
            "succeeded",
        )
        .await;
    assert_eq!(
        (&job["result"], &job["max_attempts"]),
        (&json!({"warmed": 2}), &json!(3))
    );
    assert_eq!(
        system.log(job["id"].as_str().expect("an id")).await,
        "warming a\nwarming b\n"
    );
    let empty = system
        .run_until(
            &json!({"job_type": "warm_cache", "payload": {"pages": []}}),
            "failed",
        )
        .await;
    assert_eq!(empty["error"], "there is no page to warm");
    program.terminate();
    assert_eq!(program.exit_code().await, 0);
    system.stop().await;
}
