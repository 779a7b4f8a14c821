//! The Prometheus text format, as far as we write it.

use std::fmt::{Display, Write as _};

use crate::escape;

pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// `# TYPE NAME KIND`
pub(crate) fn head(out: &mut String, name: &str, kind: &str) {
    // Writing to a string cannot fail, here and below.
    let _ = writeln!(out, "# TYPE {name} {kind}");
}

/// Appends `name="value"`, after a comma if something is there already.
pub(crate) fn label(labels: &mut String, name: &str, value: &str) {
    if !labels.is_empty() {
        labels.push(',');
    }
    labels.push_str(name);
    labels.push_str("=\"");
    escape::label(labels, value);
    labels.push('"');
}

pub(crate) fn sample(out: &mut String, name: &str, labels: &str, value: impl Display) {
    let _ =
        if labels.is_empty() { writeln!(out, "{name} {value}") } else { writeln!(out, "{name}{{{labels}}} {value}") };
}

/// A name of Envoy's with only the characters that Prometheus allows.
pub(crate) fn metric_name(name: &str) -> String {
    name.chars().map(|character| if character.is_ascii_alphanumeric() { character } else { '_' }).collect()
}
