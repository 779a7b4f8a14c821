//! The time formats of `%START_TIME(…)%`: strftime's, with Envoy's additions.

use super::LogFormatError;

/// A compiled time format. The default is `2026-01-31T23:59:59.123Z`. Times are in UTC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeFormat(pub Vec<TimePart>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TimePart {
    Literal(String),
    Year,
    YearOfCentury,
    Month,
    MonthName,
    Day,
    DayOfYear,
    WeekdayName,
    Hour,
    Hour12,
    AmPm,
    Minute,
    Second,
    /// Seconds since 1970.
    Epoch,
    /// That many digits of the fraction of the second.
    Fraction(usize),
}

impl Default for TimeFormat {
    fn default() -> Self {
        use TimePart::{Day, Fraction, Hour, Literal, Minute, Month, Second, Year};
        let text = |text: &str| Literal(text.to_owned());
        Self(vec![
            Year,
            text("-"),
            Month,
            text("-"),
            Day,
            text("T"),
            Hour,
            text(":"),
            Minute,
            text(":"),
            Second,
            text("."),
            Fraction(3),
            text("Z"),
        ])
    }
}

impl TimeFormat {
    pub(super) fn parse(format: &str) -> Result<Self, LogFormatError> {
        if format.is_empty() {
            return Ok(Self::default());
        }
        let mut parts = Vec::new();
        let mut characters = format.chars();
        while let Some(character) = characters.next() {
            if character != '%' {
                push(&mut parts, &character.to_string());
                continue;
            }
            let specifier = characters.next().unwrap_or('%');
            match specifier {
                'Y' => parts.push(TimePart::Year),
                'y' => parts.push(TimePart::YearOfCentury),
                'm' => parts.push(TimePart::Month),
                'b' | 'h' => parts.push(TimePart::MonthName),
                'd' => parts.push(TimePart::Day),
                'j' => parts.push(TimePart::DayOfYear),
                'a' => parts.push(TimePart::WeekdayName),
                'H' => parts.push(TimePart::Hour),
                'I' => parts.push(TimePart::Hour12),
                'p' => parts.push(TimePart::AmPm),
                'M' => parts.push(TimePart::Minute),
                'S' => parts.push(TimePart::Second),
                's' => parts.push(TimePart::Epoch),
                'f' => parts.push(TimePart::Fraction(9)),
                digit @ '1'..='9' if characters.clone().next() == Some('f') => {
                    characters.next();
                    parts.push(TimePart::Fraction(digit as usize - '0' as usize));
                }
                'z' => push(&mut parts, "+0000"),
                'Z' => push(&mut parts, "UTC"),
                'F' => parts.extend(Self::parse("%Y-%m-%d")?.0),
                'T' => parts.extend(Self::parse("%H:%M:%S")?.0),
                'R' => parts.extend(Self::parse("%H:%M")?.0),
                'D' => parts.extend(Self::parse("%m/%d/%y")?.0),
                '%' => push(&mut parts, "%"),
                'n' => push(&mut parts, "\n"),
                't' => push(&mut parts, "\t"),
                other => {
                    return Err(LogFormatError::TimeSpecifier { format: format.to_owned(), specifier: other });
                }
            }
        }
        Ok(Self(parts))
    }
}

fn push(parts: &mut Vec<TimePart>, text: &str) {
    match parts.last_mut() {
        Some(TimePart::Literal(literal)) => literal.push_str(text),
        _ => parts.push(TimePart::Literal(text.to_owned())),
    }
}
