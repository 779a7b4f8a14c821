//! An endpoint set in the form in which picks are made from it. Immutable but for its round-robin counters.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use mizzen_snapshot::cluster::{Balance, ClusterPolicy, EndpointAddress, EndpointSet, SlowStart};

use crate::balancer::PickContext;
use crate::draw::Draws;
use crate::endpoint::{Availability, EndpointState, Host};
use crate::maglev::Maglev;
use crate::priority::{Census, Loads};
use crate::ring::{HashHost, Ring};
use crate::schedule::Schedule;
use crate::time::Time;

#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) source: Arc<EndpointSet>,
    pub(crate) hosts: Vec<Arc<Host>>,
    levels: Vec<Level>,
    loads: Loads,
    /// One priority takes everything: nothing to draw.
    single: bool,
    slow_start: Option<SlowStart>,
    /// When the youngest endpoint leaves slow start.
    slow_start_end: Time,
    seed: u64,
}

/// One priority.
#[derive(Debug)]
struct Level {
    healthy: Choice,
    degraded: Choice,
}

#[derive(Debug)]
enum Choice {
    Nobody,
    Hosts(Group),
    Localities { schedule: Schedule, groups: Vec<Group> },
}

#[derive(Debug)]
struct Group {
    hosts: Box<[Arc<Host>]>,
    way: Way,
}

#[derive(Debug)]
enum Way {
    RoundRobin(Schedule),
    LeastRequest { choices: u32, schedule: Schedule },
    Random,
    Ring(Ring),
    Maglev(Maglev),
}

/// The endpoints of one locality that may be chosen, with the locality's weight if it has any.
struct Neighbours {
    hosts: Vec<Arc<Host>>,
    total: usize,
    weight: Option<u32>,
}

impl Compiled {
    /// Compiles `source`, taking over the state of hosts that `previous` has already.
    pub(crate) fn new(
        policy: &ClusterPolicy,
        source: &Arc<EndpointSet>,
        previous: &[Arc<Host>],
        seed: u64,
        now: Time,
    ) -> Self {
        let known: HashMap<&EndpointAddress, &Arc<Host>> =
            previous.iter().map(|host| (&host.endpoint.address, host)).collect();
        let mut joined: HashMap<&EndpointAddress, Arc<EndpointState>> = HashMap::new();
        let mut hosts = Vec::new();
        for locality in &source.localities {
            let name = Arc::new(locality.locality.clone());
            for endpoint in &locality.endpoints {
                let before = known.get(&endpoint.address);
                if let Some(host) = before
                    && host.priority == locality.priority
                    && host.endpoint == *endpoint
                    && host.locality == name
                {
                    hosts.push(Arc::clone(host));
                    continue;
                }
                // The same address twice in one set is one endpoint with one state.
                let state = match before {
                    Some(host) => Arc::clone(&host.state),
                    None => Arc::clone(
                        joined.entry(&endpoint.address).or_insert_with(|| Arc::new(EndpointState::joined_at(now))),
                    ),
                };
                hosts.push(Arc::new(Host {
                    endpoint: Arc::clone(endpoint),
                    state,
                    priority: locality.priority,
                    locality: Arc::clone(&name),
                }));
            }
        }
        Self::arrange(policy, Arc::clone(source), hosts, seed)
    }

    /// The same hosts after a change of their health.
    pub(crate) fn rearranged(&self, policy: &ClusterPolicy) -> Self {
        let seed = Draws::new(self.seed).next();
        Self::arrange(policy, Arc::clone(&self.source), self.hosts.clone(), seed)
    }

