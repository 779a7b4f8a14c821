//! Durations, times and bytes as JSON writes them.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose::STANDARD};

/// Seconds and nanoseconds of `-1.5s`; both have the sign.
pub(super) fn parse_duration(text: &str) -> Option<(i64, i32)> {
    let body = text.strip_suffix('s')?;
    let (negative, body) = match body.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, body),
    };
    let (whole, fraction) = body.split_once('.').unwrap_or((body, ""));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || body.contains('.') && !digits(fraction) {
        return None;
    }
    let seconds: i64 = whole.parse().ok().filter(|seconds| *seconds <= 315_576_000_000)?;
    let nanos = parse_nanos(fraction)?;
    Some(if negative { (-seconds, -nanos) } else { (seconds, nanos) })
}

pub(super) fn write_duration(seconds: i64, nanos: i32) -> String {
    let sign = if seconds < 0 || nanos < 0 { "-" } else { "" };
    format!("{sign}{}{}s", seconds.unsigned_abs(), fraction(nanos))
}

fn parse_nanos(fraction: &str) -> Option<i32> {
    if fraction.len() > 9 {
        return None;
    }
    format!("{fraction:0<9}").parse().ok()
}

/// Three, six or nine digits, as few as say it; none for zero.
fn fraction(nanos: i32) -> String {
    let nanos = nanos.unsigned_abs();
    match nanos {
        0 => String::new(),
        _ if nanos.is_multiple_of(1_000_000) => format!(".{:03}", nanos / 1_000_000),
        _ if nanos.is_multiple_of(1_000) => format!(".{:06}", nanos / 1_000),
        _ => format!(".{nanos:09}"),
    }
}

/// Seconds since 1970 and nanoseconds of `2026-11-22T16:00:00.5Z`.
pub(super) fn parse_timestamp(text: &str) -> Option<(i64, i32)> {
    let body = text.strip_suffix('Z')?;
    let (date, time) = body.split_once('T')?;
    let number = |text: &str, length: usize| {
        (text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse::<i64>().ok())?
    };
    let mut parts = date.splitn(3, '-');
    let (year, month, day) = (number(parts.next()?, 4)?, number(parts.next()?, 2)?, number(parts.next()?, 2)?);
    let (clock, nanos) = time.split_once('.').unwrap_or((time, ""));
    let mut parts = clock.splitn(3, ':');
    let (hour, minute, second) = (number(parts.next()?, 2)?, number(parts.next()?, 2)?, number(parts.next()?, 2)?);
    let days = days_from_civil(year, month, day);
    if civil_from_days(days) != (year, month, day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let nanos = if nanos.is_empty() { 0 } else { parse_nanos(nanos)? };
    Some((days * 86_400 + hour * 3600 + minute * 60 + second, nanos))
}

pub(super) fn write_timestamp(seconds: i64, nanos: i32) -> String {
    let (days, clock) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil_from_days(days);
    let (hour, minute, second) = (clock / 3600, clock / 60 % 60, clock % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{}Z", fraction(nanos))
}

/// Days since 1970 of a date in the Gregorian calendar, counted in eras of 400 years that begin in March.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days.saturating_add(719_468);
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

/// Standard or URL-safe alphabet, padded or not.
pub(super) fn parse_bytes(text: &str) -> Option<Vec<u8>> {
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let alphabet = if text.contains(['-', '_']) { &alphabet::URL_SAFE } else { &alphabet::STANDARD };
    GeneralPurpose::new(alphabet, config).decode(text).ok()
}

pub(super) fn write_bytes(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, value) in
            [("0s", (0, 0)), ("1.500s", (1, 500_000_000)), ("-0.000001s", (0, -1000)), ("-3.000000001s", (-3, -1))]
        {
            assert_eq!(parse_duration(text), Some(value));
            assert_eq!(write_duration(value.0, value.1), text);
        }
        assert_eq!(parse_duration("0.25s"), Some((0, 250_000_000)));
        for wrong in ["", "s", "1", "1.s", ".5s", "1.0000000001s", "1 s", "+1s", "99999999999999s", "1e3s"] {
            assert_eq!(parse_duration(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn times() {
        for (text, value) in [
            ("1970-01-01T00:00:00Z", (0, 0)),
            ("2026-11-22T16:20:44.500Z", (1_795_364_444, 500_000_000)),
            ("1969-12-31T23:59:59Z", (-1, 0)),
            ("2000-02-29T00:00:00Z", (951_782_400, 0)),
        ] {
            assert_eq!(parse_timestamp(text), Some(value), "{text}");
            assert_eq!(write_timestamp(value.0, value.1), text);
        }
        for wrong in ["2026-02-29T00:00:00Z", "2026-13-01T00:00:00Z", "2026-01-01T24:00:00Z", "2026-01-01", "now"] {
            assert_eq!(parse_timestamp(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn bytes_in_both_alphabets() {
        assert_eq!(parse_bytes("+/8="), Some(vec![0xfb, 0xff]));
        assert_eq!(parse_bytes("-_8"), Some(vec![0xfb, 0xff]));
        assert_eq!(parse_bytes("!"), None);
        assert_eq!(write_bytes(&[0xfb, 0xff]), "+/8=");
    }
}
