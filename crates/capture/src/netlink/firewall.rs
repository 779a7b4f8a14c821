//! Rules as `nf_tables` messages: one batch that is done whole or not at all.
//!
//! Names of constants are those of `linux/netfilter/nf_tables.h`.

use ipnet::IpNet;
use netlink_sys::protocols::NETLINK_NETFILTER;

use super::{Attributes, Messages, NLM_F_APPEND, NLM_F_CREATE, Refused};
use crate::rules::{Action, Chain, Condition, Family, Hook, Rule, RuleSet, TABLE, Table, Transport};

const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;
const NFT_MSG_NEWTABLE: u16 = 0;
const NFT_MSG_DELTABLE: u16 = 2;
const NFT_MSG_NEWCHAIN: u16 = 3;
const NFT_MSG_NEWRULE: u16 = 6;

const NFTA_TABLE_NAME: u16 = 1;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_POLICY: u16 = 5;
const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_HOOK_PRIORITY: u16 = 2;
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_RULE_USERDATA: u16 = 7;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NFTA_VERDICT_CHAIN: u16 = 2;

const NF_INET_PRE_ROUTING: u32 = 0;
const NF_INET_LOCAL_OUT: u32 = 3;
const NF_DROP: i32 = 0;
const NF_ACCEPT: i32 = 1;
const NFT_JUMP: i32 = -3;
const NFT_RETURN: i32 = -5;

const NFT_REG_VERDICT: u32 = 0;
/// The one register that is used: sixteen bytes, enough for an IPv6 address or an interface name.
const NFT_REG_1: u32 = 1;
const NFT_CMP_EQ: u32 = 0;
const NFT_CMP_NEQ: u32 = 1;
const NFT_META_MARK: u32 = 3;
const NFT_META_IIFNAME: u32 = 6;
const NFT_META_OIFNAME: u32 = 7;
const NFT_META_SKUID: u32 = 10;
const NFT_META_SKGID: u32 = 11;
const NFT_META_L4PROTO: u32 = 16;
const NFT_CT_STATE: u32 = 0;
const NFT_CT_MARK: u32 = 3;
const NFT_CT_ZONE: u32 = 17;
const NFT_PAYLOAD_NETWORK_HEADER: u32 = 1;
const NFT_PAYLOAD_TRANSPORT_HEADER: u32 = 2;
/// Bits of the state of a connection.
const STATE_INVALID: u32 = 1;
const STATE_ESTABLISHED: u32 = 2;
const STATE_RELATED: u32 = 4;

/// Replaces our tables by these, all at once.
pub(crate) fn apply(rules: &RuleSet) -> Result<(), Refused> {
    let mut batch = Batch::begin();
    for table in &rules.tables {
        batch.remove(table.family);
        batch.add(table);
    }
    batch.send()
}

/// Takes our tables away.
pub(crate) fn clean() -> Result<(), Refused> {
    for family in Family::ALL {
        let mut batch = Batch::begin();
        batch.remove(family);
        match batch.send() {
            // A kernel without IPv6 has no such table either.
            Err(refused) if family == Family::V6 && is_missing(&refused) => {}
            result => result?,
        }
    }
    Ok(())
}

/// Whether the kernel lacks what was asked for.
pub(crate) fn is_missing(refused: &Refused) -> bool {
    use rustix::io::Errno;
    let code = refused.error.raw_os_error();
    let missing = [Errno::AFNOSUPPORT, Errno::OPNOTSUPP, Errno::PROTONOSUPPORT, Errno::NOENT];
    missing.iter().any(|errno| code == Some(errno.raw_os_error()))
}

struct Batch(Messages);

impl Batch {
    fn begin() -> Self {
        let mut messages = Messages::default();
        messages.add("nf_tables", NFNL_MSG_BATCH_BEGIN, 0, &nfgenmsg(0, NFNL_SUBSYS_NFTABLES), |_| {});
        Self(messages)
    }

    /// Also where there is none: it is made first, so that there is something to delete.
    fn remove(&mut self, family: Family) {
        self.table(family, NFT_MSG_NEWTABLE);
        self.table(family, NFT_MSG_DELTABLE);
    }

