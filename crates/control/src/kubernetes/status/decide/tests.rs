#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use mizzen_types::{ObjectKey, Origin};

use super::*;

fn finding(code: &'static str, severity: Severity, field: &str, message: &str) -> Finding {
    let origin = Origin { object: ObjectKey::new("VirtualService", "shop", "reviews"), field: field.to_owned() };
    Finding { code, severity, origin: Some(origin), position: None, message: message.to_owned(), hint: None }
}

fn count(on: usize, of: usize, refused: usize) -> Count {
    Count { on, of, refused }
}

/// The status as `TYPE=STATUS/REASON MESSAGE` per condition.
fn show(status: &Value) -> Vec<String> {
    let text = |it: &Value, key: &str| it[key].as_str().unwrap_or_default().to_owned();
    let conditions = status["conditions"].as_array().unwrap().iter();
    conditions
        .map(|it| format!("{}={}/{} {}", text(it, "type"), text(it, "status"), text(it, "reason"), text(it, "message")))
        .collect()
}

#[track_caller]
fn check(findings: &[Finding], in_force: InForce, expected: &[&str]) -> Value {
    let known = Known { generation: 3, findings, in_force, addresses: None };
    let status = known.status(&Value::Null, Timestamp::from_second(0).unwrap()).unwrap();
    assert_eq!(show(&status), expected);
    assert_eq!(status["observedGeneration"], 3);
    for condition in status["conditions"].as_array().unwrap() {
        assert_eq!(condition["observedGeneration"], 3);
        assert_eq!(condition["lastTransitionTime"], "1970-01-01T00:00:00Z");
    }
    // Written once, it is not written again.
    assert_eq!(known.status(&status, Timestamp::from_second(9).unwrap()), None);
    status
}

const VALID: &str = "Accepted=True/Accepted the object is valid";
const RESOLVED: &str = "ResolvedRefs=True/ResolvedRefs everything that it names exists";

#[test]
fn what_is_right_says_where_it_is_in_force() {
    let newest = |on, of, refused| InForce::Newest(count(on, of, refused));
    check(&[], newest(2, 2, 0), &[VALID, RESOLVED, "Reconciled=True/InForce in force on 2 of 2 proxies"]);
    check(&[], newest(1, 1, 0), &[VALID, RESOLVED, "Reconciled=True/InForce in force on 1 of 1 proxy"]);
    check(&[], newest(1, 2, 0), &[VALID, RESOLVED, "Reconciled=False/Pending in force on 1 of 2 proxies"]);
    let refused =
        "Reconciled=False/Refused in force on 1 of 3 proxies; 2 proxies refused it, see `mizzen proxy-status`";
    check(&[], newest(1, 3, 2), &[VALID, RESOLVED, refused]);
    let nobody = "Reconciled=True/NoProxies no proxy is connected; each is told when it connects";
    check(&[], newest(0, 0, 0), &[VALID, RESOLVED, nobody]);
}

#[test]
fn what_is_wrong_says_why_and_what_stays() {
    let wrong = finding(code::UNKNOWN_FIELD, Severity::Error, "spec.htp", "`htp` is no field");
    let last = finding(code::LAST_GOOD, Severity::Warning, "", "stays");
    let invalid = "Accepted=False/Invalid spec.htp: `htp` is no field (MZ0005)";
    let stays = "Reconciled=False/NotAccepted not in force; generation 2 stays in force on 2 of 2 proxies";
    let status = check(&[wrong.clone(), last], InForce::Older(2, count(2, 2, 0)), &[invalid, RESOLVED, stays]);
    assert_eq!(
        status["validationMessages"][0],
        json!({"type": {"code": "MZ0005", "name": "MZ0005"}, "level": "ERROR"})
    );
    check(&[wrong], InForce::Nothing, &[invalid, RESOLVED, "Reconciled=False/NotAccepted not in force"]);
}

