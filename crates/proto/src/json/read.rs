//! From JSON to bytes.

use prost::encoding::{WireType, encode_key, encode_varint};
use serde_json::{Map, Value};

use super::schema::{self, Field, Kind, Message, Special};
use super::{JsonError, MAX_DEPTH, known};

/// Where in the value we are: the reason of an error is put together with it on the way up.
type Result<T> = std::result::Result<T, Wrong>;

pub(super) enum Wrong {
    TooDeep,
    Here { path: String, message: String },
}

impl Wrong {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self::Here { path: String::new(), message: message.into() }
    }

    fn within(self, outer: &str) -> Self {
        match self {
            Self::TooDeep => Self::TooDeep,
            Self::Here { path, message } => {
                let dot = if path.is_empty() || path.starts_with('[') { "" } else { "." };
                Self::Here { path: format!("{outer}{dot}{path}"), message }
            }
        }
    }
}

impl From<Wrong> for JsonError {
    fn from(wrong: Wrong) -> Self {
        match wrong {
            Wrong::TooDeep => Self::TooDeep,
            Wrong::Here { path, message } => Self::Field { path, message },
        }
    }
}

pub(super) fn message(of: Message, value: &Value, out: &mut Vec<u8>, depth: usize) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(Wrong::TooDeep);
    }
    match of.special {
        Special::None => fields(of, object(value)?, out, depth),
        Special::Any => any(object(value)?, out, depth),
        Special::Duration => match value.as_str().and_then(known::parse_duration) {
            Some(pair) => {
                seconds_and_nanos(pair, out);
                Ok(())
            }
            None => Err(Wrong::new(format!("{value} is no duration; write for instance \"1.5s\""))),
        },
        Special::Timestamp => match value.as_str().and_then(known::parse_timestamp) {
            Some(pair) => {
                seconds_and_nanos(pair, out);
                Ok(())
            }
            None => Err(Wrong::new(format!("{value} is no time; write for instance \"2026-11-22T16:00:00Z\""))),
        },
        Special::Struct => structure(object(value)?, out, depth),
        Special::Value => dynamic(value, out, depth),
        Special::ListValue => list(array(value)?, out, depth),
        Special::Wrapper => match of.fields().next() {
            Some(field) => single(field, value, out, depth),
            None => Ok(()),
        },
        Special::FieldMask => Err(Wrong::new("field masks are not read")),
    }
}

/// The fields of an object, in the order of their numbers.
fn fields(of: Message, object: &Map<String, Value>, out: &mut Vec<u8>, depth: usize) -> Result<()> {
    let mut given: Vec<(Field, &String, &Value)> = Vec::with_capacity(object.len());
    for (key, value) in object {
        let Some(field) = of.field(key) else { return Err(Wrong::new("there is no such field").within(key)) };
        let null = value.is_null() && !matches!(field.kind, Kind::Message(of) if of.special == Special::Value);
        if null {
            continue;
        }
        let same = |have: &Field| have.number == field.number || have.oneof.is_some() && have.oneof == field.oneof;
        if let Some((_, other, _)) = given.iter().find(|(have, ..)| same(have)) {
            return Err(Wrong::new(format!("cannot be given together with {other}")).within(key));
        }
        given.push((field, key, value));
    }
    given.sort_by_key(|(field, ..)| field.number);
    for (field, key, value) in given {
        let wrong = |wrong: Wrong| wrong.within(key);
        if field.map {
            entries(field, value, out, depth).map_err(wrong)?;
        } else if field.repeated {
            items(field, value, out, depth).map_err(wrong)?;
        } else {
            single(field, value, out, depth).map_err(wrong)?;
        }
    }
    Ok(())
}

fn items(field: Field, value: &Value, out: &mut Vec<u8>, depth: usize) -> Result<()> {
    let items = array(value)?.iter().enumerate();
    let wrong = |index| move |wrong: Wrong| wrong.within(&format!("[{index}]"));
    if field.packed {
        let mut packed = Vec::new();
        for (index, item) in items {
            scalar(field.kind, item, &mut packed).map_err(wrong(index))?;
        }
        if !packed.is_empty() {
            bytes(field.number, &packed, out);
        }
        return Ok(());
    }
    for (index, item) in items {
        present(field, item, out, depth).map_err(wrong(index))?;
    }
    Ok(())
}

fn entries(field: Field, value: &Value, out: &mut Vec<u8>, depth: usize) -> Result<()> {
    let Kind::Message(entry) = field.kind else { return Ok(()) };
    let (Some(key_field), Some(value_field)) = (entry.field("key"), entry.field("value")) else { return Ok(()) };
    for (key, value) in object(value)? {
        let wrong = |wrong: Wrong| wrong.within(&format!("[{key}]"));
        let mut inner = Vec::new();
        let key_value = match key_field.kind {
            Kind::Bool => Value::Bool(key == "true"),
            _ => Value::String(key.clone()),
        };
        present(key_field, &key_value, &mut inner, depth).map_err(wrong)?;
        present(value_field, value, &mut inner, depth).map_err(wrong)?;
        bytes(field.number, &inner, out);
    }
    Ok(())
}

