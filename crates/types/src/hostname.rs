//! Host names and wildcard host names, compared as Istio compares them (reference: semantics 4 and 5).

use std::fmt;
use std::sync::Arc;

/// A lower-cased host name, `*`, or a wildcard such as `*.example.com`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hostname(Arc<str>);

impl Hostname {
    pub fn new(host: &str) -> Self {
        Self(host.to_ascii_lowercase().into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn is_wildcard(&self) -> bool {
        self.0.starts_with('*')
    }

    /// Whether some host is named by both: symmetric overlap, used to attach rules to servers and services.
    pub fn overlaps(&self, other: &Self) -> bool {
        match (self.suffix(), other.suffix()) {
            (None, None) => self == other,
            (Some(suffix), None) => other.ends_after_label(suffix),
            (None, Some(suffix)) => self.ends_after_label(suffix),
            (Some(mine), Some(theirs)) => mine.ends_with(theirs) || theirs.ends_with(mine),
        }
    }

    /// Whether every host named by this one is named by `other`: one-directional, used for SNI and imports.
    pub fn is_subset_of(&self, other: &Self) -> bool {
        match (self.suffix(), other.suffix()) {
            (None, None) => self == other,
            (Some(mine), Some(theirs)) => mine.ends_with(theirs),
            (None, Some(suffix)) => self.ends_after_label(suffix),
            (Some(_), None) => false,
        }
    }

    fn suffix(&self) -> Option<&str> {
        self.0.strip_prefix('*')
    }

    fn ends_after_label(&self, suffix: &str) -> bool {
        self.0.len() > suffix.len() && self.0.ends_with(suffix) || (suffix.is_empty() && !self.0.is_empty())
    }
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &self.0)
    }
}

impl From<&str> for Hostname {
    fn from(host: &str) -> Self {
        Self::new(host)
    }
}

#[cfg(test)]
mod tests {
    use super::Hostname;

    #[track_caller]
    fn check(left: &str, right: &str, overlaps: bool, left_in_right: bool) {
        let (left, right) = (Hostname::new(left), Hostname::new(right));
        assert_eq!(left.overlaps(&right), overlaps, "{left} overlaps {right}");
        assert_eq!(right.overlaps(&left), overlaps, "{right} overlaps {left}");
        assert_eq!(left.is_subset_of(&right), left_in_right, "{left} subset of {right}");
    }

    #[test]
    fn hosts_are_compared_as_istio_compares_them() {
        check("a.foo.com", "a.foo.com", true, true);
        check("A.foo.com", "a.Foo.com", true, true);
        check("a.foo.com", "*.foo.com", true, true);
        check("foo.com", "*.foo.com", false, false);
        check("*.foo.com", "*.com", true, true);
        check("*.com", "*.foo.com", true, false);
        check("*", "a.b", true, false);
        check("a.b", "*", true, true);
        check("*.a.com", "*.b.com", false, false);
    }
}
