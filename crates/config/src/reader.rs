//! Positioned nodes → typed values, by serde.
//!
//! What a plain conversion could not do: name the field and place of a wrong value, collect the unknown fields with what
//! they were perhaps meant to be, and read nothing as protobuf's JSON form reads it (an absent field, an empty message as
//! an element of a list, an empty list).

use std::cell::RefCell;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, EnumAccess, Expected, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, forward_to_deserialize_any};

use crate::path::{push_index, push_key};
use crate::suggest::nearest;
use crate::yaml::{Key, Node, Value, shortened};

/// A field that the type does not have.
#[derive(Debug, PartialEq)]
pub(crate) struct Unknown {
    pub path: String,
    pub name: String,
    pub suggestion: Option<&'static str>,
    /// What the type does have.
    pub known: &'static [&'static str],
}

/// Why a value cannot be read, and where.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Wrong {
    pub message: String,
    pub hint: Option<String>,
    /// Name of the field.
    pub place: Option<String>,
}

/// Reads `node`, which stands at `path`, as a `T`; unknown fields do not stop it.
pub(crate) fn read<'n, T: Deserialize<'n>>(node: &'n Node, path: &str) -> (Result<T, Wrong>, Vec<Unknown>) {
    let unknown = RefCell::new(Vec::new());
    let trail = Trail::Root(path);
    let reader = Reader { node, trail: &trail, unknown: &unknown };
    let result = T::deserialize(reader).map_err(|wrong| wrong.placed(&trail));
    (result, unknown.into_inner())
}

enum Trail<'t> {
    Root(&'t str),
    Key(&'t Self, &'t str),
    Index(&'t Self, usize),
}

impl Trail<'_> {
    fn write(&self, out: &mut String) {
        match self {
            Self::Root(path) => out.push_str(path),
            Self::Key(parent, key) => {
                parent.write(out);
                push_key(out, key);
            }
            Self::Index(parent, index) => {
                parent.write(out);
                push_index(out, *index);
            }
        }
    }

    fn path(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }
}

#[derive(Clone, Copy)]
struct Reader<'n, 't> {
    node: &'n Node,
    trail: &'t Trail<'t>,
    unknown: &'t RefCell<Vec<Unknown>>,
}

impl<'n> Reader<'n, '_> {
    fn mismatch<V: Visitor<'n>>(self, visitor: &V) -> Wrong {
        let hint = match &self.node.value {
            Value::Bool(_, raw) | Value::Int(_, raw) | Value::Float(_, raw) => {
                Some(format!("write \"{raw}\" in quotes"))
            }
            _ => None,
        };
        let expected: &dyn Expected = visitor;
        let expected = expected.to_string();
        let text_wanted = expected.contains("string");
        let wrong = Wrong {
            message: format!("expected {expected}, found {}", self.node),
            hint: hint.filter(|_| text_wanted),
            place: None,
        };
        wrong.placed(self.trail)
    }

    fn placed<T>(self, result: Result<T, Wrong>) -> Result<T, Wrong> {
        result.map_err(|wrong| wrong.placed(self.trail))
    }
}

impl<'n> Deserializer<'n> for Reader<'n, '_> {
    type Error = Wrong;

    fn deserialize_any<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Wrong> {
        self.placed(match &self.node.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(flag, _) => visitor.visit_bool(*flag),
            Value::Int(number, _) => visitor.visit_i64(*number),
            Value::Float(number, _) => visitor.visit_f64(*number),
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::Sequence(_) => return self.deserialize_seq(visitor),
            Value::Mapping(_) => return self.deserialize_map(visitor),
        })
    }

    fn deserialize_option<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match &self.node.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_str<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match &self.node.value {
            Value::String(text) => self.placed(visitor.visit_borrowed_str(text)),
            _ => Err(self.mismatch(&visitor)),
        }
    }

    fn deserialize_string<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Wrong> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bool<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match &self.node.value {
            Value::Bool(flag, _) => self.placed(visitor.visit_bool(*flag)),
            Value::String(text) if matches!(&**text, "true" | "false") => {
                let mut wrong = self.mismatch(&visitor);
                wrong.hint = Some(format!("write {text} without quotes"));
                Err(wrong)
            }
            _ => Err(self.mismatch(&visitor)),
        }
    }

    fn deserialize_seq<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Wrong> {
        let items = match &self.node.value {
            Value::Null => &[][..],
            Value::Sequence(items) => items,
            _ => {
                let mut wrong = self.mismatch(&visitor);
                wrong.message = format!("expected a list, found {}", self.node);
                wrong.hint = Some("write each element after `- `".to_owned());
                return Err(wrong);
            }
        };
        self.placed(visitor.visit_seq(Items { parent: self, items, next: 0 }))
    }

    fn deserialize_map<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Wrong> {
        self.entries(visitor, None)
    }

    fn deserialize_struct<V: Visitor<'n>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        self.entries(visitor, Some(fields))
    }

    fn deserialize_enum<V: Visitor<'n>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        match &self.node.value {
            Value::String(text) => self.placed(visitor.visit_enum(Variant(text))),
            // A word that YAML takes for a boolean, such as an unquoted ON.
            Value::Bool(_, raw) if variants.contains(&&**raw) => self.placed(visitor.visit_enum(Variant(raw))),
            _ => {
                let wrong = Wrong {
                    message: format!("expected one of {}, found {}", listed(variants), self.node),
                    hint: None,
                    place: None,
                };
                Err(wrong.placed(self.trail))
            }
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'n>>(self, _: &'static str, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_ignored_any<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        <V: Visitor<'n>>
        i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct identifier
    }
}

