//! How many connections may be open at once: over all, and from one address, so that no single client shuts out the others.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::run::Limits;

/// Who holds the places. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    limits: Limits,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    of: HashMap<IpAddr, usize>,
}

/// One place, given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    taken: Arc<Mutex<Taken>>,
    address: IpAddr,
}

/// Why there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Full {
    #[error("{0} connections are open, the most there may be")]
    All(usize),
    #[error("{0} connections of this address are open, the most one may have")]
    Address(usize),
}

impl Places {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, taken: Arc::default() }
    }

    /// A place for a client. Addresses of this machine are limited only together with all: what comes from there may stand
    /// for many.
    ///
    /// # Errors
    /// Which limit is reached.
    pub(crate) fn take(&self, address: IpAddr) -> Result<Place, Full> {
        let address = address.to_canonical();
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.all >= self.limits.connections {
            return Err(Full::All(self.limits.connections));
        }
        let most = if address.is_loopback() { usize::MAX } else { self.limits.connections_of_address };
        if taken.of.get(&address).is_some_and(|count| *count >= most) || most == 0 {
            return Err(Full::Address(most));
        }
        taken.all += 1;
        *taken.of.entry(address).or_default() += 1;
        drop(taken);
        Ok(Place { taken: self.taken.clone(), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all = taken.all.saturating_sub(1);
        if let Some(count) = taken.of.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                taken.of.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s32_one_address_cannot_take_all_connections() {
        let places = Places::new(Limits { connections: 5, connections_of_address: 2, streams: 1 });
        let (one, other, local): (IpAddr, IpAddr, IpAddr) =
            ([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), [127, 0, 0, 1].into());
        let held: Vec<_> = (0..2).map(|_| places.take(one).unwrap()).collect();
        assert_eq!(places.take(one).unwrap_err(), Full::Address(2));
        let mapped: IpAddr = "::ffff:10.0.0.1".parse().unwrap();
        assert_eq!(places.take(mapped).unwrap_err(), Full::Address(2), "the same address in other clothes");
        let more: Vec<_> = [other, local, local].map(|address| places.take(address).unwrap()).into();
        assert_eq!(places.take(other).unwrap_err(), Full::All(5));
        drop(held);
        assert!(places.take(one).is_ok(), "given back");
        drop::<Vec<_>>(more);
        assert!(places.taken.lock().unwrap().of.is_empty(), "nothing is kept of those that are gone");
    }
}
