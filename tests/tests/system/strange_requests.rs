//! What only careless, hostile or very many callers send.

use serde_json::json;
use tests::System;

#[tokio::test]
async fn nothing_that_a_caller_sends_gets_a_500() {
    let system = System::builder().shell("a", "true", "").start().await;
    let long = "x".repeat(9000);
    for path in [
        "/jobs?status=%00",
        "/jobs?label=%00%3Dx",
        "/jobs?label=a%3D%00",
        "/jobs?label=%FF%3D%FE",
        "/jobs?queue=%F0%9F",
        "/jobs?cursor=%00",
        "/jobs?created_after=0001-01-01T00:00:00Z&created_before=9999-12-31T23:59:59Z",
        "/jobs?created_after=-4713-01-01T00:00:00Z",
        "/jobs?created_after=2026-02-30T00:00:00Z",
        "/jobs?limit=99999999999999999999",
        "/jobs?limit=-1",
        "/jobs?%00=%00&&&=&=a",
        "/jobs/%FF%FE",
        "/jobs/00000000-0000-0000-0000-000000000000",
        "/jobs/%2e%2e/log",
        "/jobs//events",
        &format!("/jobs?label={long}%3D{long}"),
        &format!("/jobs/{long}"),
    ] {
        for method in ["GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH"] {
            let status = system.ops.call(method, path).send().await.status;
            assert!((200..500).contains(&status), "{method} {path}: {status}");
        }
    }
    for payload in [
        "1e308",
        "-0.0",
        "5e-324",
        "1e400",
        "-1e400",
        "0.1e-400",
        "1E+2",
        "18446744073709551616",
        "-9223372036854775809",
        r#""\ud800""#,
        r#""\udc00\ud800""#,
        r#"{"\u0000":1}"#,
        r#""\u0000""#,
        r#"{"":{"":[[]]}}"#,
        r#""\u007f\u0085\u2028""#,
        "[,]",
        "nul",
        "+1",
    ] {
        let body = format!(r#"{{"job_type":"a","payload":{payload}}}"#);
        for (client, path) in [
            (&system.ops, "/jobs"),
            (&system.ops, "/trigger_runner"),
            (&system.runner(0), "/run"),
        ] {
            let answer = client.call("POST", path).text(body.clone()).send().await;
            assert!(
                (200..500).contains(&answer.status),
                "{path} {payload}: {answer:?}"
            );
        }
    }
    for field in [
        r#""labels":{"a\u0000":"b"}"#,
        r#""labels":{"a":"\u0000"}"#,
        r#""labels":{"":""}"#,
        r#""labels":[]"#,
        r#""run_at":"9999-12-31T23:59:59.999999999Z""#,
        r#""run_at":"0000-01-01T00:00:00Z""#,
        r#""run_at":"2026-06-30T23:59:60Z""#,
        r#""priority":1e2"#,
        r#""priority":1.0"#,
        r#""priority":-32769"#,
        r#""ttl_seconds":2147483648"#,
        r#""timeout_seconds":1e18"#,
        r#""max_attempts":true"#,
        r#""queue":"\u0000""#,
        r#""job_id":"\u0000""#,
    ] {
        let body = format!(r#"{{"job_type":"a",{field}}}"#);
        for path in ["/jobs", "/trigger_runner"] {
            let answer = system
                .ops
                .call("POST", path)
                .text(body.clone())
                .send()
                .await;
            assert!(
                (200..500).contains(&answer.status),
                "{path} {field}: {answer:?}"
            );
        }
        let batch = format!(r#"{{"jobs":[{body}]}}"#);
        let answer = system
            .ops
            .call("POST", "/jobs/batch")
            .text(batch)
            .send()
            .await;
        assert!((200..500).contains(&answer.status), "{field}: {answer:?}");
    }
    system.stop().await;
}

#[tokio::test]
async fn a_burst_of_requests_is_recorded_whole() {
    let system = System::builder()
        .runners(0)
        .set("DATABASE_MAX_CONNECTIONS", "2")
        .start()
        .await;
    let mut burst = tokio::task::JoinSet::new();
    for number in 0..150 {
        burst.spawn(
            system
                .ops
                .call("POST", "/jobs")
                .json(&json!({"job_type": "a", "payload": number}))
                .send(),
        );
    }
    let statuses: Vec<u16> = burst
        .join_all()
        .await
        .iter()
        .map(|answer| answer.status)
        .collect();
    assert!(statuses.iter().all(|status| *status == 201), "{statuses:?}");
    assert_eq!(
        system
            .database
            .count("select count(distinct payload) from ops_jobs")
            .await,
        150
    );
    system.stop().await;
}
