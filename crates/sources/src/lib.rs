//! Where configuration comes from, turned into changes.
//!
//! [`files`] watches files and folders; [`state`] is its pure half, which remembers what every file said last.
//! [`kubernetes`] watches an API server. [`layers`] puts several sources into one. Not here: what the objects mean (`mizzen-config`
//! reads them, `mizzen-mesh` takes the changes).

#![forbid(unsafe_code)]

pub mod files;
pub mod kubernetes;
pub mod layers;
pub mod state;

pub use files::{FileSource, SourceError};
pub use kubernetes::KubernetesSource;
pub use layers::{Layer, Layers};
pub use state::Batch;
