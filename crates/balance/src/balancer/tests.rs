use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use mizzen_snapshot::cluster::*;
use mizzen_types::Locality;
use proptest::prelude::*;

use super::*;

pub(crate) fn policy(balance: Balance) -> ClusterPolicy {
    let name = "outbound|9080||reviews.default.svc.cluster.local".into();
    ClusterPolicy { balance, locality_weighted: true, ..ClusterPolicy::plain(name, Discovery::Static) }
}

pub(crate) fn endpoint(index: usize, weight: u32, health: Health) -> Arc<Endpoint> {
    Arc::new(Endpoint {
        address: EndpointAddress::Socket(SocketAddr::from(([10, 0, (index >> 8) as u8, index as u8], 9080))),
        weight,
        health,
        transport_labels: Vec::new(),
        hostname: None,
        workload: None,
    })
}

pub(crate) fn set(endpoints: impl IntoIterator<Item = Arc<Endpoint>>) -> Arc<EndpointSet> {
    localities([(0, None, endpoints.into_iter().collect())])
}

fn localities(parts: impl IntoIterator<Item = (u32, Option<u32>, Vec<Arc<Endpoint>>)>) -> Arc<EndpointSet> {
    let localities = parts
        .into_iter()
        .enumerate()
        .map(|(zone, (priority, weight, endpoints))| LocalityEndpoints {
            locality: Locality::parse(&format!("region/zone{zone}")),
            priority,
            weight,
            endpoints,
        })
        .collect();
    Arc::new(EndpointSet { localities, overprovisioning: 140 })
}

fn healthy(indexes: impl IntoIterator<Item = usize>) -> Vec<Arc<Endpoint>> {
    indexes.into_iter().map(|index| endpoint(index, 1, Health::Healthy)).collect()
}

fn balancer(balance: Balance, endpoints: &Arc<EndpointSet>) -> Balancer {
    Balancer::new(Arc::new(policy(balance)), endpoints, 0, Time::ZERO)
}

fn index(host: &Host) -> usize {
    match &host.endpoint.address {
        EndpointAddress::Socket(SocketAddr::V4(address)) => {
            let [_, _, high, low] = address.ip().octets();
            usize::from(high) << 8 | usize::from(low)
        }
        other => panic!("{other:?}"),
    }
}

fn counts(balancer: &Balancer, picks: u64) -> BTreeMap<usize, u64> {
    let mut counts = BTreeMap::new();
    for draw in 0..picks {
        let host = balancer.pick(&PickContext { draw, ..PickContext::default() }).unwrap();
        *counts.entry(index(&host)).or_insert(0) += 1;
    }
    counts
}

#[track_caller]
fn assert_shares(counts: &BTreeMap<usize, u64>, shares: &[(usize, f64)], tolerance: f64) {
    let total: u64 = counts.values().sum();
    for (index, share) in shares {
        let got = *counts.get(index).unwrap_or(&0) as f64 / total as f64;
        assert!((got - share).abs() < tolerance, "endpoint {index} has {got:.3}, not {share:.3}: {counts:?}");
    }
}

const ROUND_ROBIN: Balance = Balance::RoundRobin { slow_start: None };
const LEAST_REQUEST: Balance = Balance::LeastRequest { choices: 2, slow_start: None };
const RING: Balance = Balance::RingHash { minimum: 1024, maximum: 8_388_608 };
const MAGLEV: Balance = Balance::Maglev { table_size: 65_537 };

#[test]
fn round_robin_takes_turns() {
    let balancer = balancer(ROUND_ROBIN, &set(healthy(0..3)));
    assert_eq!(counts(&balancer, 300), BTreeMap::from([(0, 100), (1, 100), (2, 100)]));
}

#[test]
fn round_robin_obeys_weights() {
    let endpoints = set([endpoint(0, 3, Health::Healthy), endpoint(1, 1, Health::Healthy)]);
    assert_shares(&counts(&balancer(ROUND_ROBIN, &endpoints), 4_000), &[(0, 0.75), (1, 0.25)], 0.001);
}

#[test]
fn random_ignores_weights_as_envoy_does() {
    let endpoints = set([endpoint(0, 9, Health::Healthy), endpoint(1, 1, Health::Healthy)]);
    assert_shares(&counts(&balancer(Balance::Random, &endpoints), 20_000), &[(0, 0.5), (1, 0.5)], 0.02);
}

