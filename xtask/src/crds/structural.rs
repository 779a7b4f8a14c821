//! From the schema of a type to what Kubernetes calls a structural schema.
//!
//! The two dialects differ: Kubernetes has no `$ref`, no type lists and no `const`, and would write defaults into people's
//! objects. Every keyword is either translated here or an error, so that none is lost unseen.

use anyhow::{Context, bail};
use schemars::Schema;
use serde_json::{Map, Value, json};

/// The schema of `spec`.
pub(crate) fn spec(schema: fn() -> Schema) -> anyhow::Result<Value> {
    convert(&schema().to_value(), "spec")
}

/// The schema of `status`: conditions as every Kubernetes tool reads them, and room for what others write.
pub(crate) fn status(kind: &str) -> Value {
    let text = |description: &str| json!({ "type": "string", "description": description });
    let time = |description: &str| json!({ "type": "string", "format": "date-time", "description": description });
    // Istio's writer puts 64-bit numbers into strings.
    let generation = json!({
        "x-kubernetes-int-or-string": true,
        "anyOf": [{ "type": "integer" }, { "type": "string" }],
        "description": "The generation of the object that this was said of",
    });
    let mut properties = json!({
        "observedGeneration": generation,
        "conditions": {
            "type": "array",
            "description": "What is known about the object: whether it is accepted, and whether proxies obey it",
            "items": {
                "type": "object",
                "properties": {
                    "type": text("Name of the condition"),
                    "status": text("True, False or Unknown"),
                    "reason": text("The cause, as one word"),
                    "message": text("The cause, for people"),
                    "lastTransitionTime": time("When the status last changed"),
                    "lastProbeTime": time("When it was last looked at"),
                    "observedGeneration": generation,
                },
            },
        },
        "validationMessages": {
            "type": "array",
            "description": "Findings of an analysis of the whole configuration",
            "items": {
                "type": "object",
                "properties": {
                    "level": {
                        "type": "string",
                        "enum": ["UNKNOWN", "ERROR", "WARNING", "INFO"],
                        "description": "How grave it is",
                    },
                    "type": {
                        "type": "object",
                        "description": "What kind of finding it is",
                        "properties": { "name": text("Name of the finding"), "code": text("Code of the finding") },
                    },
                    "documentationUrl": text("Where it is explained"),
                },
                "x-kubernetes-preserve-unknown-fields": true,
            },
        },
    });
    if kind == "ServiceEntry" {
        properties["addresses"] = json!({
            "type": "array",
            "description": "Addresses that the control plane gave to hosts without one",
            "items": {
                "type": "object",
                "properties": { "value": text("The address"), "host": text("The host that has it") },
            },
        });
    }
    json!({
        "type": "object",
        "description": "Written by the control plane",
        "properties": properties,
        "x-kubernetes-preserve-unknown-fields": true,
    })
}

fn convert(schema: &Value, place: &str) -> anyhow::Result<Value> {
    let Value::Object(from) = schema else { bail!("{place}: a schema without a type cannot be structural") };
    if let Some(alternatives) = from.get("anyOf") {
        return optional(from, alternatives, place);
    }
    if let Some(variants) = from.get("oneOf") {
        return enumeration(from, variants, place);
    }
    let mut to = Map::new();
    for (keyword, value) in from {
        match keyword.as_str() {
            // `const` belongs to a lone variant of an enumeration.
            "$schema" | "title" | "default" | "x-also" | "x-also-fields" => {}
            "description" => {
                to.insert("description".to_owned(), Value::String(plain(value.as_str().unwrap_or_default())));
            }
            "type" => type_of(value, &mut to).with_context(|| place.to_owned())?,
            "format" => {
                if let Some(format @ ("int32" | "double" | "byte")) = value.as_str() {
                    to.insert("format".to_owned(), json!(format));
                }
            }
            "minimum" | "maximum" | "required" | "maxProperties" | "x-kubernetes-preserve-unknown-fields" => {
                to.insert(keyword.clone(), value.clone());
            }
            "enum" => {
                let words: Vec<Value> =
                    value.as_array().into_iter().flatten().filter(|word| !word.is_null()).cloned().collect();
                to.insert("enum".to_owned(), Value::Array(words));
            }
            "properties" => {
                let properties = value.as_object().context("properties are a map")?;
                let converted = properties
                    .iter()
                    .map(|(name, schema)| Ok((name.clone(), convert(schema, &format!("{place}.{name}"))?)))
                    .collect::<anyhow::Result<Map<_, _>>>()?;
                to.insert("properties".to_owned(), Value::Object(converted));
            }
            "items" | "additionalProperties" => {
                to.insert(keyword.clone(), convert(value, &format!("{place}[]"))?);
            }
            other => bail!("{place}: the keyword {other:?} has no translation"),
        }
    }
    if let Some(Value::Array(more)) = from.get("x-also")
        && let Some(Value::Array(words)) = to.get_mut("enum")
    {
        words.extend(more.iter().cloned());
    }
    if let (Some(Value::Object(more)), Some(Value::Object(fields))) =
        (from.get("x-also-fields"), to.get_mut("properties"))
    {
        // Other spellings of a field: the same schema under one more name.
        for (alias, name) in more {
            let name = name.as_str().unwrap_or_default();
            let schema = fields.get(name).with_context(|| format!("{place}: no field {name}"))?.clone();
            fields.insert(alias.clone(), schema);
        }
    }
    Ok(Value::Object(to))
}

