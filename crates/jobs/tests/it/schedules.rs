//! Schedules on a real database: racing ticks, long times without one, overlap, pauses, and the ledger that adds up.

use jobs::{
    CatchUp, Changed, Fire, FireOutcome, Fired, Overlap, Schedule, ScheduleName, ScheduleTerms,
    Status,
};
use sqlx::postgres::PgPoolOptions;
use time::{Duration, OffsetDateTime, UtcOffset};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::database::{Database, TestRunner, name, store_on};

fn schedule_name(text: &str) -> ScheduleName {
    text.parse().expect("a name")
}

/// Every minute, so that something is always due a minute later at the most.
fn minutely() -> ScheduleTerms {
    ScheduleTerms::new("* * * * *", name("a"))
}

impl Database {
    async fn make(&self, terms: &ScheduleTerms) -> Schedule {
        let made = self
            .store
            .create_schedule(&schedule_name("s"), terms, true, "key:test")
            .await;
        made.expect("an answer").expect("a new name")
    }

    /// Sets the cursor to the last whole minute before this long ago, as a person in psql would; gives it.
    async fn back(&self, how_long: Duration) -> OffsetDateTime {
        sqlx::query_scalar(
            "update ops_schedules
             set next_fire_at = date_trunc('minute', now() - make_interval(secs => $1))
             where name = 's' returning next_fire_at",
        )
        .bind(how_long.as_seconds_f64())
        .fetch_one(&self.psql)
        .await
        .expect("a schedule")
    }

    async fn tick(&self) -> Fired {
        self.store.fire_due(&[], "sweep:r1").await.expect("a tick")
    }

    /// Ticks until nothing is left.
    async fn tick_all(&self) -> Fired {
        let mut all = Fired::default();
        loop {
            let fired = self.tick().await;
            if fired == Fired::default() {
                return all;
            }
            all.fired += fired.fired;
            all.skipped += fired.skipped;
            all.missed += fired.missed;
            all.paused += fired.paused;
        }
    }

    async fn look(&self) -> Schedule {
        let schedule = self.store.schedule(&schedule_name("s")).await;
        schedule.expect("an answer").expect("a schedule")
    }

    /// The ledger, oldest first.
    async fn ledger(&self) -> Vec<Fire> {
        let s = schedule_name("s");
        let page = self.store.fires(&s, None, None, 10_000);
        let mut fires = page.await.expect("an answer").fires;
        fires.reverse();
        fires
    }

    async fn count_jobs(&self) -> i64 {
        sqlx::query_scalar("select count(*) from ops_jobs where labels @> '{\"schedule\": \"s\"}'")
            .fetch_one(&self.psql)
            .await
            .expect("a count")
    }

    async fn run_to_the_end(&self, job: Uuid) {
        for status in ["running", "succeeded"] {
            sqlx::query("update ops_jobs set status = $2 where id = $1")
                .bind(job)
                .bind(status)
                .execute(&self.psql)
                .await
                .expect("a legal step");
        }
    }
}

/// Proves that the ledger of a minutely schedule has each minute from `from` up to the cursor exactly once.
fn adds_up(ledger: &[Fire], from: OffsetDateTime, cursor: OffsetDateTime) {
    let mut expected = from;
    for fire in ledger.iter().filter(|fire| !fire.manual) {
        assert_eq!(fire.instant, expected, "none is left out, none comes twice");
        assert_eq!(
            fire.through - fire.instant,
            Duration::minutes(i64::from(fire.instants) - 1)
        );
        assert_eq!(fire.job_id.is_some(), fire.outcome == FireOutcome::Fired);
        assert!(fire.reason.is_some() || fire.outcome == FireOutcome::Fired);
        expected = fire.through + Duration::MINUTE;
    }
    assert_eq!(expected, cursor, "up to the cursor");
}

fn outcomes(ledger: &[Fire]) -> Vec<FireOutcome> {
    ledger.iter().map(|fire| fire.outcome).collect()
}

