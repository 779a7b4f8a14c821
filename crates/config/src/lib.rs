//! Files of YAML, and objects of an API server → validated objects, with a finding for whatever a person should know about one resource alone.
//!
//! [`parse()`] never fails: a bad document or resource rejects itself, the rest of the file counts. Every finding names
//! the file, line and column, the field, what is wrong, and what to write instead. Not here: reading files, and what only shows
//! across resources (`mizzen-analysis`).

#![forbid(unsafe_code)]

mod check;
pub mod code;
mod document;
mod kind;
pub mod obeyed;
mod object;
mod parse;
mod path;
mod position;
mod reader;
pub mod report;
mod suggest;
mod validate;
mod yaml;

pub use document::{Document, Keep};
pub use object::{Change, Controller, Created, Kind, Meta, Object, Version};
pub use parse::{Parsed, oversized, parse, read_object};
pub use position::Positions;
pub use suggest::nearest;
pub use yaml::{MAX_DEPTH, MAX_DOCUMENTS, MAX_FILE_BYTES, MAX_NODES};
