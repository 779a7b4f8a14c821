//! Hostile clients (security S3, S4, S5, S8, S10, S30).

use std::time::Duration;

use mizzen_proxy::Limits;

use crate::support::*;

#[track_caller]
fn refused(request: impl AsRef<[u8]>, status: u16) {
    let proxy = Proxy::start(World::to(echo()).snapshot());
    let mut client = proxy.client();
    let shown = String::from_utf8_lossy(request.as_ref()).into_owned();
    let answer = client.send(request).answer();
    assert_eq!(answer.status, status, "{shown:?}");
    assert_eq!(answer.header("connection"), Some("close"), "{shown:?}");
    assert!(client.is_closed(), "{shown:?} left the connection open");
}

#[test]
fn s8_two_readings_of_one_request_are_refused() {
    for request in [
        "POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
        "POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 3\r\ncontent-length: 3\r\n\r\nabc",
        "POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 3, 3\r\n\r\nabc",
        "POST / HTTP/1.1\r\nhost: t\r\ncontent-length: +3\r\n\r\nabc",
        "POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 0x3\r\n\r\nabc",
        "POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 99999999999999999999\r\n\r\nabc",
        "POST / HTTP/1.0\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: t\r\nfoo: bar\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\r\nhost : t\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: t\r\nfoo\t: bar\r\n\r\n",
        "GET / HTTP/1.1\nhost: t\n\n",
        "GET / HTTP/1.1\r\nhost: t\nfoo: bar\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: t\r\nhost: u\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: user@t\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: t\r\nfoo: a\0b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: t\r\nfoo: a\rb\r\n\r\n",
        "GET / HTTP/2.0\r\nhost: t\r\n\r\n",
        "G\0T / HTTP/1.1\r\nhost: t\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\n\n",
    ] {
        refused(request, 400);
    }
    for coding in ["gzip", "chunked, gzip", "gzip, chunked", "xchunked", "chunked\r\ntransfer-encoding: chunked"] {
        refused(format!("POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: {coding}\r\n\r\n0\r\n\r\n"), 501);
    }
}

#[test]
fn s8_a_broken_chunk_ends_the_request_and_the_connection() {
    for chunks in
        ["5\nhello\r\n0\r\n\r\n", "5\r\nhelloX\r\n0\r\n\r\n", "zz\r\n", "fffffffffffffffff\r\n", "5 \r\nhello\r\n"]
    {
        let proxy = Proxy::start(World::to(echo()).snapshot());
        let mut client = proxy.client();
        client.send(format!("POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n{chunks}"));
        let answer = client.answer();
        assert_eq!((answer.status, answer.header("connection")), (400, Some("close")), "{chunks:?}");
        assert!(client.is_closed());
    }
}

#[test]
fn heads_have_limits() {
    refused(format!("GET / HTTP/1.1\r\nhost: t\r\nx: {}\r\n\r\n", "a".repeat(70_000)), 431);
    let many: String = (0..150).map(|number| format!("x-{number}: 1\r\n")).collect();
    refused(format!("GET / HTTP/1.1\r\nhost: t\r\n{many}\r\n"), 431);
    refused("a".repeat(70_000), 431);
}

#[test]
fn s30_a_head_that_trickles_in_has_a_time_limit() {
    let mut world = World::to(echo());
    world.handler.request_headers_timeout = Some(Duration::from_secs(1));
    let proxy = Proxy::start(world.snapshot());
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nho");
    assert_eq!(client.answer().status, 408);
    assert!(client.is_closed());
    let mut silent = proxy.client();
    assert!(silent.is_closed());
}

#[test]
fn s30_connections_are_limited_and_the_limit_frees_up() {
    let limits = Limits { connections: 2, ..Limits::default() };
    let proxy = Proxy::start_with(World::to(echo()).snapshot(), limits, Duration::from_millis(100));
    let (mut first, mut second) = (proxy.client(), proxy.client());
    assert_eq!((first.get("/").status, second.get("/").status), (200, 200));
    assert!(proxy.client().is_closed());
    drop(first);
    eventually(|| {
        let mut third = proxy.client();
        third.stream.set_nonblocking(false).unwrap();
        third.try_get("/").is_some_and(|answer| answer.status == 200)
    });
}

#[test]
fn s8_a_body_that_nobody_reads_does_not_become_the_next_request() {
    // The route answers without reading the body, which holds another request.
    let mut world = World::to_all(&[]);
    world.routes.clear();
    let proxy = Proxy::start(world.snapshot());
    let mut client = proxy.client();
    let inner = "GET /smuggled HTTP/1.1\r\nhost: t\r\n\r\n";
    client.send(format!("POST / HTTP/1.1\r\nhost: t\r\ncontent-length: {}\r\n\r\n{inner}", inner.len()));
    let answer = client.answer();
    assert_eq!((answer.status, answer.header("connection")), (404, Some("close")));
    assert!(client.is_closed());
    assert_eq!(proxy.recorded(1).len(), 1);
}
