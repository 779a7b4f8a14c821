//! `cargo xtask crds`: writes the CustomResourceDefinitions of Istio's kinds from the types in `crates/api`.
//!
//! The names, groups, versions and the stored version are Istio's, so that a cluster that has Istio's definitions can take
//! these in their place, objects and all. Descriptions are the comments of the types. A test fails when the file is not
//! what the types say.

mod kinds;
mod structural;

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use serde_json::{Value, json};

use crate::steps::repository;
use kinds::{Column, KINDS, Resource};

const HEAD: &str = "# Written by `cargo xtask crds` from the types in crates/api; a test keeps it equal to them.\n";

/// The file that the chart installs.
pub(crate) fn path() -> PathBuf {
    repository().join("charts/base/files/crds.yaml")
}

/// Writes the file.
pub(crate) fn run() -> anyhow::Result<bool> {
    fs::write(path(), yaml()?).with_context(|| format!("cannot write {}", path().display()))?;
    println!("{}", path().display());
    Ok(true)
}

/// All definitions as one stream of YAML documents.
fn yaml() -> anyhow::Result<String> {
    let mut text = HEAD.to_owned();
    for resource in KINDS {
        text.push_str("---\n");
        text.push_str(&serde_saphyr::to_string(&definition(resource)?)?);
    }
    Ok(text)
}

fn definition(resource: &Resource) -> anyhow::Result<Value> {
    let spec = structural::spec(resource.schema).with_context(|| format!("kind {}", resource.kind))?;
    let versions: Vec<Value> = resource
        .versions
        .iter()
        .map(|name| {
            json!({
                "name": name,
                "served": true,
                "storage": *name == resource.storage,
                "subresources": { "status": {} },
                "additionalPrinterColumns": columns(resource.columns),
                "schema": { "openAPIV3Schema": {
                    "type": "object",
                    "properties": { "spec": spec, "status": structural::status(resource.kind) },
                } },
            })
        })
        .collect();
    let plural = resource.plural;
    let category = format!("{}-istio-io", resource.group.split('.').next().unwrap_or_default());
    let mut names = json!({
        "kind": resource.kind,
        "listKind": format!("{}List", resource.kind),
        "plural": plural,
        "singular": resource.kind.to_lowercase(),
        "categories": ["istio-io", category],
    });
    if !resource.short_names.is_empty() {
        names["shortNames"] = json!(resource.short_names);
    }
    Ok(json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{plural}.{}", resource.group),
            "labels": { "app": "istio-pilot", "chart": "istio", "release": "istio" },
            // Deleting a definition deletes every object of it: `helm uninstall` must not.
            "annotations": { "helm.sh/resource-policy": "keep" },
        },
        "spec": {
            "group": resource.group,
            "names": names,
            "scope": "Namespaced",
            "versions": versions,
        },
    }))
}

fn columns(columns: &[Column]) -> Value {
    let own = columns.iter().map(|column| {
        json!({ "name": column.name, "type": "string", "jsonPath": column.path, "description": column.description })
    });
    let age = json!({
        "name": "Age",
        "type": "date",
        "jsonPath": ".metadata.creationTimestamp",
        "description": "How long ago the object was created",
    });
    // Only in `kubectl get -o wide`: the rest is as Istio's.
    let condition = |name: &str, of: &str, description: &str| {
        let path = format!(".status.conditions[?(@.type==\"{of}\")].status");
        json!({ "name": name, "type": "string", "jsonPath": path, "description": description, "priority": 1 })
    };
    let known = [
        condition("Accepted", "Accepted", "Whether the object is valid"),
        condition("In force", "Reconciled", "Whether every connected proxy works with it"),
    ];
    own.chain([age]).chain(known).collect()
}

#[cfg(test)]
mod tests;
