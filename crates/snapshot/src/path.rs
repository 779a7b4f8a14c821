//! Paths made equal before they are compared, so that a rule for `/admin` cannot be walked around with
//! `/x/../admin` or `/%61dmin`.
//!
//! Source: Envoy `normalize_path`, `merge_slashes`, `path_with_escaped_slashes_action`, in this order: escaped slashes,
//! normalisation, merging.

use std::borrow::Cow;

use crate::http::{EscapedSlashes, HttpHandler};

#[derive(Debug, Clone, Copy)]
pub struct PathRules {
    pub normalize: bool,
    pub merge_slashes: bool,
    pub escaped_slashes: EscapedSlashes,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathDecision<'a> {
    /// Go on with this path and query.
    Use(Cow<'a, str>),
    /// Answer 307 with this path and query as location.
    Redirect(String),
    /// Answer 400.
    Reject,
}

impl HttpHandler {
    pub fn path_rules(&self) -> PathRules {
        PathRules {
            normalize: self.normalize_path,
            merge_slashes: self.merge_slashes,
            escaped_slashes: self.escaped_slashes,
        }
    }
}

impl PathRules {
    /// Decides on the path of a request in origin form (`/path?query`). A path without anything to change is not
    /// copied.
    pub fn decide<'a>(&self, path_and_query: &'a str) -> PathDecision<'a> {
        if path_and_query.contains('#') {
            return PathDecision::Reject;
        }
        let end = path_and_query.find('?').unwrap_or(path_and_query.len());
        let (path, query) = path_and_query.split_at(end);
        if path.is_empty() || path == "*" {
            return PathDecision::Use(Cow::Borrowed(path_and_query));
        }
        let mut now = Cow::Borrowed(path);
        let mut redirect = false;
        if self.escaped_slashes != EscapedSlashes::Keep
            && let Some(unescaped) = unescape_slashes(&now)
        {
            match self.escaped_slashes {
                EscapedSlashes::Reject => return PathDecision::Reject,
                EscapedSlashes::UnescapeAndRedirect => redirect = true,
                EscapedSlashes::UnescapeAndForward | EscapedSlashes::Keep => {}
            }
            now = Cow::Owned(unescaped);
        }
        if self.normalize && needs_normalizing(&now) {
            match normalize(&now) {
                Some(normal) => now = Cow::Owned(normal),
                None => return PathDecision::Reject,
            }
        }
        if self.merge_slashes && now.contains("//") {
            now = Cow::Owned(merge_slashes(&now));
        }
        match now {
            Cow::Owned(path) if redirect => PathDecision::Redirect(path + query),
            Cow::Owned(path) => PathDecision::Use(Cow::Owned(path + query)),
            Cow::Borrowed(_) => PathDecision::Use(Cow::Borrowed(path_and_query)),
        }
    }
}

/// `%2F` and `%5C` as the characters they stand for; `None` when there is none.
fn unescape_slashes(path: &str) -> Option<String> {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    let mut found = false;
    while let Some(at) = rest.find('%') {
        let slash = match rest.as_bytes().get(at + 1..at + 3) {
            Some(code) if code.eq_ignore_ascii_case(b"2f") => '/',
            Some(code) if code.eq_ignore_ascii_case(b"5c") => '\\',
            _ => {
                out.push_str(&rest[..=at]);
                rest = &rest[at + 1..];
                continue;
            }
        };
        found = true;
        out.push_str(&rest[..at]);
        out.push(slash);
        rest = &rest[at + 3..];
    }
    out.push_str(rest);
    found.then_some(out)
}

/// Whether normalisation could change the path: most paths need no work.
fn needs_normalizing(path: &str) -> bool {
    let bytes = path.as_bytes();
    bytes[0] != b'/'
        || bytes.windows(2).any(|pair| pair == b"/.")
        || bytes.iter().any(|byte| matches!(byte, b'%' | b'\\') || must_escape(*byte))
}

/// Resolves `.` and `..` (also `%2e`), turns `\` into `/`, unescapes what never needed escaping, and escapes what may
/// not stand in a path. `None` for a path with an escaped NUL.
fn normalize(path: &str) -> Option<String> {
    let mut out: Vec<u8> = Vec::with_capacity(path.len() + 1);
    let bytes = path.as_bytes();
    out.push(b'/');
    let mut at = usize::from(matches!(bytes.first(), Some(b'/' | b'\\')));
    // `out` always ends where a segment may begin when the segment loop starts.
    loop {
        let mut end = at;
        while end < bytes.len() && !matches!(bytes[end], b'/' | b'\\') {
            end += 1;
        }
        let last = end == bytes.len();
        match dots(&bytes[at..end]) {
            Some(1) => {}
            Some(_) => {
                // Back over the slash at the end to the one before, never beyond the root.
                if out.len() > 1 {
                    out.pop();
                    let parent = out.iter().rposition(|byte| *byte == b'/').map_or(1, |slash| slash + 1);
                    out.truncate(parent);
                }
            }
            None => {
                segment(&mut out, &bytes[at..end])?;
                if !last {
                    out.push(b'/');
                }
            }
        }
        if last {
            break;
        }
        at = end + 1;
    }
    // Only ASCII was written.
    String::from_utf8(out).ok()
}

