//! The oracle catches servers that are bad in each of the ways that it looks for, and finds nothing at a good one.
#![expect(
    clippy::expect_used,
    reason = "a test that cannot go on fails, and says why"
)]

use std::net::SocketAddr;

use fuzz::{Keys, Plan, Tally, Target, attack};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// A server that gives everybody this answer, whatever was asked, and then ends the connection.
async fn always(answer: String) -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let mut talks = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            talks.spawn(talk(stream, answer.clone()));
        }
    });
    (address, serving)
}

async fn talk(mut stream: TcpStream, answer: String) {
    let mut sent = [0; 65_536];
    if stream.read(&mut sent).await.is_ok() {
        let _ = stream.write_all(answer.as_bytes()).await;
        // What is still unread would else reset the connection, and the answer with it.
        let _ = stream.shutdown().await;
        while stream.read(&mut sent).await.is_ok_and(|read| read > 0) {}
    }
}

async fn attacked(answer: &str) -> Tally {
    let (address, _serving) = always(answer.to_owned()).await;
    let keys = Keys {
        ops: "o".to_owned(),
        runner: "r".to_owned(),
    };
    let target = Target {
        control_plane: address,
        runner: address,
        keys,
    };
    let plan = Plan {
        seed: 3,
        requests: 60,
        only: None,
        within: None,
        workers: 2,
    };
    attack(&target, plan, None).await
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status} Any\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    )
}

fn problem(status: &str, id: &str) -> String {
    format!(
        r#"{{"type":"t","title":"t","status":{status},"detail":"d","request_id":"{id}","job_id":"j"}}"#
    )
}

const PROBLEM: &str = "Content-Type: application/problem+json\r\nX-Request-Id: r\r\n";

#[tokio::test]
async fn a_good_server_has_no_findings() {
    let tally = attacked(&answer("401", PROBLEM, &problem("401", "r"))).await;
    assert_eq!(tally.found, 0, "{tally}");
    assert!(tally.requests >= 60, "{tally}");
}

#[tokio::test]
async fn every_kind_of_bad_server_is_caught() {
    let json = "Content-Type: application/json\r\nX-Request-Id: r\r\n";
    for (bad, fault) in [
        (
            answer("500", PROBLEM, &problem("500", "r")),
            "no status for this",
        ),
        (
            answer("501", PROBLEM, &problem("501", "r")),
            "no status for this",
        ),
        (
            answer(
                "503",
                &format!("{PROBLEM}Retry-After: 1\r\n"),
                &problem("503", "r"),
            ),
            "no status for this",
        ),
        (
            answer("502", PROBLEM, &problem("502", "r").replace("job_id", "x")),
            "no status for this",
        ),
        (
            answer("429", PROBLEM, &problem("429", "r")),
            "no Retry-After",
        ),
        (
            answer(
                "401",
                "Content-Type: application/problem+json\r\n",
                &problem("401", "r"),
            ),
            "no X-Request-Id",
        ),
        (
            answer("401", PROBLEM, &problem("401", "other")),
            "another request_id",
        ),
        (
            answer("401", PROBLEM, &problem("404", "r")),
            "another status",
        ),
        (
            answer("401", PROBLEM, &problem("401", "r").replace("title", "x")),
            "no title",
        ),
        (answer("401", PROBLEM, "{"), "is no JSON"),
        (
            answer(
                "401",
                "X-Request-Id: r\r\nContent-Type: text/plain\r\n",
                "no",
            ),
            "no problem document",
        ),
        (answer("400", "", ""), "no problem document"),
        (answer("409", "", ""), "no problem document"),
        (answer("200", json, "{}"), "given to a stranger"),
        (answer("200", json, "{"), "though it says so"),
        (answer("201", json, "{}"), "no Location"),
        (String::new(), "the connection ended"),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf".to_owned(),
            "the connection ended",
        ),
        ("SSH-2.0-nothing\r\n".to_owned(), "no HTTP"),
    ] {
        let tally = attacked(&bad).await;
        let caught = tally
            .findings
            .iter()
            .any(|finding| finding.fault.contains(fault));
        assert!(caught, "{fault}: {tally}");
    }
}

#[tokio::test]
async fn a_server_that_is_gone_is_a_finding() {
    let keys = Keys {
        ops: "o".to_owned(),
        runner: "r".to_owned(),
    };
    let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
    let target = Target {
        control_plane: nobody,
        runner: nobody,
        keys,
    };
    let plan = Plan {
        seed: 3,
        requests: 5,
        only: None,
        within: None,
        workers: 1,
    };
    let tally = attack(&target, plan, None).await;
    assert!(tally.found >= 5, "{tally}");
}
