//! A job's life with a gate in it, everything killed between any two steps.

use std::path::Path;

use local_postgres::Mode;
use local_postgres::testing::{PrivateCluster, private_cluster};
use serde_json::{Value, json};
use tests::{API_KEY, Client, Program, Start, System, wait_until};

/// What is killed between two steps, and started again.
struct Fleet<'a> {
    cluster: PrivateCluster,
    environment: Vec<(String, String)>,
    folder: &'a Path,
    programs: Vec<Program>,
    ops: Client,
}

impl<'a> Fleet<'a> {
    async fn start(cluster: PrivateCluster, system: &'a System) -> Self {
        let mut fleet = Self {
            cluster,
            environment: system.environment(),
            folder: system.folder(),
            programs: Vec::new(),
            ops: Client::new("http://127.0.0.1:1"),
        };
        fleet.launch().await;
        fleet
    }

    async fn launch(&mut self) {
        let work = self.folder.join("work-of-gates").display().to_string();
        let file = self.folder.join("runner.toml").display().to_string();
        let mut control_plane = Start::of("control-plane")
            .environment(self.environment.clone())
            .start();
        let mut runner = Start::of("runner")
            .environment(self.environment.clone())
            .arguments(&["--config", &file])
            .set("RUNNER_ID", "killed")
            .set("RUNNER_WORK_DIR", &work)
            .set("RUNNER_LEASE_SECONDS", "3")
            .set("RUNNER_POLL_INTERVAL_SECONDS", "1")
            .start();
        let url = format!("http://{}", control_plane.address().await);
        runner.address().await;
        self.ops = Client::new(&url)
            .at("/api/v1/ops")
            .with("x-ops-key", API_KEY);
        self.programs = vec![control_plane, runner];
    }

    /// `kill -9` of every program and of PostgreSQL; then all of it is started again.
    async fn kill_everything(mut self) -> Self {
        for program in std::mem::take(&mut self.programs) {
            program.kill9().await;
        }
        self.cluster = self
            .cluster
            .kill9()
            .await
            .expect("killed")
            .restart()
            .await
            .expect("back");
        self.launch().await;
        self
    }

    async fn until(&self, id: &str, status: &str) -> Value {
        wait_until(&format!("job {id} is {status}"), async || {
            let answer = self.ops.get(&format!("/jobs/{id}")).await;
            (answer.status == 200)
                .then(|| answer.json())
                .filter(|job| job["status"] == status)
        })
        .await
    }

    async fn decide(&self, id: &str, verb: &str, body: &Value) -> Value {
        let path = format!("/jobs/{id}/gates/script/{verb}");
        self.ops.post(&path, body).await.expect(200).json()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_life_with_a_gate_goes_on_though_everything_is_killed_between_any_two_steps() {
    let cluster = private_cluster(Mode::Durable).await.expect("a cluster");
    cluster.create_database("gates").await.expect("a database");
    let url = cluster.url("gates");
    tests::migrate(&url).await.expect("migrated");
    let system = System::builder()
        .shell("write", "cat > \"$OPS_RESULT_FILE\"", "")
        .shell(
            "publish",
            "cat \"$OPS_STAGES_FILE\" > \"$OPS_RESULT_FILE\"",
            "",
        )
        .set("GATES_ENABLED", "1")
        .set("RUNNER_ENABLED", "0")
        .on(&url)
        .runners(0)
        .control_planes(0)
        .start()
        .await;
    let fleet = Fleet::start(cluster, &system).await;
    let job = json!({
        "job_type": "write",
        "payload": {"tone": "harsh"},
        "max_attempts": 3,
        "stages": [{"name": "script", "gate": {}}, {"name": "publish", "job_type": "publish"}],
    });
    let id = fleet.ops.post("/jobs", &job).await.expect(201).json()["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    fleet.until(&id, "waiting").await;
    let fleet = fleet.kill_everything().await;
    let patch = json!({"reason": "too harsh", "patch": [{"op": "replace", "path": "/tone", "value": "kind"}]});
    let rejected = fleet.decide(&id, "reject", &patch).await;
    assert_eq!(rejected["gate"]["state"], "rejected");
    let fleet = fleet.kill_everything().await;
    assert_eq!(fleet.until(&id, "waiting").await["result"], Value::Null);
    fleet
        .ops
        .press(&format!("/jobs/{id}/resume"))
        .await
        .expect(202);
    wait_until("the gate is open again", async || {
        let answer = fleet.ops.get(&format!("/jobs/{id}/gates")).await;
        (answer.status == 200 && answer.json()["gates"][1]["state"] == "open").then_some(())
    })
    .await;
    let fleet = fleet.kill_everything().await;
    let gates = fleet
        .ops
        .get(&format!("/jobs/{id}/gates"))
        .await
        .expect(200)
        .json();
    assert_eq!(gates["gates"][1]["document"], json!({"tone": "kind"}));
    let shown = gates["gates"][1]["document_hash"].clone();
    fleet
        .decide(&id, "approve", &json!({"document_hash": shown}))
        .await;
    let fleet = fleet.kill_everything().await;
    let job = fleet.until(&id, "succeeded").await;
    assert_eq!(
        job["result"],
        json!([{"name": "script", "result": {"tone": "kind"}}])
    );
    assert_eq!(job["stages"][1]["status"], "succeeded");
    let fleet = fleet.kill_everything().await;
    let events = fleet
        .ops
        .get(&format!("/jobs/{id}/events"))
        .await
        .expect(200)
        .json();
    let decisions: Vec<&Value> = events["events"]
        .as_array()
        .expect("events")
        .iter()
        .map(|event| &event["kind"])
        .filter(|kind| {
            [
                "gate_opened",
                "gate_rejected",
                "resumed",
                "gate_approved",
                "succeeded",
            ]
            .iter()
            .any(|told| *kind == told)
        })
        .collect();
    assert_eq!(
        decisions,
        [
            "gate_opened",
            "gate_rejected",
            "resumed",
            "gate_opened",
            "gate_approved",
            "succeeded"
        ]
    );
    for program in fleet.programs {
        program.kill9().await;
    }
    fleet.cluster.stop().await.expect("stopped");
    system.stop().await;
}
