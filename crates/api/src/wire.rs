//! The forms in which protobuf messages are written as JSON and YAML: durations, whole numbers, percentages, labels.
//!
//! Functions for `#[serde(deserialize_with = …)]`. They accept what Istio's own reader accepts and say what to write
//! otherwise.

mod duration;
mod number;
pub mod schema;

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use mizzen_types::{Labels, Percent};
use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serialize};

pub use duration::{duration, opt_duration, parse_duration};
pub use number::{int, int_map, ints, number, opt_int, opt_number};

/// A map of labels.
pub fn labels<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Labels, D::Error> {
    Ok(BTreeMap::<String, String>::deserialize(deserializer)?.into_iter().collect())
}

/// `{value: 12.5}`, a share of requests; an absent value is zero, as in protobuf.
pub fn opt_percent<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Percent>, D::Error> {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Message {
        #[serde(deserialize_with = "number")]
        value: f64,
    }
    let Some(message) = Option::<Message>::deserialize(deserializer)? else { return Ok(None) };
    match Percent::from_percent(message.value) {
        Some(percent) => Ok(Some(percent)),
        None => Err(D::Error::custom(format!("percentage {} is not between 0 and 100", message.value))),
    }
}

/// A share written as a bare number from 0 to 100.
pub fn opt_bare_percent<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Percent>, D::Error> {
    let Some(value) = opt_number(deserializer)? else { return Ok(None) };
    match Percent::from_percent(value) {
        Some(percent) => Ok(Some(percent)),
        None => Err(D::Error::custom(format!("percentage {value} is not between 0 and 100"))),
    }
}

/// Bytes, written as base64 in any of its forms.
pub fn opt_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u8>>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
    decode(&text).map(Some).ok_or_else(|| D::Error::custom("this is not base64"))
}

/// A map from names to bytes, written as base64.
pub fn bytes_map<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, Vec<u8>>, D::Error> {
    let texts = BTreeMap::<String, String>::deserialize(deserializer)?;
    let decoded = |(key, text): (String, String)| match decode(&text) {
        Some(bytes) => Ok((key, bytes)),
        None => Err(D::Error::custom(format!("the value of `{key}` is not base64; plain text goes into `stringData`"))),
    };
    texts.into_iter().map(decoded).collect()
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let compact: String = text.split_ascii_whitespace().collect();
    [STANDARD, URL_SAFE, STANDARD_NO_PAD, URL_SAFE_NO_PAD].iter().find_map(|engine| engine.decode(&compact).ok())
}

/// A number or a name, as Kubernetes writes ports of probes and target ports.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(untagged)]
pub enum IntOrString {
    Int(u32),
    String(String),
}

impl Default for IntOrString {
    fn default() -> Self {
        Self::Int(0)
    }
}

impl IntOrString {
    /// The number, also when it is written as a string.
    pub fn as_port(&self) -> Option<u16> {
        match self {
            Self::Int(number) => u16::try_from(*number).ok(),
            Self::String(text) => text.parse().ok(),
        }
    }
}

#[cfg(test)]
mod tests;
