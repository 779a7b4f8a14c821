//! One message, one sequence of bytes.
//!
//! Protobuf maps are held in hash maps, so two encodings of one message may differ in the order of map entries. A
//! resource that did not change must not look changed, so the entries are sorted, in place, after encoding: moving whole
//! entries does not change any length. The tables below say where maps are in the messages that are sent.

use std::ops::Range;

/// What is inside of a length-delimited field, as far as maps are concerned.
#[derive(Clone, Copy)]
pub(crate) enum Inside {
    /// A message with fields of its own to look into.
    Message(&'static [(u32, Self)]),
    /// A map whose entries' values (field 2) have fields of their own to look into.
    Map(&'static [(u32, Self)]),
}

type Schema = &'static [(u32, Inside)];

// The tables of `Struct` and `Value` refer to each other, which statics can and constants cannot.
static STRUCT_FIELDS: [(u32, Inside); 1] = [(1, Inside::Map(&VALUE_FIELDS))];
static LIST_FIELDS: [(u32, Inside); 1] = [(1, Inside::Message(&VALUE_FIELDS))];
static VALUE_FIELDS: [(u32, Inside); 2] = [(5, Inside::Message(&STRUCT_FIELDS)), (6, Inside::Message(&LIST_FIELDS))];
static METADATA_FIELDS: [(u32, Inside); 1] = [(1, Inside::Map(&STRUCT_FIELDS))];
static CLUSTER_WEIGHT_FIELDS: [(u32, Inside); 1] = [(8, Inside::Map(&[]))];
static WEIGHTED_FIELDS: [(u32, Inside); 1] = [(1, Inside::Message(&CLUSTER_WEIGHT_FIELDS))];
static ROUTE_ACTION_FIELDS: [(u32, Inside); 1] = [(3, Inside::Message(&WEIGHTED_FIELDS))];
static ROUTE_FIELDS: [(u32, Inside); 3] =
    [(2, Inside::Message(&ROUTE_ACTION_FIELDS)), (4, Inside::Message(&METADATA_FIELDS)), (13, Inside::Map(&[]))];
static VIRTUAL_HOST_FIELDS: [(u32, Inside); 2] = [(3, Inside::Message(&ROUTE_FIELDS)), (15, Inside::Map(&[]))];
static ROUTE_CONFIGURATION_FIELDS: [(u32, Inside); 1] = [(2, Inside::Message(&VIRTUAL_HOST_FIELDS))];
static LB_ENDPOINT_FIELDS: [(u32, Inside); 1] = [(3, Inside::Message(&METADATA_FIELDS))];
static LOCALITY_FIELDS: [(u32, Inside); 1] = [(2, Inside::Message(&LB_ENDPOINT_FIELDS))];
static ASSIGNMENT_FIELDS: [(u32, Inside); 1] = [(2, Inside::Message(&LOCALITY_FIELDS))];
static CLUSTER_FIELDS: [(u32, Inside); 3] =
    [(25, Inside::Message(&METADATA_FIELDS)), (33, Inside::Message(&ASSIGNMENT_FIELDS)), (36, Inside::Map(&[]))];
static TYPED_STRUCT_FIELDS: [(u32, Inside); 1] = [(2, Inside::Message(&STRUCT_FIELDS))];
static FORMAT_FIELDS: [(u32, Inside); 1] = [(2, Inside::Message(&STRUCT_FIELDS))];
static FILE_LOG_FIELDS: [(u32, Inside); 1] = [(5, Inside::Message(&FORMAT_FIELDS))];

pub(crate) const ROUTE_CONFIGURATION: Schema = &ROUTE_CONFIGURATION_FIELDS;
pub(crate) const VIRTUAL_HOST: Schema = &VIRTUAL_HOST_FIELDS;
pub(crate) const ASSIGNMENT: Schema = &ASSIGNMENT_FIELDS;
pub(crate) const CLUSTER: Schema = &CLUSTER_FIELDS;
pub(crate) const TYPED_STRUCT: Schema = &TYPED_STRUCT_FIELDS;
pub(crate) const FILE_ACCESS_LOG: Schema = &FILE_LOG_FIELDS;

/// Sorts the map entries of an encoded message. Bytes that are no message are left as they are.
pub(crate) fn sort(bytes: &mut [u8], schema: &[(u32, Inside)]) {
    if schema.is_empty() {
        return;
    }
    for (number, inside) in schema {
        match inside {
            Inside::Message(fields) => {
                for field in fields_of(bytes).filter(|field| field.number == *number).collect::<Vec<_>>() {
                    sort(&mut bytes[field.content], fields);
                }
            }
            Inside::Map(fields) => {
                let entries: Vec<Field> = fields_of(bytes).filter(|field| field.number == *number).collect();
                for entry in &entries {
                    let value = fields_of(&bytes[entry.content.clone()]).find(|field| field.number == 2);
                    if let Some(value) = value {
                        let start = entry.content.start;
                        sort(&mut bytes[start + value.content.start..start + value.content.end], fields);
                    }
                }
                reorder(bytes, &entries);
            }
        }
    }
}

/// Encoders write the entries of a map side by side, so sorting them is a matter of one range.
fn reorder(bytes: &mut [u8], entries: &[Field]) {
    let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return };
    let whole = first.whole.start..last.whole.end;
    let together = entries.windows(2).all(|pair| pair[0].whole.end == pair[1].whole.start);
    if entries.len() < 2 || !together {
        return;
    }
    let mut sorted: Vec<Vec<u8>> = entries.iter().map(|entry| bytes[entry.content.clone()].to_vec()).collect();
    sorted.sort_unstable();
    // Tags are equal, lengths are written again, so the sum is what it was.
    let tag = bytes[first.whole.start..first.tag_end].to_vec();
    let mut out = Vec::with_capacity(whole.len());
    for content in sorted {
        out.extend_from_slice(&tag);
        prost::encoding::encode_varint(content.len() as u64, &mut out);
        out.extend_from_slice(&content);
    }
    if out.len() == whole.len() {
        bytes[whole].copy_from_slice(&out);
    }
}

/// A length-delimited field: its number, where its tag ends, its content, and all of it.
struct Field {
    number: u32,
    tag_end: usize,
    content: Range<usize>,
    whole: Range<usize>,
}

/// The length-delimited fields of an encoded message, up to the first byte that makes no sense.
fn fields_of(bytes: &[u8]) -> impl Iterator<Item = Field> {
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let start = at;
            let (tag, tag_end) = varint(bytes, at)?;
            let number = u32::try_from(tag >> 3).ok()?;
            match tag & 7 {
                0 => at = varint(bytes, tag_end)?.1,
                1 => at = tag_end + 8,
                5 => at = tag_end + 4,
                2 => {
                    let (length, content) = varint(bytes, tag_end)?;
                    let end = content.checked_add(usize::try_from(length).ok()?)?;
                    if end > bytes.len() {
                        return None;
                    }
                    at = end;
                    return Some(Field { number, tag_end, content: content..end, whole: start..end });
                }
                _ => return None,
            }
        }
    })
}

