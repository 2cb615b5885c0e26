//! What one request may cost, and what every answer bears.

use serde_json::json;
use tests::{API_KEY, System, wait_until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn every_answer_bears_the_callers_request_id_or_a_new_one() {
    let system = System::builder().start().await;
    let anyone = system.ops.anonymous();
    for client in [system.ops.clone(), anyone.clone(), anyone.at(""), system.runner(0), system.runner(0).anonymous()] {
        for path in ["/healthz", "/jobs", "/nothing"] {
            let answer = client.call("GET", path).header("x-request-id", "from-the.caller:1_2").send().await;
            assert_eq!(answer.header("x-request-id"), "from-the.caller:1_2", "{answer:?}");
            let (one, other) = (client.get(path).await, client.get(path).await);
            assert!(one.header("x-request-id").len() >= 8, "{one:?}");
            assert_ne!(one.header("x-request-id"), other.header("x-request-id"));
        }
        for insane in ["", "a b", "<script>", &"x".repeat(300)] {
            let answer = client.call("GET", "/nothing").header("x-request-id", insane).send().await;
            assert!(answer.header("x-request-id").len() >= 8 && answer.header("x-request-id") != insane, "{answer:?}");
        }
    }
    system.stop().await;
}

/// A request that is at work until it is given up: its body never ends.
async fn unfinished(system: &System) -> TcpStream {
    let mut stream = TcpStream::connect(system.ops.authority()).await.expect("a connection");
    let head = format!(
        "POST /api/v1/ops/jobs HTTP/1.1\r\nHost: test\r\nX-Ops-Key: {API_KEY}\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{{"
    );
    stream.write_all(head.as_bytes()).await.expect("sent");
    stream
}

#[tokio::test]
async fn more_requests_than_may_be_at_work_hear_429_and_when_to_come_again() {
    let system = System::builder().set("MAX_CONCURRENCY", "1").runners(0).start().await;
    let at_work = unfinished(&system).await;
    wait_until("the one place is taken", async || {
        let answer = system.ops.get("/jobs").await;
        (answer.status == 429).then(|| {
            answer.problem(429);
            assert!(answer.header("retry-after").parse::<u32>().is_ok_and(|seconds| seconds >= 1), "{answer:?}");
        })
    })
    .await;
    system.ops.anonymous().get("/jobs").await.problem(401);
    system.ops.anonymous().at("").get("/healthz").await.expect(200);
    drop(at_work);
    wait_until("the place is free again", async || (system.ops.get("/jobs").await.status == 200).then_some(())).await;
    system.stop().await;
}

#[tokio::test]
async fn a_body_over_the_limit_is_413_whether_its_length_was_announced_or_not() {
    let system = System::builder().set("MAX_BODY_BYTES", "1000").runners(0).start().await;
    let body = json!({"job_type": "a", "payload": "x".repeat(2000)}).to_string();
    system.ops.call("POST", "/jobs").text(body.clone()).send().await.problem(413);
    let mut stream = TcpStream::connect(system.ops.authority()).await.expect("a connection");
    let head = format!(
        "POST /api/v1/ops/jobs HTTP/1.1\r\nHost: test\r\nX-Ops-Key: {API_KEY}\r\nContent-Type: application/json\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    stream.write_all(format!("{head}{:x}\r\n{body}\r\n0\r\n\r\n", body.len()).as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert_eq!(system.database.count("select count(*) from ops_jobs").await, 0);
    system.stop().await;
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_408() {
    let system = System::builder().set("REQUEST_TIMEOUT_SECONDS", "1").runners(0).start().await;
    let mut at_work = unfinished(&system).await;
    let mut answer = [0; 12];
    at_work.read_exact(&mut answer).await.expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 408");
    system.stop().await;
}

#[tokio::test]
async fn debug_env_tells_what_is_set_and_no_word_that_a_scanner_looks_for() {
    let system = System::builder().runners(0).start().await;
    let answer = system.ops.get("/debug/env").await.expect(200);
    let body = answer.body.to_lowercase();
    for word in ["token", "url", "key"] {
        assert!(!body.contains(word), "{word}: {body}");
    }
    for value in [API_KEY, tests::RUNNER_TOKEN, tests::SECRET_KEY, &system.database.url] {
        assert!(!answer.body.contains(value), "{answer:?}");
    }
    assert!(answer.body.contains("DATABASE") && answer.body.contains("environment"), "{answer:?}");
    system.stop().await;
}

#[tokio::test]
async fn the_openapi_document_describes_every_route_of_this_release() {
    let system = System::builder().runners(0).start().await;
    let document = system.ops.get("/openapi.json").await.expect(200).json();
    assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")), "{document}");
    let paths: Vec<&String> = document["paths"].as_object().expect("paths").keys().collect();
    for path in [
        "/jobs", "/jobs/batch", "/jobs/{id}", "/jobs/{id}/events", "/jobs/{id}/log", "/jobs/{id}/abort", "/jobs/{id}/retry",
        "/trigger_runner", "/runners", "/meta", "/debug/env", "/openapi.json", "/healthz", "/livez", "/readyz",
    ] {
        assert!(paths.iter().any(|known| known.ends_with(path)), "{path}: {paths:?}");
    }
    system.stop().await;
}
