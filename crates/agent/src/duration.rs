//! Durations as Go and protobuf's JSON write them: `5s`, `1m30s`, `0.5s`, `250ms`. Pure.

use std::time::Duration;

/// Reads a duration; the error says what is wrong with it. A negative one is none.
pub fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration; write 5s, 1m30s or 250ms");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut seconds = 0.0;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let number = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.').ok_or_else(wrong)?;
        let unit = rest[number..].find(|letter: char| letter.is_ascii_digit()).map_or(rest.len(), |end| number + end);
        let value: f64 = rest[..number].parse().map_err(|_| wrong())?;
        seconds += value
            * match &rest[number..unit] {
                "ns" => 1e-9,
                "us" | "µs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return Err(wrong()),
            };
        rest = &rest[unit..];
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_and_protobuf_durations_are_read() {
        for (text, milliseconds) in
            [("5s", 5000), ("0", 0), ("0s", 0), ("1m30s", 90_000), ("0.5s", 500), ("250ms", 250), ("2h", 7_200_000)]
        {
            assert_eq!(parse(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "5", "s", "-5s", "5d", "1s2", "1.2.3s", "99999999999999999999999h", "µ"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
