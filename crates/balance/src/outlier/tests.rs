use std::sync::Arc;

use mizzen_snapshot::cluster::{Balance, EndpointSet, Health};

use super::*;
use crate::balancer::tests::{endpoint, policy, set};
use crate::balancer::{NoEndpoint, PickContext};
use crate::endpoint::Availability;

fn rules() -> OutlierDetection {
    OutlierDetection {
        consecutive_5xx: 3,
        consecutive_gateway_failure: 0,
        split_local_origin: false,
        consecutive_local_origin_failure: 5,
        interval: Duration::from_secs(10),
        base_ejection_time: Duration::from_secs(30),
        max_ejection_time: Duration::from_secs(300),
        max_ejection_percent: 100,
        enforcing_consecutive_5xx: 100,
        enforcing_consecutive_gateway_failure: 100,
        enforcing_consecutive_local_origin_failure: 100,
        always_eject_one_host: false,
    }
}

fn endpoints(count: usize) -> Arc<EndpointSet> {
    set((0..count).map(|index| endpoint(index, 1, Health::Healthy)))
}

fn balancer(rules: OutlierDetection, count: usize) -> Balancer {
    let mut policy = policy(Balance::RoundRobin { slow_start: None });
    policy.outliers = Some(rules);
    policy.panic_threshold = 0;
    Balancer::new(Arc::new(policy), &endpoints(count), 0, Time::ZERO)
}

fn at(seconds: u64) -> Time {
    Time::after(Duration::from_secs(seconds))
}

const OK: Outcome = Outcome::Response(200);
const INTERNAL: Outcome = Outcome::Response(500);
const BAD_GATEWAY: Outcome = Outcome::Response(502);

/// Feeds outcomes to the first of ten endpoints; the expected cause is that of the last outcome, all others must
/// cause nothing.
#[track_caller]
fn check(rules: OutlierDetection, outcomes: &[Outcome], expected: Option<EjectionCause>) {
    let balancer = balancer(rules, 10);
    let host = &balancer.hosts()[0];
    for (index, outcome) in outcomes.iter().enumerate() {
        let ejection = balancer.record(host, *outcome, Time::ZERO);
        let expected = expected.filter(|_| index + 1 == outcomes.len());
        assert_eq!(ejection, expected.map(|cause| Ejection::Ejected { cause, times: 1 }), "outcome {index}");
    }
    assert_eq!(host.availability() == Availability::Unavailable, expected.is_some());
    assert_eq!(balancer.ejections_active(), u32::from(expected.is_some()));
}

#[test]
fn a_run_of_errors_ejects() {
    use EjectionCause::{Consecutive5xx, ConsecutiveGatewayFailure, ConsecutiveLocalOriginFailure};
    let gateway = || OutlierDetection { consecutive_5xx: 0, consecutive_gateway_failure: 2, ..rules() };
    let split = || OutlierDetection { split_local_origin: true, consecutive_local_origin_failure: 2, ..rules() };

    check(rules(), &[INTERNAL, INTERNAL, INTERNAL], Some(Consecutive5xx));
    check(rules(), &[INTERNAL, BAD_GATEWAY, INTERNAL], Some(Consecutive5xx));
    check(rules(), &[INTERNAL, INTERNAL, OK, INTERNAL, INTERNAL], None);
    check(rules(), &[INTERNAL, INTERNAL, Outcome::Response(404), INTERNAL], None);
    check(rules(), &[Outcome::ConnectFailed, Outcome::Timeout, Outcome::ConnectFailed], Some(Consecutive5xx));
    check(OutlierDetection { consecutive_5xx: 0, ..rules() }, &[INTERNAL; 20], None);

    check(gateway(), &[BAD_GATEWAY, BAD_GATEWAY], Some(ConsecutiveGatewayFailure));
    check(gateway(), &[BAD_GATEWAY, INTERNAL, BAD_GATEWAY], None);
    check(gateway(), &[Outcome::ConnectFailed, Outcome::Timeout], Some(ConsecutiveGatewayFailure));

    check(split(), &[Outcome::ConnectFailed, Outcome::Timeout], Some(ConsecutiveLocalOriginFailure));
    check(split(), &[Outcome::ConnectFailed, OK, Outcome::ConnectFailed], None);
    check(split(), &[Outcome::ConnectFailed, Outcome::Connected, Outcome::ConnectFailed], None);
    check(split(), &[INTERNAL, INTERNAL, Outcome::ConnectFailed, INTERNAL], Some(Consecutive5xx));
}

fn fail(balancer: &Balancer, index: usize, now: Time) -> Option<Ejection> {
    let host = &balancer.hosts()[index];
    (0..3).map(|_| balancer.record(host, INTERNAL, now)).last().flatten()
}

#[test]
fn ejected_endpoints_get_nothing_and_return_after_their_time() {
    let balancer = balancer(rules(), 2);
    fail(&balancer, 0, at(100));
    let picks = |balancer: &Balancer| {
        (0..10).map(|draw| balancer.pick(&PickContext { draw, ..PickContext::default() }).unwrap()).collect::<Vec<_>>()
    };
    assert!(picks(&balancer).iter().all(|host| !host.state.is_ejected()));
    assert_eq!(balancer.membership().healthy, 1);
    assert!(balancer.sweep(at(129)).returned.is_empty());
    assert_eq!(balancer.sweep(at(130)).returned.len(), 1);
    assert_eq!(balancer.membership().healthy, 2);
    assert_eq!(balancer.ejections_active(), 0);
    let first = balancer.hosts().remove(0);
    assert!(picks(&balancer).iter().any(|host| Arc::ptr_eq(host, &first)));
}

