//! This program as a service of its own process: the product's control plane, the product's runner, and the bare servers
//! that the first is compared with. Each prints `READY` and its address, and serves until it is killed.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{MethodRouter, post};
use axum::serve::ListenerExt as _;
use axum::{Json, Router};
use serde_json::Value;
use service::{Environment, Sources};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::Result;
use crate::child::{Process, this_program};
use crate::load::Request;
use crate::noop::{NoopRunner, TOKEN};
use crate::raw;

/// The key of our control plane.
const KEY: &str = "bench-operator-key";

/// The table of the bare server.
pub const BARE_TABLE: &str = "
create table bare_jobs (
  id uuid primary key, kind text not null, payload jsonb not null, state text not null default 'queued',
  created_at timestamptz not null default now()
)";

/// Which service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Service {
    /// The product's control plane.
    ControlPlane,
    /// axum and sqlx, one insert a request.
    Bare,
    /// axum over raw SQL that writes the product's rows and events, those of concurrent requests together.
    Grouped,
    /// axum, which answers as if it had recorded: what the machine has for HTTP and for the load itself.
    Forgetful,
    /// The product's runner with a handler that does nothing.
    Runner,
}

/// A service in a process of its own.
#[derive(Debug)]
pub struct Served {
    /// The process.
    pub process: Process,
    /// `host:port`.
    pub address: String,
}

impl Served {
    /// Starts one on this database; triggers of a control plane go to `runner_url`.
    ///
    /// # Errors
    /// When it does not begin to serve.
    pub async fn start(
        program: Option<&str>,
        service: Service,
        url: &str,
        runner_url: &str,
    ) -> Result<Self> {
        let word = match service {
            Service::ControlPlane => "control-plane",
            Service::Bare => "bare",
            Service::Grouped => "grouped",
            Service::Forgetful => "forgetful",
            Service::Runner => "runner",
        };
        let program = program.map_or_else(this_program, |program| Ok(program.to_owned()))?;
        let argv = [program.as_str(), "serve", word, url, runner_url].map(str::to_owned);
        let mut process = Process::start(&argv, &[])?;
        let address = process.after("READY").await?;
        Ok(Self { process, address })
    }

    /// The request that records a job.
    pub fn create(&self, service: Service) -> Request {
        let (path, body, headers) = match service {
            Service::Bare | Service::Grouped | Service::Forgetful => (
                "/jobs",
                r#"{"kind":"noop","payload":{"id":1}}"#,
                String::new(),
            ),
            Service::ControlPlane | Service::Runner => (
                "/api/v1/ops/jobs",
                r#"{"job_type":"noop","payload":{"id":1}}"#,
                format!("x-ops-key: {KEY}\r\n"),
            ),
        };
        Request {
            address: self.address.clone(),
            path,
            headers,
            body: body.to_owned(),
            expected: 201,
        }
    }

