//! Header conditions and header edits.

use http::{HeaderName, HeaderValue};

use crate::matcher::StringMatch;

/// A condition on one header. Several values of one header are joined with commas before they are compared.
#[derive(Debug, Clone)]
pub struct HeaderMatch {
    pub name: HeaderKey,
    pub condition: HeaderCondition,
    pub invert: bool,
    /// A missing header is compared as the empty value (Envoy: `treat_missing_header_as_empty`).
    pub missing_as_empty: bool,
}

/// A header, or one of the pseudo headers that rules may name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderKey {
    Method,
    Authority,
    Scheme,
    Path,
    Name(HeaderName),
}

#[derive(Debug, Clone)]
pub enum HeaderCondition {
    Present,
    Absent,
    Matches(StringMatch),
    /// The whole value is a base-10 integer in `start..end`.
    Range {
        start: i64,
        end: i64,
    },
}

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
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppendAction {
    Append,
    AddIfAbsent,
    OverwriteOrAdd,
    OverwriteIfExists,
}

/// A header value: literal, or with Envoy's `%…%` operators resolved for each request.
#[derive(Debug, Clone)]
pub enum HeaderTemplate {
    Literal(HeaderValue),
    /// Literal parts and operators in turn, for instance `%REQ(x)%`.
    Parts(Vec<TemplatePart>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TemplatePart {
    Literal(String),
    /// The operator's text without the percent signs.
    Operator(String),
}
