//! Durations as Go and protobuf's JSON form write them: `1.5s`, `250ms`, `1h30m`.

use std::fmt;
use std::time::Duration;

use serde::de::{Deserializer, Error, Visitor};

/// Reads a duration in Go's form: one or more decimal numbers with a unit (`ns`, `us`, `µs`, `ms`, `s`, `m`, `h`); a bare `0` is zero.
///
/// # Errors
/// When the text is not such a duration, is negative, or does not fit. The message says what to write.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let unreadable =
        || format!("`{text}` is not a duration; write a number with a unit, for instance `10s`, `1.5s` or `250ms`");
    let rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.starts_with('-') {
        return Err(format!("`{text}` is negative; a duration here is zero or more, for instance `10s`"));
    }
    let mut rest = rest;
    if rest.is_empty() {
        return Err(unreadable());
    }
    let mut nanos: u128 = 0;
    while !rest.is_empty() {
        let digits_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(unreadable)?;
        let (number, tail) = rest.split_at(digits_end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let scale: u128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(unreadable()),
        };
        nanos = nanos.checked_add(scaled(number, scale).ok_or_else(unreadable)?).ok_or_else(unreadable)?;
        rest = tail;
    }
    // Protobuf's own bound: 10,000 years.
    const MAX_SECONDS: u128 = 315_576_000_000;
    if nanos / 1_000_000_000 > MAX_SECONDS {
        return Err(format!("`{text}` is longer than any duration may be"));
    }
    let seconds = u64::try_from(nanos / 1_000_000_000).map_err(|_| unreadable())?;
    Ok(Duration::new(seconds, (nanos % 1_000_000_000) as u32))
}

/// A decimal number times a unit in nanoseconds; digits beyond a nanosecond are dropped.
fn scaled(number: &str, scale: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || whole.len() > 18 || fraction.contains('.') {
        return None;
    }
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut total = whole.checked_mul(scale)?;
    let mut place = scale;
    for digit in fraction.bytes() {
        place /= 10;
        total = total.checked_add(u128::from(digit - b'0') * place)?;
    }
    Some(total)
}

struct Text;

impl Visitor<'_> for Text {
    type Value = Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration such as \"10s\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Duration, E> {
        parse_duration(text).map_err(E::custom)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Duration, E> {
        if number == 0 { Ok(Duration::ZERO) } else { Err(E::custom(without_unit(number))) }
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Duration, E> {
        Err(E::custom(without_unit(number)))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Duration, E> {
        Err(E::custom(without_unit(number)))
    }
}

fn without_unit(number: impl fmt::Display) -> String {
    format!("duration {number} has no unit; write `{number}s`")
}

/// A duration that is zero when absent.
pub fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    deserializer.deserialize_any(Text)
}

/// A duration that may be absent or null.
pub fn opt_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    struct Maybe;
    impl<'de> Visitor<'de> for Maybe {
        type Value = Option<Duration>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            Text.expecting(f)
        }

        fn visit_none<E: Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
            duration(deserializer).map(Some)
        }
    }
    deserializer.deserialize_option(Maybe)
}
