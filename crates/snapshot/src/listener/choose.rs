//! The choice of a filter chain.
//!
//! Envoy goes through the kinds of condition in a fixed order and at each takes the most specific value that some chain
//! asks for; it never comes back to a less specific one when later conditions then fail (`FilterChainManagerImpl`).
//! So a chain for port 443 that wants another server name hides all chains without a port.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::{ChainMatch, ConnectionFacts, FilterChain, Listener};

impl Listener {
    /// The chain for a connection, or `None`: the connection is closed.
    pub fn choose(&self, facts: &ConnectionFacts<'_>) -> Option<&Arc<FilterChain>> {
        self.chosen(facts).or(self.default_chain.as_ref())
    }

    fn chosen(&self, facts: &ConnectionFacts<'_>) -> Option<&Arc<FilterChain>> {
        let mut left: Vec<&Arc<FilterChain>> = self.chains.iter().collect();
        let destination = facts.destination.ip();
        keep_best(&mut left, |matches| choice(matches.destination_port, facts.destination.port()));
        keep_best(&mut left, |matches| longest_prefix(&matches.destination, destination));
        keep_best(&mut left, |matches| server_name(&matches.server_names, facts.server_name));
        keep_best(&mut left, |matches| choice(matches.transport, facts.transport));
        keep_best(&mut left, |matches| application_protocol(&matches.application_protocols, facts));
        keep_best(&mut left, |matches| longest_prefix(&matches.direct_source, facts.direct_source));
        let local = facts.source.ip().is_loopback() || facts.source.ip() == destination;
        keep_best(&mut left, |matches| choice(matches.same_ip_or_loopback, local));
        keep_best(&mut left, |matches| longest_prefix(&matches.source, facts.source.ip()));
        keep_best(&mut left, |matches| source_port(&matches.source_ports, facts.source.port()));
        left.first().copied()
    }
}

/// Keeps the chains whose condition fits best; chains for which it does not hold (`None`) go.
fn keep_best(chains: &mut Vec<&Arc<FilterChain>>, fit: impl Fn(&ChainMatch) -> Option<usize>) {
    let best = chains.iter().filter_map(|chain| fit(&chain.matches)).max();
    chains.retain(|chain| best.is_some() && fit(&chain.matches) == best);
}

/// No condition fits, and fits worse than the right value.
fn choice<T: PartialEq>(wanted: Option<T>, actual: T) -> Option<usize> {
    match wanted {
        None => Some(0),
        Some(wanted) if wanted == actual => Some(1),
        Some(_) => None,
    }
}

/// `None` when no network has the address; no networks at all count as `0.0.0.0/0`.
fn longest_prefix(networks: &[IpNet], address: IpAddr) -> Option<usize> {
    if networks.is_empty() {
        return Some(0);
    }
    let containing = networks.iter().filter(|network| network.contains(&address));
    containing.map(|network| usize::from(network.prefix_len())).max()
}

/// An exact name fits best, then the longest `*.suffix`.
fn server_name(wanted: &[String], actual: Option<&str>) -> Option<usize> {
    if wanted.is_empty() {
        return Some(0);
    }
    let actual = actual?;
    let fits = |wanted: &String| {
        if wanted.eq_ignore_ascii_case(actual) {
            return Some(usize::MAX);
        }
        let suffix = wanted.strip_prefix('*')?;
        let start = actual.len().checked_sub(suffix.len()).filter(|start| *start > 0)?;
        actual.get(start..)?.eq_ignore_ascii_case(suffix).then_some(suffix.len())
    };
    wanted.iter().filter_map(fits).max()
}

/// The client's first protocol that a chain asks for wins, whatever the order of the chain's list.
fn application_protocol(wanted: &[String], facts: &ConnectionFacts<'_>) -> Option<usize> {
    if wanted.is_empty() {
        return Some(0);
    }
    let offered = facts.application_protocols;
    let place = offered.iter().position(|offer| wanted.iter().any(|wanted| wanted == offer))?;
    Some(offered.len() - place)
}

fn source_port(wanted: &[u16], actual: u16) -> Option<usize> {
    match wanted {
        [] => Some(0),
        wanted => wanted.contains(&actual).then_some(1),
    }
}

#[cfg(test)]
mod tests;
