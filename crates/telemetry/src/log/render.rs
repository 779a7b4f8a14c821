//! Lines of the access log.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName};
use mizzen_snapshot::header::{HeaderKey, joined};
use mizzen_snapshot::log_format::{AddressPart, LogField, LogPart, LogTemplate, Side, TimeFormat, TimePart};

use crate::escape;
use crate::exchange::{Exchange, Kind};
use crate::flags;

/// The value of a field.
enum Value<'a> {
    Absent,
    Number(u64),
    /// Ours: needs no escape.
    Word(Cow<'a, str>),
    /// From the network.
    Foreign(Cow<'a, [u8]>),
}

/// Appends the line for `exchange`.
pub(super) fn line(out: &mut String, template: &LogTemplate, exchange: &Exchange<'_>, hostname: &str) {
    match template {
        LogTemplate::Text(parts) => {
            for part in parts {
                text_part(out, part, exchange, hostname);
            }
        }
        LogTemplate::Json(fields) => {
            out.push('{');
            for (index, (key, parts)) in fields.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                escape::json(out, key.as_bytes());
                out.push(':');
                json_value(out, parts, exchange, hostname);
            }
            out.push_str("}\n");
        }
    }
}

fn text_part(out: &mut String, part: &LogPart, exchange: &Exchange<'_>, hostname: &str) {
    match part {
        LogPart::Literal(text) => out.push_str(text),
        LogPart::Field { field, limit } => {
            let start = out.len();
            match value(field, exchange, hostname) {
                Value::Absent => out.push('-'),
                // Writing to a string cannot fail.
                Value::Number(number) => drop(write!(out, "{number}")),
                Value::Word(word) => out.push_str(&word),
                Value::Foreign(bytes) => return escape::text(out, cut(&bytes, *limit)),
            }
            if let Some(limit) = limit
                && out.len() > start + limit
            {
                // What is ours is ASCII but for names; cut before a character, not in it.
                let mut end = start + limit;
                while !out.is_char_boundary(end) {
                    end -= 1;
                }
                out.truncate(end);
            }
        }
    }
}

/// A single operator keeps its type; anything else is text.
fn json_value(out: &mut String, parts: &[LogPart], exchange: &Exchange<'_>, hostname: &str) {
    if let [LogPart::Field { field, limit }] = parts {
        match value(field, exchange, hostname) {
            Value::Absent => out.push_str("null"),
            // Writing to a string cannot fail.
            Value::Number(number) => drop(write!(out, "{number}")),
            Value::Word(word) => escape::json(out, cut(word.as_bytes(), *limit)),
            Value::Foreign(bytes) => escape::json(out, cut(&bytes, *limit)),
        }
        return;
    }
    let mut bytes = Vec::new();
    for part in parts {
        match part {
            LogPart::Literal(text) => bytes.extend_from_slice(text.as_bytes()),
            LogPart::Field { field, limit } => match value(field, exchange, hostname) {
                Value::Absent => bytes.push(b'-'),
                Value::Number(number) => bytes.extend_from_slice(number.to_string().as_bytes()),
                Value::Word(word) => bytes.extend_from_slice(cut(word.as_bytes(), *limit)),
                Value::Foreign(foreign) => bytes.extend_from_slice(cut(&foreign, *limit)),
            },
        }
    }
    escape::json(out, &bytes);
}

fn cut(bytes: &[u8], limit: Option<usize>) -> &[u8] {
    &bytes[..bytes.len().min(limit.unwrap_or(usize::MAX))]
}