#[test]
fn conflicts_and_dead_names_have_conditions_of_their_own() {
    let newest = InForce::Newest(count(1, 1, 0));
    let found = [
        finding("MZ0103", Severity::Warning, "spec.hosts[0]", "VirtualService/shop/old has it already"),
        finding("MZ0102", Severity::Error, "spec.http[0]", "no subset `v4`"),
        finding(code::NOT_OBEYED, Severity::Warning, "spec.x", "not obeyed"),
    ];
    let status = check(
        &found,
        newest,
        &[
            "Accepted=True/Accepted the object is valid, but: spec.x: not obeyed (MZ0008)",
            "ResolvedRefs=False/UnknownSubset spec.http[0]: no subset `v4` (MZ0102)",
            "Conflicted=True/DuplicateHost spec.hosts[0]: VirtualService/shop/old has it already (MZ0103)",
            "Reconciled=True/InForce in force on 1 of 1 proxy",
        ],
    );
    // Who waits for the end of a conflict is told.
    let known = Known { generation: 4, findings: &[], in_force: newest, addresses: None };
    let after = known.status(&status, Timestamp::from_second(60).unwrap()).unwrap();
    assert_eq!(show(&after)[2], "Conflicted=False/NoConflicts no other object claims the same");
    let time = |status: &Value, index: usize| status["conditions"][index]["lastTransitionTime"].clone();
    assert_eq!((time(&after, 0), time(&after, 2)), (json!("1970-01-01T00:00:00Z"), json!("1970-01-01T00:01:00Z")));
}

#[test]
fn a_kind_that_is_not_obeyed_is_never_in_force() {
    let found = [finding(code::NOT_OBEYED, Severity::Warning, "", "nothing is denied by it")];
    check(
        &found,
        InForce::Newest(count(2, 2, 0)),
        &[
            "Accepted=True/Accepted the object is valid, but: nothing is denied by it (MZ0008)",
            RESOLVED,
            "Reconciled=False/NotObeyed nothing is denied by it (MZ0008)",
        ],
    );
}

#[test]
fn proxies_that_come_and_go_are_counted_again_and_take_nothing_back() {
    let now = Timestamp::from_second(0).unwrap();
    let known =
        |generation, count| Known { generation, findings: &[], in_force: InForce::Newest(count), addresses: None };
    let status = known(3, count(2, 2, 0)).status(&Value::Null, now).unwrap();
    assert!(known(3, count(0, 1, 0)).was_in_force(&status) && !known(4, count(0, 1, 0)).was_in_force(&status));
    // One is being told.
    assert_eq!(known(3, count(2, 3, 0)).status(&status, now), None);
    let told = |generation, on, of, refused| {
        let count = count(on, of, refused);
        let new = known(generation, count).status(&status, now).unwrap();
        assert!(says(&new.to_string(), InForce::Newest(count)) && !says(&status.to_string(), InForce::Newest(count)));
        show(&new)[2].clone()
    };
    assert_eq!(told(3, 9, 9, 0), "Reconciled=True/InForce in force on 9 of 9 proxies");
    assert_eq!(told(3, 0, 0, 0), "Reconciled=True/NoProxies no proxy is connected; each is told when it connects");
    assert_eq!(
        told(3, 1, 2, 1),
        "Reconciled=False/Refused in force on 1 of 2 proxies; 1 proxy refused it, see `mizzen proxy-status`"
    );
    assert_eq!(told(4, 2, 3, 0), "Reconciled=False/Pending in force on 2 of 3 proxies");
}

#[test]
fn conditions_of_others_stay() {
    let now = Timestamp::from_second(0).unwrap();
    let before = json!({"conditions": [{"type": "Theirs", "status": "True", "lastProbeTime": null}], "addresses": [1]});
    let known = Known { generation: 1, findings: &[], in_force: InForce::Newest(count(1, 1, 0)), addresses: None };
    let status = known.status(&before, now).unwrap();
    assert!(show(&status).iter().any(|it| it.starts_with("Theirs=True")), "{status}");
    assert_eq!(status.get("addresses"), None, "left to the patch");
}

#[test]
fn addresses_that_hosts_are_given_are_said() {
    let now = Timestamp::from_second(0).unwrap();
    let known = |address: &str| Known {
        generation: 1,
        findings: &[],
        in_force: InForce::Newest(count(1, 1, 0)),
        addresses: Some(vec![("api.example.com".to_owned(), address.parse().unwrap())]),
    };
    let status = known("240.240.0.1").status(&Value::Null, now).unwrap();
    assert_eq!(status["addresses"], json!([{"value": "240.240.0.1", "host": "api.example.com"}]));
    assert_eq!(known("240.240.0.1").status(&status, now), None);
    // Nothing but these is different.
    let other = known("240.240.0.2").status(&status, now).unwrap();
    assert_eq!(other["addresses"][0]["value"], "240.240.0.2");
    assert!(digest(&other) != digest(&status));
}

#[test]
fn every_finding_that_has_a_condition_exists() {
    for code in CONFLICTS.iter().chain(&REFERENCES) {
        assert!(mizzen_analysis::message(code).is_some(), "{code}");
    }
    let found = finding("MZ0101", Severity::Error, "", "");
    assert_eq!(reason(&found), "UnknownDestination");
}
