use std::collections::BTreeMap;

use super::*;
use crate::yaml::documents;

#[derive(Debug, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Outer {
    name: String,
    items: Vec<Inner>,
    by_name: BTreeMap<String, Inner>,
    inner: Option<Inner>,
    flag: bool,
    color: Color,
}

#[derive(Debug, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Inner {
    max_size: u16,
    text: String,
}

#[derive(Debug, PartialEq, Default, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum Color {
    #[default]
    Unset,
    Red,
    On,
}

fn reading(text: &str) -> (Result<Outer, Wrong>, Vec<Unknown>) {
    read(documents(text).remove(0).as_ref().unwrap(), "spec")
}

#[track_caller]
fn check(text: &str, expected: Outer) {
    assert_eq!(reading(text), (Ok(expected), vec![]), "{text}");
}

#[track_caller]
fn check_wrong(text: &str, place: &str, part: &str, hint: &str) {
    let wrong = reading(text).0.unwrap_err();
    assert_eq!(wrong.place.as_deref(), Some(place), "{wrong:?}");
    assert!(wrong.message.contains(part), "{wrong:?}");
    assert!(wrong.hint.clone().unwrap_or_default().contains(hint), "{wrong:?}");
}

#[test]
fn nothing_is_what_protobuf_says_it_is() {
    check("{name: null, items: null, inner: null, flag: null, color: null}", Outer::default());
    let empty = || Inner::default();
    check("items: [null, {}]", Outer { items: vec![empty(), empty()], ..Outer::default() });
    check("byName: {a: null}", Outer { by_name: [("a".into(), empty())].into(), ..Outer::default() });
    check("color: ON", Outer { color: Color::On, ..Outer::default() });
}

#[test]
fn a_wrong_value_is_named_with_its_field() {
    check_wrong(
        "items: [{text: a}, {text: 1.10}]",
        "spec.items[1].text",
        "expected a string, found the number `1.10`",
        "\"1.10\"",
    );
    check_wrong("byName: {a-b: {maxSize: x}}", "spec.byName[\"a-b\"].maxSize", "expected u16", "");
    check_wrong("flag: \"true\"", "spec.flag", "expected a boolean", "without quotes");
    check_wrong("color: RDE", "spec.color", "none of `UNSET`, `RED`, `ON`", "RED");
    check_wrong("items: {}", "spec.items", "expected a list, found a map", "- ");
    check_wrong("inner: 5", "spec.inner", "expected a map of fields", "maxSize");
    check_wrong("name: {}", "spec.name", "expected a string, found a map", "");
}

#[test]
fn every_unknown_field_is_named_with_what_was_perhaps_meant() {
    let (value, unknown) = reading("{nmae: x, items: [{maxsize: 1}], inner: {banana: {text: 1}}}");
    assert!(value.is_ok());
    let found: Vec<_> = unknown.iter().map(|u| (u.path.as_str(), u.suggestion)).collect();
    assert_eq!(
        found,
        [("spec.nmae", Some("name")), ("spec.items[0].maxsize", Some("maxSize")), ("spec.inner.banana", None)]
    );
}
