//! YAML to JSON values and back, for the texts of ConfigMaps, annotations and files.

use serde_json::Value;

/// One document. Nothing at all is `null`.
pub(crate) fn one(text: &str) -> Result<Value, String> {
    if text.trim().is_empty() {
        return Ok(Value::Null);
    }
    let options = serde_saphyr::options! { strict_booleans: true };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| line(&error))
}

/// All documents of a text, empty ones left out.
pub fn documents(text: &str) -> Result<Vec<Value>, String> {
    let options = serde_saphyr::options! { strict_booleans: true };
    let all: Vec<Value> = serde_saphyr::from_multiple_with_options(text, options).map_err(|error| line(&error))?;
    Ok(all.into_iter().filter(|document| !document.is_null()).collect())
}

/// A document as YAML that every reader of YAML, old or new, understands in the same way.
pub fn text(document: &Value) -> String {
    // A JSON value can always be written; JSON is YAML.
    serde_saphyr::to_string(document).unwrap_or_else(|_| format!("{document:#}\n"))
}

/// The first line of an error: the rest draws the text around it.
fn line(error: &serde_saphyr::Error) -> String {
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default();
    first.strip_prefix("error: ").unwrap_or(first).to_owned()
}
