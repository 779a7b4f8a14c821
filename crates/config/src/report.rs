//! Findings as lines for people.

use std::fmt::Write;

use mizzen_types::{Finding, Severity};

/// How many findings of each severity there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    pub errors: usize,
    pub warnings: usize,
    pub infos: usize,
}

impl Count {
    pub fn of(findings: &[Finding]) -> Self {
        let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
        Self { errors: count(Severity::Error), warnings: count(Severity::Warning), infos: count(Severity::Info) }
    }
}

pub fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}

/// One finding: `file:line:column: severity CODE object field: message`, and its hint on a line of its own.
pub fn line(finding: &Finding) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    if let Some(position) = &finding.position {
        let _ = write!(out, "{position}: ");
    }
    let _ = write!(out, "{} {}", word(finding.severity), finding.code);
    if let Some(origin) = &finding.origin {
        let _ = write!(out, " {origin}");
    }
    let _ = write!(out, ": {}", finding.message);
    if let Some(hint) = &finding.hint {
        let _ = write!(out, "\n  hint: {hint}");
    }
    out
}

/// All findings, most severe first and then by file and line, with a summary at the end.
pub fn lines(findings: &[Finding]) -> String {
    let mut sorted: Vec<&Finding> = findings.iter().collect();
    sorted.sort_by(|a, b| {
        (b.severity, &a.position, &a.origin, a.code).cmp(&(a.severity, &b.position, &b.origin, b.code))
    });
    let mut out = String::new();
    for finding in sorted {
        out.push_str(&line(finding));
        out.push('\n');
    }
    let Count { errors, warnings, infos } = Count::of(findings);
    let plural = |count: usize| if count == 1 { "" } else { "s" };
    let _ = writeln!(out, "{errors} error{}, {warnings} warning{}, {infos} info", plural(errors), plural(warnings));
    out
}
