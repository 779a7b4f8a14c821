//! From bytes to JSON.

use prost::encoding::{WireType, decode_key, decode_varint};
use serde_json::{Map, Number, Value};

use super::schema::{self, Field, Kind, Message, Special};
use super::{MAX_DEPTH, known};

/// What is wrong with the bytes.
type Result<T> = std::result::Result<T, String>;

/// How deep we are, and how names are written.
#[derive(Debug, Clone, Copy)]
pub(super) struct At {
    pub(super) depth: usize,
    /// As in the `.proto` files, not in camelCase.
    pub(super) proto_names: bool,
}

impl At {
    const fn deeper(self) -> Self {
        Self { depth: self.depth + 1, ..self }
    }

    const fn name(self, field: Field) -> &'static str {
        if self.proto_names { field.name } else { field.json }
    }
}

/// One field as it stands in the bytes.
enum Raw<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

pub(super) fn message(of: Message, bytes: &[u8], at: At) -> Result<Value> {
    if at.depth > MAX_DEPTH {
        return Err("nested too deep".to_owned());
    }
    match of.special {
        Special::None => Ok(Value::Object(fields(of, bytes, at)?)),
        Special::Any => any(bytes, at),
        Special::Duration => pair(bytes).map(|(seconds, nanos)| Value::String(known::write_duration(seconds, nanos))),
        Special::Timestamp => pair(bytes).map(|(seconds, nanos)| Value::String(known::write_timestamp(seconds, nanos))),
        Special::Struct => structure(bytes, at),
        Special::Value => dynamic(bytes, at),
        Special::ListValue => list(bytes, at),
        Special::Wrapper => {
            let Some(field) = of.fields().next() else { return Ok(Value::Null) };
            let last = all(bytes)?.into_iter().rfind(|(number, _)| *number == field.number);
            match last {
                Some((_, raw)) => value(field, &raw, at),
                None => default(field.kind),
            }
        }
        Special::FieldMask => Err("field masks are not written".to_owned()),
    }
}

/// Fields in the order of the `.proto` file; unknown ones are left out.
fn fields(of: Message, bytes: &[u8], at: At) -> Result<Map<String, Value>> {
    let raw = all(bytes)?;
    let mut object = Map::new();
    for field in of.fields() {
        let mut given = raw.iter().filter(|(number, _)| *number == field.number).map(|(_, raw)| raw).peekable();
        if given.peek().is_none() {
            continue;
        }
        let written = if field.map {
            entries(field, given, at)?
        } else if field.repeated {
            let mut items = Vec::new();
            for raw in given {
                repeated(field, raw, at, &mut items)?;
            }
            Value::Array(items)
        } else {
            let Some(one) = merged(field, given, at)? else { continue };
            one
        };
        object.insert(at.name(field).to_owned(), written);
    }
    Ok(object)
}

/// A single field that stands in the bytes once, or several times (the last counts; messages are joined).
fn merged<'a>(field: Field, given: impl Iterator<Item = &'a Raw<'a>>, at: At) -> Result<Option<Value>> {
    let given: Vec<&Raw<'_>> = given.collect();
    if let (Kind::Message(of), [_, _, ..]) = (field.kind, given.as_slice()) {
        let parts = given.iter().filter_map(|raw| if let Raw::Bytes(bytes) = raw { Some(*bytes) } else { None });
        let joined: Vec<u8> = parts.flatten().copied().collect();
        return message(of, &joined, at.deeper()).map(Some);
    }
    let Some(last) = given.last() else { return Ok(None) };
    let written = value(field, last, at)?;
    Ok(Some(written).filter(|written| field.presence || default(field.kind).as_ref() != Ok(written)))
}

fn repeated(field: Field, raw: &Raw<'_>, at: At, items: &mut Vec<Value>) -> Result<()> {
    let scalar = !matches!(field.kind, Kind::Message(_) | Kind::String | Kind::Bytes);
    match raw {
        Raw::Bytes(packed) if scalar => {
            let mut rest = *packed;
            while !rest.is_empty() {
                let number = match field.kind {
                    Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => fixed64(&mut rest)?,
                    Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => fixed32(&mut rest)?,
                    _ => varint(&mut rest)?,
                };
                items.push(value(field, &Raw::Number(number), at)?);
            }
        }
        raw => items.push(value(field, raw, at)?),
    }
    Ok(())
}

