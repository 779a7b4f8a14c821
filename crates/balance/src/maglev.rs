//! Consistent hashing by lookup table, filled as Envoy's `MAGLEV` fills it.

use xxhash_rust::xxh64::xxh64;

use crate::ring::HashHost;

/// One host index for each remainder of a hash.
#[derive(Debug)]
pub(crate) struct Maglev {
    table: Box<[u32]>,
}

const FREE: u32 = u32::MAX;

impl Maglev {
    /// `size` is a prime (Envoy: 65537 by default).
    pub(crate) fn new(hosts: &[HashHost], size: u64) -> Self {
        let size = size.max(2);
        if hosts.is_empty() {
            return Self { table: Box::default() };
        }
        struct Turn {
            offset: u64,
            skip: u64,
            next: u64,
            target: f64,
        }
        let mut turns: Vec<Turn> = hosts
            .iter()
            .map(|host| Turn {
                offset: xxh64(host.key.as_bytes(), 0) % size,
                skip: xxh64(host.key.as_bytes(), 1) % (size - 1) + 1,
                next: 0,
                target: 0.0,
            })
            .collect();
        let heaviest = hosts.iter().map(|host| host.share).fold(0.0, f64::max);
        let mut table = vec![FREE; size as usize].into_boxed_slice();
        let mut filled = 0;
        let mut round = 1.0;
        while filled < size {
            for (index, (host, turn)) in hosts.iter().zip(&mut turns).enumerate() {
                if filled >= size {
                    break;
                }
                // Lighter hosts sit out the rounds that their weight does not pay for.
                if round * host.share < turn.target {
                    continue;
                }
                turn.target += heaviest;
                // A permutation of the table when its size is prime; bounded in any case.
                for _ in 0..size {
                    let slot = ((turn.offset + turn.skip.wrapping_mul(turn.next)) % size) as usize;
                    turn.next += 1;
                    if table[slot] == FREE {
                        table[slot] = index as u32;
                        filled += 1;
                        break;
                    }
                }
            }
            round += 1.0;
            if round > size as f64 * 2.0 {
                break;
            }
        }
        // Only a size that is not prime can leave slots free.
        let count = hosts.len() as u32;
        for (slot, host) in table.iter_mut().enumerate().filter(|(_, host)| **host == FREE) {
            *host = slot as u32 % count;
        }
        Self { table }
    }

    pub(crate) fn choose(&self, hash: u64, attempt: u32) -> Option<usize> {
        let hash = if attempt > 0 { hash ^ (!0 - u64::from(attempt) + 1) } else { hash };
        let size = self.table.len() as u64;
        (size > 0).then(|| self.table[(hash % size) as usize] as usize)
    }
}