#[tokio::test]
async fn many_racing_ticks_make_one_job_of_an_instant() {
    let database = Database::new().await;
    database.make(&minutely()).await;
    let instant = database.back(Duration::ZERO).await;
    let mut ticks = JoinSet::new();
    for runner in 0..5 {
        // Each runner with connections of its own; 50 ticks each, all at once.
        let store = store_on(&database.url, 4);
        for _ in 0..50 {
            let store = store.clone();
            ticks.spawn(async move {
                store
                    .fire_due(&[], &format!("sweep:r{runner}"))
                    .await
                    .expect("a tick")
                    .fired
            });
        }
    }
    // The minute may turn meanwhile: then two instants were due.
    let fired: u64 = ticks.join_all().await.into_iter().sum();
    let ledger = database.ledger().await;
    let cursor = database.look().await.next_fire_at.expect("a cursor");
    adds_up(&ledger, instant, cursor);
    assert_eq!(ledger.len(), usize::try_from(fired).expect("few"));
    assert_eq!(
        database.count_jobs().await,
        i64::try_from(fired).expect("few")
    );
    assert!((1..=2).contains(&fired), "{fired}");
}

#[tokio::test]
async fn the_ledgers_key_alone_keeps_an_instant_to_one_job() {
    let database = Database::new().await;
    database.make(&minutely()).await;
    let instant = database.back(Duration::minutes(1)).await;
    sqlx::query(
        "insert into ops_schedule_fires (schedule, instant, through, outcome, reason)
         values ('s', $1, $1, 'skipped', 'by hand')",
    )
    .bind(instant)
    .execute(&database.psql)
    .await
    .expect("a row");
    let pool = PgPoolOptions::new()
        .connect(&database.url)
        .await
        .expect("a connection");
    let again = sqlx::query(
        "insert into ops_schedule_fires (schedule, instant, through, outcome, job_id)
         values ('s', $1, $1, 'fired', ops_record_scheduled('s', $1, 'me'))",
    )
    .bind(instant)
    .execute(&pool)
    .await;
    assert!(again.is_err(), "the job goes with its row");
    assert_eq!(database.count_jobs().await, 0);
    database.tick().await;
    adds_up(
        &database.ledger().await,
        instant,
        database.look().await.next_fire_at.expect("a cursor"),
    );
}

#[tokio::test]
async fn a_job_says_which_schedule_and_instant_made_it() {
    let database = Database::new().await;
    let mut terms = minutely();
    terms.labels.insert("team".to_owned(), "night".to_owned());
    terms.priority = 7;
    database.make(&terms).await;
    let instant = database.back(Duration::ZERO).await;
    database.tick().await;
    let fire = database.ledger().await.remove(0);
    let job = database.job(fire.job_id.expect("a job")).await;
    assert_eq!(fire.instant, instant);
    assert_eq!(job.labels["schedule"], "s");
    assert_eq!(job.labels["team"], "night");
    let text = job.labels["scheduled_for"].as_str().expect("a text");
    let format = &time::format_description::well_known::Rfc3339;
    assert_eq!(
        OffsetDateTime::parse(text, format).expect("a time"),
        instant
    );
    assert_eq!((job.created_by.as_str(), job.priority), ("schedule:s", 7));
    let events = database.store.events(job.id, 0, 10).await.expect("events");
    assert_eq!(events[0].actor, "schedule:s");
    assert_eq!(fire.actor, "sweep:r1");
}

#[tokio::test]
async fn a_month_without_a_tick_is_bounded_and_visible_whatever_the_catch_up() {
    for (catch_up, jobs) in [(CatchUp::Skip, 1), (CatchUp::One, 1), (CatchUp::All, 150)] {
        let database = Database::new().await;
        let terms = ScheduleTerms {
            catch_up,
            catch_up_limit: 150,
            ..minutely()
        };
        database.make(&terms).await;
        let from = database.back(Duration::days(30)).await;
        let fired = database.tick_all().await;
        let ledger = database.ledger().await;
        let cursor = database.look().await.next_fire_at.expect("a cursor");
        adds_up(&ledger, from, cursor);
        let total = u64::try_from((cursor - from).whole_minutes()).expect("positive");
        assert!(total >= 43_200, "{total}");
        assert_eq!(fired.fired + fired.missed, total, "{catch_up:?}: {fired:?}");
        // With `all`, what is not late yet fires beside the 150 that are made up for.
        let on_time = if catch_up == CatchUp::All { 8 } else { 0 };
        assert!(
            (jobs..=jobs + on_time).contains(&fired.fired),
            "{catch_up:?}: {fired:?}"
        );
        assert_eq!(
            database.count_jobs().await,
            i64::try_from(fired.fired).expect("few")
        );
        assert!(ledger.len() < 400, "{catch_up:?}: {} rows", ledger.len());
        let newest = ledger.last().expect("a row");
        assert_eq!(newest.outcome, FireOutcome::Fired, "{catch_up:?}");
    }
}

