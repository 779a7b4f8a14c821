//! Messages in protobuf's canonical JSON form: names in camelCase or as in the `.proto` file, durations as `1.5s`,
//! enums by name, `Any` with its `@type`. Unknown fields are refused, and errors name the field's path.
//!
//! The descriptions of the messages take some megabytes once they are linked, which a small proxy cannot keep: a [`Json`] is
//! made where it is needed and dropped after.

use prost::Message;
use prost_reflect::{DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions};
use serde_json::Value;

const DESCRIPTORS: &[u8] = include_bytes!("../descriptors/envoy.bin");

/// How deep values may be nested.
const MAX_DEPTH: usize = 100;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    #[error("there is no message type {0:?} that this proxy knows")]
    UnknownType(String),
    /// The path has dots and indexes, for instance `static_resources.clusters[0].name`.
    #[error("{path}: {message}")]
    Field { path: String, message: String },
    #[error("values are nested more than {MAX_DEPTH} deep")]
    TooDeep,
    #[error("bytes that are no {name}: {message}")]
    Decode { name: String, message: String },
}

/// Reads and writes messages of all types that are known here.
#[derive(Debug)]
pub struct Json {
    pool: DescriptorPool,
    proto_names: bool,
}

impl Json {
    /// Links the descriptions; some milliseconds of work.
    pub fn new() -> Self {
        // The file is our own, and a test reads it.
        Self { pool: DescriptorPool::decode(DESCRIPTORS).unwrap_or_default(), proto_names: false }
    }

    /// Writes names as they stand in the `.proto` files, as Envoy's admin interface does.
    pub fn with_proto_names(mut self) -> Self {
        self.proto_names = true;
        self
    }

    /// The message `name` (`envoy.config.cluster.v3.Cluster`) as bytes.
    pub fn encode(&self, name: &str, value: &Value) -> Result<Vec<u8>, JsonError> {
        let value = ordered(value, 0)?;
        Ok(self.dynamic(self.descriptor(name)?, &value)?.encode_to_vec())
    }

    /// The message `name` as its compiled type.
    pub fn read<M: Message + Default>(&self, name: &str, value: &Value) -> Result<M, JsonError> {
        let bytes = self.encode(name, value)?;
        M::decode(bytes.as_slice())
            .map_err(|error| JsonError::Decode { name: name.to_owned(), message: error.to_string() })
    }

    /// An object with `@type`: its type URL, and the message as bytes.
    pub fn encode_any(&self, value: &Value) -> Result<(String, Vec<u8>), JsonError> {
        let bytes = self.encode("google.protobuf.Any", value)?;
        let any = prost_types::Any::decode(bytes.as_slice()).map_err(|error| JsonError::Decode {
            name: "google.protobuf.Any".to_owned(),
            message: error.to_string(),
        })?;
        Ok((any.type_url, any.value))
    }

    /// The message `name` from bytes, with camelCase names unless [`with_proto_names`](Self::with_proto_names) was asked for.
    pub fn decode(&self, name: &str, bytes: &[u8]) -> Result<Value, JsonError> {
        let wrong = |message: String| JsonError::Decode { name: name.to_owned(), message };
        let message =
            DynamicMessage::decode(self.descriptor(name)?, bytes).map_err(|error| wrong(error.to_string()))?;
        message
            .serialize_with_options(
                serde_json::value::Serializer,
                &SerializeOptions::new().use_proto_field_name(self.proto_names),
            )
            .map_err(|error| wrong(error.to_string()))
    }

    /// The message of a type URL from bytes, with its `@type`.
    pub fn decode_any(&self, type_url: &str, bytes: &[u8]) -> Result<Value, JsonError> {
        let any = prost_types::Any { type_url: type_url.to_owned(), value: bytes.to_vec() };
        self.decode("google.protobuf.Any", &any.encode_to_vec())
    }

    fn descriptor(&self, name: &str) -> Result<MessageDescriptor, JsonError> {
        self.pool.get_message_by_name(name).ok_or_else(|| JsonError::UnknownType(name.to_owned()))
    }

    fn dynamic(&self, descriptor: MessageDescriptor, value: &Value) -> Result<DynamicMessage, JsonError> {
        let mut track = serde_path_to_error::Track::new();
        let deserializer = serde_path_to_error::Deserializer::new(value, &mut track);
        let options = DeserializeOptions::new().deny_unknown_fields(true);
        DynamicMessage::deserialize_with_options(descriptor, deserializer, &options)
            .map_err(|error| field_error(&track.path().to_string(), &error.to_string()))
    }
}

/// The path is that of the object when one of its keys is not known; the key belongs to it.
fn field_error(path: &str, message: &str) -> JsonError {
    let path = if path == "." { "" } else { path };
    let unknown = message.split_once("unrecognized field name '").and_then(|(_, rest)| rest.split_once('\''));
    match unknown {
        Some((key, _)) => {
            let dot = if path.is_empty() { "" } else { "." };
            JsonError::Field { path: format!("{path}{dot}{key}"), message: "there is no such field".to_owned() }
        }
        None => JsonError::Field { path: path.to_owned(), message: message.to_owned() },
    }
}

