//! The files of the downward API: one `key="value"` a line, the value quoted as in Go. Pure.

use std::collections::BTreeMap;

/// Reads labels or annotations. A line that cannot be read is left out: it must not keep a pod from starting.
pub fn parse(text: &str) -> BTreeMap<String, String> {
    text.lines().filter_map(entry).collect()
}

fn entry(line: &str) -> Option<(String, String)> {
    let (key, quoted) = line.split_once('=')?;
    let inner = quoted.trim().strip_prefix('"')?.strip_suffix('"')?;
    Some((key.trim().to_owned(), unquoted(inner)?))
}

/// Undoes Go's quoting of a string; escapes of bytes (`\x80`) may make up characters.
fn unquoted(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(character) = rest.next() {
        let plain = match character {
            '\\' => match rest.next()? {
                'a' => '\x07',
                'b' => '\x08',
                'f' => '\x0c',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'v' => '\x0b',
                'x' => {
                    bytes.push(u8::try_from(hexadecimal(&mut rest, 2)?).ok()?);
                    continue;
                }
                'u' => char::from_u32(hexadecimal(&mut rest, 4)?)?,
                'U' => char::from_u32(hexadecimal(&mut rest, 8)?)?,
                other @ ('\\' | '"' | '\'') => other,
                _ => return None,
            },
            other => other,
        };
        bytes.extend(plain.encode_utf8(&mut [0; 4]).as_bytes());
    }
    String::from_utf8(bytes).ok()
}

fn hexadecimal(from: &mut std::str::Chars<'_>, digits: usize) -> Option<u32> {
    let digits: String = from.take(digits).collect();
    u32::from_str_radix(&digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, expected: Option<(&str, &str)>) {
        let read = parse(line);
        assert_eq!(read.iter().next().map(|(key, value)| (key.as_str(), value.as_str())), expected, "{line}");
    }

    #[test]
    fn values_are_unquoted() {
        check(r#"app="reviews""#, Some(("app", "reviews")));
        check(r#"a="""#, Some(("a", "")));
        check(r#"note="a=b \"c\" \\ \n""#, Some(("note", "a=b \"c\" \\ \n")));
        check(r#"x="\x01\u00e4ä\U0001F600""#, Some(("x", "\u{1}ää😀")));
        check(r#"x="\xc3\xa4""#, Some(("x", "ä")));
        for broken in
            ["x", "x=y", r#"x="\q""#, r#"x="\x""#, r#"x="\xff""#, r#"x="\"#, r#"x=""#, "\"", "=", r#"x="\u12"#]
        {
            check(broken, None);
        }
    }

    #[test]
    fn a_broken_line_costs_only_itself() {
        assert_eq!(parse("a=\"1\"\nnonsense\n\nb=\"2\"\n").len(), 2);
    }
}