#[test]
fn each_ejection_is_longer_up_to_a_limit_and_good_conduct_shortens() {
    let balancer = balancer(OutlierDetection { max_ejection_time: Duration::from_secs(70), ..rules() }, 2);
    let mut now = 0;
    for expected in [30, 60, 70, 70, 70] {
        assert!(matches!(fail(&balancer, 0, at(now)), Some(Ejection::Ejected { .. })));
        assert!(balancer.sweep(at(now + expected - 1)).returned.is_empty(), "{expected}");
        assert_eq!(balancer.sweep(at(now + expected)).returned.len(), 1, "{expected}");
        now += 1_000;
    }
    for _ in 0..10 {
        balancer.sweep(at(now));
    }
    fail(&balancer, 0, at(now));
    assert_eq!(balancer.sweep(at(now + 30)).returned.len(), 1, "back to the base time");
}

#[test]
fn no_more_than_the_allowed_share_is_ejected() {
    let half = balancer(OutlierDetection { max_ejection_percent: 50, ..rules() }, 4);
    let cause = EjectionCause::Consecutive5xx;
    assert_eq!(fail(&half, 0, at(0)), Some(Ejection::Ejected { cause, times: 1 }));
    assert_eq!(fail(&half, 1, at(0)), Some(Ejection::Ejected { cause, times: 1 }));
    assert_eq!(fail(&half, 2, at(0)), Some(Ejection::Overflow { cause }));
    assert_eq!((half.ejections_active(), half.ejections_enforced(), half.ejections_overflow()), (2, 2, 1));

    // Ten percent of three is nobody, unless one may always be ejected.
    let tenth = OutlierDetection { max_ejection_percent: 10, ..rules() };
    assert_eq!(fail(&balancer(tenth.clone(), 3), 0, at(0)), Some(Ejection::Overflow { cause }));
    let one = balancer(OutlierDetection { always_eject_one_host: true, ..tenth }, 3);
    assert_eq!(fail(&one, 0, at(0)), Some(Ejection::Ejected { cause, times: 1 }));
    assert_eq!(fail(&one, 1, at(0)), Some(Ejection::Overflow { cause }));
}

#[test]
fn all_ejected_and_no_panic_means_nobody() {
    let balancer = balancer(rules(), 2);
    fail(&balancer, 0, at(0));
    fail(&balancer, 1, at(0));
    assert_eq!(balancer.pick(&PickContext::default()).unwrap_err(), NoEndpoint::Unhealthy);
}

#[test]
fn enforcement_of_zero_only_counts() {
    let balancer = balancer(OutlierDetection { enforcing_consecutive_5xx: 0, ..rules() }, 2);
    assert_eq!(fail(&balancer, 0, at(0)), Some(Ejection::NotEnforced { cause: EjectionCause::Consecutive5xx }));
    assert_eq!(balancer.ejections_active(), 0);
}

#[test]
fn an_ejected_endpoint_that_leaves_frees_its_place() {
    let balancer = balancer(OutlierDetection { max_ejection_percent: 50, ..rules() }, 2);
    fail(&balancer, 0, at(0));
    balancer.update(&set([endpoint(1, 1, Health::Healthy), endpoint(2, 1, Health::Healthy)]), 0, at(1));
    assert_eq!(balancer.ejections_active(), 0);
    assert!(matches!(fail(&balancer, 0, at(2)), Some(Ejection::Ejected { .. })));
    // The one that stays is still ejected after another change.
    balancer.update(&endpoints(3), 0, at(3));
    assert_eq!(balancer.ejections_active(), 1);
    assert_eq!(balancer.membership().healthy, 2);
}

#[test]
fn threads_that_eject_at_once_keep_the_limit_and_the_arrangement_right() {
    for round in 0..20 {
        let balancer = balancer(OutlierDetection { max_ejection_percent: 50, ..rules() }, 8);
        std::thread::scope(|scope| {
            for index in 0..8 {
                let balancer = &balancer;
                scope.spawn(move || fail(balancer, index, at(round)));
            }
        });
        assert_eq!(balancer.ejections_active(), 4);
        assert_eq!(balancer.membership().healthy, 4);
        for draw in 0..100 {
            let host = balancer.pick(&PickContext { draw, ..PickContext::default() }).unwrap();
            assert!(!host.state.is_ejected());
        }
    }
}

#[test]
fn whoever_was_ejected_returns_when_the_rule_is_gone() {
    let endpoints = endpoints(2);
    let old = balancer(OutlierDetection { consecutive_5xx: 1, ..rules() }, 2);
    let bad = &old.hosts()[0];
    old.record(bad, INTERNAL, Time::ZERO).expect("not ejected");
    let without = policy(Balance::RoundRobin { slow_start: None });
    let new = old.successor(Arc::new(without), &endpoints, 0, at(1));
    assert_eq!(new.ejections_active(), 0);
    assert_eq!(new.membership().healthy, 2);
    let picked: std::collections::HashSet<_> =
        (0..4).map(|_| Arc::as_ptr(&new.pick(&PickContext::default()).unwrap().state)).collect();
    assert_eq!(picked.len(), 2);
}