#[test]
fn least_request_prefers_the_less_busy() {
    let balancer = balancer(LEAST_REQUEST, &set(healthy(0..2)));
    let busy = balancer.hosts()[0].begin_request();
    // Two draws of two: both fall on the busy one in a quarter of cases.
    assert_shares(&counts(&balancer, 20_000), &[(0, 0.25), (1, 0.75)], 0.02);
    drop(busy);
    assert_shares(&counts(&balancer, 20_000), &[(0, 0.5), (1, 0.5)], 0.02);
}

#[test]
fn weighted_least_request_is_weight_by_load() {
    let endpoints = set([endpoint(0, 3, Health::Healthy), endpoint(1, 1, Health::Healthy)]);
    let balancer = balancer(LEAST_REQUEST, &endpoints);
    assert_shares(&counts(&balancer, 20_000), &[(0, 0.75), (1, 0.25)], 0.02);
    let _busy: Vec<_> = (0..9).map(|_| balancer.hosts()[0].begin_request()).collect();
    assert_shares(&counts(&balancer, 20_000), &[(0, 0.3 / 1.3), (1, 1.0 / 1.3)], 0.02);
    let many = set((0..40).map(|index| endpoint(index, if index == 0 { 40 } else { 1 }, Health::Healthy)));
    let balancer = Balancer::new(Arc::clone(&balancer.policy), &many, 0, Time::ZERO);
    assert_shares(&counts(&balancer, 20_000), &[(0, 40.0 / 79.0), (7, 1.0 / 79.0)], 0.03);
    let _busy: Vec<_> = (0..99).map(|_| balancer.hosts()[0].begin_request()).collect();
    let busy = counts(&balancer, 20_000);
    assert!(busy[&0] < 2_500, "{busy:?}");
}

#[test]
fn unhealthy_and_draining_endpoints_are_not_chosen() {
    let endpoints = set([
        endpoint(0, 1, Health::Healthy),
        endpoint(1, 1, Health::Unhealthy),
        endpoint(2, 1, Health::Healthy),
        endpoint(3, 1, Health::Draining),
    ]);
    for balance in [ROUND_ROBIN, LEAST_REQUEST, Balance::Random, RING, MAGLEV] {
        let counts = counts(&balancer(balance.clone(), &endpoints), 1_000);
        assert!(counts.keys().eq(&[0, 2]), "{balance:?}: {counts:?}");
    }
}

#[test]
fn nobody_healthy_is_an_error_or_panic() {
    let endpoints = set([endpoint(0, 1, Health::Unhealthy), endpoint(1, 1, Health::Unhealthy)]);
    let mut rules = policy(ROUND_ROBIN);
    assert_eq!(counts(&Balancer::new(Arc::new(rules), &endpoints, 0, Time::ZERO), 100).len(), 2, "panic");
    rules = policy(ROUND_ROBIN);
    rules.panic_threshold = 0;
    let strict = Balancer::new(Arc::new(rules), &endpoints, 0, Time::ZERO);
    assert_eq!(strict.pick(&PickContext::default()).unwrap_err(), NoEndpoint::Unhealthy);
    let empty = balancer(ROUND_ROBIN, &Arc::default());
    assert_eq!(empty.pick(&PickContext::default()).unwrap_err(), NoEndpoint::Empty);
}

#[test]
fn a_weak_priority_spills_over() {
    let mut first = healthy(0..10);
    for (index, weak) in first.iter_mut().enumerate().take(5) {
        *weak = endpoint(index, 1, Health::Unhealthy);
    }
    let balancer = balancer(ROUND_ROBIN, &localities([(0, None, first), (1, None, healthy(10..20))]));
    let counts = counts(&balancer, 20_000);
    let spilled = counts.range(10..).map(|(_, count)| count).sum::<u64>() as f64 / 20_000.0;
    assert!((spilled - 0.3).abs() < 0.02, "half healthy at 140 percent is 70: {spilled}");
}