fn varint(bytes: &[u8], at: usize) -> Option<(u64, usize)> {
    let mut rest = bytes.get(at..).filter(|rest| !rest.is_empty())?;
    let before = rest.len();
    let value = prost::encoding::decode_varint(&mut rest).ok()?;
    Some((value, at + before - rest.len()))
}

#[cfg(test)]
mod tests {
    use mizzen_proto::envoy::config::route::v3::{Route, RouteConfiguration, VirtualHost};
    use prost::Message;
    use serde_json::json;

    use super::{ROUTE_CONFIGURATION, sort};
    use crate::pb;

    fn encoded() -> Vec<u8> {
        let json = json!({
            "istio": {"config": "/apis/x", "b": {"z": 1, "y": [{"k": 1, "j": "2"}], "x": true}, "a": null},
            "mizzen": {"field": "spec.http[0]", "match": "spec.http[0].match[1]"},
            "other": {},
        });
        let route = Route { name: "default".to_owned(), metadata: pb::metadata(&json), ..Default::default() };
        let host = VirtualHost { routes: vec![route.clone(), route], ..Default::default() };
        let table = RouteConfiguration { name: "80".to_owned(), virtual_hosts: vec![host], ..Default::default() };
        let mut bytes = table.encode_to_vec();
        sort(&mut bytes, ROUTE_CONFIGURATION);
        assert_eq!(RouteConfiguration::decode(&*bytes).ok().as_ref(), Some(&table), "sorting changes no content");
        bytes
    }

    #[test]
    fn one_message_has_one_encoding() {
        let first = encoded();
        for _ in 0..50 {
            assert_eq!(encoded(), first);
        }
    }

    #[test]
    fn bytes_that_are_no_message_are_left_alone() {
        for bytes in [&b"\x12\xff\xff\xff"[..], b"\x12", b"\x13\x00", b"\x12\x02\x1a\x05"] {
            let mut copy = bytes.to_vec();
            sort(&mut copy, ROUTE_CONFIGURATION);
            assert_eq!(copy, bytes);
        }
    }
}