#[tokio::test]
async fn with_skip_a_late_instant_is_missed_and_with_one_it_is_made_up_for() {
    for (catch_up, expected) in [
        (CatchUp::Skip, FireOutcome::Missed),
        (CatchUp::One, FireOutcome::Fired),
        (CatchUp::All, FireOutcome::Fired),
    ] {
        let database = Database::new().await;
        // Half a day ago, and not again for as long, whatever the hour is.
        let instant: OffsetDateTime =
            sqlx::query_scalar("select date_trunc('hour', now()) - interval '12 hours'")
                .fetch_one(&database.psql)
                .await
                .expect("an instant");
        let daily = format!("0 {} * * *", instant.to_offset(UtcOffset::UTC).hour());
        let terms = ScheduleTerms {
            catch_up,
            ..ScheduleTerms::new(&daily, name("a"))
        };
        database.make(&terms).await;
        sqlx::query("update ops_schedules set next_fire_at = $1")
            .bind(instant)
            .execute(&database.psql)
            .await
            .expect("set back");
        database.tick().await;
        assert_eq!(
            outcomes(&database.ledger().await),
            [expected],
            "{catch_up:?}"
        );
    }
}

#[tokio::test]
async fn jobs_that_are_made_up_for_come_in_the_order_of_their_instants() {
    let database = Database::new().await;
    let terms = ScheduleTerms {
        catch_up: CatchUp::All,
        ..minutely()
    };
    database.make(&terms).await;
    database.back(Duration::minutes(30)).await;
    database.tick_all().await;
    let runner = TestRunner::new("r1", &["a"]);
    let mut claimed = Vec::new();
    for _ in 0..30 {
        let leased = database
            .store
            .claim_due(runner.request(), 1)
            .await
            .expect("a claim");
        claimed.push(leased[0].lease.job_id());
    }
    let ledger = database.ledger().await;
    let recorded: Vec<Uuid> = ledger.iter().filter_map(|fire| fire.job_id).collect();
    assert_eq!(claimed, recorded[..30]);
}

#[tokio::test]
async fn overlap_skips_queues_or_allows() {
    for (overlap, second, third) in [
        (
            Overlap::Skip,
            Some(FireOutcome::Skipped),
            Some(FireOutcome::Skipped),
        ),
        (Overlap::Queue, None, Some(FireOutcome::Skipped)),
        (
            Overlap::Allow,
            Some(FireOutcome::Fired),
            Some(FireOutcome::Fired),
        ),
    ] {
        let database = Database::new().await;
        let terms = ScheduleTerms {
            overlap,
            catch_up: CatchUp::All,
            ..minutely()
        };
        database.make(&terms).await;
        let first = database.back(Duration::minutes(2)).await;
        database.tick().await;
        let ledger = database.ledger().await;
        let of = |minutes: i64| {
            let instant = first + Duration::minutes(minutes);
            ledger
                .iter()
                .find(|fire| fire.instant == instant)
                .map(|fire| fire.outcome)
        };
        assert_eq!(
            (of(0), of(1), of(2)),
            (Some(FireOutcome::Fired), second, third),
            "{overlap:?}"
        );
        let waiting = database.look().await.waiting_instant;
        assert_eq!(waiting.is_some(), overlap == Overlap::Queue, "{overlap:?}");
        if let Some(waiting) = waiting {
            assert_eq!(waiting, first + Duration::MINUTE);
            assert_eq!(database.tick().await.fired, 0, "the first has not ended");
            database
                .run_to_the_end(ledger[0].job_id.expect("a job"))
                .await;
            assert_eq!(database.tick().await.fired, 1);
            let fire = database
                .ledger()
                .await
                .into_iter()
                .find(|fire| fire.instant == waiting);
            assert_eq!(fire.expect("a row").outcome, FireOutcome::Fired);
            assert_eq!(database.look().await.waiting_instant, None);
        }
    }
}