    /// The request that records so many jobs.
    pub fn create_batch(&self, jobs: usize) -> Request {
        let job = r#"{"job_type":"noop","payload":{"id":1}}"#;
        let body = format!(r#"{{"jobs":[{}]}}"#, vec![job; jobs].join(","));
        Request {
            path: "/api/v1/ops/jobs/batch",
            body,
            ..self.create(Service::ControlPlane)
        }
    }

    /// The request that records a job and triggers the runner.
    pub fn trigger(&self) -> Request {
        Request {
            path: "/api/v1/ops/trigger_runner",
            body: r#"{"job_type":"probe","payload":{"id":1}}"#.to_owned(),
            expected: 202,
            ..self.create(Service::ControlPlane)
        }
    }
}

/// Serves, as `bench serve` does.
///
/// # Errors
/// When it cannot listen.
pub async fn serve(service: Service, url: &str, runner_url: &str) -> Result<()> {
    match service {
        Service::ControlPlane => serve_control_plane(url, runner_url).await,
        Service::Bare => {
            let pool = pool(url, 16).await?;
            serve_jobs(post(insert_one).with_state(Arc::new(pool))).await
        }
        Service::Grouped => {
            let (give, take) = mpsc::channel(MOST_AT_ONCE);
            let mut grouping = JoinSet::new();
            grouping.spawn(insert_groups(pool(url, 1).await?, take));
            serve_jobs(post(insert_with_others).with_state(give)).await
        }
        Service::Forgetful => serve_jobs(post(forget_one)).await,
        Service::Runner => {
            let runner = NoopRunner::start(url, &[], None).await?;
            ready(runner.url());
            std::future::pending().await
        }
    }
}

#[expect(clippy::print_stdout, reason = "who started this process reads it")]
fn ready(address: &str) {
    println!("READY {address}");
}

async fn serve_control_plane(url: &str, runner_url: &str) -> Result<()> {
    let settings = [
        ("APP_ENV", "test"),
        ("DATABASE_URL", url),
        ("SECRET_KEY", "of the bench, and of nobody else"),
        ("OPS_API_KEY", KEY),
        ("CONTROL_PLANE_BIND", "127.0.0.1:0"),
        ("JOBS_ENABLED", "1"),
        ("RUNNER_ENABLED", "1"),
        ("RUNNER_URL", runner_url),
        ("RUNNER_TOKEN_OUTBOUND", TOKEN),
        ("MAX_BODY_BYTES", "16777216"),
    ];
    let config = control_plane::Config::load(Sources {
        config: None,
        environment: Environment::from_pairs(settings),
    })?;
    let serving = control_plane::start(config).await?;
    ready(&serving.address().to_string());
    std::future::pending().await
}

async fn serve_jobs(create: MethodRouter) -> Result<()> {
    let router = Router::new().route("/jobs", create);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    ready(&listener.local_addr()?.to_string());
    let listener = listener.tap_io(|stream| {
        // Without it answers wait for acknowledgements; if it cannot be had, they do.
        let _ = stream.set_nodelay(true);
    });
    Ok(axum::serve(listener, router).await?)
}

async fn pool(url: &str, connections: u32) -> Result<PgPool> {
    Ok(PgPoolOptions::new()
        .max_connections(connections)
        .min_connections(connections)
        .connect(url)
        .await?)
}

/// Requests that wait at most, and go together at most.
const MOST_AT_ONCE: usize = 500;

/// A payload to record, and whom to tell.
type Wish = (Value, oneshot::Sender<StatusCode>);

/// One statement after the other, each with all that came meanwhile.
async fn insert_groups(pool: PgPool, mut take: mpsc::Receiver<Wish>) {
    let mut group = Vec::new();
    while take.recv_many(&mut group, MOST_AT_ONCE).await > 0 {
        let (payloads, told): (Vec<_>, Vec<_>) = group.drain(..).unzip();
        let status = match raw::enqueue(&pool, &payloads).await {
            Ok(()) => StatusCode::CREATED,
            Err(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        for tell in told {
            // Who has hung up needs no answer.
            let _: std::result::Result<(), _> = tell.send(status);
        }
    }
}

async fn insert_with_others(
    State(give): State<mpsc::Sender<Wish>>,
    Json(body): Json<Value>,
) -> (StatusCode, Json<Value>) {
    let (tell, told) = oneshot::channel();
    if give.send((body["payload"].clone(), tell)).await.is_err() {
        return (StatusCode::SERVICE_UNAVAILABLE, Json(Value::Null));
    }
    let status = told.await.unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    (status, Json(body))
}

async fn forget_one(Json(body): Json<Value>) -> (StatusCode, Json<Value>) {
    (StatusCode::CREATED, Json(body))
}

async fn insert_one(
    State(pool): State<Arc<PgPool>>,
    Json(body): Json<Value>,
) -> (StatusCode, Json<Value>) {
    let id = service::ids::uuid_v7();
    let inserted = sqlx::query("insert into bare_jobs (id, kind, payload) values ($1, $2, $3)")
        .bind(id)
        .bind(body["kind"].as_str())
        .bind(&body["payload"])
        .execute(&*pool)
        .await;
    match inserted {
        Ok(_) => (StatusCode::CREATED, Json(Value::from(id.to_string()))),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, Json(Value::Null)),
    }
}
