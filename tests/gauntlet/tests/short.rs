//! The short run, as part of `cargo test`.

use gauntlet::profile::Profile;

/// Fixed, so that the same faults happen at every test; `cargo run -p gauntlet` takes another each time.
const SEED: u64 = 1;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_nothing_runs_twice_and_nothing_gets_stuck() {
    let report = gauntlet::run(SEED, &Profile::short(), |line| println!("{line}")).await;
    println!("{report}");
    assert!(report.is_clean(), "{report}");
}
