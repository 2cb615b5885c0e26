//! Notion: finished jobs as pages of a database there, one a job, within its limits, and no job the worse for it.

use serde_json::{Value, json};
use sqlx::Executor;
use tests::{
    Builder, Instead, NOTION_DATABASE_ID, NOTION_TOKEN, Notion, Page, Program, Start, System,
    wait_until,
};

const QUERY: &str = "POST /databases/query";
const CREATE: &str = "POST /pages";
const CHANGE: &str = "PATCH /pages";
const CHECK: &str = "GET /databases";

fn builder(notion: &Notion) -> Builder {
    System::builder()
        .shell("works", "echo canary-of-the-log", "")
        .shell("fails", "exit 7", "")
        .set("NOTION_ENABLED", "1")
        .set("NOTION_TOKEN", NOTION_TOKEN)
        .set("NOTION_DATABASE_ID", &NOTION_DATABASE_ID.replace('-', ""))
        .set("NOTION_API_URL", &notion.url())
}

/// From here on ends of jobs are noted.
async fn noting(system: &System) {
    wait_until("a program has asked for it", async || {
        let rows = system.database.count("select count(*) from ops_notion");
        (rows.await == 1).then_some(())
    })
    .await;
}

async fn start(builder: Builder) -> System {
    let system = builder.start().await;
    noting(&system).await;
    system
}

async fn health(system: &System) -> Value {
    system.ops.get("/notion").await.expect(200).json()
}

async fn health_that(system: &System, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
    wait_until(what, async || {
        Some(health(system).await).filter(|health| fits(health))
    })
    .await
}

async fn all_published(system: &System, count: usize) {
    health_that(system, "all is published", |health| {
        health["pending"] == 0 && health["published"] == count
    })
    .await;
}

/// What is due later is due now, as time would have it.
async fn hasten(system: &System) {
    let psql = &system.database.psql;
    psql.execute(
        "update ops_notion_pages set due_at = clock_timestamp() where state = 'pending' and sender is null;
         update ops_notion set next_request_at = clock_timestamp();
         update ops_notion_keys set check_at = clock_timestamp()",
    )
    .await
    .expect("hastened");
}

/// The lease of whoever was publishing is over.
async fn end_leases(system: &System) {
    let psql = &system.database.psql;
    psql.execute("update ops_notion_pages set due_at = clock_timestamp() where state = 'pending'")
        .await
        .expect("over");
}

/// A real runner beside the system, with settings of its own.
async fn real_runner(system: &System, settings: &[(&str, &str)]) -> Program {
    let work = system
        .folder()
        .join("work-of-another")
        .display()
        .to_string();
    let file = system.runner_file().display().to_string();
    let mut runner = Start::of("runner")
        .environment(system.environment())
        .arguments(&["--config", &file])
        .set("RUNNER_ID", "another")
        .set("RUNNER_WORK_DIR", &work);
    for (name, value) in settings {
        runner = runner.set(name, value);
    }
    let mut runner = runner.start();
    runner.address().await;
    runner
}

async fn page_of(notion: &Notion, job: &Value, fits: impl Fn(&Page) -> bool) -> Page {
    let id = job["id"].as_str().expect("an id");
    wait_until("the job has its page", async || {
        let mut pages = notion.pages_of(id);
        assert!(pages.len() <= 1, "{pages:?}");
        pages.pop().filter(|page| fits(page))
    })
    .await
}

async fn works(system: &System) -> Value {
    let job = json!({"job_type": "works"});
    system.run_until(&job, "succeeded").await
}