fn value<'a>(field: &LogField, exchange: &Exchange<'a>, hostname: &'a str) -> Value<'a> {
    match field {
        LogField::StartTime(format) => Value::Word(Cow::Owned(timestamp(format, exchange.started_at))),
        LogField::Request { name, other } => {
            let of = |key: &HeaderKey| request_value(exchange, key);
            foreign(of(name).or_else(|| other.as_ref().and_then(of)))
        }
        LogField::Response { name, other } => header(exchange.response_headers, name, other.as_ref()),
        LogField::Trailer { name, other } => header(exchange.response_trailers, name, other.as_ref()),
        LogField::QueryParameter(name) => query(exchange, name),
        LogField::Protocol => word(exchange.protocol),
        LogField::ResponseCode if exchange.kind == Kind::Tcp => Value::Number(0),
        LogField::ResponseCode => Value::Number(u64::from(exchange.status)),
        // Envoy writes details without spaces, so that fields can be told apart.
        LogField::ResponseCodeDetails => underscored(exchange.details),
        LogField::ConnectionTerminationDetails => underscored(exchange.termination_details),
        LogField::UpstreamTransportFailureReason => underscored(exchange.upstream_transport_failure),
        LogField::ResponseFlags if exchange.flags.is_empty() => Value::Word(Cow::Borrowed("-")),
        LogField::ResponseFlags => word(Some(exchange.flags)),
        LogField::ResponseFlagsLong if exchange.flags.is_empty() => Value::Word(Cow::Borrowed("-")),
        LogField::ResponseFlagsLong => {
            let long: Vec<&str> = exchange.flags.split(',').map(flags::long).collect();
            Value::Word(Cow::Owned(long.join(",")))
        }
        LogField::BytesReceived => Value::Number(exchange.bytes_received),
        LogField::BytesSent => Value::Number(exchange.bytes_sent),
        LogField::Duration => Value::Number(milliseconds(exchange.duration)),
        LogField::RequestDuration => duration(exchange.request_received),
        LogField::RequestTxDuration => duration(exchange.upstream_sent),
        LogField::ResponseDuration => duration(exchange.upstream_responded),
        LogField::ResponseTxDuration => {
            duration(exchange.upstream_responded.map(|responded| exchange.duration.saturating_sub(responded)))
        }
        LogField::UpstreamHost => shown(exchange.upstream_host),
        LogField::UpstreamCluster => word(exchange.cluster),
        LogField::UpstreamRequestAttemptCount => Value::Number(u64::from(exchange.attempts)),
        LogField::Upstream(Side::Local, part) => address(exchange.upstream_local, *part),
        LogField::Upstream(Side::Remote, part) => address(exchange.upstream_remote, *part),
        LogField::Downstream(Side::Local, part) => address(exchange.downstream_local, *part),
        LogField::Downstream(Side::Remote, part) => address(exchange.downstream_remote, *part),
        LogField::DownstreamDirectRemote(part) => address(exchange.downstream_direct_remote, *part),
        LogField::RequestedServerName => foreign(exchange.server_name.map(|name| Cow::Borrowed(name.as_bytes()))),
        LogField::RouteName => word(exchange.route),
        LogField::VirtualHostName => word(exchange.virtual_host),
        LogField::ConnectionId => exchange.connection_id.map_or(Value::Absent, Value::Number),
        LogField::DownstreamPeerUriSan => foreign_text(exchange.downstream_peer_uri),
        LogField::DownstreamLocalUriSan => foreign_text(exchange.downstream_local_uri),
        LogField::DownstreamPeerSubject => foreign_text(exchange.downstream_peer_subject),
        LogField::DownstreamTlsVersion => word(exchange.downstream_tls_version),
        LogField::DownstreamTlsCipher => word(exchange.downstream_tls_cipher),
        LogField::UpstreamPeerUriSan => foreign_text(exchange.upstream_peer_uri),
        LogField::GrpcStatus { number } => match exchange.grpc_status().filter(|_| exchange.is_grpc()) {
            Some(status) if *number => Value::Number(u64::from(status)),
            Some(status) => grpc_name(status),
            None => Value::Absent,
        },
        LogField::StreamId => {
            let id = exchange.request_headers.and_then(|headers| headers.get("x-request-id"));
            foreign(id.map(|id| Cow::Borrowed(id.as_bytes())))
        }
        LogField::Hostname => word(Some(hostname)),
        LogField::AccessLogType => Value::Word(Cow::Borrowed(match exchange.kind {
            Kind::Http => "DownstreamEnd",
            Kind::Tcp => "TcpConnectionEnd",
        })),
        LogField::Absent => Value::Absent,
    }
}

fn request_value<'a>(exchange: &Exchange<'a>, key: &HeaderKey) -> Option<Cow<'a, [u8]>> {
    let text = match key {
        HeaderKey::Method => exchange.method,
        HeaderKey::Authority => exchange.authority,
        HeaderKey::Scheme => exchange.scheme,
        HeaderKey::Path => exchange.path,
        HeaderKey::Name(name) => return joined(exchange.request_headers?, name),
    };
    text.filter(|text| !text.is_empty()).map(|text| Cow::Borrowed(text.as_bytes()))
}

fn header<'a>(headers: Option<&'a HeaderMap>, name: &HeaderName, other: Option<&HeaderName>) -> Value<'a> {
    let of = |name: &HeaderName| headers.and_then(|headers| joined(headers, name));
    foreign(of(name).or_else(|| other.and_then(of)))
}

fn query<'a>(exchange: &Exchange<'a>, name: &str) -> Value<'a> {
    let found = exchange.path.and_then(|path| path.split_once('?')).and_then(|(_, query)| {
        query.split('&').find_map(|pair| match pair.split_once('=') {
            Some((key, value)) => (key == name).then_some(value),
            None => (pair == name).then_some(""),
        })
    });
    foreign_text(found)
}

