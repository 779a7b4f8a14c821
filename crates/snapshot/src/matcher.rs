//! Strings compared with exact, prefix, suffix, contains and regular expressions.
//!
//! Source: Envoy `type.matcher.v3.StringMatcher`. Expressions match the whole string and are linear in its length.

use std::fmt;

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

impl StringMatch {
    pub fn exact(text: &str) -> Self {
        Self { kind: StringMatchKind::Exact(text.into()), ignore_case: false }
    }

    pub fn matches(&self, text: &str) -> bool {
        self.matches_bytes(text.as_bytes())
    }

    /// The same for a value that need not be UTF-8, such as a header's.
    pub fn matches_bytes(&self, text: &[u8]) -> bool {
        let fold = self.ignore_case;
        match &self.kind {
            StringMatchKind::Exact(wanted) => same(text, wanted.as_bytes(), fold),
            StringMatchKind::Prefix(wanted) => starts_with(text, wanted.as_bytes(), fold),
            StringMatchKind::Suffix(wanted) => {
                let wanted = wanted.as_bytes();
                text.len() >= wanted.len() && same(&text[text.len() - wanted.len()..], wanted, fold)
            }
            StringMatchKind::Contains(wanted) => contains(text, wanted.as_bytes(), fold),
            StringMatchKind::Regex(regex) => regex.is_match(text),
        }
    }
}

/// In words, as `explain` says it: `exact "jason"`.
impl fmt::Display for StringMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            StringMatchKind::Exact(text) => write!(f, "exact {text:?}")?,
            StringMatchKind::Prefix(text) => write!(f, "prefix {text:?}")?,
            StringMatchKind::Suffix(text) => write!(f, "suffix {text:?}")?,
            StringMatchKind::Contains(text) => write!(f, "containing {text:?}")?,
            StringMatchKind::Regex(regex) => write!(f, "regex {:?}", unanchored(regex.as_str()))?,
        }
        if self.ignore_case {
            f.write_str(" in any case")?;
        }
        Ok(())
    }
}

/// The text before and after an expression that make it match whole strings only.
pub const ANCHORS: (&str, &str) = (r"\A(?:", r")\z");

/// An anchored expression as its author wrote it.
pub fn unanchored(pattern: &str) -> &str {
    pattern.strip_prefix(ANCHORS.0).and_then(|rest| rest.strip_suffix(ANCHORS.1)).unwrap_or(pattern)
}

fn same(left: &[u8], right: &[u8], fold: bool) -> bool {
    if fold { left.eq_ignore_ascii_case(right) } else { left == right }
}

pub(crate) fn starts_with(text: &[u8], prefix: &[u8], fold: bool) -> bool {
    text.len() >= prefix.len() && same(&text[..prefix.len()], prefix, fold)
}

fn contains(text: &[u8], wanted: &[u8], fold: bool) -> bool {
    wanted.is_empty() || text.windows(wanted.len()).any(|window| same(window, wanted, fold))
}

#[cfg(test)]
mod tests {
    use regex::bytes::Regex;

    use super::{StringMatch, StringMatchKind};

    #[track_caller]
    fn check(kind: StringMatchKind, ignore_case: bool, yes: &[&str], no: &[&str]) {
        let matcher = StringMatch { kind, ignore_case };
        for text in yes {
            assert!(matcher.matches(text), "{matcher} should match {text:?}");
        }
        for text in no {
            assert!(!matcher.matches(text), "{matcher} should not match {text:?}");
        }
    }

    #[test]
    fn each_kind_matches_what_it_says() {
        check(StringMatchKind::Exact("a".into()), false, &["a"], &["A", "ab", ""]);
        check(StringMatchKind::Exact("a".into()), true, &["a", "A"], &["b"]);
        check(StringMatchKind::Prefix("/a".into()), false, &["/a", "/ab"], &["/A", "x/a", ""]);
        check(StringMatchKind::Prefix("".into()), false, &["", "x"], &[]);
        check(StringMatchKind::Suffix(".b".into()), true, &["a.b", "A.B", ".b"], &["b", ""]);
        check(StringMatchKind::Contains("bc".into()), true, &["abcd", "xBC"], &["b", "cb", ""]);
        check(StringMatchKind::Regex(Regex::new(r"\A(?:a|ab)\z").unwrap()), false, &["a", "ab"], &["abc", "xa"]);
    }

    #[test]
    fn an_expression_is_shown_as_it_was_written() {
        let kind = StringMatchKind::Regex(Regex::new(r"\A(?:v\d+)\z").unwrap());
        assert_eq!(StringMatch { kind, ignore_case: false }.to_string(), r#"regex "v\\d+""#);
    }
}
