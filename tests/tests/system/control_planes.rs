//! Two control planes behind one database behave as one.

use serde_json::json;
use tests::System;

#[tokio::test]
async fn what_one_control_plane_does_the_other_knows() {
    let system = System::builder().control_planes(2).runners(0).start().await;
    let (a, b) = (system.control_plane(0), system.control_plane(1));
    let keyed = |client: &tests::Client, body| client.call("POST", "/jobs").header("idempotency-key", "k").json(&body);
    let job = keyed(&a, json!({"job_type": "a"})).send().await.expect(201).json();
    let id = job["id"].as_str().expect("an id");
    assert_eq!(b.get(&format!("/jobs/{id}")).await.expect(200).json(), job);
    assert_eq!(keyed(&b, json!({"job_type": "a"})).send().await.expect(200).json()["id"], job["id"]);
    keyed(&b, json!({"job_type": "b"})).send().await.problem(422);
    b.post("/jobs", &json!({"job_type": "a"})).await.expect(201);
    let page = a.get("/jobs?limit=1").await.expect(200).json();
    let cursor = page["next_cursor"].as_str().expect("a cursor");
    let rest = b.get(&format!("/jobs?limit=1&cursor={cursor}")).await.expect(200).json();
    assert_eq!((&rest["jobs"][0]["id"], &rest["next_cursor"]), (&job["id"], &json!(null)));
    b.press(&format!("/jobs/{id}/abort")).await.expect(202);
    assert_eq!(a.get(&format!("/jobs/{id}")).await.expect(200).json()["status"], "aborted");
    a.press(&format!("/jobs/{id}/abort")).await.problem(409);
    system.stop().await;
}
