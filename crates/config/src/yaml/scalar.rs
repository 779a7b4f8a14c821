//! What an unquoted word means.
//!
//! As Kubernetes reads it (`sigs.k8s.io/yaml`, YAML 1.1 with decimal, `0x`, `0o`, `0b` and leading-zero octal numbers), so
//! that a file means here what it means there.

use std::sync::Arc;

use super::Value;

pub(super) fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => return Value::Bool(true, text.into()),
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => {
            return Value::Bool(false, text.into());
        }
        _ => {}
    }
    let raw = || Arc::<str>::from(text);
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.')) {
        return Value::String(raw());
    }
    if let Some(number) = integer(text) {
        return Value::Int(number, raw());
    }
    if looks_like_float(text)
        && let Ok(number) = text.parse::<f64>()
        && number.is_finite()
    {
        return Value::Float(number, raw());
    }
    Value::String(raw())
}

fn integer(text: &str) -> Option<i64> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    // A sign inside would be taken by the standard parser: `--1`.
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let parsed = |digits: &str, radix| {
        let tidy = digits.starts_with(|c: char| c.is_ascii_hexdigit());
        if tidy { i128::from_str_radix(digits, radix).ok() } else { None }
    };
    let magnitude = if let Some(hex) = digits.strip_prefix("0x") {
        parsed(hex, 16)
    } else if let Some(octal) = digits.strip_prefix("0o") {
        parsed(octal, 8)
    } else if let Some(binary) = digits.strip_prefix("0b") {
        parsed(binary, 2)
    } else if digits.len() > 1 && digits.starts_with('0') {
        // A leading zero is octal where it can be; `08` becomes the decimal 8.0.
        parsed(&digits[1..], 8)
    } else {
        parsed(digits, 10)
    }?;
    i64::try_from(if negative { -magnitude } else { magnitude }).ok()
}

/// `1.5`, `.5`, `1e3`; not an address, a version or a date.
fn looks_like_float(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match digits.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (digits, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    let exponent_fits = exponent.is_none_or(|exponent| {
        let digits = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        !digits.is_empty() && all_digits(digits)
    });
    all_digits(whole) && all_digits(fraction) && !(whole.is_empty() && fraction.is_empty()) && exponent_fits
}