#[tokio::test]
async fn what_passes_while_paused_is_recorded_as_paused_with_who_and_why() {
    let database = Database::new().await;
    database.make(&minutely()).await;
    let store = &database.store;
    let s = schedule_name("s");
    store
        .pause_schedule(&s, "key:ann", Some("the moon"))
        .await
        .expect("an answer")
        .expect("s");
    let from = database.back(Duration::minutes(200)).await;
    let again = store
        .pause_schedule(&s, "key:bob", Some("too"))
        .await
        .expect("an answer")
        .expect("s");
    assert_eq!(
        again.paused_by.as_deref(),
        Some("key:ann"),
        "a paused one stays as it is"
    );
    let paused = database.tick().await;
    assert!(paused.paused >= 200 && paused.fired == 0, "{paused:?}");
    let resumed = store
        .resume_schedule(&s, "key:bob")
        .await
        .expect("an answer")
        .expect("s");
    assert!(resumed.enabled);
    let ledger = database.ledger().await;
    adds_up(&ledger, from, resumed.next_fire_at.expect("a cursor"));
    assert_eq!(outcomes(&ledger[..1]), [FireOutcome::Paused]);
    assert_eq!(
        ledger[0].reason.as_deref(),
        Some("paused by key:ann: the moon")
    );
    assert_eq!(database.count_jobs().await, 0);
}

#[tokio::test]
async fn a_pause_in_psql_between_two_ticks_is_known_afterwards() {
    let database = Database::new().await;
    database.make(&minutely()).await;
    sqlx::raw_sql(
        "select ops_pause_schedule('s', 'by hand'); select ops_resume_schedule('s');
         update ops_schedules set paused_at = now() - interval '2 hours';",
    )
    .execute(&database.psql)
    .await
    .expect("both");
    let from = database.back(Duration::minutes(60)).await;
    database.tick_all().await;
    let ledger = database.ledger().await;
    adds_up(
        &ledger,
        from,
        database.look().await.next_fire_at.expect("a cursor"),
    );
    assert!(
        outcomes(&ledger)
            .iter()
            .filter(|o| **o == FireOutcome::Paused)
            .count()
            >= 59
    );
}

#[tokio::test]
async fn a_schedule_is_fired_by_hand_even_while_paused_and_beside_its_grid() {
    let database = Database::new().await;
    database
        .make(&ScheduleTerms::new("0 0 1 1 *", name("a")))
        .await;
    let s = schedule_name("s");
    database
        .store
        .pause_schedule(&s, "key:ann", None)
        .await
        .expect("an answer");
    let fired = database
        .store
        .fire_by_hand(&s, "key:ann", Some("now please"))
        .await;
    let job = fired.expect("an answer").expect("a job");
    assert_eq!(database.job(job).await.created_by, "key:ann");
    let fire = database.ledger().await.remove(0);
    assert!(fire.manual);
    assert_eq!(
        (fire.job_id, fire.reason.as_deref()),
        (Some(job), Some("now please"))
    );
    assert_eq!(
        database
            .store
            .fire_by_hand(&schedule_name("none"), "k", None)
            .await
            .expect("an answer"),
        None
    );
    let by_sql: Uuid = sqlx::query_scalar("select ops_fire_schedule('s')")
        .fetch_one(&database.psql)
        .await
        .expect("a job");
    assert_eq!(database.job(by_sql).await.status, Status::Queued);
}

#[tokio::test]
async fn a_schedule_typed_into_psql_fires_and_one_that_makes_no_sense_says_so_and_stops_no_other() {
    let database = Database::new().await;
    sqlx::raw_sql(
        "insert into ops_schedules (name, cron, job_type) values ('bad', '61 * * * *', 'a'), ('worse', '* * * * *', 'a');
         update ops_schedules set timezone = 'Mars/Olympus' where name = 'worse';
         insert into ops_schedules (name, cron, job_type) values ('s', '* * * * *', 'a');",
    )
    .execute(&database.psql)
    .await
    .expect("three");
    assert_eq!(database.look().await.next_fire_at, None);
    database.tick().await;
    assert!(
        database.look().await.next_fire_at.is_some(),
        "the first tick computes it"
    );
    for bad in ["bad", "worse"] {
        let schedule = database
            .store
            .schedule(&schedule_name(bad))
            .await
            .expect("an answer");
        assert!(schedule.expect("a schedule").fault.is_some(), "{bad}");
    }
    database.back(Duration::ZERO).await;
    assert!(database.tick().await.fired >= 1);
}

