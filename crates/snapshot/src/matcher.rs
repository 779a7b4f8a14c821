//! Strings compared with exact, prefix, suffix, contains and regular expressions.
//!
//! Source: Envoy `type.matcher.v3.StringMatcher`. Expressions match the whole string and are linear in its length.

use regex::bytes::Regex;

#[derive(Debug, Clone)]
pub struct StringMatch {
    pub kind: StringMatchKind,
    pub ignore_case: bool,
}

#[derive(Debug, Clone)]
pub enum StringMatchKind {
    Exact(Box<str>),
    Prefix(Box<str>),
    Suffix(Box<str>),
    Contains(Box<str>),
    /// Anchored at both ends when it was compiled.
    Regex(Regex),
}