    fn arrange(policy: &ClusterPolicy, source: Arc<EndpointSet>, hosts: Vec<Arc<Host>>, seed: u64) -> Self {
        let mut priorities: Vec<u32> = source.localities.iter().map(|locality| locality.priority).collect();
        priorities.sort_unstable();
        priorities.dedup();
        let census: Vec<Census> = priorities.iter().map(|priority| census(&hosts, *priority)).collect();
        // The protobuf default of an unset factor is 140.
        let overprovisioning = if source.overprovisioning == 0 { 140 } else { source.overprovisioning };
        let loads = Loads::new(&census, overprovisioning, policy.panic_threshold);
        let mut draws = Draws::new(seed);
        let levels = priorities
            .iter()
            .enumerate()
            .map(|(level, priority)| {
                let mut choice = |wanted: &[Availability], weighted: bool| {
                    let neighbours = neighbours(&source, &hosts, *priority, wanted);
                    Choice::new(&policy.balance, neighbours, weighted, overprovisioning, draws.next())
                };
                if loads.panic[level] {
                    let everyone = [Availability::Healthy, Availability::Degraded, Availability::Unavailable];
                    Level { healthy: choice(&everyone, false), degraded: Choice::Nobody }
                } else {
                    Level {
                        healthy: choice(&[Availability::Healthy], policy.locality_weighted),
                        degraded: choice(&[Availability::Degraded], policy.locality_weighted),
                    }
                }
            })
            .collect();
        let slow_start = match &policy.balance {
            Balance::RoundRobin { slow_start } | Balance::LeastRequest { slow_start, .. } => *slow_start,
            _ => None,
        };
        let youngest = hosts.iter().map(|host| host.state.joined.load(Relaxed)).max().unwrap_or(0);
        Self {
            single: loads.healthy.first() == Some(&100),
            slow_start_end: slow_start.map_or(Time::ZERO, |slow| Time::from_nanos(youngest) + slow.window),
            slow_start,
            source,
            hosts,
            levels,
            loads,
            seed,
        }
    }

    /// One host; `attempt` counts those that were not wanted before.
    pub(crate) fn choose(&self, ask: &PickContext<'_>, draws: &mut Draws, attempt: u32) -> Option<&Arc<Host>> {
        let others = self.other_priorities(ask);
        let (level, degraded) = if let Some(loads) = others {
            let (level, degraded) = loads.choose(ask.hash.unwrap_or_else(|| draws.next()));
            (self.levels.get(level)?, degraded)
        } else if self.single {
            (self.levels.first()?, false)
        } else {
            let (level, degraded) = self.loads.choose(ask.hash.unwrap_or_else(|| draws.next()));
            (self.levels.get(level)?, degraded)
        };
        let group = match if degraded { &level.degraded } else { &level.healthy } {
            Choice::Nobody => return None,
            Choice::Hosts(group) => group,
            Choice::Localities { schedule, groups } => &groups[schedule.next()],
        };
        if ask.now >= self.slow_start_end {
            return group.choose(ask, draws, attempt);
        }
        // Young endpoints are passed over in proportion to what they still lack; bounded, in case all are young.
        let mut chosen = None;
        for _ in 0..8 {
            chosen = group.choose(ask, draws, attempt);
            let Some(host) = chosen else { break };
            if draws.unit() < self.ripeness(host, ask.now) {
                break;
            }
        }
        chosen
    }

    /// How the priorities share requests when those that were tried often enough are left out. When nobody is left,
    /// all take part again.
    fn other_priorities(&self, ask: &PickContext<'_>) -> Option<Loads> {
        if ask.leave_priorities_after == 0 {
            return None;
        }
        let mut left: u128 = 0;
        for tries in ask.tried.chunks_exact(ask.leave_priorities_after) {
            tries.iter().for_each(|host| left |= 1_u128.checked_shl(host.priority).unwrap_or(0));
            if self.loads.available_without(left) == 0 {
                left = 0;
            }
        }
        (left != 0).then(|| self.loads.without(left))
    }

    /// The share of its weight that an endpoint is given in slow start.
    fn ripeness(&self, host: &Host, now: Time) -> f64 {
        let Some(slow) = &self.slow_start else { return 1.0 };
        let age = now.since(Time::from_nanos(host.state.joined.load(Relaxed)));
        if age >= slow.window {
            return 1.0;
        }
        let share = age.as_secs_f64().max(1e-9) / slow.window.as_secs_f64();
        let aggression = if slow.aggression > 0.0 { slow.aggression } else { 1.0 };
        share.powf(1.0 / aggression).max(slow.minimum_percent / 100.0)
    }
}