    fn table(&mut self, family: Family, kind: u16) {
        let name = format!("table {} {TABLE}", family.keyword());
        self.0.add(name, message(kind), NLM_F_CREATE, &nfgenmsg(number(family), 0), |attributes| {
            attributes.text(NFTA_TABLE_NAME, TABLE);
        });
    }

    fn add(&mut self, table: &Table) {
        self.table(table.family, NFT_MSG_NEWTABLE);
        let fixed = nfgenmsg(number(table.family), 0);
        for chain in &table.chains {
            let name = format!("chain {}", chain.name);
            self.0.add(name, message(NFT_MSG_NEWCHAIN), NLM_F_CREATE, &fixed, |attributes| declare(attributes, chain));
        }
        let flags = NLM_F_CREATE | NLM_F_APPEND;
        for (chain, rule) in table.chains.iter().flat_map(|chain| chain.rules.iter().map(move |rule| (chain, rule))) {
            let name = format!("rule in chain {} ({})", chain.name, rule.why);
            self.0.add(name, message(NFT_MSG_NEWRULE), flags, &fixed, |attributes| {
                attributes.text(NFTA_RULE_TABLE, TABLE);
                attributes.text(NFTA_RULE_CHAIN, chain.name);
                attributes.nest(NFTA_RULE_EXPRESSIONS, |list| expressions(list, rule, table.family));
                attributes.bytes(NFTA_RULE_USERDATA, &comment(rule.why));
            });
        }
    }

    fn send(mut self) -> Result<(), Refused> {
        self.0.acknowledge();
        self.0.add("nf_tables", NFNL_MSG_BATCH_END, 0, &nfgenmsg(0, NFNL_SUBSYS_NFTABLES), |_| {});
        self.0.send(NETLINK_NETFILTER)
    }
}

fn declare(attributes: &mut Attributes<'_>, chain: &Chain) {
    attributes.text(NFTA_CHAIN_TABLE, TABLE);
    attributes.text(NFTA_CHAIN_NAME, chain.name);
    if let Some(hook) = chain.hook {
        let place = match hook {
            Hook::Prerouting => NF_INET_PRE_ROUTING,
            Hook::Output => NF_INET_LOCAL_OUT,
        };
        attributes.nest(NFTA_CHAIN_HOOK, |inside| {
            inside.be32(NFTA_HOOK_HOOKNUM, place);
            inside.bytes(NFTA_HOOK_PRIORITY, &chain.kind.priority().to_be_bytes());
        });
        attributes.bytes(NFTA_CHAIN_POLICY, &NF_ACCEPT.to_be_bytes());
        attributes.text(NFTA_CHAIN_TYPE, chain.kind.of_chain(hook));
    }
}

/// As `nft` writes comments: type 0, length, text with its final zero.
fn comment(text: &str) -> Vec<u8> {
    let text = &text.as_bytes()[..text.len().min(120)];
    let mut bytes = vec![0, text.len() as u8 + 1];
    bytes.extend(text);
    bytes.push(0);
    bytes
}

