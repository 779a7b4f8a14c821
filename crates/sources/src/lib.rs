//! Where configuration comes from, turned into changes.
//!
//! [`files`] watches files and folders; [`state`] is its pure half, which remembers what every file said last. Not here:
//! what the objects mean (`mizzen-config` reads them, `mizzen-mesh` takes the changes).

#![forbid(unsafe_code)]

pub mod files;
pub mod state;

pub use files::{FileSource, SourceError};
pub use state::Batch;