impl<'n> Reader<'n, '_> {
    /// A message when `fields` are given: other fields are unknown and nothing means absent. A map otherwise.
    fn entries<V: Visitor<'n>>(self, visitor: V, fields: Option<&'static [&'static str]>) -> Result<V::Value, Wrong> {
        let entries = match &self.node.value {
            Value::Null => &[][..],
            Value::Mapping(entries) => entries,
            _ => {
                let wrong = Wrong {
                    message: format!("expected a map of fields, found {}", self.node),
                    hint: fields
                        .filter(|fields| !fields.is_empty())
                        .map(|fields| format!("its fields are {}", listed(fields))),
                    place: None,
                };
                return Err(wrong.placed(self.trail));
            }
        };
        self.placed(visitor.visit_map(Entries { parent: self, entries: entries.iter(), fields, value: None }))
    }

    fn report_unknown(self, key: &Key, known: &'static [&'static str]) {
        let mut path = self.trail.path();
        push_key(&mut path, &key.name);
        self.unknown.borrow_mut().push(Unknown {
            path,
            name: shortened(&key.name),
            suggestion: nearest(&key.name, known.iter().copied()),
            known,
        });
    }
}

struct Items<'n, 't> {
    parent: Reader<'n, 't>,
    items: &'n [Node],
    next: usize,
}

impl<'n> SeqAccess<'n> for Items<'n, '_> {
    type Error = Wrong;

    fn next_element_seed<T: DeserializeSeed<'n>>(&mut self, seed: T) -> Result<Option<T::Value>, Wrong> {
        let Some(node) = self.items.get(self.next) else { return Ok(None) };
        let trail = Trail::Index(self.parent.trail, self.next);
        self.next += 1;
        let reader = Reader { node, trail: &trail, unknown: self.parent.unknown };
        reader.placed(seed.deserialize(reader)).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len() - self.next)
    }
}

struct Entries<'n, 't> {
    parent: Reader<'n, 't>,
    entries: std::slice::Iter<'n, (Key, Node)>,
    fields: Option<&'static [&'static str]>,
    value: Option<(&'n Key, &'n Node)>,
}

impl<'n> MapAccess<'n> for Entries<'n, '_> {
    type Error = Wrong;

    fn next_key_seed<K: DeserializeSeed<'n>>(&mut self, seed: K) -> Result<Option<K::Value>, Wrong> {
        for (key, node) in self.entries.by_ref() {
            if let Some(fields) = self.fields {
                if !fields.contains(&&*key.name) {
                    self.parent.report_unknown(key, fields);
                    continue;
                }
                if node.value == Value::Null {
                    continue;
                }
            }
            self.value = Some((key, node));
            return seed.deserialize(de::value::BorrowedStrDeserializer::new(&key.name)).map(Some);
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'n>>(&mut self, seed: V) -> Result<V::Value, Wrong> {
        // Serde asks for a value only after a key.
        let Some((key, node)) = self.value.take() else { return Err(de::Error::custom("a value without a key")) };
        let trail = Trail::Key(self.parent.trail, &key.name);
        let reader = Reader { node, trail: &trail, unknown: self.parent.unknown };
        reader.placed(seed.deserialize(reader))
    }
}

struct Variant<'n>(&'n str);

impl<'n> EnumAccess<'n> for Variant<'n> {
    type Error = Wrong;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'n>>(self, seed: V) -> Result<(V::Value, Self), Wrong> {
        let value = seed.deserialize(de::value::BorrowedStrDeserializer::new(self.0))?;
        Ok((value, self))
    }
}

impl<'n> de::VariantAccess<'n> for Variant<'n> {
    type Error = Wrong;

    fn unit_variant(self) -> Result<(), Wrong> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'n>>(self, _: T) -> Result<T::Value, Wrong> {
        Err(de::Error::custom("a plain word cannot hold a value"))
    }

    fn tuple_variant<V: Visitor<'n>>(self, _: usize, _: V) -> Result<V::Value, Wrong> {
        Err(de::Error::custom("a plain word cannot hold values"))
    }

    fn struct_variant<V: Visitor<'n>>(self, _: &'static [&'static str], _: V) -> Result<V::Value, Wrong> {
        Err(de::Error::custom("a plain word cannot hold fields"))
    }
}

fn listed(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    quoted.join(", ")
}

impl Wrong {
    /// The innermost place wins.
    fn placed(mut self, trail: &Trail<'_>) -> Self {
        if self.place.is_none() {
            self.place = Some(trail.path());
        }
        self
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Wrong {}

impl de::Error for Wrong {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { message: message.to_string(), hint: None, place: None }
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let found = match found {
            Unexpected::Unit => "nothing".to_owned(),
            Unexpected::Str(text) => format!("the string `{}`", shortened(text)),
            Unexpected::Seq => "a list".to_owned(),
            Unexpected::Map => "a map".to_owned(),
            other => other.to_string(),
        };
        Self::custom(format!("expected {expected}, found {found}"))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let hint = nearest(variant, expected.iter().copied()).map(|word| format!("write {word}"));
        let message = format!("`{}` is none of {}", shortened(variant), listed(expected));
        Self { message, hint, place: None }
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::custom(format!("`{field}` is given twice, under two names"))
    }
}

#[cfg(test)]
mod tests;
