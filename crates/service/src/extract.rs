//! Request bodies, paths and queries parsed at the door, with every rejection a [`Problem`].
//!
//! A body is read strictly: what PostgreSQL or an f64 cannot keep unchanged is refused here, and
//! all wrong fields are named at once.

mod body;
mod fields;
mod multipart;
mod numbers;
mod params;
pub mod read;
mod strict;

pub use body::{Json, OptionalJson};
pub use fields::{Fields, Parse};
pub use multipart::{FilePart, Multipart, Part, is_multipart};
pub use params::{Path, Query};
pub use read::MAX_DEPTH;

#[cfg(doc)]
use crate::Problem;