/// `Option<T>` of a struct: the struct. An absent object and `null` are the same to Kubernetes.
fn optional(from: &Map<String, Value>, alternatives: &Value, place: &str) -> anyhow::Result<Value> {
    let rest: Vec<&Value> = alternatives.as_array().into_iter().flatten().filter(|one| one["type"] != "null").collect();
    let [only] = rest[..] else { bail!("{place}: more than one alternative") };
    let mut merged = only.as_object().context("an alternative is a map")?.clone();
    merged.extend(
        from.iter().filter(|(keyword, _)| *keyword != "anyOf").map(|(keyword, value)| (keyword.clone(), value.clone())),
    );
    convert(&Value::Object(merged), place)
}

/// An enumeration whose variants have comments: these go into the description.
fn enumeration(from: &Map<String, Value>, variants: &Value, place: &str) -> anyhow::Result<Value> {
    let mut words = Vec::new();
    let mut said = Vec::new();
    for variant in variants.as_array().into_iter().flatten() {
        if let Some(word) = variant.get("const") {
            words.push(word.clone());
            if let (Some(word), Some(text)) = (word.as_str(), variant["description"].as_str()) {
                said.push(format!("{word}: {}", plain(text)));
            }
        } else if let Some(Value::Array(more)) = variant.get("enum") {
            words.extend(more.iter().cloned());
        } else if variant["type"] != "null" {
            bail!("{place}: a variant that is no word");
        }
    }
    if let Some(Value::Array(more)) = from.get("x-also") {
        words.extend(more.iter().cloned());
    }
    let about = from.get("description").and_then(Value::as_str).map(plain);
    let about: Vec<String> = about.into_iter().chain(said).collect();
    let mut to = json!({ "type": "string", "enum": words });
    if !about.is_empty() {
        to["description"] = Value::String(about.join("\n"));
    }
    Ok(to)
}

fn type_of(value: &Value, to: &mut Map<String, Value>) -> anyhow::Result<()> {
    match value {
        Value::String(_) => {
            to.insert("type".to_owned(), value.clone());
        }
        Value::Array(types) => {
            let [one] = types.iter().filter(|one| *one != "null").collect::<Vec<_>>()[..] else {
                bail!("several types")
            };
            to.insert("type".to_owned(), one.clone());
            // As Istio: numbers and switches whose absence means something may be written as null.
            if matches!(one.as_str(), Some("boolean" | "integer" | "number")) {
                to.insert("nullable".to_owned(), json!(true));
            }
        }
        _ => bail!("a type is a word or a list of words"),
    }
    Ok(())
}

/// A comment as `kubectl explain` should show it: without the links that only rustdoc follows, and without our references.
fn plain(comment: &str) -> String {
    let mut text = String::new();
    let mut rest = comment;
    while let Some(start) = rest.find(" (reference: ") {
        let end = rest[start..].find(')').map_or(rest.len(), |end| start + end + 1);
        text.push_str(&rest[..start]);
        rest = &rest[end..];
    }
    text.push_str(rest);
    text.replace("[`", "`").replace("`]", "`").trim().to_owned()
}