#[tokio::test]
async fn finished_jobs_become_pages_that_say_what_is_documented_and_nothing_else() {
    let notion = Notion::start().await;
    let system = start(builder(&notion)).await;
    let job = json!({
        "job_type": "works", "queue": "mine", "payload": {"canary": "canary-of-the-payload"},
        "labels": {"canary": "canary-of-the-labels"},
    });
    let good = system.run_until(&job, "succeeded").await;
    let bad = system
        .run_until(&json!({"job_type": "fails"}), "failed")
        .await;
    all_published(&system, 2).await;
    let page = page_of(&notion, &good, |_| true).await;
    let id = good["id"].as_str().expect("an id");
    for (name, says) in [
        ("Job", format!("works {id}")),
        ("Job ID", id.to_owned()),
        ("Status", "succeeded".to_owned()),
        ("Type", "works".to_owned()),
        ("Queue", "mine".to_owned()),
        ("Attempts", "1".to_owned()),
        ("Error", String::new()),
    ] {
        assert_eq!(page.text(name), says, "{name}");
    }
    for (name, member) in [("Created", "created_at"), ("Finished", "finished_at")] {
        let at = good[member].as_str().expect("an instant");
        let to_seconds = |at: &str| at.chars().take(19).collect::<String>();
        assert_eq!(to_seconds(&page.text(name)), to_seconds(at), "{name}");
    }
    let failed = page_of(&notion, &bad, |_| true).await;
    assert_eq!(failed.text("Status"), "failed");
    assert_eq!(json!(failed.text("Error")), bad["error"]);
    let said = format!("{:?}", notion.pages());
    assert!(!said.contains("canary"), "{said}");
    // Once each: no search was needed, and the database was looked at once.
    let asked = [CHECK, CREATE, QUERY, CHANGE].map(|what| notion.count(what));
    assert_eq!(asked, [1, 2, 0, 0], "{:?}", notion.asked());
    let rows = tests::rows(&system.database.psql).await;
    assert!(!rows.contains(NOTION_TOKEN));
    let (code, shown, error) = system.opsctl(&["notion", "status"]).await;
    assert_eq!(code, 0, "{error}");
    assert!(shown.contains("published          2"), "{shown}");
    let (_, looked, _) = system.opsctl(&["doctor"]).await;
    assert!(looked.contains("no property is missing"), "{looked}");
    system.stop().await;
}

#[tokio::test]
async fn a_job_that_ends_anew_changes_its_page() {
    let notion = Notion::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let door = folder.path().join("door");
    let script = format!("test -e {}", door.display());
    let system = start(builder(&notion).shell("turns", &script, "")).await;
    let job = system
        .run_until(&json!({"job_type": "turns"}), "failed")
        .await;
    let first = page_of(&notion, &job, |page| page.text("Status") == "failed").await;
    assert!(!first.text("Error").is_empty());
    all_published(&system, 1).await;
    std::fs::write(&door, "").expect("opened");
    let id = job["id"].as_str().expect("an id");
    system
        .ops
        .press(&format!("/jobs/{id}/retry"))
        .await
        .expect(202);
    let second = page_of(&notion, &job, |page| page.text("Status") == "succeeded").await;
    assert_eq!(second.id, first.id);
    assert_eq!(second.text("Error"), "", "what failed before is gone");
    assert_eq!((notion.count(CREATE), notion.count(CHANGE)), (1, 1));
    all_published(&system, 2).await;
    system.stop().await;
}

#[tokio::test]
async fn many_publish_at_once_each_job_once_and_within_notions_limit() {
    let notion = Notion::start().await;
    let system = start(builder(&notion).runners(3)).await;
    system
        .database
        .psql
        .execute("select ops_enqueue('works', '{}') from generate_series(1, 20)")
        .await
        .expect("recorded");
    let published = async {
        wait_until("all pages are there", async || {
            (notion.pages().len() >= 20).then_some(())
        })
        .await;
    };
    let ticks = async {
        for _ in 0..3 {
            system.ops.press("/tick").await.expect(200);
        }
    };
    tokio::join!(published, ticks);
    all_published(&system, 20).await;
    let ids: std::collections::BTreeSet<String> = notion
        .pages()
        .iter()
        .map(|page| page.text("Job ID"))
        .collect();
    assert_eq!((ids.len(), notion.pages().len()), (20, 20));
    assert!(
        notion.asked().iter().all(|asked| asked.status == 200),
        "{:?}",
        notion.asked()
    );
    // Three a second, and the first three of a pause; asked of what the server saw, however long it took.
    let (count, time) = notion.pace();
    let allowed = 3.0 + 3.0 * time.as_secs_f64();
    assert!(f64::from(u32::try_from(count).expect("few")) <= allowed);
    system.stop().await;
}

