//! Label selectors, and the selectors by which the API server chooses the pods that it asks about.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::names::{INJECT, INJECTION, REVISION};

/// Kubernetes' label selector.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LabelSelector {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<Requirement>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct Requirement {
    pub key: String,
    pub operator: Operator,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
pub enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

/// Labels as they stand in an object; what is no string is not there.
#[derive(Debug, Clone, Copy, Default)]
pub struct Labels<'a>(pub Option<&'a Map<String, Value>>);

impl<'a> Labels<'a> {
    pub fn get(self, key: &str) -> Option<&'a str> {
        self.0?.get(key)?.as_str()
    }
}

impl LabelSelector {
    pub fn is_empty(&self) -> bool {
        self.match_labels.is_empty() && self.match_expressions.is_empty()
    }

    /// Whether labels satisfy every requirement; an empty selector selects everything.
    pub fn matches(&self, labels: Labels<'_>) -> bool {
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(|requirement| requirement.holds(labels))
    }
}

impl Requirement {
    fn holds(&self, labels: Labels<'_>) -> bool {
        let value = labels.get(&self.key);
        let listed = value.is_some_and(|value| self.values.iter().any(|one| one == value));
        match self.operator {
            Operator::In => listed,
            Operator::NotIn => !listed,
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

/// One entry of the MutatingWebhookConfiguration: which pods of which namespaces are sent to us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub name: &'static str,
    pub namespace: LabelSelector,
    pub object: LabelSelector,
}

impl Entry {
    /// The two selectors as Kubernetes has them.
    pub fn json(&self) -> Value {
        json!({"name": self.name, "namespaceSelector": self.namespace, "objectSelector": self.object})
    }
}

/// The entries of one revision (or tag). Only the default one obeys `istio-injection` and pods without a revision.
pub fn entries(revision: &str, by_default: bool) -> Vec<Entry> {
    let is = |key: &str, values: &[&str]| requirement(key, Operator::In, values);
    let not = |key: &str, values: &[&str]| requirement(key, Operator::NotIn, values);
    let none = |key: &str| requirement(key, Operator::DoesNotExist, &[]);
    let selector = |expressions: &[Requirement]| LabelSelector {
        match_labels: BTreeMap::new(),
        match_expressions: expressions.to_vec(),
    };
    let revision = if revision.is_empty() { "default" } else { revision };
    // The system's namespaces never depend on a webhook, however they are labelled.
    let system = not("kubernetes.io/metadata.name", &crate::decide::SYSTEM_NAMESPACES);
    let mut entries = vec![
        Entry {
            name: "rev.namespace.sidecar-injector.istio.io",
            namespace: selector(&[is(REVISION, &[revision]), none(INJECTION)]),
            object: selector(&[not(INJECT, &["false"])]),
        },
        Entry {
            name: "rev.object.sidecar-injector.istio.io",
            namespace: selector(&[none(REVISION), none(INJECTION)]),
            object: selector(&[not(INJECT, &["false"]), is(REVISION, &[revision])]),
        },
    ];
    if revision == "default" {
        entries.push(Entry {
            name: "namespace.sidecar-injector.istio.io",
            namespace: selector(&[is(INJECTION, &["enabled"])]),
            object: selector(&[not(INJECT, &["false"])]),
        });
        entries.push(Entry {
            name: "object.sidecar-injector.istio.io",
            namespace: selector(&[none(INJECTION), none(REVISION)]),
            object: selector(&[is(INJECT, &["true"]), none(REVISION)]),
        });
        if by_default {
            entries.push(Entry {
                name: "auto.sidecar-injector.istio.io",
                namespace: selector(&[none(INJECTION), none(REVISION)]),
                object: selector(&[none(INJECT), none(REVISION)]),
            });
        }
    }
    for entry in &mut entries {
        entry.namespace.match_expressions.insert(0, system.clone());
    }
    entries
}

/// The entry, if any, by which the API server would ask about such a pod in such a namespace.
pub fn asked_by<'e>(entries: &'e [Entry], namespace: Labels<'_>, pod: Labels<'_>) -> Option<&'e Entry> {
    entries.iter().find(|entry| entry.namespace.matches(namespace) && entry.object.matches(pod))
}

fn requirement(key: &str, operator: Operator, values: &[&str]) -> Requirement {
    Requirement { key: key.to_owned(), operator, values: values.iter().map(|&value| value.to_owned()).collect() }
}
