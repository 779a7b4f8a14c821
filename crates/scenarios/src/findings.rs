//! Compares findings with those that a scenario asks for.

use mizzen_types::{Finding, Severity};
use serde_json::Value;

use crate::expect::Wrong;
use crate::scenario::FindingLine;

/// A finding in the words of scenarios, wherever it was read.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    severity: Severity,
    /// `KIND/NAMESPACE/NAME`, or `-`.
    object: String,
    field: String,
    /// Code, message and hint.
    text: String,
    position: Option<String>,
}

impl From<&Finding> for Found {
    fn from(finding: &Finding) -> Self {
        let origin = finding.origin.as_ref();
        Self {
            severity: finding.severity,
            object: origin.map_or_else(|| "-".to_owned(), |origin| origin.object.to_string()),
            field: origin.map(|origin| origin.field.clone()).unwrap_or_default(),
            text: format!("{} {} {}", finding.code, finding.message, finding.hint.as_deref().unwrap_or_default()),
            position: finding.position.as_ref().map(ToString::to_string),
        }
    }
}

impl Found {
    /// Reads an entry of the control plane's `/debug/findings`.
    pub(crate) fn from_json(finding: &Value) -> Self {
        let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
        let origin = &finding["origin"];
        let object = if origin.is_null() {
            "-".to_owned()
        } else {
            format!("{}/{}/{}", text(origin, "kind"), text(origin, "namespace"), text(origin, "name"))
        };
        Self {
            severity: match text(finding, "severity").as_str() {
                "error" => Severity::Error,
                "warning" => Severity::Warning,
                _ => Severity::Info,
            },
            object,
            field: text(origin, "field"),
            text: format!("{} {} {}", text(finding, "code"), text(finding, "message"), text(finding, "hint")),
            position: (!finding["position"].is_null()).then(|| finding["position"].to_string()),
        }
    }
}

/// What of `lines` does not hold.
pub(crate) fn check(lines: &[FindingLine], findings: &[Found]) -> Vec<Wrong> {
    lines.iter().filter_map(|line| check_one(line, findings)).collect()
}

fn check_one(line: &FindingLine, findings: &[Found]) -> Option<Wrong> {
    let wrong = |expected: String, found: Vec<&Found>| {
        let found = if found.is_empty() {
            "no finding of it".to_owned()
        } else {
            found.into_iter().map(shown).collect::<Vec<_>>().join("; ")
        };
        Some(Wrong { line: line.line, expected, found })
    };
    let Some(wanted) = &line.wanted else {
        let bad: Vec<_> = findings.iter().filter(|finding| finding.severity > Severity::Info).collect();
        return if bad.is_empty() { None } else { wrong("none".to_owned(), bad) };
    };
    let about: Vec<_> = findings.iter().filter(|finding| finding.object == wanted.object).collect();
    let holds = about.iter().any(|finding| {
        finding.severity == wanted.severity
            && finding.field.starts_with(wanted.field.as_str())
            && finding.text.contains(wanted.text.as_str())
            // Whoever has to change something is told where.
            && finding.position.is_some()
    });
    let expected = format!("{:?} {} {}: {}", wanted.severity, wanted.object, wanted.field, wanted.text);
    if holds { None } else { wrong(expected, about) }
}

fn shown(finding: &Found) -> String {
    let place = finding.position.as_deref().unwrap_or("nowhere");
    format!("{place}: {:?} {} {}: {}", finding.severity, finding.object, finding.field, finding.text)
}
