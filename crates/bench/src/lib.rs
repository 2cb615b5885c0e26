#![doc = include_str!("../README.md")]

pub mod child;
pub mod cluster;
pub mod load;
pub mod noop;
pub mod peer;
pub mod raw;
pub mod report;
pub mod scale;
pub mod seed;
pub mod serve;
pub mod stats;
pub mod store;
pub mod workloads;

/// Whatever goes wrong ends the run; nobody sorts it out.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;