#[tokio::test]
async fn who_is_told_to_come_back_later_does_and_everything_arrives() {
    let notion = Notion::start().await;
    let system = start(builder(&notion)).await;
    for status in [429, 503, 529] {
        notion.at_next(CREATE, Instead::Refuse(status, Some(2)));
        let job = works(&system).await;
        let what = format!("Notion has answered {status}");
        let told = health_that(&system, &what, |health| {
            let error = health["last_error"].as_str().unwrap_or_default();
            error.contains(&status.to_string())
        })
        .await;
        assert_eq!(told["pending"], 1);
        // The row may be due long after; the word of Notion holds all the same.
        end_leases(&system).await;
        page_of(&notion, &job, |_| true).await;
    }
    assert_eq!(notion.too_early(), 0, "{:?}", notion.asked());
    // Somebody edits the page, Notion has a bad moment, the network breaks: each is tried again.
    for instead in [Instead::Refuse(409, None), Instead::Refuse(500, None)] {
        notion.at_next(CREATE, instead);
        let job = works(&system).await;
        let id = job["id"].as_str().expect("an id").to_owned();
        wait_until("it has its page", async || {
            hasten(&system).await;
            (notion.pages_of(&id).len() == 1).then_some(())
        })
        .await;
    }
    assert_eq!(health(&system).await["dead"], 0);
    system.stop().await;
}

#[tokio::test]
async fn who_is_killed_after_making_a_page_is_followed_by_another_that_finds_it() {
    for (instead, asked_after) in [
        // The page was made, and nobody recorded it; or it was not, which nobody knew.
        (Instead::Swallow, [CREATE, QUERY, CHANGE]),
        (Instead::Ignore, [CREATE, QUERY, CREATE]),
    ] {
        let notion = Notion::start().await;
        let system = builder(&notion).runners(0).start().await;
        notion.at_next(CREATE, instead);
        let runner = real_runner(&system, &[]).await;
        noting(&system).await;
        let job = works(&system).await;
        wait_until("the request has come", async || {
            (notion.count(CREATE) == 1).then_some(())
        })
        .await;
        let printed = runner.stdout();
        assert!(!printed.contains(NOTION_TOKEN));
        runner.kill9().await;
        assert_eq!(
            system.ops.press("/tick").await.expect(200).json()["published"],
            0,
            "while the lease of who was lost lasts, nobody else publishes"
        );
        end_leases(&system).await;
        assert_eq!(
            system.ops.press("/tick").await.expect(200).json()["published"],
            1
        );
        let page = page_of(&notion, &job, |_| true).await;
        assert_eq!(page.text("Status"), "succeeded");
        assert_eq!(notion.pages().len(), 1);
        let asked = notion.asked();
        let asked: Vec<&str> = asked.iter().map(|asked| asked.what.as_str()).collect();
        assert_eq!(asked, [&[CHECK][..], &asked_after].concat());
        system.stop().await;
    }
}

#[tokio::test]
async fn a_search_goes_on_where_notion_says_that_it_does() {
    let notion = Notion::start().await;
    let system = builder(&notion).runners(0).start().await;
    system.ops.press("/tick").await.expect(200);
    notion.answer_sparsely();
    notion.at_next(CREATE, Instead::Swallow);
    let runner = real_runner(&system, &[]).await;
    let job = works(&system).await;
    wait_until("the page is there", async || {
        (notion.pages().len() == 1).then_some(())
    })
    .await;
    runner.kill9().await;
    end_leases(&system).await;
    system.ops.press("/tick").await.expect(200);
    all_published(&system, 1).await;
    page_of(&notion, &job, |_| true).await;
    assert_eq!((notion.count(QUERY), notion.count(CHANGE)), (2, 1));
    system.stop().await;
}

