//! Measuring what is live: many who watch, many cuts, many lines. The tests run it small, `examples/live.rs` at full size.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fault_proxy::{Direction, Fault, Proxy, Reach, Target};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::program::Start;
use crate::sse::{Next, Sse};
use crate::system::{API_KEY, System};

const BASE: &str = "/api/v1/ops";

/// What many who watch cost, and how soon they know.
#[derive(Clone, Copy, Debug)]
pub struct WatcherFigures {
    /// How many there were.
    pub clients: usize,
    /// Connections of the control plane to the database: before they came, and the most while they watched.
    pub connections: (i64, i64),
    /// How much the resident memory of the control plane grew per client, in KiB; before, it had served a tenth as many.
    pub kib_each: f64,
    /// From before the commit to the client: median, 99th percentile and the worst, in milliseconds.
    pub ms: (f64, f64, f64),
    /// How many events were awaited at clients, and how many came.
    pub events: (usize, usize),
}

/// Lets so many clients watch so many jobs at a real control plane, while so many events are committed.
pub async fn watchers(
    clients: usize,
    jobs: usize,
    events: usize,
    pause: Duration,
) -> WatcherFigures {
    let system = System::builder().control_planes(0).runners(0).start().await;
    let environment = system.environment();
    let mut program = Start::of("control-plane").environment(environment).start();
    let authority = program.address().await.to_string();
    let psql = &system.database.psql;
    let jobs: Vec<Uuid> = sqlx::query_scalar(
        "select ops_enqueue('watched', run_at => now() + interval '1 day') from generate_series(1, $1)",
    )
    .bind(i32::try_from(jobs).unwrap_or(1))
    .fetch_all(psql)
    .await
    .expect("jobs");
    // Once in vain, so that everything has run once; few, so that what the allocator keeps of them is little.
    let (heard, _) = mpsc::unbounded_channel();
    drop(watch_all(&authority, &jobs, clients.div_ceil(10), &heard).await);
    let connections_before = connections(&system).await;
    let resident_before = resident_kib(program.id());
    let (heard, mut hears) = mpsc::unbounded_channel();
    let watching = watch_all(&authority, &jobs, clients, &heard).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let resident = resident_kib(program.id());
    let mut most_connections = connections(&system).await;
    let mut committed = std::collections::HashMap::new();
    for number in 0..events {
        let job = jobs[number % jobs.len()];
        let before = Instant::now();
        let seq: i32 = sqlx::query_scalar(
            "insert into ops_job_events (job_id, kind, data) values ($1, 'progress', '{\"progress\": 0.5}') returning seq",
        )
        .bind(job)
        .fetch_one(psql)
        .await
        .expect("an event");
        committed.insert((job, i64::from(seq)), before);
        if number % 20 == 0 {
            most_connections = most_connections.max(connections(&system).await);
        }
        tokio::time::sleep(pause).await;
    }
    let awaited: usize = committed
        .keys()
        .map(|(job, _)| watchers_of(&jobs, clients, *job))
        .sum();
    let mut late = Vec::new();
    while late.len() < awaited {
        let next = tokio::time::timeout(Duration::from_secs(10), hears.recv()).await;
        let Ok(Some((job, seq, at))) = next else {
            break;
        };
        if let Some(before) = committed.get(&(job, seq)) {
            let late_by: Duration = at - *before;
            late.push(late_by.as_secs_f64() * 1000.0);
        }
    }
    drop(watching);
    late.sort_by(f64::total_cmp);
    let figures = WatcherFigures {
        clients,
        connections: (connections_before, most_connections),
        kib_each: (resident as f64 - resident_before as f64) / clients as f64,
        ms: (at(&late, 0.5), at(&late, 0.99), at(&late, 1.0)),
        events: (awaited, late.len()),
    };
    program.terminate();
    assert_eq!(program.exit_code().await, 0);
    system.stop().await;
    figures
}

fn watchers_of(jobs: &[Uuid], clients: usize, job: Uuid) -> usize {
    (0..clients)
        .filter(|client| jobs[client % jobs.len()] == job)
        .count()
}

fn at(sorted: &[f64], part: f64) -> f64 {
    let place = (sorted.len() as f64 * part).ceil() as usize;
    sorted
        .get(place.saturating_sub(1))
        .copied()
        .unwrap_or(f64::NAN)
}

