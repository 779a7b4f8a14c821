//! A file's text, or an object of an API server → objects and findings.

mod envelope;
mod mesh_config;

use std::collections::HashMap;
use std::sync::Arc;

use mizzen_types::{Finding, ObjectKey, Origin, Position, Severity};

use crate::check::{Check, Raised};
use crate::code;
use crate::document::{Document, Refused};
use crate::kind::{Lookup, lookup};
use crate::obeyed;
use crate::object::Object;
use crate::position::Positions;
use crate::yaml::{self, Broken, MAX_FILE_BYTES, Node, Value, shortened};

/// Findings about one object beyond this many are only counted: a hostile file could have one on each line.
const MAX_FINDINGS: usize = 100;

/// What a file comes to.
#[derive(Debug, Clone, Default)]
pub struct Parsed {
    /// Objects without an error, in the order of the file.
    pub objects: Vec<Arc<Object>>,
    pub findings: Vec<Finding>,
}

/// Reads all documents of a text. `file` is only a name, for positions.
///
/// A document with an error is left out and says why; all others count.
pub fn parse(file: &str, text: &str) -> Parsed {
    let mut reading =
        Reading { file: Some(file.into()), parsed: Parsed::default(), seen: HashMap::new(), large_expressions: 0 };
    if text.len() > MAX_FILE_BYTES {
        return oversized(file, text.len() as u64);
    }
    for document in yaml::documents(text) {
        match document {
            Ok(node) => reading.document(&node),
            Err(broken) => reading.broken(broken),
        }
    }
    reading.parsed
}

/// Reads an object that comes from no file. Its findings name the object and the field.
///
/// An object with an error is left out and says why.
pub fn read_object(api_version: &str, kind: &str, document: &Document) -> Parsed {
    let mut reading = Reading { file: None, parsed: Parsed::default(), seen: HashMap::new(), large_expressions: 0 };
    match document.refused {
        None => reading.resource(&document.root, api_version, kind),
        Some(refused) => reading.refused(&document.root, api_version, kind, refused),
    }
    reading.parsed
}

/// What a file of that many bytes comes to when it has more than [`MAX_FILE_BYTES`] and so is not read at all.
pub fn oversized(file: &str, bytes: u64) -> Parsed {
    let finding = Finding {
        code: code::TOO_LARGE,
        severity: Severity::Error,
        origin: None,
        position: Some(Position { file: file.into(), line: 1, column: 1 }),
        message: format!("the file has {bytes} bytes; files of more than {MAX_FILE_BYTES} bytes are not read"),
        hint: Some("split it into several files".to_owned()),
    };
    Parsed { objects: Vec::new(), findings: vec![finding] }
}

struct Reading {
    /// `None` for objects that come from no file.
    file: Option<Arc<str>>,
    parsed: Parsed,
    seen: HashMap<ObjectKey, Option<Position>>,
    large_expressions: u32,
}

impl Reading {
    fn broken(&mut self, broken: Broken) {
        self.parsed.findings.push(Finding {
            code: broken.code,
            severity: Severity::Error,
            origin: None,
            position: self.position(broken.mark),
            message: broken.message,
            hint: broken.hint,
        });
    }

    fn position(&self, mark: yaml::Mark) -> Option<Position> {
        Some(Position { file: self.file.clone()?, line: mark.line, column: mark.column })
    }

    fn refused(&mut self, node: &Node, api_version: &str, kind: &str, refused: Refused) {
        let namespaced = !matches!(lookup(api_version, kind), Lookup::Known(known) if !known.namespaced);
        let message = match refused {
            Refused::Deep => format!("lists and maps stand in each other more than {} levels deep", yaml::MAX_DEPTH),
            Refused::Large => format!("the object has more than {} values", yaml::MAX_NODES),
        };
        let raised = Raised {
            code: code::TOO_LARGE,
            severity: Severity::Error,
            path: String::new(),
            message,
            hint: Some("make it smaller".to_owned()),
        };
        self.report(&envelope::rough_key(node, kind, namespaced), &Positions::unknown(), vec![raised]);
    }

    fn not_a_resource(&mut self, node: &Node, message: String, hint: &str) {
        let mark = node.mark;
        self.broken(Broken { code: code::NOT_A_RESOURCE, mark, message, hint: Some(hint.to_owned()) });
    }