impl Choice {
    fn new(balance: &Balance, localities: Vec<Neighbours>, weighted: bool, overprovisioning: u32, seed: u64) -> Self {
        if localities.iter().all(|locality| locality.hosts.is_empty()) {
            return Self::Nobody;
        }
        let weighted = weighted && localities.iter().any(|locality| locality.weight.unwrap_or(0) > 0);
        let hashed = matches!(balance, Balance::RingHash { .. } | Balance::Maglev { .. });
        if !weighted || hashed {
            return Self::Hosts(Group::new(balance, localities, weighted, seed));
        }
        let mut weights = Vec::new();
        let mut groups = Vec::new();
        for locality in localities {
            let weight = locality.weight.unwrap_or(0);
            if locality.hosts.is_empty() || weight == 0 {
                continue;
            }
            // A locality with too few healthy endpoints gets less, in thousandths of its weight.
            let fit =
                (f64::from(overprovisioning) / 100.0 * locality.hosts.len() as f64 / locality.total as f64).min(1.0);
            weights.push((f64::from(weight) * fit * 1000.0).clamp(1.0, f64::from(u32::MAX)) as u32);
            groups.push(Group::new(balance, vec![locality], false, seed));
        }
        match groups.len() {
            0 => Self::Nobody,
            1 => groups.pop().map_or(Self::Nobody, Self::Hosts),
            _ => Self::Localities { schedule: Schedule::new(&weights, seed), groups },
        }
    }
}

impl Group {
    fn new(balance: &Balance, localities: Vec<Neighbours>, weighted: bool, seed: u64) -> Self {
        let hash_hosts = || hash_hosts(&localities, weighted);
        let weights: Vec<u32> =
            localities.iter().flat_map(|locality| &locality.hosts).map(|host| host.endpoint.weight).collect();
        let way = match balance {
            Balance::RoundRobin { .. } | Balance::ClusterProvided => Way::RoundRobin(Schedule::new(&weights, seed)),
            Balance::LeastRequest { choices, .. } => {
                Way::LeastRequest { choices: (*choices).clamp(1, 32), schedule: Schedule::new(&weights, seed) }
            }
            Balance::Random => Way::Random,
            Balance::RingHash { minimum, maximum } => Way::Ring(Ring::new(&hash_hosts(), *minimum, *maximum)),
            Balance::Maglev { table_size } => Way::Maglev(Maglev::new(&hash_hosts(), *table_size)),
        };
        let hosts = match &way {
            // Locality weights of zero are left out of hash tables, so indexes must be too.
            Way::Ring(_) | Way::Maglev(_) => {
                localities.into_iter().filter(|locality| in_hash(locality, weighted)).flat_map(|l| l.hosts).collect()
            }
            _ => localities.into_iter().flat_map(|locality| locality.hosts).collect(),
        };
        Self { hosts, way }
    }

    fn choose(&self, ask: &PickContext<'_>, draws: &mut Draws, attempt: u32) -> Option<&Arc<Host>> {
        let count = self.hosts.len() as u64;
        let index = match &self.way {
            _ if count == 1 => 0,
            Way::RoundRobin(schedule) => schedule.next(),
            Way::LeastRequest { choices, schedule } if schedule.is_equal() => {
                let mut best = draws.below(count) as usize;
                let mut fewest = self.hosts[best].state.active_requests();
                for _ in 1..*choices {
                    let other = draws.below(count) as usize;
                    let active = self.hosts[other].state.active_requests();
                    if active < fewest {
                        (best, fewest) = (other, active);
                    }
                }
                best
            }
            Way::LeastRequest { schedule, .. } => self.by_weight_and_load(schedule, draws),
            Way::Random => draws.below(count) as usize,
            Way::Ring(ring) => ring.choose(ask.hash.unwrap_or_else(|| draws.next()), attempt)?,
            Way::Maglev(maglev) => maglev.choose(ask.hash.unwrap_or_else(|| draws.next()), attempt)?,
        };
        self.hosts.get(index)
    }

