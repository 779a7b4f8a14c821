use std::fmt::Write;

use mizzen_types::Severity;

use super::*;
use crate::kind::KNOWN;
use crate::parse;

/// YAML of the least document that has a value at a path such as `spec.http[].delegate`.
fn document(kind: &str, path: &str, value: &str) -> String {
    let known = KNOWN.iter().find(|known| known.kind == kind).expect("every entry names a kind that is read");
    let api_version = format!("{}/{}", known.group, known.versions[0]);
    let mut text = format!("{{apiVersion: {api_version}, kind: {kind}, metadata: {{name: x}}");
    let mut closing = "}".to_owned();
    for part in path.split('.').filter(|part| !part.is_empty()) {
        match part.strip_suffix("[]") {
            Some(name) => {
                let _ = write!(text, ", {name}: [{{zz: 0");
                closing.insert_str(0, "}]");
            }
            None => {
                let _ = write!(text, ", {part}: {{zz: 0");
                closing.insert(0, '}');
            }
        }
    }
    // The innermost holds the value itself.
    let (head, _) = text.rsplit_once("{zz: 0").expect("a path has a last part");
    let list = path.ends_with("[]");
    format!("{}{value}{}", head, &closing[if list { 2 } else { 1 }..])
}

/// For every entry: a document that has the field gets a warning that names the field.
#[test]
fn a_user_is_told_of_everything_that_is_not_obeyed() {
    for (entry, path) in entries() {
        let (at, value) = match (path.as_str(), entry.values) {
            ("", _) => ("spec", "{}"),
            (path, []) => (path, "{a: 1}"),
            (path, [value, ..]) => (path, *value),
        };
        let text = document(entry.kind, at, value);
        let parsed = parse("f.yaml", &text);
        let told = parsed.findings.iter().find(|finding| {
            let field = finding.origin.as_ref().map(|origin| origin.field.replace("[0]", "[]"));
            finding.code == code::NOT_OBEYED && field.as_deref() == Some(path.as_str())
        });
        let told = told.unwrap_or_else(|| panic!("{} {path}: {text}\n{:#?}", entry.kind, parsed.findings));
        assert_eq!(told.severity, Severity::Warning);
        assert!(told.message.contains("not obeyed") && told.message.contains(entry.instead), "{told:?}");
    }
}

/// The schema has each of them, else the entry is a slip.
#[test]
fn every_entry_names_a_field_that_exists() {
    for (entry, path) in entries().filter(|(_, path)| !path.is_empty()) {
        let text = document(entry.kind, &path, "{a: 1}");
        let unknown = parse("f.yaml", &text).findings.into_iter().any(|finding| {
            let field = finding.origin.map(|origin| origin.field.replace("[0]", "[]"));
            finding.code == code::UNKNOWN_FIELD && field.as_deref() == Some(path.as_str())
        });
        assert!(!unknown, "{} has no {path}", entry.kind);
    }
}

#[test]
fn what_says_nothing_is_not_reported() {
    let text = "{apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {name: x}, \
        spec: {selector: {a: b}, servers: [{defaultEndpoint: '', port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]}}";
    assert_eq!(parse("f", text).findings, []);
}
