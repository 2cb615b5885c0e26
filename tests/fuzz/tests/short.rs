//! The short attack, as part of `cargo test`.

use fuzz::{Plan, System, attack};

/// Fixed, so that the same requests are sent at every test; `cargo run -p fuzz` takes another each time.
const SEED: u64 = 1;

#[tokio::test(flavor = "multi_thread")]
async fn whatever_many_callers_send_is_answered_as_it_should_be() {
    let system = System::usual().await;
    let plan = Plan {
        seed: SEED,
        requests: 4000,
        only: None,
        within: None,
        workers: 8,
    };
    let mut tally = attack(&system.target, plan, None).await;
    system.examine(&mut tally).await;
    println!("{tally}");
    assert!(tally.requests >= 4000 && tally.found == 0, "{tally}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_request_has_changed_nothing() {
    let system = System::quiet().await;
    let plan = Plan {
        seed: SEED + 1,
        requests: 1500,
        only: None,
        within: None,
        workers: 1,
    };
    let mut tally = attack(&system.target, plan, Some(&system.database)).await;
    system.examine(&mut tally).await;
    println!("{tally}");
    assert!(tally.unchanged > 500 && tally.found == 0, "{tally}");
}
