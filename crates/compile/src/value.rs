//! Small values: durations, addresses, shares, extensions in an `Any`.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use mizzen_proto::envoy::config::core::v3::{
    Address, CidrRange, DataSource, RuntimeFractionalPercent, SocketAddress, address, data_source, socket_address,
};
use mizzen_proto::envoy::r#type::v3::{FractionalPercent, Percent as FloatPercent, fractional_percent};
use mizzen_proto::google::protobuf;
use mizzen_types::Percent;
use prost::{Message, Name};

use crate::invalid::{At, Invalid, Result};

/// No longer than a century, so that sums of times cannot overflow; longer ones mean "for ever" to everybody.
const LONGEST: Duration = Duration::from_secs(100 * 366 * 24 * 3600);

pub(crate) fn duration(value: &protobuf::Duration) -> Result<Duration> {
    let (Ok(seconds), Ok(nanos)) = (u64::try_from(value.seconds), u32::try_from(value.nanos)) else {
        return Err(Invalid::new("a duration cannot be negative"));
    };
    if nanos >= 1_000_000_000 {
        return Err(Invalid::new("a duration's nanoseconds have to be below one second"));
    }
    Ok(Duration::new(seconds, nanos).min(LONGEST))
}

/// Absent stays absent.
pub(crate) fn optional_duration(value: Option<&protobuf::Duration>) -> Result<Option<Duration>> {
    value.map(duration).transpose()
}

/// A time limit whose zero means that there is none; `default` when absent.
pub(crate) fn limit(value: Option<&protobuf::Duration>, default: Option<Duration>) -> Result<Option<Duration>> {
    match value {
        None => Ok(default),
        Some(value) => Ok(Some(duration(value)?).filter(|duration| !duration.is_zero())),
    }
}

/// A duration that has to be longer than nothing.
pub(crate) fn positive(value: Option<&protobuf::Duration>, default: Duration) -> Result<Duration> {
    match value.map(duration).transpose()? {
        Some(Duration::ZERO) => Err(Invalid::new("this duration has to be longer than zero")),
        Some(duration) => Ok(duration),
        None => Ok(default),
    }
}

pub(crate) fn number(value: Option<&protobuf::UInt32Value>) -> Option<u32> {
    value.map(|value| value.value)
}

pub(crate) fn flag(value: Option<&protobuf::BoolValue>, default: bool) -> bool {
    value.map_or(default, |value| value.value)
}

/// Reads a message that is known to be an `M`.
pub(crate) fn unpack<M: Message + Name + Default>(any: &protobuf::Any) -> Result<M> {
    M::decode(any.value.as_slice())
        .map_err(|error| Invalid::new(format!("bytes that are no {}: {error}", M::full_name())))
}

/// The message name in a type URL.
pub(crate) fn message_name(any: &protobuf::Any) -> &str {
    any.type_url.rsplit('/').next().unwrap_or_default()
}

pub(crate) fn is<M: Name>(any: &protobuf::Any) -> bool {
    message_name(any) == M::full_name()
}

pub(crate) fn fraction(value: &FractionalPercent) -> Result<Percent> {
    let denominator = fractional_percent::DenominatorType::try_from(value.denominator);
    let scale = match denominator.map_err(|_| Invalid::new("this denominator is not known").within("denominator"))? {
        fractional_percent::DenominatorType::Hundred => 10_000,
        fractional_percent::DenominatorType::TenThousand => 100,
        fractional_percent::DenominatorType::Million => 1,
    };
    Ok(Percent::per_million(value.numerator.saturating_mul(scale)))
}

/// The default of a fraction that Envoy's runtime could change; there is no runtime here.
pub(crate) fn runtime_fraction(value: Option<&RuntimeFractionalPercent>) -> Result<Option<Percent>> {
    let Some(value) = value.and_then(|value| value.default_value.as_ref()) else { return Ok(None) };
    fraction(value).at("default_value").map(Some)
}

/// A percentage in whole percents.
pub(crate) fn percent(value: &FloatPercent) -> Result<u32> {
    if (0.0..=100.0).contains(&value.value) {
        // In range, so nothing is cut off but the fraction.
        Ok(value.value.round() as u32)
    } else {
        Err(Invalid::new("a percentage has to be from 0 to 100"))
    }
}

/// Where something listens or is reached.
pub(crate) enum Place {
    Socket(SocketAddr),
    Name { host: String, port: u16 },
    Pipe(String),
}

pub(crate) fn place(value: Option<&Address>) -> Result<Place> {
    let Some(address) = value.and_then(|value| value.address.as_ref()) else {
        return Err(Invalid::new("an address is missing"));
    };
    match address {
        address::Address::Pipe(pipe) if pipe.path.is_empty() => {
            Err(Invalid::new("a path is missing").within("pipe.path"))
        }
        address::Address::Pipe(pipe) => Ok(Place::Pipe(pipe.path.clone())),
        address::Address::SocketAddress(address) => socket(address).at("socket_address"),
        address::Address::EnvoyInternalAddress(_) => {
            Err(Invalid::not_obeyed("an internal address").within("envoy_internal_address"))
        }
    }
}

pub(crate) fn socket(value: &SocketAddress) -> Result<Place> {
    if value.protocol != 0 {
        return Err(Invalid::not_obeyed("UDP").within("protocol"));
    }
    let port = match &value.port_specifier {
        Some(socket_address::PortSpecifier::PortValue(port)) => {
            u16::try_from(*port).map_err(|_| Invalid::new("a port is at most 65535").within("port_value"))?
        }
        Some(socket_address::PortSpecifier::NamedPort(_)) => {
            return Err(Invalid::not_obeyed("a port by name").within("named_port"));
        }
        None => 0,
    };
    match value.address.parse::<IpAddr>() {
        Ok(ip) => Ok(Place::Socket(SocketAddr::new(ip, port))),
        Err(_) if value.address.is_empty() => Err(Invalid::new("an address is missing").within("address")),
        Err(_) => Ok(Place::Name { host: value.address.clone(), port }),
    }
}

pub(crate) fn networks(ranges: &[CidrRange]) -> Result<Vec<IpNet>> {
    let network = |range: &CidrRange| {
        let ip: IpAddr = range.address_prefix.parse().map_err(|_| {
            Invalid::new(format!("{:?} is no IP address", range.address_prefix)).within("address_prefix")
        })?;
        let length = number(range.prefix_len.as_ref()).unwrap_or(0);
        let length = u8::try_from(length).unwrap_or(u8::MAX);
        let network = IpNet::new(ip, length);
        network.map(|network| network.trunc()).map_err(|_| Invalid::new("the prefix is too long").within("prefix_len"))
    };
    ranges.iter().enumerate().map(|(index, range)| network(range).at_index("", index)).collect()
}

/// What a data source says, when it needs no file and no environment.
pub(crate) enum Source {
    Inline(Vec<u8>),
    File(String),
}

pub(crate) fn data_source(value: &DataSource) -> Result<Source> {
    match &value.specifier {
        Some(data_source::Specifier::InlineString(text)) => Ok(Source::Inline(text.clone().into_bytes())),
        Some(data_source::Specifier::InlineBytes(bytes)) => Ok(Source::Inline(bytes.clone())),
        Some(data_source::Specifier::Filename(path)) => Ok(Source::File(path.clone())),
        Some(data_source::Specifier::EnvironmentVariable(_)) => {
            Err(Invalid::not_obeyed("an environment variable").within("environment_variable"))
        }
        None => Err(Invalid::new("nothing is given; give inline_string, inline_bytes or filename")),
    }
}
