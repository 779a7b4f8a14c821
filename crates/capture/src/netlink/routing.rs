//! Addresses, rules and routes that catching needs (`linux/rtnetlink.h`, `linux/fib_rules.h`).

use std::net::IpAddr;

use netlink_sys::protocols::NETLINK_ROUTE;
use rustix::io::Errno;

use super::{Messages, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, Refused};
use crate::rules::{Family, Routing};

const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_NEWRULE: u16 = 32;
const RTM_DELRULE: u16 = 33;
/// The loopback interface is the first of every network namespace.
const LOOPBACK: u32 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_F_NODAD: u8 = 0x02;
const FRA_FWMARK: u16 = 10;
const FRA_TABLE: u16 = 15;
const FR_ACT_TO_TBL: u8 = 1;
const RTA_OIF: u16 = 4;
const RTA_TABLE: u16 = 15;
const RTPROT_BOOT: u8 = 3;
const RT_SCOPE_HOST: u8 = 254;
const RTN_LOCAL: u8 = 2;

/// Makes it so; what is there already is left.
pub(crate) fn apply(routing: &[Routing]) -> Result<(), Refused> {
    each(routing, true, Errno::EXIST)
}

/// Takes it away; what is not there is no error.
pub(crate) fn clean(routing: &[Routing]) -> Result<(), Refused> {
    each(routing, false, Errno::NOENT)
}

fn each(routing: &[Routing], add: bool, fine: Errno) -> Result<(), Refused> {
    let fine = [fine, Errno::SRCH, Errno::ADDRNOTAVAIL].map(|errno| errno.raw_os_error());
    for part in routing {
        for message in messages(part, add) {
            match message.send(NETLINK_ROUTE) {
                Err(refused) if refused.error.raw_os_error().is_some_and(|code| fine.contains(&code)) => {}
                result => result?,
            }
        }
    }
    Ok(())
}

fn messages(part: &Routing, add: bool) -> Vec<Messages> {
    let one = |name: String, kind: (u16, u16), new: u16, fixed: &[u8], fill: &dyn Fn(&mut super::Attributes<'_>)| {
        let mut messages = Messages::default();
        let (kind, flags) = if add { (kind.0, new | NLM_F_CREATE) } else { (kind.1, 0) };
        messages.add(name, kind, flags, fixed, fill);
        messages.acknowledge();
        messages
    };
    match part {
        Routing::LoopbackAddress(address) => {
            let octets = match address {
                IpAddr::V4(address) => address.octets().to_vec(),
                IpAddr::V6(address) => address.octets().to_vec(),
            };
            let mut fixed = vec![number(Family::of(*address)), (octets.len() * 8) as u8, IFA_F_NODAD, RT_SCOPE_HOST];
            fixed.extend(LOOPBACK.to_ne_bytes());
            let name = format!("address {address} on lo");
            vec![one(name, (RTM_NEWADDR, RTM_DELADDR), NLM_F_EXCL, &fixed, &|attributes| {
                attributes.bytes(IFA_LOCAL, &octets);
                attributes.bytes(IFA_ADDRESS, &octets);
            })]
        }
        Routing::LocalByMark { family, mark, table } => {
            // Large numbers of tables stand in an attribute.
            let short = u8::try_from(*table).unwrap_or(0);
            let rule = [number(*family), 0, 0, 0, short, 0, 0, FR_ACT_TO_TBL, 0, 0, 0, 0];
            let route = [number(*family), 0, 0, 0, short, RTPROT_BOOT, RT_SCOPE_HOST, RTN_LOCAL, 0, 0, 0, 0];
            let route_kind = (RTM_NEWROUTE, RTM_DELROUTE);
            vec![
                one(format!("local route in table {table}"), route_kind, NLM_F_REPLACE, &route, &|attributes| {
                    attributes.ne32(RTA_TABLE, *table);
                    attributes.ne32(RTA_OIF, LOOPBACK);
                }),
                one(format!("rule for mark {mark}"), (RTM_NEWRULE, RTM_DELRULE), NLM_F_EXCL, &rule, &|attributes| {
                    attributes.ne32(FRA_TABLE, *table);
                    attributes.ne32(FRA_FWMARK, *mark);
                }),
            ]
        }
    }
}

fn number(family: Family) -> u8 {
    match family {
        Family::V4 => 2,
        Family::V6 => 10,
    }
}
