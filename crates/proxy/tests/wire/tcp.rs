//! Opaque TCP.

use mizzen_testing::ReservedPort;

use crate::support::*;

#[test]
fn bytes_pass_both_ways_and_each_end_is_passed_on() {
    let upstream = upstream(|client, _| {
        let all = client.rest();
        client.send(all.iter().rev().copied().collect::<Vec<u8>>());
    });
    let proxy = Proxy::start(World { tcp: true, ..World::to(upstream) }.snapshot());
    let mut client = proxy.client();
    client.send("abc").shutdown();
    assert_eq!(client.rest(), b"cba");
    assert!(proxy.recorded(1)[0].flags.is_empty());
}

#[test]
fn a_server_that_speaks_first_is_heard() {
    let upstream = upstream(|client, _| {
        client.send("220 hello\r\n");
        client.rest();
    });
    let proxy = Proxy::start(World { tcp: true, ..World::to(upstream) }.snapshot());
    assert_eq!(proxy.client().line(), "220 hello\r\n");
}

#[test]
fn a_refused_connection_is_closed_and_recorded() {
    let reserved = ReservedPort::new();
    let gone = reserved.address();
    let proxy = Proxy::start(World { tcp: true, ..World::to(gone) }.snapshot());
    assert!(proxy.client().is_closed());
    assert_eq!(proxy.recorded(1)[0].flags, ["UF"]);
}

#[test]
fn much_goes_through() {
    let upstream = upstream(|client, _| {
        let all = client.exactly(3_000_000);
        client.send(all);
        client.rest();
    });
    let proxy = Proxy::start(World { tcp: true, ..World::to(upstream) }.snapshot());
    let mut client = proxy.client();
    let sent: Vec<u8> = (0..3_000_000u32).map(|number| number as u8).collect();
    let mut writer = Client::over(client.stream.try_clone().unwrap());
    let copy = sent.clone();
    let writing = std::thread::spawn(move || {
        writer.send(&copy);
    });
    assert!(client.exactly(sent.len()) == sent);
    writing.join().unwrap();
}