fn entries<'a>(field: Field, given: impl Iterator<Item = &'a Raw<'a>>, at: At) -> Result<Value> {
    let Kind::Message(entry) = field.kind else { return Ok(Value::Null) };
    let (Some(key_field), Some(value_field)) = (entry.field("key"), entry.field("value")) else {
        return Ok(Value::Null);
    };
    let mut object = Map::new();
    for raw in given {
        let Raw::Bytes(bytes) = raw else { return Err("a map entry is no message".to_owned()) };
        let parts = all(bytes)?;
        let part = |wanted: Field| match parts.iter().rfind(|(number, _)| *number == wanted.number) {
            Some((_, raw)) => value(wanted, raw, at),
            None => match wanted.kind {
                Kind::Message(of) => message(of, &[], at.deeper()),
                kind => default(kind),
            },
        };
        let key = match part(key_field)? {
            Value::String(text) => text,
            other => other.to_string(),
        };
        object.insert(key, part(value_field)?);
    }
    let mut sorted: Vec<_> = object.into_iter().collect();
    sorted.sort_by(|left, right| left.0.cmp(&right.0));
    Ok(Value::Object(sorted.into_iter().collect()))
}

fn value(field: Field, raw: &Raw<'_>, at: At) -> Result<Value> {
    let wrong = || format!("field {} is written as another type", field.name);
    Ok(match (field.kind, raw) {
        (Kind::Message(of), Raw::Bytes(bytes)) => message(of, bytes, at.deeper())?,
        (Kind::String, Raw::Bytes(bytes)) => {
            let text = std::str::from_utf8(bytes).map_err(|_| format!("field {} is not UTF-8", field.name))?;
            Value::String(text.to_owned())
        }
        (Kind::Bytes, Raw::Bytes(bytes)) => Value::String(known::write_bytes(bytes)),
        (Kind::Message(_) | Kind::String | Kind::Bytes, Raw::Number(_)) | (_, Raw::Bytes(_)) => return Err(wrong()),
        (kind, Raw::Number(number)) => scalar(kind, *number),
    })
}

fn scalar(kind: Kind, number: u64) -> Value {
    let unzigzag = |number: u64| (number >> 1) as i64 ^ -((number & 1) as i64);
    match kind {
        Kind::Double => float(f64::from_bits(number)),
        Kind::Float => float(f64::from(f32::from_bits(number as u32))),
        // 64 bits are written as strings: not every reader of JSON has so many.
        Kind::Int64 | Kind::Sfixed64 => Value::String((number as i64).to_string()),
        Kind::Sint64 => Value::String(unzigzag(number).to_string()),
        Kind::Uint64 | Kind::Fixed64 => Value::String(number.to_string()),
        Kind::Int32 | Kind::Sfixed32 => Value::from(number as i32),
        Kind::Sint32 => Value::from(unzigzag(number) as i32),
        Kind::Uint32 | Kind::Fixed32 => Value::from(number as u32),
        Kind::Bool => Value::Bool(number != 0),
        Kind::Enum(of) => {
            let number = number as i32;
            of.name(number).map_or_else(|| Value::from(number), Value::from)
        }
        Kind::String | Kind::Bytes | Kind::Message(_) => Value::Null,
    }
}

fn default(kind: Kind) -> Result<Value> {
    Ok(match kind {
        Kind::String | Kind::Bytes => Value::String(String::new()),
        Kind::Message(_) => Value::Null,
        kind => scalar(kind, 0),
    })
}

/// Whole numbers without a fraction.
fn float(number: f64) -> Value {
    if number.fract() == 0.0 && number.abs() < 9_007_199_254_740_992.0 {
        return Value::from(number as i64);
    }
    Number::from_f64(number).map_or_else(
        || {
            let word = if number.is_nan() {
                "NaN"
            } else if number > 0.0 {
                "Infinity"
            } else {
                "-Infinity"
            };
            Value::String(word.to_owned())
        },
        Value::Number,
    )
}

fn any(bytes: &[u8], at: At) -> Result<Value> {
    let (mut url, mut inner) = ("", &[][..]);
    for (number, raw) in all(bytes)? {
        match (number, raw) {
            (1, Raw::Bytes(bytes)) => url = std::str::from_utf8(bytes).map_err(|_| "a type URL is not UTF-8")?,
            (2, Raw::Bytes(bytes)) => inner = bytes,
            _ => {}
        }
    }
    let mut object = Map::new();
    if url.is_empty() {
        return Ok(Value::Object(object));
    }
    object.insert("@type".to_owned(), Value::from(url));
    let name = url.rsplit('/').next().unwrap_or_default();
    match schema::message(name) {
        // Somebody else's message: shown, so that a dump is whole.
        None => {
            object.insert("value".to_owned(), Value::String(known::write_bytes(inner)));
        }
        Some(of) if of.special == Special::None => object.extend(fields(of, inner, at.deeper())?),
        Some(of) => {
            object.insert("value".to_owned(), message(of, inner, at.deeper())?);
        }
    }
    Ok(Value::Object(object))
}

