//! Adding, replacing and removing headers.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::template::{Facts, HeaderTemplate};

/// Edits, applied in order: removals first, then additions.
#[derive(Debug, Clone, Default)]
pub struct HeaderEdits {
    pub remove: Vec<HeaderName>,
    pub set: Vec<HeaderEdit>,
}

#[derive(Debug, Clone)]
pub struct HeaderEdit {
    pub name: HeaderName,
    pub value: HeaderTemplate,
    pub action: AppendAction,
    /// Add the header even if its value turns out empty.
    pub keep_empty: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppendAction {
    Append,
    AddIfAbsent,
    OverwriteOrAdd,
    OverwriteIfExists,
}

impl HeaderEdits {
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty()
    }

    /// Edits `headers`. Every value is worked out from the headers as they were after the removals; then come the
    /// replacements, then the additions (Envoy: `HeaderParser`).
    pub fn apply(&self, headers: &mut HeaderMap, facts: &Facts<'_>) {
        for name in &self.remove {
            headers.remove(name);
        }
        // The usual few edits fit without a growth of the vector.
        let mut additions: Vec<(&HeaderName, HeaderValue)> = Vec::new();
        let mut replacements: Vec<(&HeaderName, HeaderValue)> = Vec::new();
        for edit in &self.set {
            let Some(value) = edit.value.resolve(facts, headers) else { continue };
            if value.is_empty() && !edit.keep_empty {
                continue;
            }
            match edit.action {
                AppendAction::Append => additions.push((&edit.name, value)),
                AppendAction::AddIfAbsent if headers.contains_key(&edit.name) => {}
                AppendAction::AddIfAbsent => additions.push((&edit.name, value)),
                AppendAction::OverwriteOrAdd => replacements.push((&edit.name, value)),
                AppendAction::OverwriteIfExists if headers.contains_key(&edit.name) => {
                    replacements.push((&edit.name, value));
                }
                AppendAction::OverwriteIfExists => {}
            }
        }
        for (name, value) in replacements {
            headers.insert(name, value);
        }
        for (name, value) in additions {
            headers.append(name, value);
        }
    }
}