#[tokio::test]
async fn a_schedule_whose_job_cannot_be_recorded_stops_no_other() {
    let database = Database::new().await;
    sqlx::raw_sql(
        "create function no() returns trigger language plpgsql as $$ begin raise exception 'not that one'; end $$;
         create trigger no before insert on ops_jobs for each row when (new.job_type = 'bad') execute function no();
         insert into ops_schedules (name, cron, job_type) values ('bad', '* * * * *', 'bad');",
    )
    .execute(&database.psql)
    .await
    .expect("a trigger of the users' own, and a schedule");
    database.make(&minutely()).await;
    database.tick().await;
    sqlx::query(
        "update ops_schedules set next_fire_at = date_trunc('minute', now() - interval '1 minute')",
    )
    .execute(&database.psql)
    .await
    .expect("both are due");
    assert!(database.tick().await.fired >= 1);
    let bad = database.store.schedule(&schedule_name("bad")).await;
    let fault = bad.expect("an answer").expect("a schedule").fault;
    assert!(fault.is_some_and(|fault| fault.contains("not that one")));
}

#[tokio::test]
async fn a_change_names_the_revision_that_it_is_for_and_keeps_what_is_decided() {
    let database = Database::new().await;
    let first = database.make(&minutely()).await;
    let s = schedule_name("s");
    let hourly = ScheduleTerms::new("0 * * * *", name("b"));
    let change = |revision| {
        database
            .store
            .change_schedule(&s, &hourly, None, revision, "key:bob")
    };
    let from = database.back(Duration::ZERO).await;
    let Some(Changed::Yes(second)) = change(Some(first.revision)).await.expect("an answer") else {
        panic!("it was of that revision");
    };
    assert_eq!(second.revision, first.revision + 1);
    assert_eq!(
        (second.updated_by.as_str(), second.created_by.as_str()),
        ("key:bob", "key:test")
    );
    // Where both grids come next at the same instant, the next tick computes it anew.
    if second.next_fire_at.is_none() {
        database.tick().await;
    }
    let next = database.look().await.next_fire_at;
    assert_eq!(next.expect("a cursor").minute(), 0);
    assert_eq!(
        database.ledger().await[0].instant,
        from,
        "what was due was decided before"
    );
    let late = change(Some(first.revision)).await.expect("an answer");
    assert_eq!(late, Some(Changed::Outdated(second.revision)));
    let none = schedule_name("none");
    let none = database
        .store
        .change_schedule(&none, &hourly, None, None, "k");
    assert_eq!(none.await.expect("an answer"), None);
}

#[tokio::test]
async fn a_deleted_schedule_fires_no_more_and_its_ledger_stays() {
    let database = Database::new().await;
    database.make(&minutely()).await;
    let instant = database.back(Duration::ZERO).await;
    let s = schedule_name("s");
    assert!(
        database
            .store
            .delete_schedule(&s, "key:ann")
            .await
            .expect("an answer")
    );
    assert!(
        !database
            .store
            .delete_schedule(&s, "key:ann")
            .await
            .expect("an answer")
    );
    assert_eq!(database.tick().await, Fired::default());
    let ledger = database.ledger().await;
    assert_eq!(
        (ledger[0].instant, ledger[0].outcome),
        (instant, FireOutcome::Paused)
    );
    assert_eq!(database.count_jobs().await, 0);
    // One made anew does not fire what the ledger has.
    database.make(&minutely()).await;
    sqlx::query("update ops_schedules set next_fire_at = $1")
        .bind(instant)
        .execute(&database.psql)
        .await
        .expect("set back");
    database.tick_all().await;
    adds_up(
        &database.ledger().await,
        instant,
        database.look().await.next_fire_at.expect("a cursor"),
    );
}