fn pair(bytes: &[u8]) -> Result<(i64, i32)> {
    let (mut seconds, mut nanos) = (0, 0);
    for (number, raw) in all(bytes)? {
        match (number, raw) {
            (1, Raw::Number(number)) => seconds = number as i64,
            (2, Raw::Number(number)) => nanos = number as i32,
            _ => {}
        }
    }
    Ok((seconds, nanos))
}

fn structure(bytes: &[u8], at: At) -> Result<Value> {
    let mut pairs = Vec::new();
    for (_, raw) in all(bytes)? {
        let Raw::Bytes(entry) = raw else { continue };
        let (mut key, mut inner) = (String::new(), Value::Null);
        for (number, raw) in all(entry)? {
            match (number, raw) {
                (1, Raw::Bytes(bytes)) => key = String::from_utf8_lossy(bytes).into_owned(),
                (2, Raw::Bytes(bytes)) => inner = dynamic(bytes, at.deeper())?,
                _ => {}
            }
        }
        pairs.push((key, inner));
    }
    pairs.sort_by(|left, right| left.0.cmp(&right.0));
    Ok(Value::Object(pairs.into_iter().collect()))
}

fn list(bytes: &[u8], at: At) -> Result<Value> {
    let mut items = Vec::new();
    for (number, raw) in all(bytes)? {
        if let (1, Raw::Bytes(bytes)) = (number, raw) {
            items.push(dynamic(bytes, at.deeper())?);
        }
    }
    Ok(Value::Array(items))
}

fn dynamic(bytes: &[u8], at: At) -> Result<Value> {
    if at.depth > MAX_DEPTH {
        return Err("nested too deep".to_owned());
    }
    let Some((number, raw)) = all(bytes)?.pop() else { return Ok(Value::Null) };
    Ok(match (number, raw) {
        (2, Raw::Number(number)) => float(f64::from_bits(number)),
        (3, Raw::Bytes(text)) => Value::String(String::from_utf8_lossy(text).into_owned()),
        (4, Raw::Number(flag)) => Value::Bool(flag != 0),
        (5, Raw::Bytes(bytes)) => structure(bytes, at.deeper())?,
        (6, Raw::Bytes(bytes)) => list(bytes, at.deeper())?,
        _ => Value::Null,
    })
}

/// The fields of a message with their numbers, in the order of the bytes.
fn all(mut rest: &[u8]) -> Result<Vec<(u32, Raw<'_>)>> {
    let mut fields = Vec::new();
    while !rest.is_empty() {
        let (number, wire) = decode_key(&mut rest).map_err(|error| error.to_string())?;
        let raw = match wire {
            WireType::Varint => Raw::Number(varint(&mut rest)?),
            WireType::SixtyFourBit => Raw::Number(fixed64(&mut rest)?),
            WireType::ThirtyTwoBit => Raw::Number(fixed32(&mut rest)?),
            WireType::LengthDelimited => {
                let length = usize::try_from(varint(&mut rest)?).map_err(|_| "a length is too large")?;
                let (bytes, after) = rest.split_at_checked(length).ok_or("the bytes end within a field")?;
                rest = after;
                Raw::Bytes(bytes)
            }
            WireType::StartGroup | WireType::EndGroup => return Err("a group, which no message of ours has".to_owned()),
        };
        fields.push((number, raw));
    }
    Ok(fields)
}

fn varint(rest: &mut &[u8]) -> Result<u64> {
    decode_varint(rest).map_err(|error| error.to_string())
}

fn fixed64(rest: &mut &[u8]) -> Result<u64> {
    let (bytes, after) = rest.split_first_chunk::<8>().ok_or("the bytes end within a number")?;
    *rest = after;
    Ok(u64::from_le_bytes(*bytes))
}

fn fixed32(rest: &mut &[u8]) -> Result<u64> {
    let (bytes, after) = rest.split_first_chunk::<4>().ok_or("the bytes end within a number")?;
    *rest = after;
    Ok(u64::from(u32::from_le_bytes(*bytes)))
}
