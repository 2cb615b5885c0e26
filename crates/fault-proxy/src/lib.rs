#![doc = include_str!("../README.md")]

mod connection;
mod counts;
mod fault;
mod proxy;

pub use counts::Counts;
pub use fault::{Direction, Fault, Reach};
pub use proxy::{Proxy, Target};
