#![doc = include_str!("../README.md")]
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a harness that cannot go on fails the test, and says why"
)]

mod balancer;
mod call;
mod database;
mod leftovers;
mod lines;
mod live;
mod multipart;
mod notion;
mod peer;
mod program;
pub mod raw;
mod receiver;
mod s3;
mod sse;
mod stuck;
mod system;
mod wait;

pub use balancer::Balancer;
pub use call::{Answer, Call, Client};
pub use database::{Database, migrate, rows};
pub use leftovers::{command_line, end_processes_of, processes_in, processes_of};
pub use lines::{LineFigures, lines};
pub use live::{CutFigures, WatcherFigures, cuts, watchers};
pub use multipart::Multipart;
pub use notion::{Asked, Instead, NOTION_DATABASE_ID, NOTION_TOKEN, Notion, Page};
pub use peer::Peer;
pub use program::{Program, Start, repository};
pub use receiver::{Heard, Receiver, Reply, signature};
pub use s3::S3;
pub use sse::{Frame, Next, Sse};
pub use stuck::{StuckFigures, stuck};
pub use system::{API_KEY, Builder, RUNNER_TOKEN, SECRET_KEY, System};
pub use wait::{LIMIT, wait_until};
