//! Messages in protobuf's canonical JSON form: names in camelCase or as in the `.proto` file, durations as `1.5s`,
//! enums by name, `Any` with its `@type`. Unknown fields are refused, and errors name the field's path.
//!
//! Messages are looked up in a table that is part of the program and read in place, so this costs a small proxy next to
//! no memory. The table is made of `descriptors/envoy.bin`, which `cargo xtask protos` writes.

mod known;
mod read;
mod schema;
mod write;

use prost::Message;
use serde_json::Value;

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
#[derive(Debug, Clone, Copy, Default)]
pub struct Json {
    proto_names: bool,
}

impl Json {
    pub const fn new() -> Self {
        Self { proto_names: false }
    }

    /// Writes names as they stand in the `.proto` files, as Envoy's admin interface does.
    pub const fn with_proto_names(self) -> Self {
        Self { proto_names: true }
    }

    /// The message `name` (`envoy.config.cluster.v3.Cluster`) as bytes.
    pub fn encode(self, name: &str, value: &Value) -> Result<Vec<u8>, JsonError> {
        let mut bytes = Vec::new();
        read::message(Self::message(name)?, value, &mut bytes, 0)?;
        Ok(bytes)
    }

    /// The message `name` as its compiled type.
    pub fn read<M: Message + Default>(self, name: &str, value: &Value) -> Result<M, JsonError> {
        let bytes = self.encode(name, value)?;
        M::decode(bytes.as_slice())
            .map_err(|error| JsonError::Decode { name: name.to_owned(), message: error.to_string() })
    }

    /// An object with `@type`: its type URL, and the message as bytes.
    pub fn encode_any(self, value: &Value) -> Result<(String, Vec<u8>), JsonError> {
        let any: prost_types::Any = self.read("google.protobuf.Any", value)?;
        Ok((any.type_url, any.value))
    }

    /// The message `name` from bytes, with camelCase names unless [`with_proto_names`](Self::with_proto_names) was
    /// asked for.
    pub fn decode(self, name: &str, bytes: &[u8]) -> Result<Value, JsonError> {
        write::message(Self::message(name)?, bytes, write::At { depth: 0, proto_names: self.proto_names })
            .map_err(|message| JsonError::Decode { name: name.to_owned(), message })
    }

    /// The message of a type URL from bytes, with its `@type`. A type that is not known is shown as its bytes in base64.
    pub fn decode_any(self, type_url: &str, bytes: &[u8]) -> Result<Value, JsonError> {
        let any = prost_types::Any { type_url: type_url.to_owned(), value: bytes.to_vec() };
        self.decode("google.protobuf.Any", &any.encode_to_vec())
    }

    fn message(name: &str) -> Result<schema::Message, JsonError> {
        schema::message(name).ok_or_else(|| JsonError::UnknownType(name.to_owned()))
    }
}

/// One message from JSON.
pub fn from_json(name: &str, value: &Value) -> Result<Vec<u8>, JsonError> {
    Json::new().encode(name, value)
}

/// One message to JSON.
pub fn to_json(any: &prost_types::Any) -> Result<Value, JsonError> {
    Json::new().decode_any(&any.type_url, &any.value)
}

#[cfg(test)]
mod tests;
