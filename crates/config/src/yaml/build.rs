//! Parser events → nodes, with the limits.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use granit_parser::{ErrorKind, Event, Marker, Parser, ScalarStyle, ScanError, Span, StrInput, options};

use super::{Broken, Key, MAX_DEPTH, MAX_DOCUMENTS, MAX_NODES, Mark, Node, Value, scalar, shortened};
use crate::code;

/// All documents of a text, in order. Empty documents are left out.
pub(crate) fn documents(text: &str) -> Vec<Result<Node, Broken>> {
    let options = options! {
        emit_comments: false,
        block_nesting_limit: MAX_DEPTH,
        flow_nesting_limit: MAX_DEPTH,
    };
    let mut parser = Parser::new_from_str_with_options(text, options);
    let mut found = Vec::new();
    let mut budget = MAX_NODES;
    loop {
        match document(&mut parser, &mut budget) {
            Ok(Some(node)) if node.value == Value::Null => {}
            Ok(Some(node)) => found.push(Ok(node)),
            Ok(None) => return found,
            Err(stop) => {
                found.push(Err(stop.why));
                let goes_on = stop.goes_on && parser.proceed_next_document().unwrap_or(false);
                if !goes_on {
                    return found;
                }
            }
        }
        if found.len() > MAX_DOCUMENTS {
            found.truncate(MAX_DOCUMENTS);
            found.push(Err(Broken {
                code: code::TOO_LARGE,
                mark: Mark { line: 1, column: 1 },
                message: format!("the file has more than {MAX_DOCUMENTS} documents; those after that are not read"),
                hint: Some("split it into several files".to_owned()),
            }));
            return found;
        }
    }
}

/// Why a document is left before its end, and whether later ones can be read.
struct Stop {
    why: Broken,
    goes_on: bool,
}

impl Stop {
    fn here(code: &'static str, mark: Mark, message: impl Into<String>) -> Self {
        Self { why: Broken { code, mark, message: message.into(), hint: None }, goes_on: true }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.why.hint = Some(hint.into());
        self
    }
}

fn document<'t>(parser: &mut Parser<'t, StrInput<'t>>, budget: &mut usize) -> Result<Option<Node>, Stop> {
    let mut builder = Builder { budget, open: Vec::new(), anchors: HashMap::new(), root: None };
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| Stop { why: syntax(&error), goes_on: true })?;
        match event {
            Event::StreamEnd => return Ok(None),
            Event::DocumentEnd => {
                let empty = Node { mark: mark(span.start), value: Value::Null };
                return Ok(Some(builder.root.take().unwrap_or(empty)));
            }
            other => builder.event(other, span)?,
        }
    }
    Ok(None)
}

fn mark(marker: Marker) -> Mark {
    let narrow = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    Mark { line: narrow(marker.line()), column: narrow(marker.col()).saturating_add(1) }
}

fn syntax(error: &ScanError) -> Broken {
    if *error.kind() == ErrorKind::RecursionLimitExceeded {
        return too_deep(mark(*error.marker())).why;
    }
    let info = error.info();
    let hint = if info.contains("tab") {
        Some("indent with spaces".to_owned())
    } else if info.contains("mapping values are not allowed") {
        Some("put text that contains `: ` in quotes, and check the indentation".to_owned())
    } else {
        None
    };
    Broken {
        code: code::SYNTAX,
        mark: mark(*error.marker()),
        message: format!("this is not YAML: {}; the document is not read", shortened(&info)),
        hint,
    }
}

enum Open {
    Sequence { items: Vec<Node> },
    Mapping(Entries),
}

#[derive(Default)]
struct Entries {
    own: Vec<(Key, Node)>,
    names: HashSet<Arc<str>>,
    /// Maps given as `<<`: their entries become entries of this map where it has none of that name.
    merged: Vec<(Key, Node)>,
    key: Option<PendingKey>,
}

enum PendingKey {
    Named(Key),
    Merge(Mark),
}

struct Frame {
    open: Open,
    mark: Mark,
    anchor: usize,
    /// Levels and values inside, for the cost of an alias to it.
    height: usize,
    weight: usize,
}

/// A node that an alias may stand for, with its cost.
struct Anchored {
    node: Node,
    height: usize,
    weight: usize,
}

struct Builder<'b> {
    /// Values that may still be made, in this file.
    budget: &'b mut usize,
    open: Vec<Frame>,
    anchors: HashMap<usize, Anchored>,
    root: Option<Node>,
}

