//! One reading of a path for routing, policy and the upstream (Envoy: `normalize_path`, `merge_slashes`,
//! `path_with_escaped_slashes_action`).

use std::borrow::Cow;

use mizzen_snapshot::http::{EscapedSlashes, HttpHandler};

#[derive(Debug, PartialEq, Eq)]
pub enum Normalized<'a> {
    Same,
    Path(Cow<'a, str>),
    /// Send the client to the unescaped path.
    Redirect(String),
    Reject,
}

/// Applies the handler's rules to a path with query.
pub fn normalize<'a>(handler: &HttpHandler, path_and_query: &'a str) -> Normalized<'a> {
    let (path, query) = match path_and_query.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path_and_query, None),
    };
    let escaped = handler.escaped_slashes != EscapedSlashes::Keep && has_escaped_slash(path);
    let dotted = handler.normalize_path && needs_normalizing(path);
    let doubled = handler.merge_slashes && path.contains("//");
    if !(escaped || dotted || doubled) {
        return Normalized::Same;
    }
    if escaped && handler.escaped_slashes == EscapedSlashes::Reject {
        return Normalized::Reject;
    }
    let mut path = Cow::Borrowed(path);
    if escaped {
        path = Cow::Owned(unescape_slashes(&path));
    }
    if handler.normalize_path && needs_normalizing(&path) {
        match remove_dots(&path) {
            Some(clean) => path = Cow::Owned(clean),
            None => return Normalized::Reject,
        }
    }
    if handler.merge_slashes {
        path = Cow::Owned(merge_slashes(&path));
    }
    let whole = match query {
        Some(query) => format!("{path}?{query}"),
        None => path.into_owned(),
    };
    if escaped && handler.escaped_slashes == EscapedSlashes::UnescapeAndRedirect {
        return Normalized::Redirect(whole);
    }
    Normalized::Path(Cow::Owned(whole))
}

fn has_escaped_slash(path: &str) -> bool {
    escapes(path).any(|code| code.eq_ignore_ascii_case("2f") || code.eq_ignore_ascii_case("5c"))
}

fn escapes(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('%').filter_map(|(at, _)| path.get(at + 1..at + 3))
}

fn needs_normalizing(path: &str) -> bool {
    path.contains("/.") || path.contains('\\') || path.contains('%')
}

fn unescape_slashes(path: &str) -> String {
    let mut clean = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        clean.push_str(&rest[..at]);
        match rest.get(at + 1..at + 3) {
            Some(code) if code.eq_ignore_ascii_case("2f") => clean.push('/'),
            Some(code) if code.eq_ignore_ascii_case("5c") => clean.push('\\'),
            _ => {
                clean.push('%');
                rest = &rest[at + 1..];
                continue;
            }
        }
        rest = &rest[at + 3..];
    }
    clean.push_str(rest);
    clean
}

/// Removes `.` and `..` segments (RFC 3986, section 5.2.4), turns `\` into `/`, and decodes escapes of unreserved
/// characters, so that `/%61` and `/a` are one path. `None`: the path climbs above its root, or an escape is broken.
fn remove_dots(path: &str) -> Option<String> {
    let decoded = decode_unreserved(path)?;
    let mut segments: Vec<&str> = Vec::new();
    let mut directory = false;
    for segment in decoded.strip_prefix('/').unwrap_or(&decoded).split('/') {
        directory = false;
        match segment {
            "." => directory = true,
            ".." => {
                segments.pop()?;
                directory = true;
            }
            segment => segments.push(segment),
        }
    }
    let mut clean = String::with_capacity(decoded.len());
    for segment in &segments {
        clean.push('/');
        clean.push_str(segment);
    }
    if directory || clean.is_empty() {
        clean.push('/');
    }
    Some(clean)
}

fn decode_unreserved(path: &str) -> Option<String> {
    let mut decoded = String::with_capacity(path.len());
    let mut characters = path.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => decoded.push('/'),
            '%' => {
                let code = path.get(at + 1..at + 3)?;
                let byte = u8::from_str_radix(code, 16).ok()?;
                if byte == 0 {
                    return None;
                }
                if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
                    decoded.push(byte as char);
                } else {
                    decoded.push('%');
                    decoded.push_str(code);
                }
                characters.next();
                characters.next();
            }
            other => decoded.push(other),
        }
    }
    Some(decoded)
}

fn merge_slashes(path: &str) -> String {
    let mut clean = String::with_capacity(path.len());
    for character in path.chars() {
        if character != '/' || !clean.ends_with('/') {
            clean.push(character);
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_and_escapes_have_one_reading() {
        let check = |path: &str, clean: Option<&str>| assert_eq!(remove_dots(path).as_deref(), clean, "{path}");
        check("/a/./b", Some("/a/b"));
        check("/a/../b", Some("/b"));
        check("/a/%2e%2E/b", Some("/b"));
        check("/a/..", Some("/"));
        check("/a/b/.", Some("/a/b/"));
        check("/../etc", None);
        check("/%61dmin", Some("/admin"));
        check("/a%20b%2Fc", Some("/a%20b%2Fc"));
        check("/a\\..\\b", Some("/b"));
        check("/a%zz", None);
        check("/a%00", None);
        check("/%é", None);
        check("/a%2", None);
    }

    #[test]
    fn slashes_are_merged_and_unescaped() {
        assert_eq!(merge_slashes("//a///b/"), "/a/b/");
        assert_eq!(unescape_slashes("/a%2fb%5Cc%2"), "/a/b\\c%2");
        assert!(has_escaped_slash("/a%2Fb"));
        assert!(!has_escaped_slash("/a%20b%é"));
    }
}
