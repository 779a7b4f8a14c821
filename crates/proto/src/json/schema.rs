//! The table of messages that the build script writes, read in place.
//!
//! It costs no memory but the pages of the program that are touched; a pool of linked descriptors took fifteen
//! megabytes of a proxy that may have fifteen in all.

/// Records of fixed size, numbers in little endian; names are ranges of one heap.
static TABLE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/messages.bin"));

const HEADER: usize = 20;
const MESSAGE: usize = 16;
const FIELD: usize = 24;
const ENUM: usize = 8;
const VALUE: usize = 12;

#[derive(Debug, Clone, Copy)]
pub(super) struct Message {
    pub(super) special: Special,
    first: usize,
    count: usize,
}

/// Messages that JSON writes in a form of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Special {
    None,
    Any,
    Duration,
    Timestamp,
    Struct,
    Value,
    ListValue,
    Wrapper,
    FieldMask,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Field {
    /// As in the `.proto` file.
    pub(super) name: &'static str,
    /// In camelCase.
    pub(super) json: &'static str,
    pub(super) number: u32,
    pub(super) kind: Kind,
    pub(super) repeated: bool,
    pub(super) packed: bool,
    pub(super) map: bool,
    /// A value equal to the default is different from none.
    pub(super) presence: bool,
    /// At most one field of a oneof is given.
    pub(super) oneof: Option<u8>,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Double,
    Float,
    Int64,
    Uint64,
    Int32,
    Fixed64,
    Fixed32,
    Bool,
    String,
    Bytes,
    Uint32,
    Sfixed32,
    Sfixed64,
    Sint32,
    Sint64,
    Message(Message),
    Enum(Enum),
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Enum {
    first: usize,
    count: usize,
}

/// The message of this name.
pub(super) fn message(name: &str) -> Option<Message> {
    let (mut low, mut high) = (0, section(0).len() / MESSAGE);
    while low < high {
        let middle = (low + high) / 2;
        let record = record(0, MESSAGE, middle);
        match text(number(record, 0), usize::from(short(record, 4))).cmp(name) {
            std::cmp::Ordering::Less => low = middle + 1,
            std::cmp::Ordering::Greater => high = middle,
            std::cmp::Ordering::Equal => return Some(message_at(middle)),
        }
    }
    None
}

fn message_at(index: usize) -> Message {
    let record = record(0, MESSAGE, index);
    let special = match byte(record, 6) {
        1 => Special::Any,
        2 => Special::Duration,
        3 => Special::Timestamp,
        4 => Special::Struct,
        5 => Special::Value,
        6 => Special::ListValue,
        7 => Special::Wrapper,
        8 => Special::FieldMask,
        _ => Special::None,
    };
    Message { special, first: number(record, 8), count: number(record, 12) }
}

impl Message {
    /// In the order of the `.proto` file.
    pub(super) fn fields(self) -> impl Iterator<Item = Field> {
        (self.first..self.first + self.count).map(field_at)
    }

    /// By either spelling of its name.
    pub(super) fn field(self, name: &str) -> Option<Field> {
        self.fields().find(|field| field.json == name || field.name == name)
    }
}

fn field_at(index: usize) -> Field {
    let record = record(1, FIELD, index);
    let flags = byte(record, 11);
    let of = number(record, 16);
    Field {
        name: text(number(record, 0), usize::from(byte(record, 8))),
        json: text(number(record, 4), usize::from(byte(record, 9))),
        number: u32::try_from(number(record, 12)).unwrap_or_default(),
        // Numbers of `FieldDescriptorProto.Type`.
        kind: match byte(record, 10) {
            1 => Kind::Double,
            2 => Kind::Float,
            3 => Kind::Int64,
            4 => Kind::Uint64,
            5 => Kind::Int32,
            6 => Kind::Fixed64,
            7 => Kind::Fixed32,
            8 => Kind::Bool,
            11 => Kind::Message(message_at(of)),
            12 => Kind::Bytes,
            13 => Kind::Uint32,
            14 => Kind::Enum(enum_at(of)),
            15 => Kind::Sfixed32,
            16 => Kind::Sfixed64,
            17 => Kind::Sint32,
            18 => Kind::Sint64,
            _ => Kind::String,
        },
        repeated: flags & 1 != 0,
        packed: flags & 2 != 0,
        map: flags & 4 != 0,
        presence: flags & 8 != 0,
        oneof: Some(byte(record, 20)).filter(|oneof| *oneof != u8::MAX),
    }
}

fn enum_at(index: usize) -> Enum {
    let record = record(2, ENUM, index);
    Enum { first: number(record, 0), count: number(record, 4) }
}

impl Enum {
    fn values(self) -> impl Iterator<Item = (&'static str, i32)> {
        (self.first..self.first + self.count).map(|index| {
            let record = record(3, VALUE, index);
            let value = record.get(8..12).and_then(|bytes| bytes.try_into().ok()).map_or(0, i32::from_le_bytes);
            (text(number(record, 0), number(record, 4)), value)
        })
    }

    pub(super) fn number(self, name: &str) -> Option<i32> {
        self.values().find(|(have, _)| *have == name).map(|(_, number)| number)
    }

    pub(super) fn name(self, number: i32) -> Option<&'static str> {
        self.values().find(|(_, have)| *have == number).map(|(name, _)| name)
    }
}

/// 0 messages, 1 fields, 2 enums, 3 their values, 4 names.
fn section(index: usize) -> &'static [u8] {
    let start = (0..index).map(|before| number(TABLE, before * 4)).sum::<usize>() + HEADER;
    TABLE.get(start..start + number(TABLE, index * 4)).unwrap_or_default()
}

fn record(part: usize, size: usize, index: usize) -> &'static [u8] {
    section(part).get(index * size..(index + 1) * size).unwrap_or_default()
}

fn text(offset: usize, length: usize) -> &'static str {
    section(4).get(offset..offset + length).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
}

fn number(record: &[u8], at: usize) -> usize {
    let bytes = record.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(0, |bytes| u32::from_le_bytes(bytes) as usize)
}

fn short(record: &[u8], at: usize) -> u16 {
    record.get(at..at + 2).and_then(|bytes| bytes.try_into().ok()).map_or(0, u16::from_le_bytes)
}

fn byte(record: &[u8], at: usize) -> u8 {
    record.get(at).copied().unwrap_or_default()
}
