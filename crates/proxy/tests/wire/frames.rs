//! Hostile HTTP/2, frame by frame (security S1–S6).

use std::io::Write;

use mizzen_snapshot::cluster::UpstreamVersion;

use crate::support::*;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A literal header without indexing.
fn field(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0, u8::try_from(name.len()).unwrap()];
    bytes.extend(name.as_bytes());
    bytes.push(u8::try_from(value.len()).unwrap());
    bytes.extend(value.as_bytes());
    bytes
}

fn get(stream: u32, more: &[u8]) -> Vec<u8> {
    let mut block =
        [field(":method", "GET"), field(":scheme", "http"), field(":path", "/"), field(":authority", "t")].concat();
    block.extend(more);
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &block)
}

fn hello(client: &mut Client) {
    client.send([PREFACE, &frame(SETTINGS, 0, 0, &[])].concat());
}

/// Reads frames until one of this kind, or the end.
fn next_of(client: &mut Client, wanted: &[u8]) -> Option<(u8, u32, Vec<u8>)> {
    loop {
        let head = client.try_exactly(9)?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let payload = client.try_exactly(length)?;
        if wanted.contains(&head[3]) {
            return Some((head[3], stream, payload));
        }
    }
}

/// Sends the same bytes again and again until the proxy has had enough; how often that worked.
fn flood(client: &mut Client, bytes: &[u8], most: usize) -> usize {
    let block: Vec<u8> = bytes.repeat(16);
    for sent in 0..most / 16 {
        if client.stream.write_all(&block).is_err() {
            return sent * 16;
        }
    }
    most
}

/// Others are served as if nothing had happened.
#[track_caller]
fn still_serves(proxy: &Proxy) {
    assert_eq!(proxy.client().get("/").status, 200);
}

fn proxy() -> Proxy {
    Proxy::start(World::to(echo()).snapshot())
}

#[test]
fn s3_endless_continuation_is_cut_off() {
    let proxy = proxy();
    let mut client = proxy.client();
    hello(&mut client);
    client.send(frame(HEADERS, END_STREAM, 1, &field(":method", "GET")));
    let sent = flood(&mut client, &frame(CONTINUATION, 0, 1, &field("x", "y")), 1_000_000);
    assert!(sent < 1_000_000, "a million CONTINUATION frames were taken");
    still_serves(&proxy);
}

#[test]
fn s5_headers_that_are_small_on_the_wire_and_large_in_memory_are_refused() {
    let proxy = proxy();
    let mut client = proxy.client();
    hello(&mut client);
    // One large value goes into the table and is then named with one byte each, also as crumbs of a cookie.
    let value = "v".repeat(120);
    let mut block = vec![0x40, 6];
    block.extend(b"cookie");
    block.push(120);
    block.extend(value.as_bytes());
    block.extend(std::iter::repeat_n(0xbe, 4000));
    client.send(get(1, &block));
    let (kind, ..) = next_of(&mut client, &[HEADERS, RST_STREAM, GOAWAY]).unwrap();
    if kind == HEADERS {
        // Answered with 431, not passed on.
        assert!(proxy.recorded(1).iter().all(|recorded| recorded.status != 200));
    }
    still_serves(&proxy);
}

#[test]
fn s4_floods_of_small_frames_do_not_stop_others() {
    for bytes in [
        frame(PING, 0, 0, &[0; 8]),
        frame(SETTINGS, 0, 0, &[]),
        frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]),
        frame(2, 0, 1, &[0, 0, 0, 0, 1]),
    ] {
        let proxy = proxy();
        let mut client = proxy.client();
        hello(&mut client);
        client.stream.set_write_timeout(Some(std::time::Duration::from_millis(100))).unwrap();
        flood(&mut client, &bytes, 100_000);
        still_serves(&proxy);
    }
}

