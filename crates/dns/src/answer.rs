//! From the bytes of a query to those of its answer, or to the wish that others answer it. Pure.

use std::net::IpAddr;

use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA};
use hickory_proto::rr::{DNSClass, RData, Record, RecordType};

use crate::table::{Found, Table};

/// How long an answer may be kept, in seconds (as Istio's agent says).
const TIME_TO_LIVE: u32 = 30;
/// What fits into a datagram when the client says nothing.
const SMALL: usize = 512;
/// What we put into a datagram when the client says that it takes more.
const LARGE: usize = 4096;

/// What is to be done with a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    Reply(Vec<u8>),
    Forward,
    /// It is no query: whoever sent it gets nothing.
    Ignore,
}

/// How the query came, and so how long its answer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Datagram,
    Stream,
}

/// Decides about one query. `turn` is any number: by it, addresses of a name take turns at being the first.
pub fn decide(query: &[u8], table: &Table, transport: Transport, turn: usize) -> Decision {
    let Ok(query) = Message::from_vec(query) else { return Decision::Ignore };
    if query.metadata.message_type != MessageType::Query {
        return Decision::Ignore;
    }
    let [question] = query.queries.as_slice() else {
        return reply(&query, ResponseCode::FormErr, Vec::new(), transport);
    };
    if query.metadata.op_code != OpCode::Query || question.query_class() != DNSClass::IN {
        return Decision::Forward;
    }
    let name = question.name().to_ascii();
    let addresses = match table.find(&name) {
        Found::Elsewhere => return Decision::Forward,
        Found::NoSuchName => return reply(&query, ResponseCode::NXDomain, Vec::new(), transport),
        Found::Addresses(addresses) => addresses,
    };
    let record = |address: &IpAddr| {
        let data = match (address, question.query_type()) {
            (IpAddr::V4(address), RecordType::A | RecordType::ANY) => RData::A(A(*address)),
            (IpAddr::V6(address), RecordType::AAAA | RecordType::ANY) => RData::AAAA(AAAA(*address)),
            _ => return None,
        };
        Some(Record::from_rdata(question.name().clone(), TIME_TO_LIVE, data))
    };
    let mut records: Vec<Record> = addresses.iter().filter_map(record).collect();
    if !records.is_empty() {
        let first = turn % records.len();
        records.rotate_left(first);
    }
    reply(&query, ResponseCode::NoError, records, transport)
}

/// The answer that nobody could be asked.
pub fn failure(query: &[u8]) -> Option<Vec<u8>> {
    let query = Message::from_vec(query).ok()?;
    match reply(&query, ResponseCode::ServFail, Vec::new(), Transport::Datagram) {
        Decision::Reply(bytes) => Some(bytes),
        Decision::Forward | Decision::Ignore => None,
    }
}

fn reply(query: &Message, code: ResponseCode, records: Vec<Record>, transport: Transport) -> Decision {
    let limit = match (transport, &query.edns) {
        (Transport::Stream, _) => usize::from(u16::MAX),
        (Transport::Datagram, Some(edns)) => usize::from(edns.max_payload()).clamp(SMALL, LARGE),
        (Transport::Datagram, None) => SMALL,
    };
    let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
    answer.metadata.authoritative = true;
    answer.metadata.recursion_desired = query.metadata.recursion_desired;
    answer.metadata.recursion_available = true;
    answer.metadata.response_code = code;
    answer.queries.clone_from(&query.queries);
    answer.answers = records;
    loop {
        let Ok(bytes) = answer.to_vec() else { return Decision::Ignore };
        if bytes.len() <= limit || answer.answers.is_empty() {
            return Decision::Reply(bytes);
        }
        answer.metadata.truncation = true;
        let half = answer.answers.len() / 2;
        answer.answers.truncate(half);
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::Query;
    use hickory_proto::rr::Name;
    use proptest::prelude::*;

    use super::*;

    fn query(name: &str, kind: RecordType) -> Vec<u8> {
        let mut message = Message::query();
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(Name::from_ascii(name).expect("a name"), kind));
        message.to_vec().expect("bytes")
    }

    fn table() -> Table {
        let many = (0..200u8).map(|last| IpAddr::from([10, 0, 0, last])).collect();
        Table::new(
            [
                ("reviews.default.svc.cluster.local".to_owned(), vec![[10, 96, 0, 7].into()]),
                ("many.default.svc.cluster.local".to_owned(), many),
            ],
            ["cluster.local".to_owned()],
        )
    }

    fn answered(name: &str, kind: RecordType, transport: Transport) -> Message {
        let Decision::Reply(bytes) = decide(&query(name, kind), &table(), transport, 0) else {
            panic!("{name} is answered");
        };
        Message::from_vec(&bytes).expect("an answer")
    }

    #[test]
    fn known_names_have_their_addresses_and_no_others() {
        let answer = answered("reviews.default.svc.cluster.local.", RecordType::A, Transport::Datagram);
        let data: Vec<&RData> = answer.answers.iter().map(|record| &record.data).collect();
        assert_eq!(data, [&RData::A(A::new(10, 96, 0, 7))]);
        // There is the name, and no address of this family: a client must not look further.
        let answer = answered("reviews.default.svc.cluster.local.", RecordType::AAAA, Transport::Datagram);
        assert_eq!((answer.metadata.response_code, answer.answers.len()), (ResponseCode::NoError, 0));
        let answer = answered("gone.default.svc.cluster.local.", RecordType::A, Transport::Datagram);
        assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
        assert_eq!(decide(&query("example.com.", RecordType::A), &table(), Transport::Datagram, 0), Decision::Forward);
    }

    #[test]
    fn what_does_not_fit_is_cut_and_says_so() {
        let short = answered("many.default.svc.cluster.local.", RecordType::A, Transport::Datagram);
        assert!(short.metadata.truncation && !short.answers.is_empty() && short.answers.len() < 200);
        let long = answered("many.default.svc.cluster.local.", RecordType::A, Transport::Stream);
        assert_eq!((long.metadata.truncation, long.answers.len()), (false, 200));
    }

    #[test]
    fn addresses_take_turns() {
        let first = |turn| {
            let bytes = query("many.default.svc.cluster.local.", RecordType::A);
            let Decision::Reply(bytes) = decide(&bytes, &table(), Transport::Stream, turn) else { panic!("answered") };
            Message::from_vec(&bytes).expect("an answer").answers[0].data.clone()
        };
        assert_eq!(first(3), RData::A(A::new(10, 0, 0, 3)));
        assert_ne!(first(0), first(1));
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            decide(&bytes, &table(), Transport::Datagram, 1);
            failure(&bytes);
        }
    }
}
