//! HTTP/1.1 through the proxy.

use mizzen_testing::ReservedPort;

use crate::support::*;

#[test]
fn a_request_goes_through_and_the_connection_is_kept() {
    let proxy = Proxy::start(World::to(echo()).snapshot());
    let mut client = proxy.client();
    for path in ["/a?b=c", "/second"] {
        let answer = client.get(path);
        assert_eq!(answer.status, 200);
        assert!(answer.text().starts_with(&format!("GET {path} HTTP/1.1\r\nhost: test\r\n")), "{}", answer.text());
        assert_eq!(answer.header("server"), Some("envoy"));
        assert!(answer.header("date").is_some());
        assert!(answer.header("x-envoy-upstream-service-time").is_some());
        assert!(header(answer.text(), "x-request-id").is_some());
        assert_eq!(header(answer.text(), "x-forwarded-proto"), Some("http"));
    }
    let recorded = proxy.recorded(2);
    assert_eq!((recorded[0].status, recorded[0].details, recorded[0].attempts), (200, "via_upstream", 1));
    assert!(recorded[0].flags.is_empty());
}

#[test]
fn bodies_of_every_framing_arrive() {
    let proxy = Proxy::start(World::to(echo()).snapshot());
    let mut client = proxy.client();
    let answer = client.send("POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 5\r\n\r\nhello").answer();
    assert!(answer.text().ends_with("\r\n\r\nhello"), "{}", answer.text());
    assert_eq!(header(answer.text(), "content-length"), Some("5"));
    let answer = client
        .send("POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n")
        .answer();
    assert!(answer.text().ends_with("\r\n\r\nhello world"), "{}", answer.text());
    assert_eq!(header(answer.text(), "transfer-encoding"), Some("chunked"));
    let large = "x".repeat(300_000);
    let answer =
        client.send(format!("POST / HTTP/1.1\r\nhost: t\r\ncontent-length: {}\r\n\r\n{large}", large.len())).answer();
    assert!(answer.text().ends_with(&large));
}

#[test]
fn a_response_without_length_ends_with_its_connection() {
    let upstream = upstream(|client, _| {
        request(client);
        client.send("HTTP/1.1 200 OK\r\n\r\nuntil the end");
    });
    let proxy = Proxy::start(World::to(upstream).snapshot());
    let answer = proxy.client().get("/");
    assert_eq!(answer.header("transfer-encoding"), Some("chunked"));
    assert_eq!(answer.text(), "until the end");
    let answer = proxy.client().send("GET / HTTP/1.0\r\n\r\n").answer();
    assert_eq!((answer.header("transfer-encoding"), answer.header("connection")), (None, Some("close")));
    assert_eq!(answer.text(), "until the end");
}

#[test]
fn responses_without_body_are_complete_with_their_head() {
    let upstream = upstream(|client, _| {
        while let Some((head, _)) = request(client) {
            client.send(if head.starts_with("HEAD") {
                "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n"
            } else if head.contains("/304") {
                "HTTP/1.1 304 Not Modified\r\ncontent-length: 7\r\n\r\n"
            } else {
                "HTTP/1.1 204 No Content\r\n\r\n"
            });
        }
    });
    let proxy = Proxy::start(World::to(upstream).snapshot());
    let mut client = proxy.client();
    let answer = client.send("HEAD / HTTP/1.1\r\nhost: t\r\n\r\n").answer_to("HEAD");
    assert_eq!((answer.status, answer.header("content-length")), (200, Some("1000")));
    let answer = client.get("/204");
    assert_eq!((answer.status, answer.header("content-length")), (204, None));
    assert_eq!(client.get("/304").status, 304);
}

#[test]
fn a_client_that_waits_for_100_continue_gets_it_once_the_body_is_wanted() {
    let proxy = Proxy::start(World::to(echo()).snapshot());
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nhost: t\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n");
    assert_eq!(client.head().1, 100);
    let answer = client.send("ok").answer();
    assert!(answer.text().ends_with("\r\n\r\nok"));
    assert_eq!(header(answer.text(), "expect"), None);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let proxy = Proxy::start(World::to(echo()).snapshot());
    let mut client = proxy.client();
    client.send("GET /1 HTTP/1.1\r\nhost: t\r\n\r\nGET /2 HTTP/1.1\r\nhost: t\r\n\r\n");
    assert!(client.answer().text().starts_with("GET /1 "));
    assert!(client.answer().text().starts_with("GET /2 "));
}

#[test]
fn a_request_in_absolute_form_is_routed_by_its_uri() {
    let proxy = Proxy::start(World::to(echo()).snapshot());
    let answer = proxy.client().send("GET http://reviews:9080/x HTTP/1.1\r\nhost: other\r\n\r\n").answer();
    assert!(answer.text().starts_with("GET /x HTTP/1.1\r\nhost: reviews:9080\r\n"), "{}", answer.text());
}

#[test]
fn trailers_go_through() {
    let upstream = upstream(|client, _| {
        request(client);
        client.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n");
    });
    let proxy = Proxy::start(World::to(upstream).snapshot());
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nhost: t\r\nte: trailers\r\n\r\n").head();
    assert_eq!(client.line(), "2\r\n");
    assert_eq!(client.exactly(4), b"ok\r\n");
    assert_eq!((client.line(), client.line()), ("0\r\n".to_owned(), "x-sum: 7\r\n".to_owned()));
}

#[test]
fn nobody_listening_is_told_as_envoy_tells_it() {
    let reserved = ReservedPort::new();
    let gone = reserved.address();
    let proxy = Proxy::start(World::to(gone).snapshot());
    let answer = proxy.client().get("/");
    assert_eq!(answer.status, 503);
    assert!(answer.text().starts_with("upstream connect error or disconnect/reset before headers. reset reason: "));
    let recorded = &proxy.recorded(1)[0];
    assert_eq!(recorded.flags, ["UF"]);
    assert!(recorded.cause.as_ref().unwrap().contains(&gone.to_string()), "{recorded:?}");
}

#[test]
fn no_endpoint_and_no_route_have_their_own_answers() {
    let proxy = Proxy::start(World::to_all(&[]).snapshot());
    let answer = proxy.client().get("/");
    assert_eq!((answer.status, answer.text()), (503, "no healthy upstream"));
    assert_eq!(proxy.recorded(1)[0].flags, ["UH"]);
    let mut world = World::to(echo());
    world.routes.clear();
    let proxy = Proxy::start(world.snapshot());
    assert_eq!(proxy.client().get("/").status, 404);
    assert_eq!(proxy.recorded(1)[0].flags, ["NR"]);
}
