#![doc = include_str!("../README.md")]

mod archive;
mod content_type;
mod copies;
mod depot;
mod error;
mod name;
mod reader;
mod sums;
mod writer;

pub use archive::Archive;
pub use content_type::content_type_of;
pub use depot::{Depot, Place, S3};
pub use error::FileError;
pub use name::{file_name_of, is_artifact_name, unique_file_names};
pub use reader::Piece;
pub use sums::digest_of;
pub use writer::{Owner, Uploaded, Writer};
