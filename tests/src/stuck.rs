//! Measuring what clients cost that ask for a stream and never read it, and how soon they are cut off.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::live::resident_kib;
use crate::program::Start;
use crate::sse::{Next, Sse};
use crate::system::{API_KEY, System};

/// What they did.
#[derive(Clone, Copy, Debug)]
pub struct StuckFigures {
    /// How many there were.
    pub clients: usize,
    /// How much the resident memory of the control plane grew at most, per client, in KiB.
    pub kib_each: f64,
    /// After how many seconds all of them were cut.
    pub cut_after_seconds: f64,
    /// Lines that somebody who read meanwhile was given, all in order.
    pub lines_of_another: i64,
}

/// Lets so many clients ask for a long log and read nothing, beside one who reads.
pub async fn stuck(clients: usize) -> StuckFigures {
    let system = System::builder()
        .control_planes(0)
        .shell("long", "seq 400000", "")
        .start()
        .await;
    let mut program = Start::of("control-plane")
        .environment(system.environment())
        .start();
    let authority = program.address().await.to_string();
    let ops = crate::Client::new(&format!("http://{authority}")).with("x-ops-key", API_KEY);
    let job = ops
        .post("/api/v1/ops/jobs", &json!({"job_type": "long"}))
        .await
        .expect(201)
        .json();
    let id = job["id"].as_str().expect("an id").to_owned();
    crate::wait_until("the job has succeeded", async || {
        let job = ops
            .get(&format!("/api/v1/ops/jobs/{id}"))
            .await
            .expect(200)
            .json();
        (job["status"] == "succeeded").then_some(())
    })
    .await;
    let path = format!("/api/v1/ops/jobs/{id}/log/stream");
    let (files, resident) = (open_files(program.id()), resident_kib(program.id()));
    let mut sockets = Vec::new();
    for _ in 0..clients {
        let mut socket = TcpStream::connect(&authority).await.expect("a connection");
        let request = format!("GET {path} HTTP/1.1\r\nHost: h\r\nX-Ops-Key: {API_KEY}\r\n\r\n");
        socket.write_all(request.as_bytes()).await.expect("sent");
        sockets.push(socket);
    }
    let begun = Instant::now();
    let mut most = resident;
    let mut reader = Sse::open(&authority, &path, API_KEY, None)
        .await
        .expect("a stream");
    let mut lines = 0;
    loop {
        match reader.next().await.expect("an uncut stream") {
            Next::Frame(frame) => {
                assert_eq!(frame.id, Some(lines + 1), "in order");
                lines += 1;
            }
            Next::Comment => most = most.max(resident_kib(program.id())),
            Next::End => break,
        }
    }
    drop(reader);
    while open_files(program.id()) > files && begun.elapsed() < Duration::from_secs(120) {
        most = most.max(resident_kib(program.id()));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let figures = StuckFigures {
        clients,
        kib_each: (most as f64 - resident as f64) / clients as f64,
        cut_after_seconds: begun.elapsed().as_secs_f64(),
        lines_of_another: lines,
    };
    drop(sockets);
    program.terminate();
    assert_eq!(program.exit_code().await, 0);
    system.stop().await;
    figures
}

fn open_files(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("a process")
        .count()
}