#[tokio::test]
async fn a_cursor_that_is_set_back_over_what_is_decided_fires_nothing_twice() {
    let database = Database::new().await;
    let terms = ScheduleTerms {
        catch_up: CatchUp::All,
        ..minutely()
    };
    database.make(&terms).await;
    database.back(Duration::minutes(10)).await;
    database.tick_all().await;
    let from = database.back(Duration::minutes(500)).await;
    database.tick_all().await;
    let ledger = database.ledger().await;
    adds_up(
        &ledger,
        from,
        database.look().await.next_fire_at.expect("a cursor"),
    );
    let jobs = ledger.iter().filter(|fire| fire.job_id.is_some()).count();
    assert_eq!(
        database.count_jobs().await,
        i64::try_from(jobs).expect("few")
    );
    database.back(Duration::minutes(500)).await;
    assert_eq!(
        database.tick_all().await.fired,
        u64::try_from(database.ledger().await.len() - ledger.len()).expect("few")
    );
}

#[tokio::test]
async fn jitter_delays_the_job_and_not_its_instant() {
    let database = Database::new().await;
    let terms = ScheduleTerms {
        jitter_seconds: 86_400,
        ..minutely()
    };
    let made = database.make(&terms).await;
    let (next, due) = (
        made.next_fire_at.expect("a cursor"),
        made.due_at.expect("a time"),
    );
    assert!(due >= next && due - next <= Duration::DAY);
    let instant = database.back(Duration::minutes(1)).await;
    assert_eq!(
        database.tick().await,
        Fired::default(),
        "the tick adds the jitter"
    );
    let looked = database.look().await;
    assert_eq!(looked.next_fire_at, Some(instant));
    assert!(looked.due_at.expect("a time") > instant);
}

#[tokio::test]
async fn closed_job_types_and_old_rows_of_the_ledger() {
    let database = Database::new().await;
    database.make(&minutely()).await;
    database.back(Duration::ZERO).await;
    let closed = database
        .store
        .fire_due(&["a"], "sweep:r1")
        .await
        .expect("a tick");
    assert_eq!(closed, Fired::default(), "left to those who may");
    database.tick().await;
    sqlx::query("update ops_schedule_fires set at = now() - interval '91 days'")
        .execute(&database.psql)
        .await
        .expect("aged");
    database.tick().await;
    let old = database
        .ledger()
        .await
        .into_iter()
        .filter(|fire| fire.at < fire.instant);
    assert_eq!(old.count(), 0, "the ledger is kept for 90 days");
}

#[tokio::test]
async fn a_page_of_schedules_ends_early_where_their_payloads_are_large() {
    let database = Database::new().await;
    for number in 0..20 {
        let terms = ScheduleTerms {
            payload: serde_json::json!("x".repeat(1_000_000)),
            ..minutely()
        };
        let name = schedule_name(&format!("s{number:02}"));
        let made = database
            .store
            .create_schedule(&name, &terms, true, "key:test");
        made.await.expect("an answer").expect("a new name");
    }
    let mut names = Vec::new();
    let mut after = String::new();
    loop {
        let page = database.store.schedules(&after, 200).await.expect("a page");
        assert!(
            (1..=9).contains(&page.schedules.len()),
            "{}",
            page.schedules.len()
        );
        names.extend(
            page.schedules
                .into_iter()
                .map(|schedule| schedule.name.to_string()),
        );
        match page.next {
            Some(next) => after = next.to_string(),
            None => break,
        }
    }
    assert_eq!(names.len(), 20);
    assert!(names.is_sorted());
}

/// A runner and a control plane may do what a tick does with the rights that they have.
#[tokio::test]
async fn the_roles_of_both_services_fire() {
    for role in ["ops_runner", "ops_control_plane"] {
        let database = Database::new().await;
        database.store.bootstrap_roles().await.expect("made");
        database.make(&minutely()).await;
        database.back(Duration::ZERO).await;
        let names = sqlx::query_as::<_, (String, String)>(
            "select format('%I', current_user), format('%I', current_database())",
        );
        let (login, base) = names.fetch_one(&database.psql).await.expect("names");
        // New connections of the store act as the role.
        let sql = format!("alter role {login} in database {base} set role = {role}");
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
            .execute(&database.psql)
            .await
            .expect("a setting");
        let fresh = store_on(&database.url, 2);
        let fired = fresh.fire_due(&[], "sweep:r1").await.expect("a tick");
        assert_eq!(fired.fired, 1, "{role}");
        let by_hand = fresh
            .fire_by_hand(&schedule_name("s"), "key:ann", None)
            .await;
        assert!(by_hand.expect("allowed").is_some(), "{role}");
    }
}