#[tokio::test]
async fn a_token_that_is_refused_stops_publishing_and_no_job_and_a_good_one_goes_on() {
    let notion = Notion::start().await;
    notion.accept("ntn_another");
    let system = start(builder(&notion)).await;
    works(&system).await;
    let held = health_that(&system, "the token is found refused", |health| {
        health["keys"][0]["fault"].is_string()
    })
    .await;
    let fault = held["keys"][0]["fault"].as_str().unwrap_or_default();
    assert!(
        fault.contains("401") && fault.contains("NOTION_TOKEN") && !fault.contains("canary"),
        "{fault}"
    );
    works(&system).await;
    system.ops.press("/tick").await.expect(200);
    let held = health(&system).await;
    assert_eq!((&held["pending"], &held["dead"]), (&json!(2), &json!(0)));
    assert_eq!(notion.asked().len(), 1, "it was asked once, and then not");
    // The token is given its rights back, and somebody says so.
    notion.accept(NOTION_TOKEN);
    let (code, _, error) = system.opsctl(&["notion", "retry"]).await;
    assert_eq!(code, 0, "{error}");
    all_published(&system, 2).await;
    assert!(health(&system).await["keys"][0]["fault"].is_null());
    // It is changed there while all runs: what was noticed in the middle of a job's turn is no fault of that job.
    notion.accept("ntn_the_next");
    let third = works(&system).await;
    let held = health_that(&system, "the token is found refused", |health| {
        health["keys"][0]["fault"].is_string()
    })
    .await;
    assert_eq!((&held["pending"], &held["dead"]), (&json!(1), &json!(0)));
    // A program with the new one goes on at once, beside the one with the old one.
    let other = real_runner(&system, &[("NOTION_TOKEN", "ntn_the_next")]).await;
    page_of(&notion, &third, |_| true).await;
    all_published(&system, 3).await;
    assert_eq!(other.logged("notion_checked").len(), 1);
    let keys = health(&system).await["keys"].clone();
    let faulty = keys.as_array().into_iter().flatten();
    assert_eq!(faulty.filter(|key| key["fault"].is_string()).count(), 1);
    drop(other);
    system.stop().await;
}

#[tokio::test]
async fn each_property_that_is_missing_or_of_another_type_is_reported_by_name() {
    let notion = Notion::start().await;
    notion.change_property("Queue", None);
    notion.change_property("Status", Some("status"));
    let system = start(builder(&notion)).await;
    works(&system).await;
    let held = health_that(&system, "the database is found faulty", |health| {
        health["keys"][0]["fault"].is_string()
    })
    .await;
    let fault = held["keys"][0]["fault"].as_str().unwrap_or_default();
    for part in [
        "the property \"Queue\" (select) is missing",
        "the property \"Status\" is of type status, not select",
    ] {
        assert!(fault.contains(part), "{fault}");
        let (code, looked, _) = system.opsctl(&["doctor"]).await;
        assert_eq!(code, 1);
        assert!(looked.contains(part), "{looked}");
    }
    notion.change_property("Queue", Some("select"));
    notion.change_property("Status", Some("select"));
    system.ops.press("/notion/retry").await.expect(202);
    all_published(&system, 1).await;
    // Somebody changes the database while all runs: jobs wait for it to be changed back, and none is given up.
    notion.change_property("Error", Some("number"));
    works(&system).await;
    let held = health_that(&system, "the database is found faulty", |health| {
        health["keys"][0]["fault"].is_string()
    })
    .await;
    assert_eq!((&held["pending"], &held["dead"]), (&json!(1), &json!(0)));
    notion.change_property("Error", Some("rich_text"));
    hasten(&system).await;
    all_published(&system, 2).await;
    // The database is not there for the integration.
    let nowhere = "0badcafe-0000-4000-8000-00000000dead";
    let other = real_runner(&system, &[("NOTION_DATABASE_ID", nowhere)]).await;
    let told = wait_until("it is found missing", async || {
        other.logged("notion_held").pop()
    })
    .await;
    let error = told["error"].as_str().unwrap_or_default();
    assert!(error.contains("NOTION_DATABASE_ID"), "{told}");
    drop(other);
    system.stop().await;
}

#[tokio::test]
async fn a_black_hole_delays_no_job_and_everything_arrives_once_it_is_none() {
    let notion = Notion::start().await;
    let system = start(builder(&notion)).await;
    let first = works(&system).await;
    page_of(&notion, &first, |_| true).await;
    all_published(&system, 1).await;
    notion.always(Some(Instead::Ignore));
    let asked = notion.asked().len();
    works(&system).await;
    wait_until("a request is in the hole", async || {
        (notion.asked().len() > asked).then_some(())
    })
    .await;
    for _ in 0..5 {
        works(&system).await;
    }
    // All have ended while the first request still waits, or was given up: none has hurt another.
    let seen = health(&system).await;
    assert_eq!((&seen["pending"], &seen["dead"]), (&json!(6), &json!(0)));
    notion.always(None);
    wait_until("all pages are there", async || {
        hasten(&system).await;
        (notion.pages().len() == 7).then_some(())
    })
    .await;
    all_published(&system, 7).await;
    system.stop().await;
}

