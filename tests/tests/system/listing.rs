//! Lists: newest first, page by page, by whatever filter.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tests::{Answer, System};

fn ids(answer: &Answer) -> Vec<String> {
    let jobs = answer.json()["jobs"].as_array().cloned().expect("jobs");
    jobs.iter().map(|job| job["id"].as_str().unwrap_or_default().to_owned()).collect()
}

#[tokio::test]
async fn pages_hold_each_job_once_while_more_are_recorded() {
    let system = System::builder().runners(0).start().await;
    let mut recorded = Vec::new();
    for _ in 0..25 {
        recorded.insert(0, system.submit_type("a").await);
    }
    let mut seen = Vec::new();
    let mut cursor = Value::Null;
    loop {
        let after = cursor.as_str().map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
        let page = system.ops.get(&format!("/jobs?limit=10{after}")).await.expect(200);
        seen.extend(ids(&page));
        cursor = page.json()["next_cursor"].clone();
        if cursor.is_null() {
            break;
        }
        system.submit_type("newcomer").await;
    }
    assert_eq!(seen, recorded);
    assert_eq!(ids(&system.ops.get("/jobs").await).len(), 27, "50 a page unless asked otherwise");
    system.stop().await;
}

#[tokio::test]
async fn a_cursor_holds_only_as_it_was_given_and_for_its_filter() {
    let system = System::builder().runners(0).start().await;
    for _ in 0..3 {
        system.submit_type("a").await;
    }
    let page = system.ops.get("/jobs?limit=1&job_type=a").await.expect(200).json();
    let cursor = page["next_cursor"].as_str().expect("a cursor");
    system.ops.get(&format!("/jobs?limit=2&job_type=a&cursor={cursor}")).await.expect(200);
    let turned: String = cursor.chars().rev().collect();
    let changed = format!("{}{}", &cursor[..cursor.len() - 1], if cursor.ends_with('A') { 'B' } else { 'A' });
    for wrong in [
        format!("job_type=a&cursor={turned}"),
        format!("job_type=a&cursor={changed}"),
        format!("job_type=b&cursor={cursor}"),
        format!("cursor={cursor}"),
        "cursor=nonsense".to_owned(),
    ] {
        let answer = system.ops.get(&format!("/jobs?{wrong}")).await;
        assert_eq!(answer.wrong_fields(), ["cursor"], "{wrong}");
    }
    system.stop().await;
}

#[tokio::test]
async fn each_filter_finds_what_it_names_and_wrong_ones_are_named() {
    let system = System::builder().runners(0).start().await;
    let first = system.submit(&json!({"job_type": "a", "queue": "slow", "labels": {"env": "prod"}})).await;
    let second = system.submit(&json!({"job_type": "b", "labels": {"env": "test"}})).await;
    let third = system.submit_type("a").await;
    system.abort(&third).await.expect(202);
    let at = system.job(&second).await["created_at"].as_str().expect("an instant").to_owned();
    for (query, expected) in [
        ("".to_owned(), vec![&third, &second, &first]),
        ("job_type=a".to_owned(), vec![&third, &first]),
        ("queue=slow".to_owned(), vec![&first]),
        ("label=env=test".to_owned(), vec![&second]),
        ("status=aborted".to_owned(), vec![&third]),
        ("status=queued&job_type=a".to_owned(), vec![&first]),
        (format!("created_after={at}"), vec![&third, &second]),
        (format!("created_before={at}"), vec![&first]),
        ("stalled=true".to_owned(), vec![]),
        ("job_type=nothing".to_owned(), vec![]),
    ] {
        let answer = system.ops.get(&format!("/jobs?{query}")).await.expect(200);
        assert_eq!(ids(&answer).iter().collect::<Vec<_>>(), expected, "{query}");
    }
    let answer = system.ops.get("/jobs?limit=201&status=done&stalled=maybe&job_type=A&labl=x&created_after=now").await;
    let wrong: BTreeSet<String> = answer.wrong_fields().into_iter().collect();
    let expected = ["created_after", "job_type", "labl", "limit", "stalled", "status"];
    assert_eq!(wrong.iter().map(String::as_str).collect::<Vec<_>>(), expected);
    system.stop().await;
}

#[tokio::test]
async fn a_running_job_that_is_not_heard_of_reads_stalled() {
    let builder = System::builder().shell("quiet", "exec sleep 600", "").set("STALL_THRESHOLD_SECONDS", "1");
    let system = builder.start().await;
    let id = system.submit_type("quiet").await;
    assert_eq!(system.until(&id, "running").await["stalled"], false);
    tests::wait_until("the job is stalled", async || (system.job(&id).await["stalled"] == true).then_some(())).await;
    assert_eq!(ids(&system.ops.get("/jobs?stalled=true").await), [id]);
    system.stop().await;
}
