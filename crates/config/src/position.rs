//! Where each field of an object stands in its file.

use std::sync::{Arc, LazyLock};

use mizzen_types::Position;

use crate::path::{Segment, segments};
use crate::yaml::{Mark, Node, Value};

/// The places of all fields of one object.
#[derive(Debug, Clone, Default)]
pub struct Positions {
    file: Option<Arc<str>>,
    /// The object first, then each field, parents before children and children of one parent together.
    fields: Box<[Field]>,
}

#[derive(Debug, Clone)]
struct Field {
    name: Name,
    mark: Mark,
    /// Where its own fields begin and how many they are.
    first_child: u32,
    children: u32,
}

#[derive(Debug, Clone)]
enum Name {
    Key(Arc<str>),
    Index,
}

impl Positions {
    /// For objects that come from no file.
    pub fn unknown() -> Arc<Self> {
        static UNKNOWN: LazyLock<Arc<Positions>> = LazyLock::new(Arc::default);
        UNKNOWN.clone()
    }

    /// One place for all fields.
    pub(crate) fn point(position: Option<&Position>) -> Arc<Self> {
        let Some(at) = position else { return Self::unknown() };
        let mark = Mark { line: at.line, column: at.column };
        let whole = Field { name: Name::Index, mark, first_child: 0, children: 0 };
        Arc::new(Self { file: Some(at.file.clone()), fields: [whole].into() })
    }

    pub(crate) fn of(file: &Arc<str>, root: &Node) -> Self {
        let mut fields = vec![Field { name: Name::Index, mark: root.mark, first_child: 0, children: 0 }];
        let mut nodes = vec![root];
        let mut index = 0;
        // Breadth first: the children of one node lie side by side.
        while index < nodes.len() {
            fields[index].first_child = fields.len() as u32;
            match &nodes[index].value {
                Value::Sequence(items) => {
                    for item in items {
                        fields.push(Field { name: Name::Index, mark: item.mark, first_child: 0, children: 0 });
                        nodes.push(item);
                    }
                }
                Value::Mapping(entries) => {
                    for (key, value) in entries {
                        let name = Name::Key(key.name.clone());
                        fields.push(Field { name, mark: key.mark, first_child: 0, children: 0 });
                        nodes.push(value);
                    }
                }
                _ => {}
            }
            fields[index].children = fields.len() as u32 - fields[index].first_child;
            index += 1;
        }
        Self { file: Some(file.clone()), fields: fields.into() }
    }

    /// The place of a field, or of the nearest field around it that is written; `None` for objects from no file.
    ///
    /// ```text
    /// spec.http[0].match[1]
    /// metadata.labels["app.kubernetes.io/name"]
    /// ```
    pub fn at(&self, field: &str) -> Option<Position> {
        let file = self.file.as_ref()?;
        let mut found = self.fields.first()?;
        for segment in segments(field) {
            let first = found.first_child as usize;
            let Some(children) = self.fields.get(first..first + found.children as usize) else { break };
            let next = match &segment {
                Segment::Index(index) if matches!(children.first(), Some(Field { name: Name::Index, .. })) => {
                    children.get(*index)
                }
                Segment::Index(index) => keyed(children, &index.to_string()),
                Segment::Key(key) => keyed(children, key),
            };
            let Some(next) = next else { break };
            found = next;
        }
        Some(Position { file: file.clone(), line: found.mark.line, column: found.mark.column })
    }

    /// The file the object was read from.
    pub fn file(&self) -> Option<&Arc<str>> {
        self.file.as_ref()
    }
}

fn keyed<'f>(fields: &'f [Field], key: &str) -> Option<&'f Field> {
    fields.iter().find(|field| matches!(&field.name, Name::Key(name) if &**name == key))
}
