//! Which configuration object, and where in it: the words in which errors and explanations point at something.

use std::fmt;
use std::sync::Arc;

/// Identity of a configuration object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    pub kind: Arc<str>,
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl ObjectKey {
    pub fn new(kind: &str, namespace: &str, name: &str) -> Self {
        Self { kind: kind.into(), namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.kind, self.namespace, self.name)
    }
}

/// A field of an object: `VirtualService/default/reviews` at `spec.http[0].match[1]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    pub object: ObjectKey,
    /// Dotted path with indexes; empty means the object as a whole.
    pub field: String,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.object)?;
        if !self.field.is_empty() {
            write!(f, " {}", self.field)?;
        }
        Ok(())
    }
}

/// A place in a file; lines and columns count from 1.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    pub file: Arc<str>,
    pub line: u32,
    pub column: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// Good to know; nothing is wrong.
    Info,
    /// Obeyed, but perhaps not what was meant; or a field that is not obeyed yet.
    Warning,
    /// Not obeyed: the object, or the part named, is not in force.
    Error,
}

/// Something a person should know about the configuration: what happened, where, why, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Stable code, for instance `MZ0101`.
    pub code: &'static str,
    pub severity: Severity,
    /// The object and field it is about; absent when a file could not be read as objects.
    pub origin: Option<Origin>,
    pub position: Option<Position>,
    /// What is wrong and why: lower case, no full stop.
    pub message: String,
    /// What to write or do instead.
    pub hint: Option<String>,
}