#[test]
fn s2_resets_that_the_client_makes_us_send_are_counted() {
    let proxy = proxy();
    let mut client = proxy.client();
    hello(&mut client);
    // Each stream breaks the rules right after it began, so that it is we who reset it ("MadeYouReset").
    let mut ended = false;
    for number in 0..5_000u32 {
        let stream = 2 * number + 1;
        let broken = [get(stream, &[]), frame(WINDOW_UPDATE, 0, stream, &[0, 0, 0, 0])].concat();
        if client.stream.write_all(&broken).is_err() {
            ended = true;
            break;
        }
    }
    ended = ended || next_of(&mut client, &[GOAWAY]).is_some();
    assert!(ended, "five thousand streams were broken without consequence");
    still_serves(&proxy);
}

#[test]
fn s4_empty_data_frames_have_an_end() {
    let proxy = proxy();
    let mut client = proxy.client();
    hello(&mut client);
    let block =
        [field(":method", "POST"), field(":scheme", "http"), field(":path", "/"), field(":authority", "t")].concat();
    client.send(frame(HEADERS, END_HEADERS, 1, &block));
    client.stream.set_write_timeout(Some(std::time::Duration::from_millis(100))).unwrap();
    flood(&mut client, &frame(DATA, 0, 1, &[]), 200_000);
    still_serves(&proxy);
}

#[test]
fn s10_values_cannot_end_a_line_of_http1() {
    for (name, value) in [("x", "a\r\nevil: 1"), ("x", "a\nb"), ("x", "a\0b"), ("connection", "close"), ("X", "upper")]
    {
        let proxy = proxy();
        let mut client = proxy.client();
        hello(&mut client);
        client.send(get(1, &field(name, value)));
        let answer = next_of(&mut client, &[HEADERS, RST_STREAM, GOAWAY]);
        assert!(!matches!(answer, Some((HEADERS, ..))), "{name}: {value:?} was passed on");
        still_serves(&proxy);
    }
}

/// An HTTP/2 upstream that sends these bytes after its own settings, and then keeps the connection open.
fn hostile(bytes: Vec<u8>) -> World {
    let upstream = upstream(move |client, _| {
        client.exactly(PREFACE.len());
        client.send([frame(SETTINGS, 0, 0, &[]), bytes.clone()].concat());
        client.rest();
    });
    let mut world = World::to(upstream);
    world.policy(|policy| policy.http.version = UpstreamVersion::Http2);
    world.forward(|forward| forward.timeout = Some(std::time::Duration::from_secs(2)));
    world
}

#[test]
fn s6_hostile_upstreams_cost_one_request() {
    let ok = [field(":status", "200")].concat();
    for (what, bytes) in [
        (
            "GOAWAY and then no streams",
            [frame(GOAWAY, 0, 0, &[0; 8]), frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 0])].concat(),
        ),
        ("not HTTP/2", b"HTTP/1.1 200 OK\r\n\r\n".to_vec()),
        ("a frame that is too large", vec![0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]),
        ("data before headers", frame(DATA, 0, 1, b"x")),
        ("a pushed stream", frame(5, END_HEADERS, 1, &[&[0, 0, 0, 2][..], &ok].concat())),
        ("an answer on a stream that is not ours", frame(HEADERS, END_HEADERS, 99, &ok)),
        ("a status that is none", frame(HEADERS, END_HEADERS | END_STREAM, 1, &field(":status", "abc"))),
        (
            "endless headers",
            [frame(HEADERS, 0, 1, &ok), frame(CONTINUATION, 0, 1, &field("x", "y").repeat(2000)).repeat(20)].concat(),
        ),
        ("a reset", frame(RST_STREAM, 0, 1, &[0, 0, 0, 2])),
    ] {
        let proxy = Proxy::start(hostile(bytes).snapshot());
        let answer = proxy.client().get("/");
        assert!((500..600).contains(&answer.status), "{what}: {answer:?}");
        let recorded = &proxy.recorded(1)[0];
        assert!(recorded.cause.is_some() && !recorded.flags.is_empty(), "{what}: {recorded:?}");
    }
}
