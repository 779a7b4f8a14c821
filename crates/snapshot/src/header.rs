//! Header conditions and header edits.

mod edit;
mod template;

use std::borrow::Cow;
use std::fmt;

use http::{HeaderMap, HeaderName};

use crate::matcher::StringMatch;
use crate::route::RequestView;

pub use edit::{AppendAction, HeaderEdit, HeaderEdits};
pub use template::{Facts, HeaderTemplate, Operator, TemplateError, TemplatePart};

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

impl HeaderKey {
    /// The request's value of it; several header values are joined with commas. Borrowed unless they had to be joined.
    pub fn value<'a>(&self, request: &RequestView<'a>) -> Option<Cow<'a, [u8]>> {
        let text = match self {
            Self::Method => request.method.as_str(),
            Self::Authority => request.authority,
            Self::Scheme => request.scheme,
            Self::Path => request.path_and_query,
            Self::Name(name) => return joined(request.headers, name),
        };
        Some(Cow::Borrowed(text.as_bytes()))
    }
}

impl fmt::Display for HeaderKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Method => ":method",
            Self::Authority => ":authority",
            Self::Scheme => ":scheme",
            Self::Path => ":path",
            Self::Name(name) => name.as_str(),
        })
    }
}

/// All values of a header as one, or `None` when there is no such header.
pub fn joined<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Cow<'a, [u8]>> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?.as_bytes();
    let Some(second) = values.next() else { return Some(Cow::Borrowed(first)) };
    let mut all = first.to_vec();
    for value in std::iter::once(second).chain(values) {
        all.push(b',');
        all.extend_from_slice(value.as_bytes());
    }
    Some(Cow::Owned(all))
}

impl HeaderMatch {
    pub fn matches(&self, request: &RequestView<'_>) -> bool {
        self.matches_value(self.name.value(request).as_deref())
    }

    /// The same for a value that was looked up elsewhere, for instance of a response.
    ///
    /// A missing header never fulfils a condition on its value, inverted or not, unless it counts as empty (Envoy:
    /// `HeaderMatcher.treat_missing_header_as_empty`).
    pub fn matches_value(&self, value: Option<&[u8]>) -> bool {
        let value = match value {
            None if self.missing_as_empty => Some(&b""[..]),
            value => value,
        };
        let holds = match (&self.condition, value) {
            (HeaderCondition::Present, value) => value.is_some(),
            (HeaderCondition::Absent, value) => value.is_none(),
            (HeaderCondition::Matches(_) | HeaderCondition::Range { .. }, None) => return false,
            (HeaderCondition::Matches(matcher), Some(value)) => matcher.matches_bytes(value),
            (HeaderCondition::Range { start, end }, Some(value)) => {
                integer(value).is_some_and(|number| (*start..*end).contains(&number))
            }
        };
        holds != self.invert
    }
}

/// What is wanted, in words: `exact "jason"`, `no value exact "x"`.
impl fmt::Display for HeaderMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let not = if self.invert { "not " } else { "" };
        match &self.condition {
            HeaderCondition::Present if self.invert => f.write_str("it absent"),
            HeaderCondition::Present => f.write_str("it present"),
            HeaderCondition::Absent if self.invert => f.write_str("it present"),
            HeaderCondition::Absent => f.write_str("it absent"),
            HeaderCondition::Matches(matcher) => write!(f, "{not}{matcher}"),
            HeaderCondition::Range { start, end } => write!(f, "{not}a number from {start} to below {end}"),
        }
    }
}

fn integer(value: &[u8]) -> Option<i64> {
    std::str::from_utf8(value).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests;