impl Default for Json {
    fn default() -> Self {
        Self::new()
    }
}

/// One message from JSON; for several, make a [`Json`].
pub fn from_json(name: &str, value: &Value) -> Result<Vec<u8>, JsonError> {
    Json::new().encode(name, value)
}

/// One message to JSON; for several, make a [`Json`].
pub fn to_json(any: &prost_types::Any) -> Result<Value, JsonError> {
    Json::new().decode_any(&any.type_url, &any.value)
}

/// The same value with `@type` as the first key of every object: so a message in an `Any` is read in one go, and an
/// error in it knows its path.
fn ordered(value: &Value, depth: usize) -> Result<Value, JsonError> {
    if depth > MAX_DEPTH {
        return Err(JsonError::TooDeep);
    }
    Ok(match value {
        Value::Object(object) => {
            let mut out = serde_json::Map::with_capacity(object.len());
            if let Some(kind) = object.get("@type") {
                out.insert("@type".to_owned(), kind.clone());
            }
            for (key, value) in object {
                if key != "@type" {
                    out.insert(key.clone(), ordered(value, depth + 1)?);
                }
            }
            Value::Object(out)
        }
        Value::Array(items) => {
            Value::Array(items.iter().map(|item| ordered(item, depth + 1)).collect::<Result<_, _>>()?)
        }
        other => other.clone(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::envoy::config::cluster::v3::Cluster;

    const CLUSTER: &str = "envoy.config.cluster.v3.Cluster";

    #[test]
    fn both_spellings_of_names_are_read() {
        let json = Json::new();
        for value in [
            json!({"name": "a", "connectTimeout": "0.250s", "lbPolicy": "RANDOM"}),
            json!({"name": "a", "connect_timeout": "0.25s", "lb_policy": "RANDOM"}),
        ] {
            let cluster: Cluster = json.read(CLUSTER, &value).unwrap();
            assert_eq!(cluster.name, "a");
            assert_eq!(cluster.connect_timeout.map(|timeout| timeout.nanos), Some(250_000_000));
            assert_eq!(cluster.lb_policy, 3);
        }
    }

    #[test]
    fn messages_in_any_go_there_and_back() {
        let json = Json::new();
        let value = json!({
            "name": "a",
            "transportSocket": {
                "name": "tls",
                "typedConfig": {
                    "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                    "sni": "x",
                },
            },
        });
        let bytes = json.encode(CLUSTER, &value).unwrap();
        assert_eq!(json.decode(CLUSTER, &bytes).unwrap(), value);
        let any = json.decode_any(&format!("type.googleapis.com/{CLUSTER}"), &bytes).unwrap();
        assert_eq!(any["@type"], format!("type.googleapis.com/{CLUSTER}"));
        let (url, again) = json.encode_any(&any).unwrap();
        assert_eq!((url, again), (format!("type.googleapis.com/{CLUSTER}"), bytes));
    }

    #[track_caller]
    fn refused(value: Value, path: &str) {
        match Json::new().encode(CLUSTER, &value) {
            Err(JsonError::Field { path: found, .. }) => assert_eq!(found, path),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_wrong_is_named_by_its_path() {
        refused(json!({"name": 1}), "name");
        refused(json!({"nam": "a"}), "nam");
        refused(
            json!({"loadAssignment": {"endpoints": [{}, {"lb_endpoints": [{"x": 1}]}]}}),
            "loadAssignment.endpoints[1].lb_endpoints[0].x",
        );
        let tls = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
        // The type need not come first.
        refused(
            json!({"transport_socket": {"typed_config": {"nope": 1, "@type": tls}}}),
            "transport_socket.typed_config.nope",
        );
        refused(
            json!({"transport_socket": {"typed_config": {"@type": "type.googleapis.com/x.Y"}}}),
            "transport_socket.typed_config",
        );
    }

    #[test]
    fn deep_nesting_is_refused() {
        let mut value = json!({});
        for _ in 0..200 {
            value = json!({ "fields": { "x": { "structValue": value } } });
        }
        assert_eq!(Json::new().encode("google.protobuf.Struct", &value), Err(JsonError::TooDeep));
    }

    /// When this fails, `cargo xtask protos` has to be run.
    #[test]
    fn descriptions_are_those_of_the_compiled_types() {
        let json = Json::new();
        let cluster = json.descriptor(CLUSTER).unwrap();
        // A field of the newest version in use, and the last number of a large message.
        assert!(cluster.get_field_by_name("lrs_report_endpoint_metrics").is_some());
        for name in [
            "envoy.config.bootstrap.v3.Bootstrap",
            "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig",
            "stats.PluginConfig",
            "udpa.type.v1.TypedStruct",
        ] {
            assert!(json.descriptor(name).is_ok(), "{name}");
        }
    }
}