fn nfgenmsg(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

fn message(kind: u16) -> u16 {
    NFNL_SUBSYS_NFTABLES << 8 | kind
}

fn number(family: Family) -> u8 {
    match family {
        Family::V4 => 2,
        Family::V6 => 10,
    }
}

fn expressions(list: &mut Attributes<'_>, rule: &Rule, family: Family) {
    for condition in &rule.conditions {
        expect(list, condition, family);
    }
    act(list, &rule.action, family);
}

fn expect(list: &mut Attributes<'_>, condition: &Condition, family: Family) {
    match condition {
        Condition::Protocol(transport) => protocol(list, *transport),
        Condition::From(net) => address(list, family, net, Side::Source, NFT_CMP_EQ),
        Condition::To(net) => address(list, family, net, Side::Destination, NFT_CMP_EQ),
        Condition::NotTo(net) => address(list, family, net, Side::Destination, NFT_CMP_NEQ),
        Condition::ToPort(transport, number) => port(list, *transport, Side::Destination, *number, NFT_CMP_EQ),
        Condition::NotToPort(transport, number) => port(list, *transport, Side::Destination, *number, NFT_CMP_NEQ),
        Condition::FromPort(transport, number) => port(list, *transport, Side::Source, *number, NFT_CMP_EQ),
        Condition::In(name) => interface(list, NFT_META_IIFNAME, name),
        Condition::Out(name) => interface(list, NFT_META_OIFNAME, name),
        Condition::User(id) => meta_is(list, NFT_META_SKUID, *id, NFT_CMP_EQ),
        Condition::NotUser(id) => meta_is(list, NFT_META_SKUID, *id, NFT_CMP_NEQ),
        Condition::Group(id) => meta_is(list, NFT_META_SKGID, *id, NFT_CMP_EQ),
        Condition::NotGroup(id) => meta_is(list, NFT_META_SKGID, *id, NFT_CMP_NEQ),
        Condition::Mark(mark) => meta_is(list, NFT_META_MARK, *mark, NFT_CMP_EQ),
        Condition::NotMark(mark) => meta_is(list, NFT_META_MARK, *mark, NFT_CMP_NEQ),
        Condition::ConnectionMark(mark) => {
            connection(list, NFT_CT_MARK);
            compare(list, NFT_CMP_EQ, &mark.to_ne_bytes());
        }
        Condition::Established => state(list, STATE_ESTABLISHED | STATE_RELATED),
        Condition::Invalid => state(list, STATE_INVALID),
    }
}

fn act(list: &mut Attributes<'_>, action: &Action, family: Family) {
    match action {
        Action::Return => verdict(list, NFT_RETURN, None),
        Action::Accept => verdict(list, NF_ACCEPT, None),
        Action::Drop => verdict(list, NF_DROP, None),
        Action::Jump(chain) => verdict(list, NFT_JUMP, Some(chain)),
        Action::Redirect(port) => {
            load(list, &port.to_be_bytes());
            expression(list, "redir", |data| data.be32(1, NFT_REG_1));
        }
        Action::Tproxy { port, mark } => {
            set_mark(list, *mark);
            load(list, &port.to_be_bytes());
            expression(list, "tproxy", |data| {
                data.be32(1, number(family).into());
                data.be32(3, NFT_REG_1);
            });
            verdict(list, NF_ACCEPT, None);
        }
        Action::SetMark(mark) => set_mark(list, *mark),
        Action::SaveMark => {
            meta(list, NFT_META_MARK);
            set_connection(list, NFT_CT_MARK);
        }
        Action::RestoreMark => {
            connection(list, NFT_CT_MARK);
            set_meta(list, NFT_META_MARK);
        }
        Action::Zone(zone) => {
            load(list, &zone.to_ne_bytes());
            set_connection(list, NFT_CT_ZONE);
        }
    }
}

fn set_mark(list: &mut Attributes<'_>, mark: u32) {
    load(list, &mark.to_ne_bytes());
    set_meta(list, NFT_META_MARK);
}

fn protocol(list: &mut Attributes<'_>, transport: Transport) {
    meta(list, NFT_META_L4PROTO);
    let number = match transport {
        Transport::Tcp => 6,
        Transport::Udp => 17,
    };
    compare(list, NFT_CMP_EQ, &[number]);
}

#[derive(Clone, Copy)]
enum Side {
    Source,
    Destination,
}

fn port(list: &mut Attributes<'_>, transport: Transport, side: Side, port: u16, operator: u32) {
    protocol(list, transport);
    let offset = match side {
        Side::Source => 0,
        Side::Destination => 2,
    };
    payload(list, NFT_PAYLOAD_TRANSPORT_HEADER, offset, 2);
    compare(list, operator, &port.to_be_bytes());
}

fn address(list: &mut Attributes<'_>, family: Family, net: &IpNet, side: Side, operator: u32) {
    let octets = |address: std::net::IpAddr| match address {
        std::net::IpAddr::V4(address) => address.octets().to_vec(),
        std::net::IpAddr::V6(address) => address.octets().to_vec(),
    };
    let offset = match (family, side) {
        (Family::V4, Side::Source) => 12,
        (Family::V4, Side::Destination) => 16,
        (Family::V6, Side::Source) => 8,
        (Family::V6, Side::Destination) => 24,
    };
    let (value, mask) = (octets(net.network()), octets(net.netmask()));
    payload(list, NFT_PAYLOAD_NETWORK_HEADER, offset, value.len() as u32);
    if net.prefix_len() < net.max_prefix_len() {
        bitwise(list, &mask);
    }
    compare(list, operator, &value);
}

fn interface(list: &mut Attributes<'_>, key: u32, name: &str) {
    meta(list, key);
    let mut padded = [0; 16];
    let length = name.len().min(15);
    padded[..length].copy_from_slice(&name.as_bytes()[..length]);
    compare(list, NFT_CMP_EQ, &padded);
}

fn meta_is(list: &mut Attributes<'_>, key: u32, value: u32, operator: u32) {
    meta(list, key);
    compare(list, operator, &value.to_ne_bytes());
}

fn state(list: &mut Attributes<'_>, bits: u32) {
    connection(list, NFT_CT_STATE);
    bitwise(list, &bits.to_ne_bytes());
    compare(list, NFT_CMP_NEQ, &[0; 4]);
}

fn expression(list: &mut Attributes<'_>, name: &str, data: impl FnOnce(&mut Attributes<'_>)) {
    list.nest(NFTA_LIST_ELEM, |element| {
        element.text(NFTA_EXPR_NAME, name);
        element.nest(NFTA_EXPR_DATA, data);
    });
}

