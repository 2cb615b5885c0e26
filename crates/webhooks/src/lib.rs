#![doc = include_str!("../README.md")]

mod attempt;
mod sender;
mod signing;

pub use sender::{Round, Sender};
pub use signing::{SigningKeys, derived_signing_key};
