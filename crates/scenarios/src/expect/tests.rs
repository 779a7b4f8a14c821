use super::*;

#[track_caller]
fn check(line: &str, observed: &Observed, holds: bool) {
    let expect = Expect::parse(1, line).unwrap();
    assert_eq!(expect.check(observed).is_ok(), holds, "{line} with {observed:?}");
}

fn shares(pairs: &[(&str, f64)]) -> Observed {
    let shares = pairs.iter().map(|(name, share)| ((*name).to_owned(), *share)).collect();
    Observed { shares: Some(shares), tolerance: 0.1, ..Observed::default() }
}

#[test]
fn shares_have_a_tolerance_and_nobody_else_may_answer() {
    check("share a 75% b 25%", &shares(&[("a", 0.7), ("b", 0.3)]), true);
    check("share a 75% b 25%", &shares(&[("a", 0.6), ("b", 0.4)]), false);
    check("share a 100%", &shares(&[("a", 0.95), ("c", 0.05)]), false);
    check("share a 100% c 0%", &shares(&[("a", 0.95), ("c", 0.05)]), false);
    check("from a", &shares(&[("a", 1.0)]), true);
    check("from a", &shares(&[("a", 0.99), ("b", 0.01)]), false);
    check("from none", &shares(&[]), true);
    check("from none", &shares(&[("a", 1.0)]), false);
}

#[test]
fn a_delay_is_what_the_proxy_says_and_about_as_long() {
    let wire = |counted, millis| Observed {
        delays_counted: Some(counted),
        took: Some(Duration::from_millis(millis)),
        ..Observed::default()
    };
    // A little early, and late on a busy machine.
    check("delay 0.6s", &wire(1, 599), true);
    check("delay 0.6s", &wire(1, 60_000), true);
    check("delay 0.6s", &wire(1, 20), false);
    check("delay 0.6s", &wire(0, 60_000), false);
    check("delay none", &wire(0, 60_000), true);
    check("delay none", &wire(1, 20), false);
    let planned = |delay| Observed { delay: Some(delay), ..Observed::default() };
    check("delay 2s", &planned(Some(Duration::from_secs(2))), true);
    check("delay 2s", &planned(Some(Duration::from_secs(3))), false);
    check("delay 2s", &planned(None), false);
    check("delay none", &planned(None), true);
    check("delay none", &planned(Some(Duration::from_secs(3))), false);
}

#[test]
fn headers_are_compared_whole_or_in_part() {
    let mut headers = HeaderMap::new();
    headers.append("a", "x".parse().unwrap());
    headers.append("a", "y".parse().unwrap());
    let observed = Observed { headers: Some(headers), ..Observed::default() };
    check("header a: x,y", &observed, true);
    check("header A ~ y", &observed, true);
    check("header a: x", &observed, false);
    check("header b ~ x", &observed, false);
    check("no-header b", &observed, true);
    check("no-header a", &observed, false);
}

#[test]
fn what_cannot_be_seen_is_not_judged_and_known_beforehand() {
    let blind = Observed::default();
    for line in ["status 200", "from a", "cluster c", "timeout 3s", "seen path /", "mtls yes", "delay 2s", "delay none"]
    {
        check(line, &blind, true);
    }
    let expect = Expect::parse(1, "[wire envoy] status 200").unwrap();
    assert!(!expect.is_for(Runner::Memory) && expect.is_for(Runner::Envoy));
    assert!(!Expect::parse(1, "timeout 3s").unwrap().is_for(Runner::Wire));
}

#[test]
fn wrong_lines_are_refused() {
    for line in
        ["", "status x", "share a", "share a 5", "header a", "timeout 3", "delay long", "wat", "[moon] status 200"]
    {
        Expect::parse(1, line).unwrap_err();
    }
    assert_eq!(duration("250ms").unwrap(), Duration::from_millis(250));
    assert_eq!(duration("1.5s").unwrap(), Duration::from_millis(1500));
}