    /// One host with a chance of weight / (active requests + 1), which is how Envoy weighs them. Of few hosts exactly;
    /// of many by a draw among some candidates that come by weight, which is close and costs the same for any number.
    fn by_weight_and_load(&self, schedule: &Schedule, draws: &mut Draws) -> usize {
        const EXACT: usize = 16;
        const CANDIDATES: usize = 4;
        let idleness = |index: usize| 1.0 / (f64::from(self.hosts[index].state.active_requests()) + 1.0);
        let mut candidates = [(0, 0.0); EXACT];
        let count = if self.hosts.len() <= EXACT {
            for (index, host) in self.hosts.iter().enumerate() {
                candidates[index] = (index, f64::from(host.endpoint.weight.max(1)) * idleness(index));
            }
            self.hosts.len()
        } else {
            for candidate in &mut candidates[..CANDIDATES] {
                let index = schedule.next();
                *candidate = (index, idleness(index));
            }
            CANDIDATES
        };
        let candidates = &candidates[..count];
        let mut at = draws.unit() * candidates.iter().map(|(_, chance)| chance).sum::<f64>();
        for (index, chance) in candidates {
            at -= chance;
            if at < 0.0 {
                return *index;
            }
        }
        candidates.last().map_or(0, |(index, _)| *index)
    }
}

fn census(hosts: &[Arc<Host>], priority: u32) -> Census {
    let mut census = Census::default();
    for host in hosts.iter().filter(|host| host.priority == priority) {
        census.total += 1;
        match host.availability() {
            Availability::Healthy => census.healthy += 1,
            Availability::Degraded => census.degraded += 1,
            Availability::Unavailable => {}
        }
    }
    census
}

fn neighbours(source: &EndpointSet, hosts: &[Arc<Host>], priority: u32, wanted: &[Availability]) -> Vec<Neighbours> {
    // `hosts` is in the order of `source`, locality by locality.
    let mut rest = hosts;
    let mut found = Vec::new();
    for locality in &source.localities {
        let (here, others) = rest.split_at(locality.endpoints.len().min(rest.len()));
        rest = others;
        if locality.priority == priority {
            let hosts = here.iter().filter(|host| wanted.contains(&host.availability())).cloned().collect();
            found.push(Neighbours { hosts, total: here.len(), weight: locality.weight });
        }
    }
    found
}

fn in_hash(locality: &Neighbours, weighted: bool) -> bool {
    !locality.hosts.is_empty() && (!weighted || locality.weight.unwrap_or(0) > 0)
}

fn hash_hosts(localities: &[Neighbours], weighted: bool) -> Vec<HashHost> {
    let members: Vec<&Neighbours> = localities.iter().filter(|locality| in_hash(locality, weighted)).collect();
    let weight_of = |host: &Host| f64::from(host.endpoint.weight.max(1));
    let sum_of = |locality: &Neighbours| locality.hosts.iter().map(|host| weight_of(host)).sum::<f64>();
    let locality_weight =
        |locality: &Neighbours| if weighted { f64::from(locality.weight.unwrap_or(0)) } else { sum_of(locality) };
    let total: f64 = members.iter().map(|locality| locality_weight(locality)).sum();
    members
        .iter()
        .flat_map(|locality| {
            let share = locality_weight(locality) / total / sum_of(locality);
            locality.hosts.iter().map(move |host| HashHost {
                key: address_text(&host.endpoint.address),
                share: share * f64::from(host.endpoint.weight.max(1)),
            })
        })
        .collect()
}

/// The address as Envoy prints it, which is what it hashes.
pub(crate) fn address_text(address: &EndpointAddress) -> String {
    match address {
        EndpointAddress::Socket(address) => address.to_string(),
        EndpointAddress::Name { host, port } => format!("{host}:{port}"),
        EndpointAddress::Pipe(path) => path.display().to_string(),
    }
}
