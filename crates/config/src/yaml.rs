//! YAML text → documents of positioned nodes.
//!
//! A broken document spoils itself only: reading goes on at the next `---`. Scalars mean what they mean to Kubernetes
//! (YAML 1.1 words such as `yes` are booleans). Size, depth, number of documents and what aliases expand to are limited.

mod build;
mod scalar;

use std::fmt;
use std::sync::Arc;

pub(crate) use build::documents;

/// A file larger than this is refused whole.
pub const MAX_FILE_BYTES: usize = 1024 * 1024;
/// Documents of one file beyond this many are refused.
pub const MAX_DOCUMENTS: usize = 4096;
/// Values (scalars, lists and maps) of one file, aliases expanded.
pub const MAX_NODES: usize = 250_000;
/// Levels of lists and maps in each other.
pub const MAX_DEPTH: usize = 64;

/// A place in a text; both count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Mark {
    pub line: u32,
    pub column: u32,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub mark: Mark,
    pub value: Value,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool, Arc<str>),
    /// The number and how it was written.
    Int(i64, Arc<str>),
    Float(f64, Arc<str>),
    String(Arc<str>),
    Sequence(Vec<Node>),
    Mapping(Vec<(Key, Node)>),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Key {
    pub mark: Mark,
    pub name: Arc<str>,
}

impl Node {
    /// The value of a key, when this is a map that has it and its value is not null.
    pub(crate) fn get(&self, name: &str) -> Option<&Self> {
        self.entry(name).map(|(_, node)| node)
    }

    pub(crate) fn entry(&self, name: &str) -> Option<(&Key, &Self)> {
        let Value::Mapping(entries) = &self.value else { return None };
        let (key, node) = entries.iter().find(|(key, _)| &*key.name == name)?;
        (node.value != Value::Null).then_some((key, node))
    }

    pub(crate) fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }
}

/// For messages: what a value is, shortened.
impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Value::Null => f.write_str("nothing"),
            Value::Bool(_, raw) => write!(f, "the boolean `{raw}`"),
            Value::Int(_, raw) | Value::Float(_, raw) => write!(f, "the number `{raw}`"),
            Value::String(text) => write!(f, "the string `{}`", shortened(text)),
            Value::Sequence(_) => f.write_str("a list"),
            Value::Mapping(_) => f.write_str("a map"),
        }
    }
}

/// A text of a user, made fit for a message: one line, no control characters, not long.
pub(crate) fn shortened(text: &str) -> String {
    const LONGEST: usize = 60;
    let mut out = String::new();
    for (index, c) in text.chars().enumerate() {
        if index == LONGEST {
            out.push('…');
            break;
        }
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

/// Why a document cannot be read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Broken {
    pub code: &'static str,
    pub mark: Mark,
    pub message: String,
    pub hint: Option<String>,
}

#[cfg(test)]
mod tests;
