//! Streams of events and lines: replayed, live, ended, cut, refused. `cargo run -p tests --example live` has them at full size.

use std::time::Duration;

use serde_json::{Value, json};
use tests::{API_KEY, Client, Frame, Next, Sse, Start, System, cuts, wait_until, watchers};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::scripts::{Door, HOLD};

async fn open(system: &System, id: &str, what: &str, after: Option<i64>) -> Sse {
    let path = format!("/api/v1/ops/jobs/{id}/{what}/stream");
    Sse::open(system.ops.authority(), &path, API_KEY, after)
        .await
        .expect("an answer")
}

/// The frames up to the end of the stream.
async fn rest(sse: &mut Sse) -> Vec<Frame> {
    let mut frames = Vec::new();
    loop {
        let next = tokio::time::timeout(tests::LIMIT, sse.next()).await;
        match next.expect("in time").expect("an uncut stream") {
            Next::Frame(frame) => frames.push(frame),
            Next::Comment => {}
            Next::End => return frames,
        }
    }
}

fn numbers(frames: &[Frame]) -> Vec<i64> {
    frames
        .iter()
        .map(|frame| frame.id.expect("an id"))
        .collect()
}

#[tokio::test]
async fn a_stream_has_what_was_and_what_comes_and_ends_with_the_job() {
    let system = System::builder()
        .shell(
            "held",
            &format!("echo one; echo two >&2; {HOLD}\necho three"),
            "",
        )
        .start()
        .await;
    let door = Door::of(&system);
    let id = system
        .submit(&json!({"job_type": "held", "payload": door.payload()}))
        .await;
    system.until(&id, "running").await;
    let mut events = open(&system, &id, "events", None).await;
    let mut lines = open(&system, &id, "log", None).await;
    assert_eq!((events.status, lines.status), (200, 200));
    for kind in ["queued", "running"] {
        let Next::Frame(frame) = events.next().await.expect("a stream") else {
            panic!("no event")
        };
        assert_eq!(frame.event, kind);
        let data: Value = serde_json::from_str(&frame.data).expect("JSON");
        let listed = &system.events(&id).await
            [usize::try_from(frame.id.expect("an id")).expect("a place") - 1];
        assert_eq!(&data, listed, "the stream and the list say the same");
    }
    door.open();
    let after = rest(&mut events).await;
    assert_eq!(
        after.last().map(|frame| frame.event.as_str()),
        Some("succeeded")
    );
    let mut printed: Vec<Value> = rest(&mut lines)
        .await
        .iter()
        .map(|frame| serde_json::from_str(&frame.data).expect("JSON"))
        .collect();
    assert_eq!(
        printed
            .iter()
            .map(|line| line["seq"].as_i64())
            .collect::<Vec<_>>(),
        [Some(1), Some(2), Some(3)]
    );
    printed.sort_by_key(|line| line["line"].to_string());
    let said: Vec<_> = printed
        .iter()
        .map(|line| (&line["line"], &line["stream"]))
        .collect();
    assert_eq!(
        json!(said),
        json!([["one", "stdout"], ["three", "stdout"], ["two", "stderr"]])
    );
    system.stop().await;
}

#[tokio::test]
async fn who_comes_back_is_given_the_rest_and_told_when_there_is_none() {
    let system = System::builder()
        .shell("numbers", "seq 3000", "")
        .start()
        .await;
    let job = system
        .run_until(&json!({"job_type": "numbers"}), "succeeded")
        .await;
    let id = job["id"].as_str().expect("an id");
    for (what, last) in [("events", 3), ("log", 3000)] {
        let all = numbers(&rest(&mut open(&system, id, what, None).await).await);
        assert_eq!(all, (1..=last).collect::<Vec<_>>(), "{what}");
        let behind = numbers(&rest(&mut open(&system, id, what, Some(last - 2)).await).await);
        assert_eq!(behind, [last - 1, last], "{what}");
        assert_eq!(
            open(&system, id, what, Some(last)).await.status,
            204,
            "{what}"
        );
        let path = format!("/jobs/{id}/{what}/stream?after={}", last - 1);
        let answer = system.ops.get(&path).await.expect(200);
        assert_eq!(answer.header("content-type"), "text/event-stream");
        assert!(answer.body.starts_with("retry: "), "{}", answer.body);
        assert_eq!(answer.body.matches("\nid: ").count(), 1, "{}", answer.body);
    }
    for (header, field) in [("x", "Last-Event-ID"), ("-1", "Last-Event-ID")] {
        let path = format!("/jobs/{id}/events/stream");
        let call = system
            .ops
            .call("GET", &path)
            .header("last-event-id", header);
        assert_eq!(call.send().await.wrong_fields(), [field]);
    }
    for what in ["events", "log"] {
        let path = format!("/jobs/0190163d-8694-739b-aea5-966c26f8ad90/{what}/stream");
        system.ops.get(&path).await.problem(404);
    }
    system.stop().await;
}

