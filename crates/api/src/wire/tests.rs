use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::*;

#[track_caller]
fn check_duration(text: &str, expected: Option<Duration>) {
    assert_eq!(parse_duration(text).ok(), expected, "{text}");
}

#[test]
fn durations_are_read_as_go_reads_them() {
    check_duration("0", Some(Duration::ZERO));
    check_duration("0s", Some(Duration::ZERO));
    check_duration("1.5s", Some(Duration::from_millis(1500)));
    check_duration("250ms", Some(Duration::from_millis(250)));
    check_duration("1h2m3s", Some(Duration::from_secs(3723)));
    check_duration(".5s", Some(Duration::from_millis(500)));
    check_duration("1.0000000009s", Some(Duration::from_secs(1)));
    check_duration("30us", Some(Duration::from_micros(30)));
    for bad in ["", "1", "s", "1x", "-1s", "1s2", "1..5s", "99999999999999999999h", " 1s", "1 s", "."] {
        check_duration(bad, None);
    }
}

#[derive(Debug, Deserialize, Default, PartialEq)]
#[serde(default)]
struct Example {
    #[serde(deserialize_with = "int")]
    port: u16,
    #[serde(deserialize_with = "opt_int")]
    weight: Option<i32>,
    #[serde(deserialize_with = "opt_duration")]
    timeout: Option<Duration>,
    #[serde(deserialize_with = "opt_percent")]
    percentage: Option<Percent>,
}

#[track_caller]
fn check(value: Value, expected: Result<Example, &str>) {
    match (serde_json::from_value::<Example>(value.clone()), expected) {
        (Ok(got), Ok(expected)) => assert_eq!(got, expected, "{value}"),
        (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{value}: {error}"),
        (got, expected) => panic!("{value}: {got:?}, expected {expected:?}"),
    }
}

#[test]
fn numbers_take_the_forms_of_protobuf_json() {
    check(json!({"port": 80}), Ok(Example { port: 80, ..Default::default() }));
    check(json!({"port": "80"}), Ok(Example { port: 80, ..Default::default() }));
    check(json!({"port": 80.0, "weight": -1}), Ok(Example { port: 80, weight: Some(-1), ..Default::default() }));
    check(json!({"weight": null, "timeout": null, "percentage": null}), Ok(Example::default()));
    check(json!({"port": 80.5}), Err("80.5 is not a whole number"));
    check(json!({"port": 70000}), Err("70000 is out of range"));
    check(json!({"port": true}), Err("expected a whole number"));
    check(json!({"timeout": 10}), Err("write `10s`"));
    check(json!({"timeout": "10"}), Err("with a unit"));
    check(json!({"percentage": {}}), Ok(Example { percentage: Some(Percent::NEVER), ..Default::default() }));
    check(
        json!({"percentage": {"value": 0.1}}),
        Ok(Example { percentage: Percent::from_percent(0.1), ..Default::default() }),
    );
    check(json!({"percentage": {"value": 101}}), Err("not between 0 and 100"));
}

proptest::proptest! {
    #[test]
    fn reading_a_duration_never_panics(text in ".{0,40}") {
        let _ = parse_duration(&text);
    }
}