#[test]
fn locality_weights_split_traffic_and_fall_with_health() {
    let endpoints = localities([(0, Some(80), healthy(0..2)), (0, Some(20), healthy(2..6)), (0, None, healthy(6..8))]);
    let shares = [(0, 0.4), (1, 0.4), (2, 0.05), (5, 0.05), (6, 0.0)];
    for balance in [ROUND_ROBIN, LEAST_REQUEST] {
        assert_shares(&counts(&balancer(balance, &endpoints), 20_000), &shares, 0.01);
    }
    let unweighted = ClusterPolicy { locality_weighted: false, ..policy(ROUND_ROBIN) };
    let balancer_of = |rules| Balancer::new(Arc::new(rules), &endpoints, 0, Time::ZERO);
    assert_shares(&counts(&balancer_of(unweighted), 20_000), &[(0, 0.125), (2, 0.125), (6, 0.125)], 0.01);
    let half = vec![endpoint(0, 1, Health::Healthy), endpoint(1, 1, Health::Unhealthy)];
    let endpoints = localities([(0, Some(50), half), (0, Some(50), healthy(2..6))]);
    // 50 * min(1, 1.4 * 0.5) = 35 against 50.
    assert_shares(&counts(&balancer(ROUND_ROBIN, &endpoints), 20_000), &[(0, 35.0 / 85.0), (1, 0.0)], 0.01);
}

#[test]
fn tried_endpoints_are_avoided_within_bounds() {
    for balance in [ROUND_ROBIN, Balance::Random, RING, MAGLEV] {
        let balancer = balancer(balance.clone(), &set(healthy(0..3)));
        let avoid = [Arc::clone(&balancer.hosts()[1])];
        let ask = |draw| PickContext { draw, hash: Some(draw), avoid: &avoid, attempts: 30, ..PickContext::default() };
        for draw in 0..500 {
            assert_ne!(index(&balancer.pick(&ask(draw)).unwrap()), 1, "{balance:?} with draw {draw}");
        }
    }
    let alone = balancer(ROUND_ROBIN, &set(healthy(0..1)));
    let avoid = alone.hosts();
    let ask = PickContext { avoid: &avoid, attempts: 5, ..PickContext::default() };
    assert!(alone.pick(&ask).is_ok(), "the last choice stands");
}

#[test]
fn priorities_are_left_after_some_tries() {
    let levels = (0..3).map(|level| (level as u32, None, healthy(level * 10..level * 10 + 2)));
    let balancer = balancer(ROUND_ROBIN, &localities(levels));
    let of = |level: usize| balancer.hosts()[level * 2].clone();
    let level = |tried: &[Arc<Host>], after: usize| {
        let ask = PickContext { draw: 7, tried, leave_priorities_after: after, ..PickContext::default() };
        balancer.pick(&ask).unwrap().priority
    };
    assert_eq!(level(&[], 2), 0);
    assert_eq!(level(&[of(0)], 2), 0, "as often as was said");
    assert_eq!(level(&[of(0), of(0)], 2), 1);
    assert_eq!(level(&[of(0), of(0), of(1)], 2), 1);
    assert_eq!(level(&[of(0), of(0), of(1), of(1)], 2), 2);
    assert_eq!(level(&[of(0), of(1), of(2)], 1), 0, "all were left: from the beginning");
    assert_eq!(level(&[of(0), of(0)], 0), 0, "nobody asked for it");
}

#[test]
fn slow_start_spares_the_young() {
    let slow = SlowStart { window: Duration::from_secs(60), aggression: 1.0, minimum_percent: 10.0 };
    let rules = Arc::new(policy(Balance::RoundRobin { slow_start: Some(slow) }));
    let balancer = Balancer::new(rules, &set(healthy(0..2)), 0, Time::ZERO);
    balancer.update(&set(healthy(0..3)), 1, Time::after(Duration::from_secs(100)));
    let share = |seconds| {
        let now = Time::after(Duration::from_secs(seconds));
        let young = (0..30_000)
            .filter(|draw| index(&balancer.pick(&PickContext { now, draw: *draw, ..Default::default() }).unwrap()) == 2)
            .count();
        young as f64 / 30_000.0
    };
    // A tenth of its weight at first: 0.1 / 2.1; half of it in the middle: 0.5 / 2.5.
    assert!((share(100) - 0.1 / 2.1).abs() < 0.01, "{}", share(100));
    assert!((share(130) - 0.2).abs() < 0.01, "{}", share(130));
    assert!((share(160) - 1.0 / 3.0).abs() < 0.01, "{}", share(160));
}