#[tokio::test]
async fn what_this_process_does_to_a_job_is_heard_at_once_and_comments_keep_a_stream_open() {
    let system = System::builder().runners(0).start().await;
    let id = system.submit_type("anything").await;
    let mut events = open(&system, &id, "events", Some(1)).await;
    assert_eq!(events.next().await.expect("a stream"), Next::Comment);
    system
        .ops
        .press(&format!("/jobs/{id}/abort"))
        .await
        .expect(202);
    let frames = rest(&mut events).await;
    assert_eq!(
        frames.last().map(|frame| frame.event.as_str()),
        Some("aborted")
    );
    system.stop().await;
}

#[tokio::test]
async fn streams_end_when_the_control_plane_stops_and_are_so_many_and_no_more() {
    let system = System::builder()
        .runners(0)
        .set("MAX_STREAMS", "2")
        .start()
        .await;
    let mut program = Start::of("control-plane")
        .environment(system.environment())
        .start();
    let authority = program.address().await.to_string();
    let id = system.submit_type("anything").await;
    let path = format!("/api/v1/ops/jobs/{id}/events/stream");
    let mut open = Vec::new();
    for _ in 0..2 {
        let sse = Sse::open(&authority, &path, API_KEY, None)
            .await
            .expect("a stream");
        assert_eq!(sse.status, 200);
        open.push(sse);
    }
    let other = Client::new(&format!("http://{authority}")).with("x-ops-key", API_KEY);
    let refused = other.get(&path).await;
    refused.problem(429);
    assert!(!refused.header("retry-after").is_empty());
    other
        .get(&format!("/api/v1/ops/jobs/{id}/events"))
        .await
        .expect(200);
    drop(open.pop());
    wait_until("the place is free again", async || {
        let sse = Sse::open(&authority, &path, API_KEY, None)
            .await
            .expect("an answer");
        (sse.status == 200).then_some(())
    })
    .await;
    program.terminate();
    let frames = rest(&mut open[0]).await;
    assert_eq!(numbers(&frames), [1], "it ended, and was not cut");
    assert_eq!(program.exit_code().await, 0);
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_watch_have_no_connection_of_their_own_and_miss_nothing() {
    let figures = watchers(60, 6, 60, Duration::from_millis(5)).await;
    assert_eq!(figures.events.0, figures.events.1, "{figures:?}");
    assert!(figures.connections.1 <= 5, "the pool's own: {figures:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_many_write_at_once_comes_in_order_and_none_of_it_is_missed() {
    const INSERT: &str = "insert into ops_job_events (job_id, kind, data) values ($1, 'progress', '{\"progress\": 0.5}')";
    let system = System::builder().runners(0).start().await;
    let (mut jobs, mut streams): (Vec<Uuid>, Vec<Sse>) = (Vec::new(), Vec::new());
    for _ in 0..4 {
        let id = system.submit_type("anything").await;
        streams.push(open(&system, &id, "events", None).await);
        jobs.push(id.parse().expect("an id"));
    }
    let mut writers = JoinSet::new();
    for writer in 0..16 {
        let (psql, jobs) = (system.database.psql.clone(), jobs.clone());
        writers.spawn(async move {
            for number in 0..40 {
                let job = jobs[(writer + number) % jobs.len()];
                let written = sqlx::query(INSERT).bind(job).execute(&psql).await;
                written.expect("an event");
            }
        });
    }
    writers.join_all().await;
    for (id, sse) in jobs.iter().zip(&mut streams) {
        system
            .ops
            .press(&format!("/jobs/{id}/abort"))
            .await
            .expect(202);
        let seen = numbers(&rest(sse).await);
        let last = seen.last().copied().unwrap_or_default();
        assert!(last > 160, "{last}");
        assert_eq!(seen, (1..=last).collect::<Vec<_>>());
    }
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_streams_go_on_without_gaps_and_doubles() {
    let figures = cuts(60).await;
    assert!(figures.reconnects >= 60, "{figures:?}");
    assert_eq!((figures.gaps, figures.doubles), (0, 0), "{figures:?}");
}
