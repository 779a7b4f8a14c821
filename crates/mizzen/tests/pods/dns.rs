//! A name server and its clients.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RData, RecordType};
use mizzen_dns::Table;
use mizzen_dns::answer::{Decision, Transport, decide};

use crate::apps::PATIENCE;

/// Knows these names, and that there are no others.
pub(crate) fn server(names: &[(&str, &str)]) {
    let names = names.iter().map(|(name, address)| ((*name).to_owned(), vec![address.parse().unwrap()]));
    let table = Table::new(names, ["example".to_owned(), "local".to_owned()]);
    let answer = |query: &[u8], table: &Table, transport| match decide(query, table, transport, 0) {
        Decision::Reply(answer) => answer,
        Decision::Forward | Decision::Ignore => Vec::new(),
    };
    let (udp, tcp) = (UdpSocket::bind("0.0.0.0:53").unwrap(), TcpListener::bind("0.0.0.0:53").unwrap());
    let of_streams = table.clone();
    thread::spawn(move || {
        let mut query = [0; 1500];
        while let Ok((length, client)) = udp.recv_from(&mut query) {
            let _ = udp.send_to(&answer(&query[..length], &table, Transport::Datagram), client);
        }
    });
    thread::spawn(move || {
        for mut stream in tcp.incoming().flatten() {
            let Ok(query) = read(&mut stream) else { continue };
            let answer = answer(&query, &of_streams, Transport::Stream);
            let _ = stream.write_all(&[&(answer.len() as u16).to_be_bytes()[..], &answer].concat());
        }
    });
}

fn query(name: &str) -> Vec<u8> {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    message.to_vec().unwrap()
}

fn addresses(answer: &[u8]) -> Vec<String> {
    let answer = Message::from_vec(answer).unwrap();
    let address = |data: &RData| match data {
        RData::A(address) => Some(address.0.to_string()),
        _ => None,
    };
    answer.answers.iter().filter_map(|record| address(&record.data)).collect()
}

/// The addresses of a name; none when nobody answers.
pub(crate) fn ask(server: &str, name: &str) -> Vec<String> {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
    socket.connect(server).unwrap();
    let mut answer = [0; 1500];
    if socket.send(&query(name)).is_err() {
        return Vec::new();
    }
    socket.recv(&mut answer).map(|length| addresses(&answer[..length])).unwrap_or_default()
}

pub(crate) fn ask_on_stream(server: &str, name: &str) -> Vec<String> {
    let mut stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let query = query(name);
    stream.write_all(&[&(query.len() as u16).to_be_bytes()[..], &query].concat()).unwrap();
    addresses(&read(&mut stream).unwrap())
}

fn read(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message)?;
    Ok(message)
}

pub(crate) fn eventually(so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(50));
    }
}
