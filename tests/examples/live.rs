//! What live streams and logs cost, at full size. The tests run the same, smaller.
//!
//! ```sh
//! cargo build --workspace --bins --release
//! cargo run --release -p tests --example live -- watchers 1000   # clients, on one job, a tenth as many, as many
//! cargo run --release -p tests --example live -- cuts 1000       # forced reconnects
//! cargo run --release -p tests --example live -- stuck 500       # clients that never read
//! cargo run --release -p tests --example live -- lines 1000000   # lines, five runs each way
//! ```
#![expect(clippy::print_stdout, reason = "a command for people")]

use std::time::Duration;

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let what = arguments.next().unwrap_or_default();
    let size: usize = arguments
        .next()
        .and_then(|size| size.parse().ok())
        .unwrap_or(1000);
    match what.as_str() {
        "watchers" => {
            for jobs in [1, size.div_ceil(10), size] {
                println!("{size} clients, {jobs} jobs");
                let figures = tests::watchers(size, jobs, 300, Duration::from_millis(50)).await;
                println!("{figures:?}");
            }
        }
        "cuts" => println!("{:#?}", tests::cuts(size).await),
        "stuck" => println!("{:#?}", tests::stuck(size).await),
        "lines" => {
            for script in [
                format!("seq {size}"),
                format!("awk 'BEGIN {{ for (i = 1; i <= {size}; i++) print i }}'"),
                format!("i=0; while [ $i -lt {size} ]; do i=$((i+1)); echo $i; done"),
            ] {
                println!("{script}");
                println!("{:?}", tests::lines(&script, 5).await);
            }
        }
        _ => println!("usage: live watchers|cuts|stuck|lines [SIZE]"),
    }
}