/// Ends when all of them have heard of the job's first event.
async fn watch_all(
    authority: &str,
    jobs: &[Uuid],
    clients: usize,
    heard: &mpsc::UnboundedSender<(Uuid, i64, Instant)>,
) -> JoinSet<()> {
    let mut watching = JoinSet::new();
    let (ready, mut readies) = mpsc::unbounded_channel();
    for client in 0..clients {
        let (authority, job) = (authority.to_owned(), jobs[client % jobs.len()]);
        let (heard, ready) = (heard.clone(), ready.clone());
        watching.spawn(async move {
            let path = format!("{BASE}/jobs/{job}/events/stream");
            let mut sse = open(&authority, &path).await;
            loop {
                match sse.next().await.expect("a stream that goes on") {
                    Next::Frame(frame) => {
                        let seq = frame.id.expect("an id");
                        if seq == 1 {
                            let _ = ready.send(());
                        }
                        // Nobody listens to those that came first.
                        let _ = heard.send((job, seq, Instant::now()));
                    }
                    Next::Comment => {}
                    Next::End => return,
                }
            }
        });
        // As many at once as there are requests allowed at work.
        if client % 100 == 99 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    for _ in 0..clients {
        let one = tokio::time::timeout(Duration::from_secs(30), readies.recv()).await;
        one.expect("a client that hears").expect("a client");
    }
    watching
}

/// A stream; those whose clients went are no longer counted once the server has noticed.
async fn open(authority: &str, path: &str) -> Sse {
    loop {
        let sse = Sse::open(authority, path, API_KEY, None)
            .await
            .expect("a stream");
        match sse.status {
            429 => tokio::time::sleep(Duration::from_millis(20)).await,
            status => {
                assert_eq!(status, 200);
                return sse;
            }
        }
    }
}

async fn connections(system: &System) -> i64 {
    system
        .database
        .count(
            "select count(*) from pg_stat_activity
             where datname = current_database() and application_name = 'control-plane'",
        )
        .await
}

pub(crate) fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.expect("its resident memory")
}

/// What cuts did to streams.
#[derive(Clone, Copy, Debug)]
pub struct CutFigures {
    /// How often a client came back.
    pub reconnects: usize,
    /// Events that never came, or out of their order.
    pub gaps: usize,
    /// Events that came twice.
    pub doubles: usize,
    /// Events that came.
    pub events: usize,
}

/// Watches jobs through a proxy that cuts every connection, until there were so many cuts; each client comes back with
/// the id of the last whole event that it has.
pub async fn cuts(wanted: usize) -> CutFigures {
    let system = System::builder().runners(0).start().await;
    let authority = system.ops.authority().parse().expect("an address");
    let proxy = Proxy::start(Target::Tcp(authority)).await.expect("a proxy");
    proxy.set(Reach::All, Direction::Down, Fault::CutAfter(2000));
    let reconnects = Arc::new(AtomicUsize::new(0));
    let mut clients = JoinSet::new();
    let mut jobs = Vec::new();
    for _ in 0..8 {
        let job: Uuid =
            sqlx::query_scalar("select ops_enqueue('watched', run_at => now() + interval '1 day')")
                .fetch_one(&system.database.psql)
                .await
                .expect("a job");
        jobs.push(job);
        clients.spawn(come_back(
            proxy.address().to_string(),
            job,
            Arc::clone(&reconnects),
        ));
    }
    let mut written = 0;
    while reconnects.load(Ordering::Relaxed) < wanted {
        for job in &jobs {
            sqlx::query("insert into ops_job_events (job_id, kind, data) select $1, 'progress', jsonb_build_object('message', repeat('x', 100)) from generate_series(1, 3)")
                .bind(job)
                .execute(&system.database.psql)
                .await
                .expect("events");
        }
        written += 1;
        // Where a connection is cut must not be the same place again and again.
        let bytes = 600 + (written * 37) % 2500;
        proxy.set(Reach::New, Direction::Down, Fault::CutAfter(bytes));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for job in &jobs {
        sqlx::query("select ops_abort($1)")
            .bind(job)
            .execute(&system.database.psql)
            .await
            .expect("aborted");
    }
    let mut figures = CutFigures {
        reconnects: 0,
        gaps: 0,
        doubles: 0,
        events: 0,
    };
    while let Some(transcript) = clients.join_next().await {
        let (job, seen) = transcript.expect("a client");
        let events: Vec<i32> =
            sqlx::query_scalar("select seq from ops_job_events where job_id = $1 order by seq")
                .bind(job)
                .fetch_all(&system.database.psql)
                .await
                .expect("the events");
        figures.events += seen.len();
        let mut next = 1;
        for seq in seen {
            match seq.cmp(&next) {
                std::cmp::Ordering::Equal => next += 1,
                std::cmp::Ordering::Less => figures.doubles += 1,
                std::cmp::Ordering::Greater => {
                    figures.gaps += usize::try_from(seq - next).unwrap_or(0);
                    next = seq + 1;
                }
            }
        }
        figures.gaps += (events.len() + 1).saturating_sub(usize::try_from(next).unwrap_or(0));
    }
    figures.reconnects = reconnects.load(Ordering::Relaxed);
    system.stop().await;
    figures
}

async fn come_back(authority: String, job: Uuid, reconnects: Arc<AtomicUsize>) -> (Uuid, Vec<i64>) {
    let path = format!("{BASE}/jobs/{job}/events/stream");
    let mut seen: Vec<i64> = Vec::new();
    loop {
        if let Ok(mut sse) = Sse::open(&authority, &path, API_KEY, seen.last().copied()).await {
            if sse.status == 204 {
                return (job, seen);
            }
            assert_eq!(sse.status, 200);
            while let Ok(next) = sse.next().await {
                match next {
                    Next::Frame(frame) => seen.push(frame.id.expect("an id")),
                    Next::Comment => {}
                    Next::End => return (job, seen),
                }
            }
        }
        reconnects.fetch_add(1, Ordering::Relaxed);
    }
}
