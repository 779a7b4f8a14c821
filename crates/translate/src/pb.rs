//! Small makers for the messages that Envoy's API wraps everything in: wrapped numbers, durations, `Any`, metadata.

use std::time::Duration;

use mizzen_proto::envoy::config::core::v3 as core;
use mizzen_proto::envoy::r#type::matcher::v3::{RegexMatcher, StringMatcher, string_matcher::MatchPattern};
use mizzen_proto::envoy::r#type::v3::{FractionalPercent, Percent as WirePercent, fractional_percent::DenominatorType};
use mizzen_proto::google::protobuf as google;
use mizzen_types::Percent;
use prost::{Message, Name};
use serde_json::Value;

use crate::canonical;

/// `udpa.type.v1.TypedStruct`, the older name of `xds.type.v3.TypedStruct` under which Istio sends it, over the `Struct`
/// that all messages here are made of.
#[derive(Clone, PartialEq, Message)]
struct TypedStruct {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(message, optional, tag = "2")]
    value: Option<google::Struct>,
}

pub(crate) fn u32(value: u32) -> Option<google::UInt32Value> {
    Some(google::UInt32Value { value })
}

pub(crate) fn u64(value: u64) -> Option<google::UInt64Value> {
    Some(google::UInt64Value { value })
}

pub(crate) fn bool(value: bool) -> Option<google::BoolValue> {
    Some(google::BoolValue { value })
}

pub(crate) fn percent(value: f64) -> Option<WirePercent> {
    Some(WirePercent { value })
}

pub(crate) fn duration(duration: Duration) -> Option<google::Duration> {
    // Envoy's longest duration; configuration has a limit far below it.
    let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX).min(9_223_372_036);
    Some(google::Duration { seconds, nanos: duration.subsec_nanos() as i32 })
}

pub(crate) fn zero() -> Option<google::Duration> {
    Some(google::Duration::default())
}

/// A share in millionths, as Istio sends it.
pub(crate) fn fraction(percent: Percent) -> FractionalPercent {
    FractionalPercent { numerator: percent.parts_per_million(), denominator: DenominatorType::Million as i32 }
}

pub(crate) fn runtime_fraction(percent: Percent) -> Option<core::RuntimeFractionalPercent> {
    Some(core::RuntimeFractionalPercent { default_value: Some(fraction(percent)), runtime_key: String::new() })
}

pub(crate) fn any<M: Message + Name>(message: &M) -> google::Any {
    google::Any { type_url: M::type_url(), value: message.encode_to_vec() }
}

pub(crate) fn extension<M: Message + Name>(name: &str, message: &M) -> core::TypedExtensionConfig {
    core::TypedExtensionConfig { name: name.to_owned(), typed_config: Some(any(message)) }
}

pub(crate) fn socket_address(address: &str, port: u16) -> core::SocketAddress {
    core::SocketAddress {
        address: address.to_owned(),
        port_specifier: Some(core::socket_address::PortSpecifier::PortValue(port.into())),
        ..Default::default()
    }
}

/// An IP address or name with a port, or a unix socket.
pub(crate) fn address(address: &str, port: u16) -> Option<core::Address> {
    let address = match address.strip_prefix("unix://") {
        Some(path) => core::address::Address::Pipe(core::Pipe { path: path.to_owned(), mode: 0 }),
        None => core::address::Address::SocketAddress(socket_address(address, port)),
    };
    Some(core::Address { address: Some(address) })
}

/// Ask the control plane for it, on the stream on which everything comes.
pub(crate) fn ads() -> Option<core::ConfigSource> {
    Some(core::ConfigSource {
        initial_fetch_timeout: zero(),
        resource_api_version: core::ApiVersion::V3 as i32,
        config_source_specifier: Some(core::config_source::ConfigSourceSpecifier::Ads(core::AggregatedConfigSource {})),
        ..Default::default()
    })
}

pub(crate) fn exact(text: &str) -> StringMatcher {
    string(MatchPattern::Exact(text.to_owned()))
}

pub(crate) fn prefix(text: &str) -> StringMatcher {
    string(MatchPattern::Prefix(text.to_owned()))
}

pub(crate) fn string(pattern: MatchPattern) -> StringMatcher {
    StringMatcher { match_pattern: Some(pattern), ..Default::default() }
}

pub(crate) fn regex(regex: &str) -> RegexMatcher {
    RegexMatcher { regex: regex.to_owned(), ..Default::default() }
}

pub(crate) fn value(json: &Value) -> google::Value {
    use google::value::Kind;
    let kind = match json {
        Value::Null => Kind::NullValue(0),
        Value::Bool(value) => Kind::BoolValue(*value),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Value::String(text) => Kind::StringValue(text.clone()),
        Value::Array(items) => Kind::ListValue(google::ListValue { values: items.iter().map(value).collect() }),
        Value::Object(_) => Kind::StructValue(structure(json)),
    };
    google::Value { kind: Some(kind) }
}

/// A `Struct` from a JSON object; of anything else an empty one.
pub(crate) fn structure(json: &Value) -> google::Struct {
    let fields = json.as_object().into_iter().flatten().map(|(key, json)| (key.clone(), value(json)));
    google::Struct { fields: fields.collect() }
}

/// Filter metadata from a JSON object of objects.
pub(crate) fn metadata(json: &Value) -> Option<core::Metadata> {
    let entries = json.as_object().into_iter().flatten().map(|(key, json)| (key.clone(), structure(json)));
    Some(core::Metadata { filter_metadata: entries.collect(), ..Default::default() })
}

/// Istio's own filters are configured by `udpa.type.v1.TypedStruct`: a type's name and a JSON object.
pub(crate) fn typed_struct(type_url: &str, json: &Value) -> google::Any {
    let message = TypedStruct { type_url: type_url.to_owned(), value: Some(structure(json)) };
    let mut bytes = message.encode_to_vec();
    canonical::sort(&mut bytes, canonical::TYPED_STRUCT);
    google::Any { type_url: "type.googleapis.com/udpa.type.v1.TypedStruct".to_owned(), value: bytes }
}