/// Something about the packet into the register.
fn meta(list: &mut Attributes<'_>, key: u32) {
    expression(list, "meta", |data| {
        data.be32(1, NFT_REG_1);
        data.be32(2, key);
    });
}

fn set_meta(list: &mut Attributes<'_>, key: u32) {
    expression(list, "meta", |data| {
        data.be32(2, key);
        data.be32(3, NFT_REG_1);
    });
}

/// Something about the connection into the register.
fn connection(list: &mut Attributes<'_>, key: u32) {
    expression(list, "ct", |data| {
        data.be32(1, NFT_REG_1);
        data.be32(2, key);
    });
}

fn set_connection(list: &mut Attributes<'_>, key: u32) {
    expression(list, "ct", |data| {
        data.be32(2, key);
        data.be32(4, NFT_REG_1);
    });
}

fn payload(list: &mut Attributes<'_>, base: u32, offset: u32, length: u32) {
    expression(list, "payload", |data| {
        data.be32(1, NFT_REG_1);
        data.be32(2, base);
        data.be32(3, offset);
        data.be32(4, length);
    });
}

fn bitwise(list: &mut Attributes<'_>, mask: &[u8]) {
    expression(list, "bitwise", |data| {
        data.be32(1, NFT_REG_1);
        data.be32(2, NFT_REG_1);
        data.be32(3, mask.len() as u32);
        data.nest(4, |value| value.bytes(NFTA_DATA_VALUE, mask));
        data.nest(5, |value| value.bytes(NFTA_DATA_VALUE, &[0; 16][..mask.len()]));
    });
}

fn compare(list: &mut Attributes<'_>, operator: u32, value: &[u8]) {
    expression(list, "cmp", |data| {
        data.be32(1, NFT_REG_1);
        data.be32(2, operator);
        data.nest(3, |inside| inside.bytes(NFTA_DATA_VALUE, value));
    });
}

/// A value into the register.
fn load(list: &mut Attributes<'_>, value: &[u8]) {
    expression(list, "immediate", |data| {
        data.be32(1, NFT_REG_1);
        data.nest(2, |inside| inside.bytes(NFTA_DATA_VALUE, value));
    });
}

fn verdict(list: &mut Attributes<'_>, code: i32, chain: Option<&str>) {
    expression(list, "immediate", |data| {
        data.be32(1, NFT_REG_VERDICT);
        data.nest(2, |inside| {
            inside.nest(NFTA_DATA_VERDICT, |verdict| {
                verdict.bytes(NFTA_VERDICT_CODE, &code.to_be_bytes());
                if let Some(chain) = chain {
                    verdict.text(NFTA_VERDICT_CHAIN, chain);
                }
            });
        });
    });
}