impl Builder<'_> {
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Stop> {
        let at = mark(span.start);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let tag = tag.as_ref().map(|tag| tag.original());
                let plain = style == ScalarStyle::Plain;
                let value = match tag.as_deref() {
                    None if plain => scalar::resolve(&text),
                    None | Some("!!str" | "!") => Value::String(text.as_ref().into()),
                    Some("!!int" | "!!float" | "!!bool" | "!!null" | "!!timestamp") => scalar::resolve(&text),
                    Some(other) => {
                        let message = format!("the YAML tag `{}` has no meaning here", shortened(other));
                        return Err(Stop::here(code::SYNTAX, at, message).hint("remove the tag"));
                    }
                };
                let raw = plain.then_some(&*text);
                self.finished(Node { mark: at, value }, raw, anchor, 1, 1, at)
            }
            Event::SequenceStart(_, anchor, _) => self.opened(Open::Sequence { items: Vec::new() }, at, anchor),
            Event::MappingStart(_, anchor, _) => self.opened(Open::Mapping(Entries::default()), at, anchor),
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(frame) = self.open.pop() else { return Ok(()) };
                let value = match frame.open {
                    Open::Sequence { items } => Value::Sequence(items),
                    Open::Mapping(entries) => Value::Mapping(entries.close()),
                };
                let node = Node { mark: frame.mark, value };
                self.finished(node, None, frame.anchor, frame.height + 1, frame.weight + 1, frame.mark)
            }
            Event::Alias(id) => {
                let Some(anchored) = self.anchors.get(&id) else {
                    return Err(Stop::here(code::SYNTAX, at, "this alias stands inside of what it stands for")
                        .hint("write the value out"));
                };
                let (height, weight) = (anchored.height, anchored.weight);
                if self.open.len() + height > MAX_DEPTH {
                    return Err(too_deep(at));
                }
                // Charged before it is copied: this is what stops a bomb.
                *self.budget = self.budget.checked_sub(weight).ok_or_else(|| too_many(at))?;
                let node = Node { mark: at, value: anchored.node.value.clone() };
                self.placed(node, None, height, weight, at)
            }
            _ => Ok(()),
        }
    }

    fn opened(&mut self, open: Open, mark: Mark, anchor: usize) -> Result<(), Stop> {
        if self.open.len() >= MAX_DEPTH {
            return Err(too_deep(mark));
        }
        self.open.push(Frame { open, mark, anchor, height: 0, weight: 0 });
        Ok(())
    }

    fn finished(
        &mut self,
        node: Node,
        raw: Option<&str>,
        anchor: usize,
        height: usize,
        weight: usize,
        at: Mark,
    ) -> Result<(), Stop> {
        *self.budget = self.budget.checked_sub(1).ok_or_else(|| too_many(at))?;
        if anchor != 0 {
            *self.budget = self.budget.checked_sub(weight).ok_or_else(|| too_many(at))?;
            self.anchors.insert(anchor, Anchored { node: node.clone(), height, weight });
        }
        self.placed(node, raw, height, weight, at)
    }

    /// Puts a whole node where it belongs: into the list or map that is open, or at the root.
    fn placed(&mut self, node: Node, raw: Option<&str>, height: usize, weight: usize, at: Mark) -> Result<(), Stop> {
        let Some(frame) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        frame.height = frame.height.max(height);
        frame.weight += weight;
        match &mut frame.open {
            Open::Sequence { items } => items.push(node),
            Open::Mapping(map) => match map.key.take() {
                None => map.key = Some(map.key_of(node, raw, at)?),
                Some(PendingKey::Named(name)) => map.own.push((name, node)),
                Some(PendingKey::Merge(mark)) => map.merge(node, mark)?,
            },
        }
        Ok(())
    }
}

impl Entries {
    fn key_of(&mut self, node: Node, raw: Option<&str>, at: Mark) -> Result<PendingKey, Stop> {
        let name: Arc<str> = match (node.value, raw) {
            (_, Some("<<")) => return Ok(PendingKey::Merge(at)),
            (Value::String(text), _) => text,
            // `1: x` and `true: x` are keys "1" and "true", as in Kubernetes.
            (Value::Bool(_, raw) | Value::Int(_, raw) | Value::Float(_, raw), _) => raw,
            (Value::Null, _) => return Err(Stop::here(code::SYNTAX, at, "a key is missing before `:`")),
            (Value::Sequence(_) | Value::Mapping(_), _) => {
                return Err(Stop::here(code::SYNTAX, at, "a list or map cannot be a key"));
            }
        };
        if !self.names.insert(name.clone()) {
            let message = format!("the key `{}` stands twice in this map; the document is not read", shortened(&name));
            return Err(Stop::here(code::DUPLICATE_KEY, at, message).hint("remove one of the two, or merge them"));
        }
        Ok(PendingKey::Named(Key { mark: at, name }))
    }

    fn merge(&mut self, node: Node, mark: Mark) -> Result<(), Stop> {
        match node.value {
            Value::Mapping(map) => self.merged.extend(map),
            Value::Sequence(items) => {
                for item in items {
                    if let Value::Mapping(map) = item.value {
                        self.merged.extend(map);
                    }
                }
            }
            _ => return Err(Stop::here(code::SYNTAX, mark, "`<<` takes a map")),
        }
        Ok(())
    }

    /// All entries: a key of the map's own wins over a merged one wherever it stands, an earlier merge over a later.
    fn close(mut self) -> Vec<(Key, Node)> {
        for (key, value) in self.merged {
            if self.names.insert(key.name.clone()) {
                self.own.push((key, value));
            }
        }
        self.own
    }
}

fn too_many(at: Mark) -> Stop {
    let message = format!("the file has more than {MAX_NODES} values once its aliases are written out");
    let stop = Stop::here(code::TOO_LARGE, at, message).hint("use fewer aliases, or split the file");
    Stop { goes_on: false, ..stop }
}

fn too_deep(at: Mark) -> Stop {
    let message = format!("lists and maps stand in each other more than {MAX_DEPTH} levels deep");
    Stop::here(code::TOO_LARGE, at, message)
}
