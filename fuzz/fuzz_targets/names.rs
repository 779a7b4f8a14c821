//! A DNS query from the pod's network: an answer, if there is one, is for that query and fits its transport.
#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libfuzzer_sys::fuzz_target;
use mizzen_dns::Table;
use mizzen_dns::answer::{Decision, Transport, decide};

fuzz_target!(|query: &[u8]| {
    let addresses = vec![IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    let many = (0..200).map(|last| IpAddr::V4(Ipv4Addr::new(10, 0, 1, last))).collect();
    let names = [("a.b".to_owned(), addresses), ("*.c".to_owned(), many)];
    let table = Table::new(names, ["cluster.local".to_owned()]);
    // Nobody says that a datagram may be longer than this.
    for (transport, limit) in [(Transport::Datagram, 4096), (Transport::Stream, 65_535)] {
        if let Decision::Reply(answer) = decide(query, &table, transport, query.len()) {
            assert!(answer.len() <= limit);
            assert_eq!(answer.get(..2), query.get(..2), "the answer has the query's number");
        }
    }
});
