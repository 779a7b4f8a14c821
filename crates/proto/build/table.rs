//! Messages, fields and enums in records of fixed size over one heap of names: read in place, it needs no memory of its
//! own. `src/json/schema.rs` reads it and says what the records mean.

use std::collections::{BTreeMap, HashMap};

use protox::prost_reflect::prost_types::field_descriptor_proto::{Label, Type};
use protox::prost_reflect::prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet,
};

/// What a message is besides its fields; the numbers are read by `schema.rs`.
fn special(name: &str) -> u8 {
    match name {
        "google.protobuf.Any" => 1,
        "google.protobuf.Duration" => 2,
        "google.protobuf.Timestamp" => 3,
        "google.protobuf.Struct" => 4,
        "google.protobuf.Value" => 5,
        "google.protobuf.ListValue" => 6,
        "google.protobuf.DoubleValue"
        | "google.protobuf.FloatValue"
        | "google.protobuf.Int64Value"
        | "google.protobuf.UInt64Value"
        | "google.protobuf.Int32Value"
        | "google.protobuf.UInt32Value"
        | "google.protobuf.BoolValue"
        | "google.protobuf.StringValue"
        | "google.protobuf.BytesValue" => 7,
        "google.protobuf.FieldMask" => 8,
        _ => 0,
    }
}

pub(crate) fn build(set: &FileDescriptorSet) -> Result<Vec<u8>, String> {
    let mut messages = BTreeMap::new();
    let mut enums = BTreeMap::new();
    for file in &set.file {
        if !matches!(file.syntax(), "proto3" | "") {
            return Err(format!("{} is {}", file.name(), file.syntax()));
        }
        // Files without a syntax are proto2; only descriptions of options are, and no message that we read.
        if file.syntax().is_empty() {
            continue;
        }
        file.message_type.iter().for_each(|message| collect(message, file.package(), &mut messages, &mut enums));
        for of in &file.enum_type {
            enums.insert(join(file.package(), of.name()), of);
        }
    }
    let message_index: HashMap<&str, u32> = index(messages.keys());
    let enum_index: HashMap<&str, u32> = index(enums.keys());
    let mut table = Table::default();
    for (name, message) in &messages {
        let first = table.fields.len() / FIELD;
        let map_entry = message.options.as_ref().is_some_and(|options| options.map_entry());
        for field in &message.field {
            table.field(field, &message_index, &enum_index, &messages)?;
        }
        let (offset, length) = table.name(name)?;
        table.messages.extend(offset.to_le_bytes());
        table.messages.extend(length.to_le_bytes());
        table.messages.extend([special(name), u8::from(map_entry)]);
        table.messages.extend(u32::try_from(first).map_err(|_| "too many fields")?.to_le_bytes());
        table.messages.extend(u32::try_from(message.field.len()).map_err(|_| "too many fields")?.to_le_bytes());
    }
    for of in enums.values() {
        let first = u32::try_from(table.values.len() / VALUE).map_err(|_| "too many values")?;
        table.enums.extend(first.to_le_bytes());
        table.enums.extend(u32::try_from(of.value.len()).map_err(|_| "too many values")?.to_le_bytes());
        for value in &of.value {
            let (offset, length) = table.name(value.name())?;
            table.values.extend(offset.to_le_bytes());
            table.values.extend(u32::from(length).to_le_bytes());
            table.values.extend(value.number().to_le_bytes());
        }
    }
    table.finish()
}

const FIELD: usize = 24;
const VALUE: usize = 12;

#[derive(Default)]
struct Table {
    messages: Vec<u8>,
    fields: Vec<u8>,
    enums: Vec<u8>,
    values: Vec<u8>,
    names: Vec<u8>,
    known: HashMap<String, u32>,
}

