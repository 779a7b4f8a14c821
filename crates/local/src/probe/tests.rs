use serde_json::json;

use super::*;

fn parsed(value: Value) -> Result<Probe, String> {
    Probe::parse(&value)
}

#[test]
fn defaults_are_those_of_kubernetes() {
    let probe = parsed(json!({"tcpSocket": {"port": 80}})).expect("valid");
    assert_eq!(probe, Probe::connect(80));
    assert_eq!((probe.period.as_secs(), probe.timeout.as_secs()), (10, 1));
    assert_eq!((probe.success_threshold, probe.failure_threshold), (1, 3));
}

#[test]
fn every_action_is_read() {
    let action = |value| parsed(value).expect("valid").action;
    assert_eq!(
        action(
            json!({"httpGet": {"path": "ok", "port": "web", "scheme": "HTTPS", "httpHeaders": [{"name": "A", "value": "b"}]}})
        ),
        Action::Http {
            path: "/ok".into(),
            port: PortRef::Name("web".into()),
            https: true,
            headers: vec![("A".into(), "b".into())]
        }
    );
    assert_eq!(
        action(json!({"grpc": {"port": 9000, "service": "s"}})),
        Action::Grpc { port: PortRef::Number(9000), service: "s".into() }
    );
    assert_eq!(
        action(json!({"exec": {"command": ["cat", "/x"]}})),
        Action::Exec { command: vec!["cat".into(), "/x".into()] }
    );
}

#[test]
fn what_is_wrong_is_named() {
    for (value, field) in [
        (json!({}), "httpGet"),
        (json!({"httpGet": {"path": "/"}}), ".httpGet.port"),
        (json!({"tcpSocket": {"port": 70000}}), ".tcpSocket.port"),
        (json!({"exec": {}}), ".exec.command"),
        (json!({"tcpSocket": {"port": 80}, "periodSeconds": 0}), ".periodSeconds"),
        (json!({"tcpSocket": {"port": 80}, "failureThreshold": "x"}), ".failureThreshold"),
    ] {
        let error = parsed(value).expect_err("invalid");
        assert!(error.contains(field), "{error} names {field}");
    }
}

#[test]
fn the_state_changes_after_as_many_answers_as_the_thresholds_say() {
    let mut probe = Probe::connect(80);
    (probe.success_threshold, probe.failure_threshold) = (2, 3);
    let mut readiness = Readiness::new(&probe);
    let answers = [true, false, true, true, false, false, true, false, false, false, true, true];
    let changes: Vec<Option<bool>> = answers.into_iter().map(|answer| readiness.observe(answer)).collect();
    let (up, down) = (Some(true), Some(false));
    assert_eq!(changes, [None, None, None, up, None, None, None, None, None, down, None, up]);
}

#[test]
fn until_the_first_success_it_is_asked_often() {
    let mut readiness = Readiness::new(&Probe::connect(80));
    assert!(readiness.pause() < Duration::from_millis(100));
    readiness.observe(true);
    assert_eq!(readiness.pause(), Duration::from_secs(10));
}
