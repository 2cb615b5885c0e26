#![doc = include_str!("../README.md")]

mod blocking;
mod clients;
mod cluster;
mod error;
mod files;
mod guard;
mod launch;
mod options;
mod pid_file;
mod programs;
mod psql;
mod settle;
mod state;
pub mod testing;
mod url;
mod user;

#[cfg(feature = "download")]
mod download;

pub use clients::Clients;
pub use cluster::{Cluster, reset};
pub use error::Error;
pub use launch::Mode;
pub use options::{Options, Place};
pub use programs::Programs;