impl Table {
    fn name(&mut self, name: &str) -> Result<(u32, u16), String> {
        let length = u16::try_from(name.len()).map_err(|_| format!("{name} is too long"))?;
        if let Some(offset) = self.known.get(name) {
            return Ok((*offset, length));
        }
        let offset = u32::try_from(self.names.len()).map_err(|_| "too many names")?;
        self.names.extend(name.as_bytes());
        self.known.insert(name.to_owned(), offset);
        Ok((offset, length))
    }

    fn field(
        &mut self,
        field: &FieldDescriptorProto,
        messages: &HashMap<&str, u32>,
        enums: &HashMap<&str, u32>,
        all: &BTreeMap<String, &DescriptorProto>,
    ) -> Result<(), String> {
        let kind = field.r#type();
        let of = field.type_name().trim_start_matches('.');
        let missing = || format!("{of} is not there");
        let index = match kind {
            Type::Message => *messages.get(of).ok_or_else(missing)?,
            Type::Enum => *enums.get(of).ok_or_else(missing)?,
            Type::Group => return Err("a group".to_owned()),
            _ => 0,
        };
        let repeated = field.label() == Label::Repeated;
        let entry = all.get(of).is_some_and(|of| of.options.as_ref().is_some_and(|options| options.map_entry()));
        let scalar = !matches!(kind, Type::Message | Type::String | Type::Bytes);
        let packed = repeated && scalar && field.options.as_ref().and_then(|options| options.packed).unwrap_or(true);
        let map = kind == Type::Message && repeated && entry;
        let flags = u8::from(repeated)
            | u8::from(packed) << 1
            | u8::from(map) << 2
            // Told apart from its default on the wire.
            | u8::from(field.oneof_index.is_some() || kind == Type::Message) << 3;
        // A field that is merely "optional" is alone in a oneof of its own.
        let oneof = if field.proto3_optional() { None } else { field.oneof_index };
        let oneof = oneof.and_then(|oneof| u8::try_from(oneof).ok()).unwrap_or(u8::MAX);
        let (name, name_length) = self.name(field.name())?;
        let (json, json_length) = self.name(&camel_case(field.name()))?;
        let length = |length: u16| u8::try_from(length).map_err(|_| format!("{} is too long", field.name()));
        self.fields.extend(name.to_le_bytes());
        self.fields.extend(json.to_le_bytes());
        self.fields.extend([length(name_length)?, length(json_length)?, kind as i32 as u8, flags]);
        self.fields.extend(field.number().to_le_bytes());
        self.fields.extend(index.to_le_bytes());
        self.fields.extend([oneof, 0, 0, 0]);
        Ok(())
    }

    fn finish(self) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        for part in [&self.messages, &self.fields, &self.enums, &self.values, &self.names] {
            out.extend(u32::try_from(part.len()).map_err(|_| "too large")?.to_le_bytes());
        }
        for part in [self.messages, self.fields, self.enums, self.values, self.names] {
            out.extend(part);
        }
        Ok(out)
    }
}

fn collect<'a>(
    message: &'a DescriptorProto,
    outer: &str,
    messages: &mut BTreeMap<String, &'a DescriptorProto>,
    enums: &mut BTreeMap<String, &'a EnumDescriptorProto>,
) {
    let name = join(outer, message.name());
    message.nested_type.iter().for_each(|inner| collect(inner, &name, messages, enums));
    for of in &message.enum_type {
        enums.insert(join(&name, of.name()), of);
    }
    messages.insert(name, message);
}

fn join(outer: &str, name: &str) -> String {
    if outer.is_empty() { name.to_owned() } else { format!("{outer}.{name}") }
}

fn index<'a>(names: impl Iterator<Item = &'a String>) -> HashMap<&'a str, u32> {
    names.zip(0..).map(|(name, index)| (name.as_str(), index)).collect()
}

/// The name that JSON has for a field.
fn camel_case(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut raise = false;
    for character in name.chars() {
        if character == '_' {
            raise = true;
        } else {
            out.push(if raise { character.to_ascii_uppercase() } else { character });
            raise = false;
        }
    }
    out
}