#[test]
fn an_update_keeps_the_state_of_those_that_stay() {
    let balancer = balancer(ROUND_ROBIN, &set(healthy(0..3)));
    let before = balancer.hosts();
    let active = before[1].begin_request();
    let gone = balancer.update(&set(healthy(1..4)), 7, Time::ZERO);
    assert_eq!(gone.iter().map(|host| index(host)).collect::<Vec<_>>(), [0]);
    let after = balancer.hosts();
    assert!(Arc::ptr_eq(&before[1], &after[0]), "an unchanged endpoint is the same host");
    assert_eq!(after[0].state.active_requests(), 1);
    drop(active);
    assert_eq!(balancer.active_requests(), 0);
    // A new weight makes a new host with the old state.
    balancer.update(&set([endpoint(1, 5, Health::Healthy)]), 7, Time::ZERO);
    let heavier = balancer.hosts();
    assert!(Arc::ptr_eq(&heavier[0].state, &after[0].state));
    assert_eq!(heavier[0].endpoint.weight, 5);
}

#[test]
fn a_new_policy_keeps_state_and_what_breakers_count() {
    let mut rules = policy(ROUND_ROBIN);
    rules.limits.max_requests = Some(1);
    let endpoints = set(healthy(0..2));
    let old = Balancer::new(Arc::new(rules), &endpoints, 0, Time::ZERO);
    let active = old.hosts()[0].begin_request();
    let permit = old.breakers().request().unwrap();
    let mut rules = policy(Balance::Random);
    rules.limits.max_requests = Some(2);
    let new = old.successor(Arc::new(rules), &endpoints, 0, Time::ZERO);
    assert_eq!(new.active_requests(), 1);
    let second = new.breakers().request().unwrap();
    assert!(new.breakers().request().is_err());
    drop((active, permit, second));
    assert_eq!(new.breakers().in_use(crate::Resource::Requests), 0);
}

fn owners(balancer: &Balancer, keys: u64) -> HashMap<u64, usize> {
    (0..keys)
        .map(|key| {
            let hash = xxhash_rust::xxh64::xxh64(&key.to_le_bytes(), 0);
            let ask = PickContext { hash: Some(hash), draw: key, ..PickContext::default() };
            (key, index(&balancer.pick(&ask).unwrap()))
        })
        .collect()
}

#[test]
fn hashing_is_consistent_and_weighted() {
    for balance in [RING, MAGLEV] {
        let endpoints =
            set([endpoint(0, 2, Health::Healthy), endpoint(1, 1, Health::Healthy), endpoint(2, 1, Health::Healthy)]);
        let balancer = balancer(balance.clone(), &endpoints);
        let first = owners(&balancer, 20_000);
        assert_eq!(first, owners(&balancer, 20_000), "the same key, the same endpoint");
        let mut shares = BTreeMap::new();
        for owner in first.values() {
            *shares.entry(*owner).or_insert(0) += 1;
        }
        assert_shares(&shares, &[(0, 0.5), (1, 0.25), (2, 0.25)], 0.05);
    }
}

#[test]
fn locality_weights_hold_on_the_ring_too() {
    let endpoints = localities([(0, Some(3), healthy(0..2)), (0, Some(1), healthy(2..3)), (0, Some(0), healthy(3..4))]);
    for balance in [RING, MAGLEV] {
        let mut shares = BTreeMap::new();
        for owner in owners(&balancer(balance, &endpoints), 20_000).values() {
            *shares.entry(*owner).or_insert(0) += 1;
        }
        assert_shares(&shares, &[(0, 0.375), (1, 0.375), (2, 0.25), (3, 0.0)], 0.05);
    }
}