/// A single field; a default that means nothing is left out.
fn single(field: Field, value: &Value, out: &mut Vec<u8>, depth: usize) -> Result<()> {
    let before = out.len();
    present(field, value, out, depth)?;
    if !field.presence && is_default(field.kind, out.get(before..).unwrap_or_default()) {
        out.truncate(before);
    }
    Ok(())
}

/// Whether what was written after its key is nothing but zeros.
fn is_default(kind: Kind, written: &[u8]) -> bool {
    let key = written.iter().position(|byte| byte & 0x80 == 0).map_or(written.len(), |last| last + 1);
    !matches!(kind, Kind::Message(_))
        && written.get(key..).unwrap_or_default().iter().all(|byte| *byte == 0)
        && (!matches!(kind, Kind::String | Kind::Bytes) || written.len() == key + 1)
}

fn present(field: Field, value: &Value, out: &mut Vec<u8>, depth: usize) -> Result<()> {
    match field.kind {
        Kind::Message(of) => {
            let mut inner = Vec::new();
            message(of, value, &mut inner, depth + 1)?;
            bytes(field.number, &inner, out);
        }
        Kind::String => match value {
            Value::String(text) => bytes(field.number, text.as_bytes(), out),
            other => return Err(Wrong::new(format!("{} is no string", short(other)))),
        },
        Kind::Bytes => match value.as_str().and_then(known::parse_bytes) {
            Some(decoded) => bytes(field.number, &decoded, out),
            None => return Err(Wrong::new("has to be a string in base64")),
        },
        kind => {
            let wire = match kind {
                Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => WireType::SixtyFourBit,
                Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => WireType::ThirtyTwoBit,
                _ => WireType::Varint,
            };
            encode_key(field.number, wire, out);
            scalar(kind, value, out)?;
        }
    }
    Ok(())
}

/// A number, flag or enum, without its key.
fn scalar(kind: Kind, value: &Value, out: &mut Vec<u8>) -> Result<()> {
    let zigzag = |number: i64| ((number << 1) ^ (number >> 63)) as u64;
    match kind {
        Kind::Double => out.extend(float(value)?.to_le_bytes()),
        Kind::Float => out.extend((float(value)? as f32).to_le_bytes()),
        Kind::Int64 => encode_varint(signed(value)? as u64, out),
        Kind::Int32 => encode_varint(i64::from(narrow::<i32>(signed(value)?)?) as u64, out),
        Kind::Uint64 => encode_varint(unsigned(value)?, out),
        Kind::Uint32 => encode_varint(u64::from(narrow_unsigned(unsigned(value)?)?), out),
        Kind::Sint64 => encode_varint(zigzag(signed(value)?), out),
        Kind::Sint32 => encode_varint(zigzag(i64::from(narrow::<i32>(signed(value)?)?)), out),
        Kind::Fixed64 => out.extend(unsigned(value)?.to_le_bytes()),
        Kind::Fixed32 => out.extend(narrow_unsigned(unsigned(value)?)?.to_le_bytes()),
        Kind::Sfixed64 => out.extend(signed(value)?.to_le_bytes()),
        Kind::Sfixed32 => out.extend(narrow::<i32>(signed(value)?)?.to_le_bytes()),
        Kind::Bool => match value {
            Value::Bool(flag) => out.push(u8::from(*flag)),
            other => return Err(Wrong::new(format!("{} is neither true nor false", short(other)))),
        },
        Kind::Enum(of) => {
            let number = match value {
                Value::String(name) => {
                    of.number(name).ok_or_else(|| Wrong::new(format!("{name:?} is none of the values")))?
                }
                other => narrow::<i32>(signed(other)?)?,
            };
            encode_varint(i64::from(number) as u64, out);
        }
        Kind::String | Kind::Bytes | Kind::Message(_) => {}
    }
    Ok(())
}

fn any(object: &Map<String, Value>, out: &mut Vec<u8>, depth: usize) -> Result<()> {
    if object.is_empty() {
        return Ok(());
    }
    let Some(url) = object.get("@type").and_then(Value::as_str) else {
        return Err(Wrong::new("the type of the message is missing: give \"@type\""));
    };
    let name = url.rsplit('/').next().unwrap_or_default();
    let Some(of) = schema::message(name) else {
        return Err(Wrong::new(format!("there is no message type {name:?} that this proxy knows")).within("@type"));
    };
    let mut inner = Vec::new();
    if of.special == Special::None {
        let rest = object.iter().filter(|(key, _)| *key != "@type").map(|(key, value)| (key.clone(), value.clone()));
        fields(of, &rest.collect(), &mut inner, depth)?;
    } else {
        if let Some(key) = object.keys().find(|key| !matches!(key.as_str(), "@type" | "value")) {
            return Err(Wrong::new("there is no such field").within(key));
        }
        let value = object.get("value").ok_or_else(|| Wrong::new("the value of the message is missing"))?;
        message(of, value, &mut inner, depth + 1).map_err(|wrong| wrong.within("value"))?;
    }
    bytes(1, url.as_bytes(), out);
    if !inner.is_empty() {
        bytes(2, &inner, out);
    }
    Ok(())
}

