//! Where a validation stands in its object, and what it has found there.

use mizzen_types::Severity;

use crate::code;
use crate::path::{push_index, push_key};

/// A finding about one object, before its place is looked up.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Raised {
    pub code: &'static str,
    pub severity: Severity,
    pub path: String,
    pub message: String,
    pub hint: Option<String>,
}

/// Walks an object field by field and collects what is wrong.
#[derive(Default)]
pub(crate) struct Check {
    path: String,
    pub found: Vec<Raised>,
    /// Regular expressions of the file that were expensive to check.
    pub large_expressions: u32,
}

impl Check {
    /// Goes on inside of a field.
    pub(crate) fn field(&mut self, name: &str, inside: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        push_key(&mut self.path, name);
        inside(self);
        self.path.truncate(length);
    }

    /// Goes on inside of a field that may be absent.
    pub(crate) fn optional<T>(&mut self, name: &str, value: Option<&T>, inside: impl FnOnce(&mut Self, &T)) {
        if let Some(value) = value {
            self.field(name, |check| inside(check, value));
        }
    }

    /// Goes on inside of each element of a list.
    pub(crate) fn each<T>(&mut self, name: &str, items: &[T], mut inside: impl FnMut(&mut Self, &T)) {
        let length = self.path.len();
        push_key(&mut self.path, name);
        let list = self.path.len();
        for (index, item) in items.iter().enumerate() {
            push_index(&mut self.path, index);
            inside(self, item);
            self.path.truncate(list);
        }
        self.path.truncate(length);
    }

    /// Goes on inside of one element of a list.
    pub(crate) fn element(&mut self, name: &str, index: usize, inside: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        push_key(&mut self.path, name);
        push_index(&mut self.path, index);
        inside(self);
        self.path.truncate(length);
    }

    /// Something that keeps the object from being obeyed.
    pub(crate) fn error(&mut self, code: &'static str, message: impl Into<String>, hint: impl Into<String>) {
        self.raise(code, Severity::Error, message.into(), Some(hint.into()));
    }

    /// A required field of the field this stands in.
    pub(crate) fn missing(&mut self, name: &str, example: &str) {
        let what = format!("`{name}` is missing");
        self.error(code::MISSING, what, format!("write `{example}`"));
    }

    pub(crate) fn not_allowed(&mut self, message: impl Into<String>, hint: impl Into<String>) {
        self.error(code::NOT_ALLOWED, message, hint);
    }

    pub(crate) fn conflict(&mut self, message: impl Into<String>, hint: impl Into<String>) {
        self.error(code::CONFLICT, message, hint);
    }

    pub(crate) fn warn(&mut self, code: &'static str, message: impl Into<String>, hint: impl Into<String>) {
        self.raise(code, Severity::Warning, message.into(), Some(hint.into()));
    }

    pub(crate) fn info(&mut self, code: &'static str, message: impl Into<String>, hint: impl Into<String>) {
        self.raise(code, Severity::Info, message.into(), Some(hint.into()));
    }

    pub(crate) fn raise(&mut self, code: &'static str, severity: Severity, message: String, hint: Option<String>) {
        self.found.push(Raised { code, severity, path: self.path.clone(), message, hint });
    }

    pub(crate) fn has_error(&self) -> bool {
        self.found.iter().any(|raised| raised.severity == Severity::Error)
    }
}
