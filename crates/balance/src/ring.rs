//! Consistent hashing on a ring, point for point as Envoy's `RING_HASH` builds it.

use xxhash_rust::xxh64::xxh64;

/// Envoy's upper limit of a ring; larger wishes are cut, because a ring costs 16 bytes for each point.
const MAX_POINTS: u64 = 8 * 1024 * 1024;

/// Points on the ring, sorted, each with the index of its host.
#[derive(Debug)]
pub(crate) struct Ring {
    points: Box<[(u64, u32)]>,
}

/// A host as hash tables see it.
#[derive(Debug, Clone)]
pub(crate) struct HashHost {
    /// What is hashed: the address as text.
    pub(crate) key: String,
    /// Share of all traffic; the sum over all hosts is 1.
    pub(crate) share: f64,
}

impl Ring {
    /// `minimum` and `maximum` number of points, as far as weights allow.
    pub(crate) fn new(hosts: &[HashHost], minimum: u64, maximum: u64) -> Self {
        let smallest = hosts.iter().map(|host| host.share).fold(1.0, f64::min);
        // Scaled so that the lightest host has a whole number of points.
        let scale = ((smallest * minimum as f64).ceil() / smallest).min(maximum.clamp(1, MAX_POINTS) as f64);
        let mut points = Vec::with_capacity(if scale.is_finite() { scale.ceil() as usize } else { 0 });
        let (mut made, mut target) = (0.0, 0.0);
        let mut key = String::new();
        for (index, host) in hosts.iter().enumerate() {
            target += scale * host.share;
            let mut replica = 0u64;
            while made < target {
                key.clear();
                key.push_str(&host.key);
                key.push('_');
                key.push_str(&replica.to_string());
                points.push((xxh64(key.as_bytes(), 0), index as u32));
                replica += 1;
                made += 1.0;
            }
        }
        points.sort_unstable();
        Self { points: points.into() }
    }

    /// The host for `hash`. With `attempt` above 0, one a few points further on.
    pub(crate) fn choose(&self, hash: u64, attempt: u32) -> Option<usize> {
        let count = self.points.len();
        let at = self.points.partition_point(|(point, _)| *point < hash);
        let at = (at % count.max(1) + attempt as usize) % count.max(1);
        self.points.get(at).map(|(_, host)| *host as usize)
    }
}