fn seconds_and_nanos((seconds, nanos): (i64, i32), out: &mut Vec<u8>) {
    for (number, value) in [(1, seconds), (2, i64::from(nanos))] {
        if value != 0 {
            encode_key(number, WireType::Varint, out);
            encode_varint(value as u64, out);
        }
    }
}

/// `google.protobuf.Struct`: a map from strings to values.
fn structure(object: &Map<String, Value>, out: &mut Vec<u8>, depth: usize) -> Result<()> {
    for (key, value) in object {
        let mut inner = Vec::new();
        dynamic(value, &mut inner, depth + 1).map_err(|wrong| wrong.within(key))?;
        let mut entry = Vec::new();
        bytes(1, key.as_bytes(), &mut entry);
        bytes(2, &inner, &mut entry);
        bytes(1, &entry, out);
    }
    Ok(())
}

/// `google.protobuf.ListValue`.
fn list(items: &[Value], out: &mut Vec<u8>, depth: usize) -> Result<()> {
    for (index, item) in items.iter().enumerate() {
        let mut inner = Vec::new();
        dynamic(item, &mut inner, depth + 1).map_err(|wrong| wrong.within(&format!("[{index}]")))?;
        bytes(1, &inner, out);
    }
    Ok(())
}

/// `google.protobuf.Value`.
fn dynamic(value: &Value, out: &mut Vec<u8>, depth: usize) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(Wrong::TooDeep);
    }
    let mut inner = Vec::new();
    match value {
        Value::Null => {
            encode_key(1, WireType::Varint, out);
            out.push(0);
        }
        Value::Number(number) => {
            encode_key(2, WireType::SixtyFourBit, out);
            out.extend(number.as_f64().unwrap_or_default().to_le_bytes());
        }
        Value::String(text) => bytes(3, text.as_bytes(), out),
        Value::Bool(flag) => {
            encode_key(4, WireType::Varint, out);
            out.push(u8::from(*flag));
        }
        Value::Object(object) => {
            structure(object, &mut inner, depth + 1)?;
            bytes(5, &inner, out);
        }
        Value::Array(items) => {
            list(items, &mut inner, depth + 1)?;
            bytes(6, &inner, out);
        }
    }
    Ok(())
}

fn bytes(number: u32, value: &[u8], out: &mut Vec<u8>) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

fn object(value: &Value) -> Result<&Map<String, Value>> {
    value.as_object().ok_or_else(|| Wrong::new(format!("{} is no object", short(value))))
}

fn array(value: &Value) -> Result<&[Value]> {
    value.as_array().map(Vec::as_slice).ok_or_else(|| Wrong::new(format!("{} is no list", short(value))))
}

fn float(value: &Value) -> Result<f64> {
    let parsed = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => match text.as_str() {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            text => text.parse().ok().filter(|number: &f64| number.is_finite()),
        },
        _ => None,
    };
    parsed.ok_or_else(|| Wrong::new(format!("{} is no number", short(value))))
}

fn signed(value: &Value) -> Result<i64> {
    let parsed = match value {
        Value::Number(number) => number.as_i64().or_else(|| whole(number.as_f64()?)),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    parsed.ok_or_else(|| Wrong::new(format!("{} is no whole number, or too large", short(value))))
}

fn unsigned(value: &Value) -> Result<u64> {
    let parsed = match value {
        Value::Number(number) => number.as_u64().or_else(|| u64::try_from(whole(number.as_f64()?)?).ok()),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    parsed.ok_or_else(|| Wrong::new(format!("{} is no whole number from 0, or too large", short(value))))
}

/// `1.0` and `1e3` are whole numbers too.
fn whole(number: f64) -> Option<i64> {
    (number.fract() == 0.0 && number.abs() < 9_007_199_254_740_992.0).then_some(number as i64)
}

fn narrow<T: TryFrom<i64>>(number: i64) -> Result<T> {
    T::try_from(number).map_err(|_| Wrong::new(format!("{number} is too large")))
}

fn narrow_unsigned(number: u64) -> Result<u32> {
    u32::try_from(number).map_err(|_| Wrong::new(format!("{number} is too large")))
}

/// A value for a message, cut so that no file ends up in it.
fn short(value: &Value) -> String {
    match value {
        Value::Object(_) => "an object".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        other => other.to_string().chars().take(64).collect(),
    }
}
