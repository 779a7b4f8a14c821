use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::*;
use crate::matcher::StringMatch;

fn condition(name: &str, condition: HeaderCondition, invert: bool, missing_as_empty: bool) -> HeaderMatch {
    let name = HeaderKey::Name(HeaderName::from_bytes(name.as_bytes()).unwrap());
    HeaderMatch { name, condition, invert, missing_as_empty }
}

#[track_caller]
fn check(matcher: &HeaderMatch, headers: &[(&str, &str)], expect: bool) {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    let request = RequestView {
        method: &Method::GET,
        authority: "host",
        scheme: "http",
        path_and_query: "/",
        headers: &map,
        client_ip: None,
    };
    assert_eq!(matcher.matches(&request), expect, "{} wanted {matcher} of {headers:?}", matcher.name);
}

#[test]
fn values_presence_and_ranges() {
    let exact = || HeaderCondition::Matches(StringMatch::exact("a"));
    check(&condition("x", exact(), false, false), &[("x", "a")], true);
    check(&condition("x", exact(), false, false), &[("x", "a"), ("x", "b")], false);
    check(
        &condition("x", HeaderCondition::Matches(StringMatch::exact("a,b")), false, false),
        &[("x", "a"), ("x", "b")],
        true,
    );
    check(&condition("x", HeaderCondition::Present, false, false), &[("x", "")], true);
    check(&condition("x", HeaderCondition::Present, true, false), &[], true);
    check(&condition("x", HeaderCondition::Absent, false, false), &[], true);
    check(&condition("x", HeaderCondition::Range { start: -1, end: 3 }, false, false), &[("x", "-1")], true);
    check(&condition("x", HeaderCondition::Range { start: -1, end: 3 }, false, false), &[("x", "3")], false);
    check(&condition("x", HeaderCondition::Range { start: -1, end: 3 }, false, false), &[("x", "2 apples")], false);
}

#[test]
fn a_missing_header_fulfils_an_inverted_condition_only_as_empty_value() {
    let exact = || HeaderCondition::Matches(StringMatch::exact("a"));
    check(&condition("x", exact(), true, false), &[], false);
    check(&condition("x", exact(), true, true), &[], true);
    check(&condition("x", exact(), true, true), &[("x", "a")], false);
    check(&condition("x", exact(), true, false), &[("x", "b")], true);
}

fn edit(name: &'static str, value: &str, action: AppendAction) -> HeaderEdit {
    HeaderEdit {
        name: HeaderName::from_static(name),
        value: HeaderTemplate::parse(value).unwrap(),
        action,
        keep_empty: false,
    }
}

#[test]
fn edits_remove_then_replace_then_add() {
    let mut headers = HeaderMap::new();
    headers.insert("gone", HeaderValue::from_static("1"));
    headers.insert("old", HeaderValue::from_static("1"));
    let edits = HeaderEdits {
        remove: vec![HeaderName::from_static("gone")],
        set: vec![
            edit("many", "b", AppendAction::Append),
            edit("many", "a", AppendAction::OverwriteOrAdd),
            edit("old", "2", AppendAction::AddIfAbsent),
            edit("new", "2", AppendAction::OverwriteIfExists),
            edit("copied", "<%REQ(old)%|%REQ(none?old):1%>", AppendAction::Append),
            edit("absent", "%REQ(none)%", AppendAction::Append),
            edit("peer", "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% 100%%", AppendAction::Append),
        ],
    };
    let facts = Facts { downstream_remote: Some("10.0.0.1:9".parse().unwrap()), ..Facts::default() };
    edits.apply(&mut headers, &facts);
    let all =
        |name: &str| headers.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(all("gone"), Vec::<String>::new());
    assert_eq!(all("many"), ["a", "b"]);
    assert_eq!(all("old"), ["1"]);
    assert_eq!(all("new"), Vec::<String>::new());
    assert_eq!(all("copied"), ["<1|1>"]);
    assert_eq!(all("absent"), Vec::<String>::new());
    assert_eq!(all("peer"), ["10.0.0.1 100%"]);
}

#[test]
fn operators_that_are_not_known_are_refused() {
    for text in ["%NOPE%", "%REQ(x%", "50% off", "%REQ(a b)%", "line\nbreak", "%FILTER_STATE(x)%"] {
        assert!(HeaderTemplate::parse(text).is_err(), "{text:?} should be refused");
    }
}
