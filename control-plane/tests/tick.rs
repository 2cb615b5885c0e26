//! Ticks, replays and resumes over HTTP, on a real database, with a runner that only answers.
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails, and says why"
)]

use std::time::Duration;

use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use control_plane::{Config, ControlPlane};
use jobs::{
    ClaimRequest, Name, NewJob, OnLost, Outcome, RunnerIdentity, Store, StoreOptions, TypeTerms,
};
use local_postgres::testing::TestDatabase;
use serde_json::{Value, json};
use service::{Environment, Sources};
use tokio::task::JoinSet;
use uuid::Uuid;

const KEY: &str = "opsk_of_the_tick_test";

struct Service {
    control_plane: ControlPlane,
    http: reqwest::Client,
    store: Store,
    _database: TestDatabase,
    _runner: JoinSet<()>,
}

fn store_on(url: String) -> Store {
    Store::new(&StoreOptions::new(url, 2, "test")).expect("an address")
}

/// Says that it runs whatever it is asked to, and runs nothing.
async fn runner(tasks: &mut JoinSet<()>) -> String {
    let run = async |Json(asked): Json<Value>| {
        let answer = json!({ "job_id": asked["job_id"], "status": "running", "attempt": 1, "runner_id": "r" });
        (StatusCode::ACCEPTED, Json(answer))
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let address = listener.local_addr().expect("an address");
    tasks.spawn(async move {
        let router = Router::new().route("/run", post(run));
        axum::serve(listener, router).await.expect("serves");
    });
    format!("http://{address}")
}

impl Service {
    async fn start(settings: &[(&str, &str)]) -> Self {
        service::install_crypto();
        let key = format!("jobs_{}", jobs::schema_fingerprint());
        let database = local_postgres::testing::database(&key, async |url| {
            let store = store_on(url);
            store.migrate().await.expect("the migrations apply");
            store.close().await;
            Ok(())
        });
        let database = database.await.expect("a test database");
        let mut tasks = JoinSet::new();
        let runner_url = runner(&mut tasks).await;
        let base = [
            ("APP_ENV", "test"),
            ("DATABASE_URL", database.url.as_str()),
            ("SECRET_KEY", "secret_key_of_the_tick_test_0123456789"),
            ("OPS_API_KEY", KEY),
            ("CONTROL_PLANE_BIND", "127.0.0.1:0"),
            ("RUNNER_URL", &runner_url),
            ("RUNNER_TOKEN_OUTBOUND", "opsr_of_the_tick_test"),
            ("JOBS_ENABLED", "1"),
            ("RUNNER_ENABLED", "1"),
        ];
        let environment = Environment::from_pairs(base.into_iter().chain(settings.iter().copied()));
        let sources = Sources {
            config: None,
            environment,
        };
        let config = Config::load(sources).unwrap_or_else(|error| panic!("{error}"));
        Self {
            control_plane: control_plane::start(config).await.expect("a control plane"),
            http: service::http_client::client(Duration::from_secs(10), "test").expect("a client"),
            store: store_on(database.url.clone()),
            _database: database,
            _runner: tasks,
        }
    }

    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        let url = format!("{}/api/v1/ops{path}", self.control_plane.url());
        let request = self.http.post(url).header("x-ops-key", KEY).json(&body);
        let answer = request.send().await.expect("an answer");
        (
            answer.status().as_u16(),
            answer.json().await.expect("a JSON body"),
        )
    }

    async fn tick(&self) -> Value {
        let (status, answer) = self.post("/tick", json!({})).await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    async fn record(&self, new: NewJob) -> Uuid {
        let recorded = self.store.submit(new, "key:test").await.expect("recorded");
        recorded.into_job().id
    }

    /// Claims a job for a runner whose lease lasts so long.
    async fn take(&self, id: Uuid, lease: Duration, on_lost: OnLost) -> jobs::LeasedJob {
        let runner = RunnerIdentity {
            id: "r".to_owned(),
            boot_id: Uuid::nil(),
        };
        let types = [TypeTerms {
            on_lost,
            ..TypeTerms::new(name("a"))
        }];
        let request = ClaimRequest {
            runner: &runner,
            types: &types,
            lease,
            at_work: 0,
            stages: true,
        };
        self.store.claim_by_id(request, id).await.expect("a lease")
    }
}

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

fn new() -> NewJob {
    NewJob::new(name("a"), json!({}))
}

fn counts(recovered: u64, expired: u64, triggered: u64) -> Value {
    json!({ "recovered": recovered, "expired": expired, "triggered": triggered, "fired": 0, "settled": 0, "delivered": 0, "published": 0, "removed": 0 })
}

#[tokio::test]
async fn a_tick_does_what_is_due_once_and_again_nothing() {
    let service = Service::start(&[("RUNNER_ENABLED", "0")]).await;
    let lost = service.record(new()).await;
    service.take(lost, Duration::ZERO, OnLost::Retry).await;
    let waits = service.record(new()).await;
    assert_eq!(service.tick().await, counts(1, 0, 0));
    assert_eq!(
        service.tick().await,
        counts(0, 0, 0),
        "no trigger without the flag"
    );
    let waits = service.store.get(waits).await.expect("an answer");
    assert_eq!(waits.expect("the job").status, jobs::Status::Queued);
}

#[tokio::test]
async fn a_tick_triggers_for_one_due_job_and_says_so() {
    let service = Service::start(&[]).await;
    assert_eq!(service.tick().await, counts(0, 0, 0));
    service.record(new()).await;
    assert_eq!(service.tick().await, counts(0, 0, 1));
}

#[tokio::test]
async fn a_tick_survives_a_runner_that_is_away() {
    let service = Service::start(&[("RUNNER_URL", "http://127.0.0.1:1")]).await;
    service.record(new()).await;
    assert_eq!(service.tick().await, counts(0, 0, 0));
}

#[tokio::test]
async fn failed_jobs_are_counted_and_then_queued_again_by_filter() {
    let service = Service::start(&[]).await;
    for error in ["disk full", "disk full", "wrong"] {
        let id = service.record(new()).await;
        let leased = service
            .take(id, Duration::from_secs(30), OnLost::Retry)
            .await;
        let finished = service
            .store
            .finish(leased.lease, Outcome::Failed(error.to_owned()));
        finished.await.expect("recorded");
    }
    let filter = json!({ "status": "failed", "job_type": "a", "error_contains": "disk" });
    for (body, expected) in [
        (
            json!({ "filter": filter, "dry_run": true }),
            json!({ "matched": 2, "retried": 0 }),
        ),
        (
            json!({ "filter": filter, "limit": 1, "reason": "a larger disk" }),
            json!({ "matched": 2, "retried": 1 }),
        ),
        (
            json!({ "filter": filter }),
            json!({ "matched": 1, "retried": 1 }),
        ),
        (
            json!({ "filter": filter }),
            json!({ "matched": 0, "retried": 0 }),
        ),
    ] {
        assert_eq!(
            service.post("/jobs/retry", body.clone()).await,
            (200, expected),
            "{body}"
        );
    }
    let (status, _) = service
        .post(
            "/jobs/retry",
            json!({ "filter": { "status": "succeeded" } }),
        )
        .await;
    assert_eq!(status, 422);
}

#[tokio::test]
async fn a_held_job_is_resumed_once() {
    let service = Service::start(&[("RUNNER_ENABLED", "0")]).await;
    let id = service.record(new()).await;
    service.take(id, Duration::ZERO, OnLost::Hold).await;
    let path = format!("/jobs/{id}/resume");
    assert_eq!(service.post(&path, json!({})).await.0, 409);
    assert_eq!(service.tick().await, counts(1, 0, 0));
    let (status, job) = service
        .post(&path, json!({ "reason": "it had not begun" }))
        .await;
    assert_eq!((status, &job["status"]), (202, &json!("queued")));
    assert_eq!(service.post(&path, json!({})).await.0, 409);
}