fn word(text: Option<&str>) -> Value<'_> {
    match text {
        // Names of configuration may hold anything that the control plane allows.
        Some(text) if text.bytes().any(|byte| byte.is_ascii_control() || byte == b'"') => foreign_text(Some(text)),
        Some(text) if !text.is_empty() => Value::Word(Cow::Borrowed(text)),
        _ => Value::Absent,
    }
}

fn foreign(bytes: Option<Cow<'_, [u8]>>) -> Value<'_> {
    bytes.map_or(Value::Absent, Value::Foreign)
}

fn foreign_text(text: Option<&str>) -> Value<'_> {
    foreign(text.filter(|text| !text.is_empty()).map(|text| Cow::Borrowed(text.as_bytes())))
}

fn underscored(text: Option<&str>) -> Value<'_> {
    match text {
        Some(text) if text.contains(char::is_whitespace) => {
            Value::Foreign(Cow::Owned(text.replace(char::is_whitespace, "_").into_bytes()))
        }
        text => foreign_text(text),
    }
}

fn shown<'a>(value: Option<impl fmt::Display>) -> Value<'a> {
    value.map_or(Value::Absent, |value| Value::Word(Cow::Owned(value.to_string())))
}

fn address<'a>(address: Option<SocketAddr>, part: AddressPart) -> Value<'a> {
    match part {
        AddressPart::Whole => shown(address),
        AddressPart::Ip => shown(address.map(|address| address.ip())),
        AddressPart::Port => address.map_or(Value::Absent, |address| Value::Number(u64::from(address.port()))),
    }
}

fn duration<'a>(duration: Option<Duration>) -> Value<'a> {
    duration.map_or(Value::Absent, |duration| Value::Number(milliseconds(duration)))
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn grpc_name<'a>(status: u16) -> Value<'a> {
    const NAMES: [&str; 17] = [
        "OK",
        "Canceled",
        "Unknown",
        "InvalidArgument",
        "DeadlineExceeded",
        "NotFound",
        "AlreadyExists",
        "PermissionDenied",
        "ResourceExhausted",
        "FailedPrecondition",
        "Aborted",
        "OutOfRange",
        "Unimplemented",
        "Internal",
        "Unavailable",
        "DataLoss",
        "Unauthenticated",
    ];
    match NAMES.get(usize::from(status)) {
        Some(name) => Value::Word(Cow::Borrowed(name)),
        None => Value::Word(Cow::Owned(status.to_string())),
    }
}

pub(super) fn timestamp(format: &TimeFormat, time: SystemTime) -> String {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    let (seconds, nanos) = super::since_epoch(time);
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    let mut out = String::with_capacity(24);
    for part in &format.0 {
        // Writing to a string cannot fail.
        let _ = match part {
            TimePart::Literal(text) => out.write_str(text),
            TimePart::Year => write!(out, "{year:04}"),
            TimePart::YearOfCentury => write!(out, "{:02}", year % 100),
            TimePart::Month => write!(out, "{month:02}"),
            TimePart::MonthName => out.write_str(MONTHS[(month - 1) as usize]),
            TimePart::Day => write!(out, "{day:02}"),
            TimePart::DayOfYear => write!(out, "{:03}", days - days_before(year) + 1),
            TimePart::WeekdayName => out.write_str(WEEKDAYS[(days % 7) as usize]),
            TimePart::Hour => write!(out, "{hour:02}"),
            TimePart::Hour12 => write!(out, "{:02}", (hour + 11) % 12 + 1),
            TimePart::AmPm => out.write_str(if hour < 12 { "AM" } else { "PM" }),
            TimePart::Minute => write!(out, "{minute:02}"),
            TimePart::Second => write!(out, "{second:02}"),
            TimePart::Epoch => write!(out, "{seconds}"),
            TimePart::Fraction(digits) => {
                let digits = (*digits).clamp(1, 9);
                write!(out, "{:0digits$}", nanos / 10u32.pow(9 - digits as u32))
            }
        };
    }
    out
}

/// Year, month and day in the Gregorian calendar of a day counted from 1970-01-01. March is taken as the first month,
/// so that the leap day is the last of a year.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

/// Days from 1970-01-01 to the first of January of `year`.
fn days_before(year: u64) -> u64 {
    let before = year - 1;
    before * 365 + before / 4 - before / 100 + before / 400 - 719_162
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_become_dates() {
        for (days, date) in [
            (0, (1970, 1, 1)),
            (58, (1970, 2, 28)),
            (59, (1970, 3, 1)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (19_782, (2024, 2, 29)),
            (20_779, (2026, 11, 22)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
        ] {
            assert_eq!(civil(days), date);
        }
        assert_eq!(days_before(1970), 0);
        assert_eq!(days_before(2026), 20_454);
    }
}
