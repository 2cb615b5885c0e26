#![doc = include_str!("../README.md")]

mod api;
mod page;
mod publisher;

pub use api::VERSION;
pub use page::PROPERTIES;
pub use publisher::{Publisher, Round};
