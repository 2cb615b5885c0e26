//! One trace from the caller to the end of the job, as a receiver of OTLP sees it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use serde_json::json;
use service::{ConnectionLimits, Listener, Stop, Stopper, serve};
use tests::{System, wait_until};
use tokio::task::JoinSet;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

type Spans = Arc<Mutex<Vec<(String, Span)>>>;

/// A receiver of OTLP over HTTP on a port of its own.
struct Receiver {
    url: String,
    spans: Spans,
    stopper: Stopper,
    serving: JoinSet<()>,
}

impl Receiver {
    async fn start() -> Self {
        let spans = Spans::default();
        let router = Router::new()
            .route("/v1/traces", post(receive))
            .with_state(Arc::clone(&spans));
        let bind = "127.0.0.1:0".parse().expect("an address");
        let listener = Listener::bind(bind, None).await.expect("a port");
        let url = listener.url();
        let (stopper, stop) = Stop::new();
        let mut serving = JoinSet::new();
        serving.spawn(serve(
            listener,
            router,
            ConnectionLimits::for_concurrency(16),
            stop,
        ));
        Self {
            url,
            spans,
            stopper,
            serving,
        }
    }

    /// The spans by service and name, of the one trace that there is.
    fn by_name(&self) -> BTreeMap<String, Span> {
        let spans = self.spans.lock().expect("spans");
        spans
            .iter()
            .filter(|(_, span)| hex(&span.trace_id) == TRACE)
            .map(|(service, span)| (format!("{service}: {}", span.name), span.clone()))
            .collect()
    }

    async fn stop(mut self) {
        self.stopper.stop_at_once();
        while self.serving.join_next().await.is_some() {}
    }
}

async fn receive(State(spans): State<Spans>, body: Bytes) {
    let request = ExportTraceServiceRequest::decode(body).expect("protobuf");
    for of_resource in request.resource_spans {
        let attributes = of_resource.resource.map(|resource| resource.attributes);
        let service = text(&attributes.unwrap_or_default(), "service.name");
        let all = of_resource
            .scope_spans
            .into_iter()
            .flat_map(|scope| scope.spans);
        let mut kept = spans.lock().expect("spans");
        kept.extend(all.map(|span| (service.clone(), span)));
    }
}

fn text(attributes: &[opentelemetry_proto::tonic::common::v1::KeyValue], key: &str) -> String {
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    let found = attributes.iter().find(|attribute| attribute.key == key);
    match found.and_then(|attribute| attribute.value.as_ref()?.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(other) => format!("{other:?}"),
        None => String::new(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_trace_leads_from_the_callers_span_to_the_handlers_environment_and_the_finish() {
    let receiver = Receiver::start().await;
    let system = System::builder()
        .shell(
            "traced",
            r#"printf '{"parent": "%s", "state": "%s"}' "$TRACEPARENT" "$TRACESTATE" > "$OPS_RESULT_FILE""#,
            "",
        )
        .set("OTEL_EXPORTER_OTLP_ENDPOINT", &receiver.url)
        .start()
        .await;
    let answer = system
        .ops
        .call("POST", "/trigger_runner")
        .header("traceparent", &format!("00-{TRACE}-{CALLER}-01"))
        .header("tracestate", "vendor=1")
        .json(&json!({ "job_type": "traced", "payload": { "secret": "canary" } }))
        .send()
        .await
        .expect(202);
    let id = answer.json()["job"]["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let job = system.until(&id, "succeeded").await;
    system.stop().await;
    let spans = receiver.by_name();
    let span = |name: &str| {
        spans
            .get(name)
            .unwrap_or_else(|| panic!("{name} among {:?}", spans.keys()))
    };
    let is_child = |child: &str, parent: &str| {
        assert_eq!(
            span(child).parent_span_id,
            span(parent).span_id,
            "{child} is a child of {parent}"
        );
    };
    let server = "ops-jobs-control-plane: POST /api/v1/ops/trigger_runner";
    assert_eq!(hex(&span(server).parent_span_id), CALLER);
    assert_eq!(span(server).trace_state, "vendor=1");
    is_child("ops-jobs-control-plane: send default", server);
    is_child("ops-jobs-control-plane: POST /run", server);
    is_child(
        "ops-jobs-runner: POST /run",
        "ops-jobs-control-plane: POST /run",
    );
    let process = "ops-jobs-runner: process default";
    is_child(process, "ops-jobs-control-plane: send default");
    is_child("ops-jobs-runner: handle traced", process);
    is_child("ops-jobs-runner: settle default", process);
    let handler = hex(&span("ops-jobs-runner: handle traced").span_id);
    assert_eq!(job["result"]["parent"], format!("00-{TRACE}-{handler}-01"));
    assert_eq!(job["result"]["state"], "vendor=1");
    let attributes = &span(process).attributes;
    for (key, expected) in [
        ("messaging.system", "ops_jobs"),
        ("messaging.destination.name", "default"),
        ("messaging.operation.type", "process"),
        ("messaging.message.id", id.as_str()),
        ("ops.outcome", "succeeded"),
    ] {
        assert_eq!(text(attributes, key), expected, "{key}");
    }
    assert!(
        !format!("{spans:?}").contains("canary"),
        "no payload is in a span"
    );
    receiver.stop().await;
}

#[tokio::test]
async fn without_an_endpoint_the_callers_own_span_reaches_the_handler() {
    let system = System::builder()
        .shell(
            "traced",
            r#"printf '"%s"' "$TRACEPARENT" > "$OPS_RESULT_FILE""#,
            "",
        )
        .start()
        .await;
    let parent = format!("00-{TRACE}-{CALLER}-00");
    for (sent, expected) in [(parent.as_str(), parent.as_str()), ("00-forged", "")] {
        let answer = system
            .ops
            .call("POST", "/jobs")
            .header("traceparent", sent)
            .json(&json!({ "job_type": "traced" }))
            .send()
            .await
            .expect(201);
        let id = answer.json()["id"].as_str().expect("an id").to_owned();
        assert_eq!(system.until(&id, "succeeded").await["result"], expected);
    }
    system.stop().await;
}

#[tokio::test]
async fn a_receiver_that_is_not_there_costs_no_request_and_no_job() {
    let system = System::builder()
        .shell("traced", "true", "")
        .set("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
        .start()
        .await;
    for _ in 0..5 {
        let job = json!({ "job_type": "traced" });
        let answer = system.ops.post("/trigger_runner", &job).await.expect(202);
        let id = answer.json()["job"]["id"]
            .as_str()
            .expect("an id")
            .to_owned();
        wait_until("it has succeeded", async || {
            (system.job(&id).await["status"] == "succeeded").then_some(())
        })
        .await;
    }
    system.stop().await;
}
