//! Names of fields: `spec.http[0].match[1].headers["end-user"]`.

use std::fmt::Write;

/// Appends a key; keys that are no plain words are quoted in brackets.
pub(crate) fn push_key(path: &mut String, key: &str) {
    let plain = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if plain {
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(key);
    } else {
        // Writing to a string cannot fail.
        let _ = write!(path, "[{key:?}]");
    }
}

pub(crate) fn push_index(path: &mut String, index: usize) {
    let _ = write!(path, "[{index}]");
}

#[derive(Debug, PartialEq)]
pub(crate) enum Segment<'p> {
    Key(std::borrow::Cow<'p, str>),
    Index(usize),
}

/// Takes a path apart; what cannot be understood ends it.
pub(crate) fn segments(path: &str) -> Vec<Segment<'_>> {
    let mut found = Vec::new();
    let mut rest = path;
    loop {
        rest = rest.strip_prefix('.').unwrap_or(rest);
        if rest.is_empty() {
            return found;
        }
        if let Some(inside) = rest.strip_prefix('[') {
            if let Some(quoted) = inside.strip_prefix('"') {
                let Some((key, tail)) = unquoted(quoted) else { return found };
                found.push(Segment::Key(key.into()));
                rest = tail.strip_prefix(']').unwrap_or(tail);
            } else {
                let Some((index, tail)) = inside.split_once(']') else { return found };
                // `headers[end-user]`, as people write it, is a key.
                found.push(match index.parse() {
                    Ok(index) => Segment::Index(index),
                    Err(_) => Segment::Key(index.into()),
                });
                rest = tail;
            }
        } else {
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            found.push(Segment::Key(rest[..end].into()));
            rest = &rest[end..];
        }
    }
}

/// The text up to the closing quote, and what follows it.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut out = String::new();
    let mut chars = text.char_indices();
    while let Some((index, c)) = chars.next() {
        match c {
            '"' => return Some((out, &text[index + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => out.push('\n'),
                't' => out.push('\t'),
                'r' => out.push('\r'),
                other => out.push(other),
            },
            other => out.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_taken_apart_as_they_were_put_together() {
        for key in ["http", "end-user", "a.b/c", "quo\"te", "back\\slash", "", "0", "[x]"] {
            let mut path = "spec".to_owned();
            push_key(&mut path, key);
            push_index(&mut path, 3);
            let expected = [Segment::Key("spec".into()), Segment::Key(key.into()), Segment::Index(3)];
            assert_eq!(segments(&path), expected, "{path}");
        }
        assert_eq!(segments("headers[end-user]").len(), 2);
    }
}
