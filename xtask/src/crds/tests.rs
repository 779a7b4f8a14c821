//! The checked-in definitions are what the types say, complete and explained.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;

use serde_json::Value;

use super::{KINDS, definition, path, structural, yaml};

#[test]
fn the_file_is_what_the_types_say() {
    let written = fs::read_to_string(path()).unwrap();
    if written != yaml().unwrap() {
        let line = written.lines().zip(yaml().unwrap().lines()).position(|(one, other)| one != other);
        panic!("{} differs from the types (line {line:?}): run `cargo xtask crds`", path().display());
    }
}

/// Calls `visit` with the path and schema of every field below.
fn fields(schema: &Value, place: &str, visit: &mut dyn FnMut(&str, &Value)) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let place = format!("{place}.{name}");
        visit(&place, field);
        fields(field, &place, visit);
    }
    for (keyword, mark) in [("items", "[]"), ("additionalProperties", "{}")] {
        if let Some(inner) = schema.get(keyword) {
            fields(inner, &format!("{place}{mark}"), visit);
        }
    }
}

fn is_leaf(schema: &Value) -> bool {
    let mut inner = schema;
    while let Some(next) = inner.get("items").or_else(|| inner.get("additionalProperties")) {
        inner = next;
    }
    inner.get("properties").is_none()
}

#[test]
fn every_field_is_explained() {
    let mut bare = Vec::new();
    for resource in KINDS {
        let spec = structural::spec(resource.schema).unwrap();
        if spec.get("description").is_none() {
            bare.push(resource.kind.to_owned());
        }
        fields(&spec, resource.kind, &mut |place, field| match field["description"].as_str() {
            Some(text) if text.len() > 3 && !text.contains("[`") && !text.contains("reference:") => {}
            other => bare.push(format!("{place}: {other:?}")),
        });
    }
    assert!(bare.is_empty(), "{} fields have no usable description:\n{}", bare.len(), bare.join("\n"));
}

#[test]
fn no_field_of_the_reference_is_missing() {
    let mut wrong = Vec::new();
    for resource in KINDS {
        let spec = structural::spec(resource.schema).unwrap();
        let mut leaves = Vec::new();
        fields(&spec, "", &mut |place, field| {
            if is_leaf(field) {
                leaves.push(place.to_owned());
            }
        });
        if leaves.len() < resource.leaves {
            let found = leaves.join("\n  ");
            wrong.push(format!("{}: {} of {} leaves\n  {found}", resource.kind, leaves.len(), resource.leaves));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn one_version_is_stored_and_it_is_served() {
    for resource in KINDS {
        let definition = definition(resource).unwrap();
        let versions = definition["spec"]["versions"].as_array().unwrap();
        let stored: Vec<&Value> = versions.iter().filter(|version| version["storage"] == true).collect();
        assert_eq!(stored.len(), 1, "{}", resource.kind);
        assert_eq!(stored[0]["served"], true, "{}", resource.kind);
    }
}

/// Kubernetes' own limit for one object is 1.5 MiB, and Helm keeps a release in one Secret of 1 MiB.
#[test]
fn the_definitions_are_not_too_large() {
    for resource in KINDS {
        let bytes = definition(resource).unwrap().to_string().len();
        assert!(bytes < 1_000_000, "{} has {bytes} bytes", resource.kind);
    }
}
