//! Many jobs at once: all or none.

use serde_json::{Value, json};
use tests::System;

fn jobs(count: usize) -> Vec<Value> {
    (0..count).map(|number| json!({"job_type": "a", "payload": number})).collect()
}

#[tokio::test]
async fn a_thousand_jobs_are_recorded_in_order_and_one_more_is_refused() {
    let system = System::builder().runners(0).start().await;
    let answer = system.ops.post("/jobs/batch", &json!({"jobs": jobs(1000)})).await.expect(201).json();
    let recorded = answer["jobs"].as_array().expect("jobs");
    let payloads: Vec<&Value> = recorded.iter().map(|job| &job["payload"]).collect();
    assert_eq!(json!(payloads), json!((0..1000).collect::<Vec<_>>()));
    let answer = system.ops.post("/jobs/batch", &json!({"jobs": jobs(1001)})).await;
    assert_eq!(answer.wrong_fields(), ["/jobs"]);
    assert_eq!(system.ops.post("/jobs/batch", &json!({"jobs": []})).await.wrong_fields(), ["/jobs"]);
    assert_eq!(system.database.count("select count(*) from ops_jobs").await, 1000);
    assert_eq!(system.database.count("select count(*) from ops_job_events where kind = 'queued' and seq = 1").await, 1000);
    system.stop().await;
}

#[tokio::test]
async fn one_wrong_job_keeps_all_others_out() {
    let system = System::builder().runners(0).start().await;
    let mut batch = jobs(10);
    batch[3] = json!({"job_type": "a", "priority": "high"});
    batch[7] = json!({"payload": 1, "wrong": true});
    let answer = system.ops.post("/jobs/batch", &json!({"jobs": batch})).await;
    assert_eq!(answer.wrong_fields(), ["/jobs/3/priority", "/jobs/7/job_type", "/jobs/7/wrong"]);
    assert_eq!(system.database.count("select count(*) from ops_jobs").await, 0);
    system.stop().await;
}