#[tokio::test]
async fn with_the_flag_off_nothing_is_noted_and_nothing_is_asked() {
    let notion = Notion::start().await;
    let system = builder(&notion).set("NOTION_ENABLED", "0").start().await;
    works(&system).await;
    let tick = system.ops.press("/tick").await.expect(200).json();
    assert_eq!(tick["published"], 0);
    system.ops.get("/notion").await.problem(404);
    for table in [
        "select count(*) from ops_notion",
        "select count(*) from ops_notion_pages",
        "select count(*) from ops_notion_keys",
    ] {
        assert_eq!(system.database.count(table).await, 0, "{table}");
    }
    assert_eq!(notion.asked().len(), 0);
    system.stop().await;
}

#[tokio::test]
async fn what_notion_refuses_is_shown_and_published_again_when_somebody_says_so() {
    let notion = Notion::start().await;
    let system = start(builder(&notion)).await;
    notion.at_next(CREATE, Instead::Refuse(400, None));
    let refused = works(&system).await;
    let id = refused["id"].as_str().expect("an id");
    let told = health_that(&system, "it is refused", |health| health["dead"] == 1).await;
    assert_eq!(told["refused"][0]["job_id"], id);
    assert_eq!(told["refused"][0]["status"], 400);
    // Others go on.
    let other = works(&system).await;
    let page = page_of(&notion, &other, |_| true).await;
    assert_eq!(notion.pages().len(), 1);
    let (code, _, said) = system.opsctl(&["notion", "retry"]).await;
    assert_eq!((code, said.trim()), (0, "1 published again"));
    page_of(&notion, &refused, |_| true).await;
    all_published(&system, 2).await;
    // A page in the trash stays there; one that was removed for good is made anew.
    let other = other["id"].as_str().expect("an id");
    notion.archive(&page.id);
    let (code, _, error) = system.opsctl(&["notion", "retry", other]).await;
    assert_eq!(code, 0, "{error}");
    let told = health_that(&system, "it is refused", |health| health["dead"] == 1).await;
    let why = told["refused"][0]["error"].as_str().unwrap_or_default();
    assert!(why.contains("archived"), "{told}");
    notion.delete(&page.id);
    system.opsctl(&["notion", "retry", other]).await;
    wait_until("it is made anew", async || {
        hasten(&system).await;
        let pages = notion.pages_of(other);
        pages.iter().any(|made| made.id != page.id).then_some(())
    })
    .await;
    let (code, _, error) = system
        .opsctl(&["notion", "retry", "0190163d-8694-739b-aea5-966c26f8ad90"])
        .await;
    assert_eq!(code, 3);
    assert!(error.contains("no such job"), "{error}");
    system.stop().await;
}

#[tokio::test]
async fn a_job_that_ended_before_anybody_published_is_published_by_hand() {
    let notion = Notion::start().await;
    let system = builder(&notion).runners(0).start().await;
    let psql = &system.database.psql;
    psql.execute("select ops_abort(ops_enqueue('nobody_takes_it', '{}'))")
        .await
        .expect("ended");
    let id: uuid::Uuid = sqlx::query_scalar("select id from ops_jobs")
        .fetch_one(psql)
        .await
        .expect("the job");
    let tick = async || system.ops.press("/tick").await.expect(200).json();
    assert_eq!(tick().await["published"], 0);
    let (code, _, error) = system.opsctl(&["notion", "retry", &id.to_string()]).await;
    assert_eq!(code, 0, "{error}");
    assert_eq!(tick().await["published"], 1);
    assert_eq!(notion.pages()[0].text("Status"), "aborted");
    system.stop().await;
}

#[tokio::test]
async fn with_the_flag_on_and_nothing_to_publish_with_no_program_starts() {
    let system = System::builder().runners(0).start().await;
    for name in ["runner", "control-plane"] {
        let (code, _, error) = Start::of(name)
            .environment(system.environment())
            .set("NOTION_ENABLED", "1")
            .set("NOTION_DATABASE_ID", "canary")
            .run()
            .await;
        assert_eq!(code, 2, "{error}");
        assert!(
            error.contains("NOTION_TOKEN") && error.contains("NOTION_DATABASE_ID"),
            "{error}"
        );
        assert!(!error.contains("canary"), "{error}");
    }
    system.stop().await;
}
