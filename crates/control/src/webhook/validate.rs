//! `/validate`: what `mizzen validate` refuses in a file, the API server refuses, with the same words.

use mizzen_config::{Document, code, read_object, report};
use mizzen_types::{Finding, Severity};

use super::Hooks;
use super::review::{Review, Verdict};

pub(super) fn validate(hooks: &Hooks, review: Review<Document>) -> Verdict {
    let Some(document) = review.object.filter(|_| review.operation != "DELETE") else { return Verdict::ALLOWED };
    let kind = review.kind;
    let slash = if kind.group.is_empty() { "" } else { "/" };
    let api_version = format!("{}{slash}{}", kind.group, kind.version);
    let findings = read_object(&api_version, &kind.kind, &document).findings;
    // What the mesh does not read is none of its business.
    let known = |finding: &&Finding| finding.code != code::UNKNOWN_KIND;
    let of = |severity| findings.iter().filter(known).filter(move |finding| finding.severity == severity);
    let not_obeyed = of(Severity::Info).filter(|finding| finding.code == code::NOT_OBEYED);
    let warnings = of(Severity::Warning).chain(not_obeyed).map(warning).collect();
    let errors: Vec<String> = of(Severity::Error).map(report::line).collect();
    if errors.is_empty() {
        hooks.counters().passed();
        return Verdict::Allowed { patch: None, warnings };
    }
    hooks.counters().refused();
    tracing::info!(kind = kind.kind, namespace = review.namespace, name = review.name, "refused");
    Verdict::Denied { message: errors.join("\n"), warnings }
}

/// In one line, as `kubectl` shows it after `Warning:`.
fn warning(finding: &Finding) -> String {
    let field = finding.origin.as_ref().map(|origin| origin.field.as_str()).unwrap_or_default();
    let colon = if field.is_empty() { "" } else { ": " };
    let hint = finding.hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default();
    format!("{field}{colon}{}{hint}", finding.message)
}