    fn document(&mut self, node: &Node) {
        let Value::Mapping(_) = node.value else {
            let message = format!("the document is {node}, not a resource");
            return self.not_a_resource(node, message, "a resource begins with `apiVersion:` and `kind:`");
        };
        let (kind, api_version) = match (node.get("kind"), node.get("apiVersion")) {
            (Some(kind), Some(version)) => (kind, version),
            (kind, _) => {
                let missing = if kind.is_none() { "kind" } else { "apiVersion" };
                let message = format!("the document has no `{missing}`, so it is no resource");
                let hint = "a resource begins with `apiVersion:` and `kind:`, for instance `kind: VirtualService`";
                return self.not_a_resource(node, message, hint);
            }
        };
        let (Some(kind), Some(api_version)) = (kind.as_str(), api_version.as_str()) else {
            return self.not_a_resource(
                node,
                "`kind` and `apiVersion` have to be strings".to_owned(),
                "put them in quotes",
            );
        };
        if kind == "List" || (kind.ends_with("List") && node.get("items").is_some()) {
            return self.list(node);
        }
        self.resource(node, api_version, kind);
    }

    /// `kubectl get -o yaml` wraps objects so.
    fn list(&mut self, node: &Node) {
        match node.get("items").map(|items| &items.value) {
            Some(Value::Sequence(items)) => {
                items.iter().for_each(|item| match item.get("kind").and_then(Node::as_str) {
                    // Lists in lists are bounded by the depth of the document.
                    Some(_) => self.document(item),
                    None => self.not_a_resource(item, "an item of the list has no `kind`".to_owned(), "add `kind:`"),
                })
            }
            Some(_) => {
                self.not_a_resource(node, "`items` of a list has to be a list".to_owned(), "write each after `- `")
            }
            None => {}
        }
    }

    fn resource(&mut self, node: &Node, api_version: &str, kind: &str) {
        let positions = match &self.file {
            Some(file) => Arc::new(Positions::of(file, node)),
            None => Positions::unknown(),
        };
        let known = match lookup(api_version, kind) {
            Lookup::Known(known) => known,
            Lookup::Skipped(raised) => {
                let key = envelope::rough_key(node, &shortened(kind), true);
                return self.report(&key, &positions, vec![raised]);
            }
        };
        let mut check = Check::default();
        check.large_expressions = self.large_expressions;
        let envelope = envelope::metadata(node, known, &mut check);
        let Some((key, meta)) = envelope else {
            return self.report(&envelope::rough_key(node, kind, known.namespaced), &positions, check.found);
        };
        let value = (known.read)(node, &mut check);
        self.large_expressions = check.large_expressions;
        obeyed::check(&key, node, &mut check);
        let sound = !check.has_error();
        self.report(&key, &positions, std::mem::take(&mut check.found));
        let Some(value) = value.filter(|_| sound) else { return };
        let here = positions.at("");
        if let Some(first) = self.seen.get(&key) {
            let first = first.as_ref().map_or_else(|| "above".to_owned(), |at| format!("at {at}"));
            let raised = Raised {
                code: code::DUPLICATE_OBJECT,
                severity: Severity::Error,
                path: "metadata.name".to_owned(),
                message: format!("{key} is already given {first}; this one is not in force"),
                hint: Some("remove one of the two, or give it another name".to_owned()),
            };
            return self.report(&key, &positions, vec![raised]);
        }
        self.seen.insert(key.clone(), here);
        let object = Arc::new(Object { key, meta, kind: value, positions });
        if let Some(found) = mesh_config::of(&object) {
            // Named by itself, so that its last good version is known when it is wrong.
            self.report(&found.key, &object.positions, found.raised);
            self.parsed.objects.extend(found.object.map(Arc::new));
        }
        self.parsed.objects.push(object);
    }

    fn report(&mut self, key: &ObjectKey, positions: &Positions, mut raised: Vec<Raised>) {
        // The most severe are told when there are too many to tell.
        if raised.len() > MAX_FINDINGS {
            raised.sort_by_key(|found| std::cmp::Reverse(found.severity));
            let rest = raised.split_off(MAX_FINDINGS);
            raised.extend(rest.first().map(|next| Raised {
                path: String::new(),
                message: format!("there are {} more findings about this object", rest.len()),
                hint: Some("correct those above first".to_owned()),
                ..next.clone()
            }));
        }
        for found in raised {
            let position = positions.at(&found.path);
            self.parsed.findings.push(Finding {
                code: found.code,
                severity: found.severity,
                origin: Some(Origin { object: key.clone(), field: found.path }),
                position,
                message: found.message,
                hint: found.hint,
            });
        }
    }
}

#[cfg(test)]
mod tests;
