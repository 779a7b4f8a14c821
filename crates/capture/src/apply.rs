//! Putting rules in force in the network namespace that we are in.

use std::io;

use crate::iptables::{self, IptablesError};
use crate::netlink::{Refused, firewall, routing};
use crate::options::Options;
use crate::rules::{Routing, RuleSet};

/// What holds the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// The kernel's `nf_tables`, spoken to directly.
    Nftables,
    /// The programs `iptables-restore` and `ip6tables-restore`.
    Iptables,
}

/// Why the rules are not in force.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error(
        "not permitted to change the kernel's rules ({what}); run it as root, and in a container with the capabilities \
         NET_ADMIN and NET_RAW"
    )]
    NotPermitted { what: String },
    #[error("the kernel refused the {what}: {error}")]
    Refused { what: String, error: io::Error },
    #[error(
        "the kernel cannot hold the rules in nf_tables ({what}: {error}), and {iptables}; load the modules nf_tables, \
         nft_chain_nat and nft_redir on the node, or put iptables into the image"
    )]
    NoBackend { what: String, error: io::Error, iptables: IptablesError },
    #[error(transparent)]
    Iptables(#[from] IptablesError),
}

/// Puts the rules in force, in place of those of an earlier run. `wanted` leaves no choice of the backend.
pub fn apply(rules: &RuleSet, wanted: Option<Backend>) -> Result<Backend, ApplyError> {
    let used = match wanted {
        Some(Backend::Iptables) => {
            iptables::apply(rules)?;
            Backend::Iptables
        }
        Some(Backend::Nftables) => {
            firewall::apply(rules).map_err(refused)?;
            Backend::Nftables
        }
        None => match firewall::apply(rules) {
            Ok(()) => Backend::Nftables,
            Err(missing) if firewall::is_missing(&missing) => {
                let Refused { what, error } = missing;
                iptables::apply(rules).map_err(|iptables| ApplyError::NoBackend { what, error, iptables })?;
                Backend::Iptables
            }
            Err(other) => return Err(refused(other)),
        },
    };
    routing::apply(&rules.routing).map_err(refused)?;
    Ok(used)
}

/// Takes away what [`apply`] set, with either backend.
pub fn clean(options: &Options) -> Result<(), ApplyError> {
    match firewall::clean() {
        Err(missing) if firewall::is_missing(&missing) => {}
        result => result.map_err(refused)?,
    }
    iptables::clean()?;
    let mut tproxy = options.clone();
    tproxy.interception = crate::options::Interception::Tproxy;
    tproxy.inbound_ports = crate::options::Ports::All;
    let marked = |routing: &Routing| matches!(routing, Routing::LocalByMark { .. });
    // The loopback address is left: others may use it by now, and alone it does nothing.
    let routing: Vec<Routing> = crate::rules::plan(&tproxy).routing.into_iter().filter(marked).collect();
    routing::clean(&routing).map_err(refused)
}

/// Whether this network namespace has IPv6 at all.
pub fn has_ipv6() -> bool {
    std::fs::read_to_string("/proc/sys/net/ipv6/conf/lo/disable_ipv6").is_ok_and(|text| text.trim() == "0")
}

fn refused(Refused { what, error }: Refused) -> ApplyError {
    if error.kind() == io::ErrorKind::PermissionDenied {
        ApplyError::NotPermitted { what }
    } else {
        ApplyError::Refused { what, error }
    }
}
