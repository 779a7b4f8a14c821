//! What every object has: its name, its namespace and its metadata.

use std::collections::BTreeMap;

use mizzen_types::{Labels, ObjectKey};
use serde::Deserialize;

use crate::check::Check;
use crate::code;
use crate::kind::{Known, raised_wrong};
use crate::object::{Controller, Created, Meta, Version};
use crate::reader::read;
use crate::validate::names;
use crate::yaml::{Node, shortened};

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    name: String,
    namespace: String,
    generate_name: String,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    creation_timestamp: Option<String>,
    uid: String,
    generation: i64,
    owner_references: Vec<OwnerReference>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct OwnerReference {
    kind: String,
    name: String,
    controller: Option<bool>,
}

/// Name and metadata of a document; `None` when it cannot be named.
pub(super) fn metadata(node: &Node, known: &Known, check: &mut Check) -> Option<(ObjectKey, Meta)> {
    let Some(metadata) = node.get("metadata") else {
        check.missing("metadata", "metadata: {name: …}");
        return None;
    };
    let metadata: Metadata = match read(metadata, "metadata").0 {
        Ok(metadata) => metadata,
        Err(wrong) => {
            check.found.push(raised_wrong(wrong));
            return None;
        }
    };
    let before = check.found.len();
    check.field("metadata", |check| {
        if metadata.name.is_empty() {
            if metadata.generate_name.is_empty() {
                check.missing("name", "name: …");
            } else {
                check.error(
                    code::MISSING,
                    "`generateName` needs a Kubernetes API server to make a name",
                    "write `name:` instead",
                );
            }
        } else {
            check.field("name", |check| names::subdomain(check, &metadata.name));
        }
        if known.namespaced && !metadata.namespace.is_empty() {
            check.field("namespace", |check| names::label(check, &metadata.namespace));
        }
    });
    if check.found.len() > before {
        return None;
    }
    let namespace = match (known.namespaced, metadata.namespace.as_str()) {
        (false, _) => "",
        (true, "") => "default",
        (true, namespace) => namespace,
    };
    let controller = metadata.owner_references.into_iter().find(|owner| owner.controller == Some(true));
    let meta = Meta {
        generate_name: metadata.generate_name,
        controller: controller.map(|owner| Controller { kind: owner.kind, name: owner.name }),
        labels: metadata.labels.into_iter().collect::<Labels>(),
        annotations: metadata.annotations,
        created: metadata.creation_timestamp.as_deref().and_then(seconds).map(Created).unwrap_or_default(),
        version: Version { uid: metadata.uid.into(), generation: metadata.generation },
    };
    Some((ObjectKey::new(known.kind, namespace, &metadata.name), meta))
}

/// A name for findings about a document that cannot be read.
pub(super) fn rough_key(node: &Node, kind: &str, namespaced: bool) -> ObjectKey {
    let metadata = node.get("metadata");
    let text = |name: &str| metadata.and_then(|metadata| metadata.get(name)).and_then(Node::as_str).map(shortened);
    let name = text("name").unwrap_or_else(|| "(unnamed)".to_owned());
    let namespace = match text("namespace") {
        Some(namespace) if namespaced => namespace,
        None if namespaced => "default".to_owned(),
        _ => String::new(),
    };
    ObjectKey::new(kind, &namespace, &name)
}

/// `2026-11-22T16:00:00Z` as seconds since 1970; `None` when it is written in another way.
fn seconds(text: &str) -> Option<i64> {
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<i64>().ok();
    let punctuation =
        text.get(4..5)? == "-" && text.get(7..8)? == "-" && text.get(10..11)? == "T" && text.ends_with('Z');
    if !punctuation || !text.is_ascii() {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Days since the epoch in the Gregorian calendar, with years that begin in March.
    let year = if month <= 2 { year - 1 } else { year };
    let era_day = (month + 9) % 12 * 153 + 2;
    let days = 365 * year + year / 4 - year / 100 + year / 400 + era_day / 5 + day - 1 - 719_468;
    Some(days * 86_400 + hour * 3_600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::seconds;

    #[test]
    fn timestamps_are_seconds_since_1970() {
        assert_eq!(seconds("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(seconds("2000-02-29T12:00:00Z"), Some(951_825_600));
        assert_eq!(seconds("2026-11-22T16:00:00Z"), Some(1_795_363_200));
        for bad in ["", "yesterday", "2026-13-01T00:00:00Z", "2026-11-22", "2026-11-22T16:00:00+01:00"] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
    }
}