/// Many threads pick while endpoints change: every pick is a member of one of the two sets.
#[test]
fn picks_go_on_while_endpoints_change() {
    let (small, large) = (set(healthy(0..4)), set(healthy(2..40)));
    for balance in [ROUND_ROBIN, LEAST_REQUEST, RING] {
        let balancer = balancer(balance, &small);
        std::thread::scope(|scope| {
            for worker in 0..3u64 {
                let balancer = &balancer;
                scope.spawn(move || {
                    for draw in 0..5_000 {
                        let host = balancer.pick(&PickContext { draw: draw * 3 + worker, ..Default::default() });
                        let _active = host.unwrap().begin_request();
                    }
                });
            }
            for round in 0..50 {
                balancer.update(if round % 2 == 0 { &large } else { &small }, round, Time::ZERO);
            }
        });
        assert_eq!(balancer.active_requests(), 0);
        assert_eq!(balancer.membership().total, 4);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    /// Removing one of n endpoints moves its own keys and few others; its return restores all. A ring of fixed size
    /// has more points for each endpoint once one is gone, so that up to an nth of the other keys may move (Envoy's
    /// rings are the same).
    #[test]
    fn a_lost_endpoint_moves_only_its_own_keys(count in 3usize..12, lost in 0usize..12) {
        let lost = lost % count;
        let all = set(healthy(0..count));
        let fewer = set(healthy((0..count).filter(|index| *index != lost)));
        for (balance, allowed) in [(RING, 1.0 / count as f64 + 0.03), (MAGLEV, 0.08)] {
            let balancer = balancer(balance.clone(), &all);
            let before = owners(&balancer, 2_000);
            balancer.update(&fewer, 0, Time::ZERO);
            let after = owners(&balancer, 2_000);
            let moved = before.iter().filter(|(key, owner)| **owner != lost && after[key] != **owner).count();
            prop_assert!(moved as f64 / 2_000.0 <= allowed, "{balance:?}: {moved} of 2000 keys of {count} moved");
            balancer.update(&all, 0, Time::ZERO);
            prop_assert_eq!(owners(&balancer, 2_000), before);
        }
    }

    /// Every balancer obeys health whatever the mixture, and never fails while somebody is healthy.
    #[test]
    fn only_fit_endpoints_are_chosen(states in prop::collection::vec(0u8..4, 1..20), draw: u64, hash: Option<u64>) {
        let endpoints = set(states.iter().enumerate().map(|(index, state)| {
            let health = [Health::Healthy, Health::Unhealthy, Health::Degraded, Health::Draining][usize::from(*state)];
            endpoint(index, u32::from(*state) * 7 + 1, health)
        }));
        for balance in [ROUND_ROBIN, LEAST_REQUEST, Balance::Random, RING, Balance::Maglev { table_size: 251 }] {
            let mut rules = policy(balance);
            rules.panic_threshold = 0;
            let balancer = Balancer::new(Arc::new(rules), &endpoints, draw, Time::ZERO);
            let picked = balancer.pick(&PickContext { draw, hash, ..PickContext::default() });
            match picked {
                Ok(host) => prop_assert!(matches!(host.endpoint.health, Health::Healthy | Health::Degraded)),
                Err(error) => {
                    prop_assert_eq!(error, NoEndpoint::Unhealthy);
                    prop_assert!(states.iter().all(|state| state % 2 == 1));
                }
            }
        }
    }
}

/// What a pick costs; `cargo test --release -p mizzen-balance -- --ignored --nocapture cost`.
#[test]
#[ignore = "measures, and says nothing in a debug build"]
fn cost_of_a_pick() {
    for (name, balance) in [
        ("round robin", ROUND_ROBIN),
        ("least request", LEAST_REQUEST),
        ("random", Balance::Random),
        ("ring hash", RING),
        ("maglev", MAGLEV),
    ] {
        for (what, weight) in [("equal", 0), ("weighted", 3)] {
            let endpoints = set((0..20).map(|index| endpoint(index, 1 + weight * (index as u32 % 4), Health::Healthy)));
            let balancer = balancer(balance.clone(), &endpoints);
            let picks = 2_000_000u64;
            let start = std::time::Instant::now();
            for draw in 0..picks {
                let ask =
                    PickContext { draw, hash: Some(draw.wrapping_mul(0x9E37_79B9_7F4A_7C15)), ..Default::default() };
                std::hint::black_box(balancer.pick(&ask)).unwrap();
            }
            println!("{name}, {what}: {} ns", start.elapsed().as_nanos() / u128::from(picks));
        }
    }
}
