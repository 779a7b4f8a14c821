//! What is wrong, or probably not meant, across resources: for `analyze`, for the log of the control plane, for status.
//!
//! One file per message under `messages/`, each with its documentation in a fixed form; [`MESSAGES`] is the one list of
//! them. What a resource says wrong by itself is found by `mizzen-config`. Whatever a name means is asked of
//! `mizzen-mesh`, as the translators ask it.

#![forbid(unsafe_code)]

mod destinations;
mod messages;
mod view;

use std::sync::Arc;

use mizzen_config::{Change, Object};
use mizzen_mesh::Mesh;
use mizzen_types::{Finding, Severity};

pub use messages::MESSAGES;
use view::View;

/// One kind of finding.
pub struct Message {
    /// Stable, for instance `MZ0101`.
    pub code: &'static str,
    pub name: &'static str,
    pub severity: Severity,
    /// The file that checks it; its head is the documentation.
    source: &'static str,
    check: fn(&View<'_>, &mut Found<'_>),
}

impl Message {
    /// What it does, why that is bad, an example and a fix, as Markdown.
    pub fn documentation(&self) -> String {
        let head = self.source.lines().map_while(|line| line.strip_prefix("//!"));
        head.map(|line| line.strip_prefix(' ').unwrap_or(line)).collect::<Vec<_>>().join("\n")
    }
}

/// The message of a code.
pub fn message(code: &str) -> Option<&'static Message> {
    MESSAGES.iter().find(|message| message.code.eq_ignore_ascii_case(code))
}

/// All findings about `objects`, which are what `mesh` was made of, in the order of [`MESSAGES`].
pub fn analyse(mesh: &Mesh, objects: &[Arc<Object>]) -> Vec<Finding> {
    let view = View::new(mesh, objects);
    let mut findings = Vec::new();
    for message in MESSAGES {
        (message.check)(&view, &mut Found { message, findings: &mut findings });
    }
    findings
}

/// The same for objects alone.
pub fn analyse_objects(objects: &[Arc<Object>]) -> Vec<Finding> {
    let changes: Vec<Change> = objects.iter().map(|object| Change::Put(Arc::clone(object))).collect();
    let (mesh, _) = Mesh::empty().apply(&changes);
    analyse(&mesh, objects)
}

/// Where a check puts what it finds.
struct Found<'f> {
    message: &'static Message,
    findings: &'f mut Vec<Finding>,
}

impl Found<'_> {
    /// About a field of an object: what is wrong, and what to do.
    fn at(&mut self, object: &Object, field: impl Into<String>, message: String, hint: impl Into<String>) {
        let origin = object.origin(field);
        self.findings.push(Finding {
            code: self.message.code,
            severity: self.message.severity,
            position: object.at(&origin.field),
            origin: Some(origin),
            message,
            hint: Some(hint.into()),
        });
    }
}

#[cfg(test)]
mod tests;
