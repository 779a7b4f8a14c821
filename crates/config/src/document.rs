//! An object of an API server: JSON → positioned-less nodes, so that it is read and validated exactly as a file's document is.
//!
//! Reading one never fails: what is too deep or too large is remembered and refused by [`crate::read_object`], so that
//! one hostile object does not spoil the list that it came in. Fields that nobody reads ([`Keep`]) are skipped while they are
//! read and never held in memory.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};

use crate::yaml::{Key, MAX_DEPTH, MAX_NODES, Mark, Node, Value};

/// Which fields of an object are read. Lists are looked through.
#[derive(Debug, Clone, Copy)]
pub enum Keep {
    All,
    /// These fields, and of each what is said.
    Only(&'static [(&'static str, Self)]),
    /// Everything but these fields; of those named with something to keep, that.
    But(&'static [(&'static str, Option<Self>)]),
    /// The entries of a map whose keys fulfil this.
    Keys(fn(&str) -> bool),
}

impl Keep {
    /// What to keep of a field; `None` when it is skipped.
    fn of(&self, field: &str) -> Option<Self> {
        match self {
            Self::All => Some(Self::All),
            Self::Only(fields) => fields.iter().find(|(name, _)| *name == field).map(|(_, keep)| *keep),
            Self::But(fields) => match fields.iter().find(|(name, _)| *name == field) {
                Some((_, keep)) => *keep,
                None => Some(Self::All),
            },
            Self::Keys(wanted) => wanted(field).then_some(Self::All),
        }
    }
}

/// An object as it came.
#[derive(Debug, Clone)]
pub struct Document {
    pub(crate) root: Node,
    pub(crate) refused: Option<Refused>,
}

/// Why an object is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    Deep,
    Large,
}

impl Document {
    /// Reads those fields of an object that `keep` names.
    ///
    /// # Errors
    ///
    /// Only where the text is no JSON at all.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D, keep: Keep) -> Result<Self, D::Error> {
        let limits = Limits { nodes: Cell::new(0), refused: Cell::new(None) };
        let root = Seed { keep, depth: 0, limits: &limits }.deserialize(deserializer)?;
        Ok(Self { root, refused: limits.refused.get() })
    }

    /// A text field of `metadata`.
    pub fn metadata(&self, field: &str) -> Option<&str> {
        self.root.get("metadata")?.get(field)?.as_str()
    }

    /// A whole number of `metadata`.
    pub fn metadata_number(&self, field: &str) -> Option<i64> {
        match self.root.get("metadata")?.get(field)?.value {
            Value::Int(number, _) => Some(number),
            _ => None,
        }
    }

    /// A text field of the object itself.
    pub fn field(&self, field: &str) -> Option<&str> {
        self.root.get(field)?.as_str()
    }

    /// What one field of the object says, as it came.
    pub fn part(&self, field: &str) -> Option<Part<'_>> {
        self.root.get(field).map(Part)
    }

    /// Whether the object has a field that is neither null nor an empty map or list.
    pub fn has(&self, field: &str) -> bool {
        match self.root.get(field).map(|node| &node.value) {
            None => false,
            Some(Value::Mapping(entries)) => !entries.is_empty(),
            Some(Value::Sequence(items)) => !items.is_empty(),
            Some(_) => true,
        }
    }
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::deserialize(deserializer, Keep::All)
    }
}

/// A part of an object, to be written down again.
#[derive(Debug, Clone, Copy)]
pub struct Part<'d>(&'d Node);

impl Serialize for Part<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0.value {
            Value::Null => serializer.serialize_unit(),
            Value::Bool(flag, _) => serializer.serialize_bool(*flag),
            Value::Int(number, _) => serializer.serialize_i64(*number),
            Value::Float(number, _) => serializer.serialize_f64(*number),
            Value::String(text) => serializer.serialize_str(text),
            Value::Sequence(items) => serializer.collect_seq(items.iter().map(Part)),
            Value::Mapping(entries) => {
                serializer.collect_map(entries.iter().map(|(key, value)| (&*key.name, Part(value))))
            }
        }
    }
}

struct Limits {
    nodes: Cell<usize>,
    refused: Cell<Option<Refused>>,
}

#[derive(Clone, Copy)]
struct Seed<'l> {
    keep: Keep,
    depth: usize,
    limits: &'l Limits,
}

impl Seed<'_> {
    fn inside(self, keep: Keep) -> Self {
        Self { keep, depth: self.depth + 1, ..self }
    }

    /// Whether one more value may be held.
    fn admits(self) -> bool {
        if self.depth > MAX_DEPTH {
            self.limits.refused.set(Some(Refused::Deep));
            return false;
        }
        let nodes = self.limits.nodes.get() + 1;
        self.limits.nodes.set(nodes);
        if nodes > MAX_NODES {
            self.limits.refused.set(Some(Refused::Large));
            return false;
        }
        true
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        if !self.admits() {
            // Skipping is not recursive, however deep it goes on.
            IgnoredAny::deserialize(deserializer)?;
            return Ok(node(Value::Null));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(node(Value::Null))
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Node, E> {
        Ok(node(Value::Bool(flag, if flag { "true" } else { "false" }.into())))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Node, E> {
        Ok(node(Value::Int(number, number.to_string().into())))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Node, E> {
        let raw: Arc<str> = number.to_string().into();
        Ok(node(
            i64::try_from(number)
                .map_or_else(|_| Value::Float(number as f64, raw.clone()), |number| Value::Int(number, raw.clone())),
        ))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Node, E> {
        Ok(node(Value::Float(number, number.to_string().into())))
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(node(Value::String(text.into())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element_seed(self.inside(self.keep))? {
            items.push(item);
        }
        Ok(node(Value::Sequence(items)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            match self.keep.of(&name) {
                Some(keep) => {
                    let value = map.next_value_seed(self.inside(keep))?;
                    entries.push((Key { mark: Mark::default(), name: name.into() }, value));
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(node(Value::Mapping(entries)))
    }
}

fn node(value: Value) -> Node {
    Node { mark: Mark::default(), value }
}

#[cfg(test)]
mod tests;
