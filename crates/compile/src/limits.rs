//! How much one configuration may ask for. What is beyond is refused, with the limit in the message.

use crate::invalid::{Invalid, Result};

/// Bytes of one resource.
pub(crate) const RESOURCE_BYTES: usize = 16 << 20;
/// Resources of one type.
pub(crate) const RESOURCES: usize = 100_000;
pub(crate) const CHAINS: usize = 10_000;
pub(crate) const VIRTUAL_HOSTS: usize = 100_000;
pub(crate) const DOMAINS: usize = 10_000;
pub(crate) const ROUTES: usize = 100_000;
pub(crate) const CONDITIONS: usize = 100;
pub(crate) const CLUSTERS_PER_ROUTE: usize = 1_000;
pub(crate) const ENDPOINTS: usize = 100_000;
/// Header edits of one list.
pub(crate) const EDITS: usize = 1_000;
/// Characters of an expression; Istio allows 1024.
pub(crate) const REGEX_CHARACTERS: usize = 4096;
/// Bytes of a compiled expression.
pub(crate) const REGEX_BYTES: usize = 1 << 20;
/// Bytes that the lazily built automaton of an expression may take.
pub(crate) const REGEX_CACHE_BYTES: usize = 256 << 10;

pub(crate) fn count(what: &str, count: usize, limit: usize) -> Result<()> {
    if count > limit {
        return Err(Invalid::new(format!("{count} {what} are more than the {limit} that are allowed")));
    }
    Ok(())
}