/// 1 for `.`, 2 for `..`, in any mix of dots and `%2e`. What follows a `;` are parameters, which some servers drop before
/// they look at the dots.
fn dots(segment: &[u8]) -> Option<usize> {
    let mut rest = segment;
    let mut count = 0;
    while !rest.is_empty() {
        rest = match rest {
            [b'.', rest @ ..] => rest,
            [b'%', b'2', b'e' | b'E', rest @ ..] => rest,
            [b';', ..] => break,
            _ => return None,
        };
        count += 1;
    }
    (1..=2).contains(&count).then_some(count)
}

fn segment(out: &mut Vec<u8>, mut bytes: &[u8]) -> Option<()> {
    while let [byte, rest @ ..] = bytes {
        bytes = rest;
        if *byte == b'%' {
            let decoded = rest.get(..2).and_then(|code| Some(hex(code[0])? << 4 | hex(code[1])?));
            match decoded {
                Some(0) => return None,
                Some(plain) if plain.is_ascii_alphanumeric() || matches!(plain, b'-' | b'_' | b'~' | b'.') => {
                    out.push(plain);
                    bytes = &rest[2..];
                }
                Some(_) | None => out.push(b'%'),
            }
        } else if must_escape(*byte) {
            const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
            out.extend([b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        } else {
            out.push(*byte);
        }
    }
    Some(())
}

fn must_escape(byte: u8) -> bool {
    byte <= b' ' || byte >= 0x7f || matches!(byte, b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}')
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

fn merge_slashes(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for character in path.chars() {
        if character != '/' || !out.ends_with('/') {
            out.push(character);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    const ALL: PathRules =
        PathRules { normalize: true, merge_slashes: true, escaped_slashes: EscapedSlashes::UnescapeAndForward };
    /// Istio's default.
    const BASE: PathRules = PathRules { normalize: true, merge_slashes: false, escaped_slashes: EscapedSlashes::Keep };

    #[track_caller]
    fn check(rules: PathRules, path: &str, expect: &str) {
        assert_eq!(rules.decide(path), PathDecision::Use(Cow::Borrowed(expect)), "{path}");
    }

    #[test]
    fn dots_and_backslashes() {
        check(BASE, "/a/b?c=../d", "/a/b?c=../d");
        check(BASE, "/a/./b", "/a/b");
        check(BASE, "/a/../b", "/b");
        check(BASE, "/a/b/..", "/a/");
        check(BASE, "/a/.", "/a/");
        check(BASE, "/..", "/");
        check(BASE, "/../../a", "/a");
        check(BASE, "/x/%2e%2E/admin", "/admin");
        check(BASE, "/x/.%2e/admin", "/admin");
        check(BASE, "\\x\\..\\admin", "/admin");
        check(BASE, "/a//../b", "/a/b");
        check(BASE, "/.../.a/a.", "/.../.a/a.");
        check(BASE, "/a/..;x=y/admin", "/admin");
        check(BASE, "/a/.;/b", "/a/b");
        check(BASE, "/a/..;", "/");
        check(BASE, "/a/;x/...;x/b;../c", "/a/;x/...;x/b;../c");
    }

    #[test]
    fn escapes() {
        check(BASE, "/%61dmin%2Fx", "/admin%2Fx");
        check(BASE, "/a%zz%", "/a%zz%");
        check(BASE, "/a b\u{e9}", "/a%20b%C3%A9");
        // As Envoy 1.40 answers.
        check(BASE, "/%7e%2d%5f%2Ea|^`<>{}\"['](!*", "/~-_.a%7C%5E%60%3C%3E%7B%7D%22['](!*");
        check(BASE, "/%41%c3%a9%5c%2f%25%32%65", "/A%c3%a9%5c%2f%252e");
        assert_eq!(BASE.decide("/a%00"), PathDecision::Reject);
        assert_eq!(BASE.decide("/a#b"), PathDecision::Reject);
    }

    #[test]
    fn slashes() {
        check(BASE, "//a///b", "//a///b");
        check(ALL, "//a///b/?x=//", "/a/b/?x=//");
        check(ALL, "/a%2F..%5cb", "/b");
        let reject = PathRules { escaped_slashes: EscapedSlashes::Reject, ..ALL };
        assert_eq!(reject.decide("/a%2fb"), PathDecision::Reject);
        check(reject, "/a?x=%2f", "/a?x=%2f");
        let redirect = PathRules { escaped_slashes: EscapedSlashes::UnescapeAndRedirect, ..ALL };
        assert_eq!(redirect.decide("/a%2fb?q"), PathDecision::Redirect("/a/b?q".to_owned()));
    }

    #[test]
    fn a_clean_path_is_not_copied() {
        for path in ["/", "/productpage", "/a/b.c?d=/../e", "*"] {
            assert!(matches!(ALL.decide(path), PathDecision::Use(Cow::Borrowed(_))), "{path}");
        }
    }

    proptest::proptest! {
        /// What was normalised stays as it is: no second pass finds another path.
        #[test]
        fn normalising_is_idempotent(path in "/[a-c./\\\\%2eEfF5c ;]{0,24}") {
            if let PathDecision::Use(once) = BASE.decide(&path) {
                proptest::prop_assert!(once.starts_with('/'));
                proptest::prop_assert!(!once.split('/').any(|segment| segment == "." || segment == ".."));
                let twice = BASE.decide(&once).clone();
                // An escape can only appear by unescaping a percent sign, which is never done.
                proptest::prop_assert_eq!(twice, PathDecision::Use(Cow::Borrowed(&*once)));
            }
        }
    }
}
