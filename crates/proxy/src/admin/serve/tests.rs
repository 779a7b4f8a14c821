use super::*;

#[track_caller]
fn check(headers: &[(&'static str, &'static str)], admitted: bool) {
    let headers: HeaderMap =
        headers.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect();
    let result = admit(&headers, None, "127.64.3.1:15000".parse().unwrap());
    assert_eq!(result.is_ok(), admitted, "{headers:?}: {result:?}");
}

#[test]
fn s35_only_this_machine_is_answered() {
    check(&[("host", "127.0.0.1:15000")], true);
    check(&[("host", "127.64.3.1:15000")], true);
    check(&[("host", "localhost")], true);
    check(&[("host", "LOCALHOST:15000")], true);
    check(&[("host", "[::1]:15000")], true);
    check(&[], true);
    check(&[("host", "evil.example:15000")], false);
    check(&[("host", "localhost.evil.example")], false);
    check(&[("host", "10.0.0.1:15000")], false);
    check(&[("host", "127.0.0.1"), ("origin", "http://evil.example")], false);
    check(&[("host", "127.0.0.1"), ("x-forwarded-proto", "http")], false);
    check(&[("host", "127.0.0.1"), ("x-request-id", "1")], false);
}

#[test]
fn queries_are_decoded() {
    let ask = Ask {
        method: Method::GET,
        path: "/".into(),
        headers: HeaderMap::new(),
        peer: IpAddr::from([127, 0, 0, 1]),
        query: "a=%2Fx+y&b&c=%zz&d=%C3%A9&=%".into(),
    };
    assert_eq!(ask.parameter("a").as_deref(), Some("/x y"));
    assert_eq!(ask.parameter("b").as_deref(), Some(""));
    assert_eq!(ask.parameter("c").as_deref(), Some("%zz"));
    assert_eq!(ask.parameter("d").as_deref(), Some("é"));
    assert_eq!(ask.parameter("e"), None);
}

#[test]
fn one_address_cannot_take_all_places() {
    let guests = Guests::default();
    let (greedy, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
    let held: Vec<_> = (0..CONNECTIONS_OF_ONE).map_while(|_| Guest::enter(&guests, greedy)).collect();
    assert_eq!(held.len(), CONNECTIONS_OF_ONE);
    assert!(Guest::enter(&guests, greedy).is_none());
    assert!(Guest::enter(&guests, other).is_some());
    drop(held);
    assert!(Guest::enter(&guests, greedy).is_some());
    assert!(guests.lock().unwrap().is_empty(), "who is gone is forgotten");
}
