//! Values from the network as parts of a line, a JSON string, or a metric label.

use std::fmt::Write as _;

/// Appends `value` to a text line. What could end the line, the quoted field or the terminal's patience is written as
/// `\xNN`: control characters, the double quote, and bytes that are not UTF-8. Envoy writes all of these raw; apart
/// from them lines are the same.
pub fn text(out: &mut String, value: &[u8]) {
    for chunk in value.utf8_chunks() {
        let mut rest = chunk.valid();
        while let Some(at) = rest.find(|character: char| character.is_control() || character == '"') {
            out.push_str(&rest[..at]);
            let length = rest[at..].chars().next().map_or(1, char::len_utf8);
            for byte in rest[at..at + length].bytes() {
                hex(out, byte);
            }
            rest = &rest[at + length..];
        }
        out.push_str(rest);
        for byte in chunk.invalid() {
            hex(out, *byte);
        }
    }
}

fn hex(out: &mut String, byte: u8) {
    // Writing to a string cannot fail.
    let _ = write!(out, "\\x{byte:02x}");
}

/// Appends `value` as a JSON string with its quotes. Where it is not UTF-8 each byte becomes the character of that
/// number, as Envoy does.
pub fn json(out: &mut String, value: &[u8]) {
    out.push('"');
    match std::str::from_utf8(value) {
        Ok(valid) => valid.chars().for_each(|character| json_character(out, character)),
        Err(_) => value.iter().for_each(|byte| json_byte(out, *byte)),
    }
    out.push('"');
}

fn json_character(out: &mut String, character: char) {
    match character {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        control if control.is_control() => {
            let _ = write!(out, "\\u{:04x}", u32::from(control));
        }
        other => out.push(other),
    }
}

fn json_byte(out: &mut String, byte: u8) {
    if byte.is_ascii() {
        json_character(out, char::from(byte));
    } else {
        let _ = write!(out, "\\u{byte:04x}");
    }
}

/// Appends `value` as the value of a Prometheus label, without its quotes, at most `LABEL_LIMIT` bytes of it.
pub fn label(out: &mut String, value: &str) {
    let mut end = value.len().min(LABEL_LIMIT);
    while !value.is_char_boundary(end) {
        end -= 1;
    }
    for character in value[..end].chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            // Everything else is allowed in a label, but nobody wants control characters in a terminal.
            control if control.is_control() => out.push('?'),
            other => out.push(other),
        }
    }
}

/// Longer label values are cut: a peer chooses some of them.
const LABEL_LIMIT: usize = 256;

#[cfg(test)]
mod tests {
    #[track_caller]
    fn check(value: &[u8], text: &str, json: &str, label: &str) {
        let mut out = String::new();
        super::text(&mut out, value);
        assert_eq!(out, text);
        out.clear();
        super::json(&mut out, value);
        assert_eq!(out, json);
        out.clear();
        super::label(&mut out, &String::from_utf8_lossy(value));
        assert_eq!(out, label);
    }

    #[test]
    fn nothing_can_end_its_field() {
        check(b"curl/7.88.1", "curl/7.88.1", "\"curl/7.88.1\"", "curl/7.88.1");
        check("é".as_bytes(), "é", "\"é\"", "é");
        check(b"a\"b\\c\td", "a\\x22b\\c\\x09d", "\"a\\\"b\\\\c\\td\"", "a\\\"b\\\\c?d");
        check(b"a\r\nGET / 200", "a\\x0d\\x0aGET / 200", "\"a\\r\\nGET / 200\"", "a?\\nGET / 200");
        check(b"\x1b[2J", "\\x1b[2J", "\"\\u001b[2J\"", "?[2J");
        check(b"\xe4\xf6", "\\xe4\\xf6", "\"\\u00e4\\u00f6\"", "\u{fffd}\u{fffd}");
        check("\u{9b}31m".as_bytes(), "\\xc2\\x9b31m", "\"\\u009b31m\"", "?31m");
    }

    #[test]
    fn labels_are_cut_at_a_character() {
        let mut out = String::new();
        super::label(&mut out, &"é".repeat(200));
        assert_eq!(out.len(), super::LABEL_LIMIT);
    }
}
