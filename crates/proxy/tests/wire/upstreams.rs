//! Retries, timeouts, pools: what happens when upstreams fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mizzen_snapshot::cluster::Limits as Breakers;
use mizzen_snapshot::route::{RetryOn, RetryPolicy};
use mizzen_testing::ReservedPort;

use crate::support::*;

fn retry(on: RetryOn) -> Arc<RetryPolicy> {
    Arc::new(RetryPolicy {
        on,
        retries: 2,
        per_try_timeout: None,
        per_try_idle_timeout: None,
        statuses: vec![503],
        backoff_base: Duration::from_millis(1),
        backoff_max: Duration::from_millis(2),
        avoid_previous_hosts: true,
        host_selection_attempts: 5,
        leave_priorities_after: 0,
    })
}

/// Answers with `status` the first `times`, then 200 with the request's body.
fn failing(status: u16, times: usize) -> std::net::SocketAddr {
    let seen = AtomicUsize::new(0);
    upstream(move |client, _| {
        while let Some((_, body)) = request(client) {
            let status = if seen.fetch_add(1, Ordering::SeqCst) < times { status } else { 200 };
            let body = String::from_utf8(body).unwrap();
            client.send(format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{body}", body.len()));
        }
    })
}

#[test]
fn a_failed_try_is_repeated_with_its_body() {
    let mut world = World::to(failing(503, 2));
    world.forward(|forward| forward.retry = Some(retry(RetryOn { server_error: true, ..RetryOn::default() })));
    world.host.include_attempt_count = true;
    let proxy = Proxy::start(world.snapshot());
    let answer = proxy.client().send("POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 4\r\n\r\nbody").answer();
    assert_eq!((answer.status, answer.text()), (200, "body"));
    assert_eq!(proxy.recorded(1)[0].attempts, 3);
}

#[test]
fn retries_end_and_the_log_says_so() {
    let mut world = World::to(failing(503, 99));
    world.forward(|forward| forward.retry = Some(retry(RetryOn { server_error: true, ..RetryOn::default() })));
    let proxy = Proxy::start(world.snapshot());
    assert_eq!(proxy.client().get("/").status, 503);
    let recorded = &proxy.recorded(1)[0];
    assert_eq!((recorded.attempts, recorded.flags.as_slice()), (3, &["URX"][..]));
}

#[test]
fn a_dead_endpoint_is_avoided_by_the_next_try() {
    let reserved = ReservedPort::new();
    let dead = reserved.address();
    let mut world = World::to_all(&[dead, echo()]);
    world.forward(|forward| forward.retry = Some(retry(RetryOn { connect_failure: true, ..RetryOn::default() })));
    let proxy = Proxy::start(world.snapshot());
    for _ in 0..4 {
        assert_eq!(proxy.client().get("/").status, 200);
    }
}

#[test]
fn a_slow_upstream_is_cut_off_by_the_routes_timeout() {
    let slow = upstream(|client, _| {
        request(client);
        request(client);
    });
    let mut world = World::to(slow);
    world.forward(|forward| forward.timeout = Some(Duration::from_millis(50)));
    let proxy = Proxy::start(world.snapshot());
    let answer = proxy.client().get("/");
    assert_eq!((answer.status, answer.text()), (504, "upstream request timeout"));
    let recorded = &proxy.recorded(1)[0];
    assert_eq!((recorded.flags.as_slice(), recorded.details), (&["UT"][..], "response_timeout"));
    assert!(recorded.cause.as_ref().unwrap().contains("50 ms"));
}

#[test]
fn the_timeout_covers_the_body_of_the_response() {
    let slow = upstream(|client, _| {
        request(client);
        client.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf");
        request(client);
    });
    let mut world = World::to(slow);
    // Time enough for the head on any machine.
    world.forward(|forward| forward.timeout = Some(Duration::from_secs(2)));
    let proxy = Proxy::start(world.snapshot());
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").head();
    assert_eq!(client.rest(), b"half");
    assert_eq!(proxy.recorded(1)[0].flags, ["UT"]);
}

#[test]
fn each_try_has_its_own_time() {
    let slow = upstream(|client, number| {
        request(client);
        if number > 0 {
            client.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        }
        request(client);
    });
    let mut world = World::to(slow);
    world.forward(|forward| {
        let policy = RetryPolicy {
            per_try_timeout: Some(Duration::from_secs(1)),
            ..RetryPolicy::clone(&retry(RetryOn { reset: true, ..RetryOn::default() }))
        };
        forward.retry = Some(Arc::new(policy));
    });
    let proxy = Proxy::start(world.snapshot());
    assert_eq!(proxy.client().get("/").status, 200);
    assert_eq!(proxy.recorded(1)[0].attempts, 2);
}

#[test]
fn connections_are_reused_and_never_when_the_upstream_closed_them() {
    let (connections, closed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counted = (Arc::clone(&connections), Arc::clone(&closed));
    let upstream = upstream(move |client, _| {
        counted.0.fetch_add(1, Ordering::SeqCst);
        // Two requests for each connection, and then it is closed without a word.
        for _ in 0..2 {
            if request(client).is_none() {
                return;
            }
            client.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        }
        client.shutdown();
        counted.1.fetch_add(1, Ordering::SeqCst);
    });
    let proxy = Proxy::start(World::to(upstream).snapshot());
    let mut client = proxy.client();
    for number in 0..20_usize {
        let answer = client.send("POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 0\r\n\r\n").answer();
        assert_eq!(answer.status, 200, "request {number}");
        if number % 2 == 1 {
            // The close has arrived. A request that races with it cannot be told apart by anybody.
            eventually(|| closed.load(Ordering::SeqCst) == number.div_ceil(2));
        }
    }
    assert_eq!(connections.load(Ordering::SeqCst), 10);
}

#[test]
fn an_idempotent_request_survives_a_close_that_races_with_it() {
    // The second request of a connection is read, and then the connection is closed without an answer.
    let upstream = upstream(move |client, _| {
        request(client);
        client.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        request(client);
    });
    let proxy = Proxy::start(World::to(upstream).snapshot());
    let mut client = proxy.client();
    for _ in 0..5 {
        assert_eq!(client.get("/").status, 200);
    }
    assert!(proxy.recorded(5).iter().all(|recorded| recorded.status == 200));
}

#[test]
fn a_request_that_may_have_been_processed_is_not_sent_twice() {
    let seen = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&seen);
    let upstream = upstream(move |client, _| {
        request(client);
        client.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        if request(client).is_some() {
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    let proxy = Proxy::start(World::to(upstream).snapshot());
    let mut client = proxy.client();
    assert_eq!(client.get("/").status, 200);
    let answer = client.send("POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 1\r\n\r\nx").answer();
    assert_eq!(answer.status, 503);
    assert_eq!(seen.load(Ordering::SeqCst), 1);
    let recorded = &proxy.recorded(2)[1];
    assert_eq!(recorded.flags, ["UC"]);
    assert!(recorded.cause.as_ref().unwrap().contains("closed the connection"), "{recorded:?}");
}

#[test]
fn a_full_cluster_refuses_what_would_wait_too_long() {
    let (started, waits) = std::sync::mpsc::channel();
    let started = std::sync::Mutex::new(started);
    let upstream = upstream(move |client, _| {
        request(client);
        started.lock().unwrap().send(()).unwrap();
        request(client);
    });
    let mut world = World::to(upstream);
    world.policy(|policy| policy.limits = Breakers { max_requests: Some(1), ..Breakers::default() });
    let proxy = Proxy::start(world.snapshot());
    let mut first = proxy.client();
    first.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n");
    waits.recv_timeout(PATIENCE).unwrap();
    let answer = proxy.client().get("/");
    assert_eq!(answer.status, 503);
    assert!(answer.text().ends_with("reset reason: overflow"));
    assert_eq!(proxy.recorded(1)[0].flags, ["UO"]);
}

#[test]
fn a_client_that_leaves_cancels_its_request() {
    let (told, gone) = std::sync::mpsc::channel();
    let told = std::sync::Mutex::new(told);
    let upstream = upstream(move |client, _| {
        request(client);
        told.lock().unwrap().send("request").unwrap();
        assert!(client.is_closed());
        told.lock().unwrap().send("closed").unwrap();
    });
    let proxy = Proxy::start(World::to(upstream).snapshot());
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n");
    assert_eq!(gone.recv_timeout(PATIENCE), Ok("request"));
    drop(client);
    assert_eq!(gone.recv_timeout(PATIENCE), Ok("closed"));
    let recorded = &proxy.recorded(1)[0];
    assert_eq!((recorded.flags.as_slice(), recorded.status), (&["DC"][..], 0));
}

#[test]
fn a_broken_response_is_broken_for_the_client_too() {
    let upstream = upstream(|client, _| {
        request(client);
        client.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf");
    });
    let proxy = Proxy::start(World::to(upstream).snapshot());
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").head();
    assert_eq!(client.rest(), b"half");
    let recorded = &proxy.recorded(1)[0];
    assert_eq!(recorded.flags, ["UC"]);
}

#[test]
fn an_upstream_that_speaks_nonsense_is_a_bad_gateway() {
    for nonsense in [
        "SSH-2.0-OpenSSH\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\nfoo: bar\n\n",
        "HTTP/1.1 200 OK\r\nfoo : bar\r\n\r\n",
    ] {
        let upstream = upstream(move |client, _| {
            request(client);
            client.send(nonsense);
            request(client);
        });
        let proxy = Proxy::start(World::to(upstream).snapshot());
        assert_eq!(proxy.client().get("/").status, 502, "{nonsense:?}");
        assert_eq!(proxy.recorded(1)[0].flags, ["UPE"]);
    }
}

#[test]
fn an_answer_before_the_end_of_the_request_comes_through() {
    let upstream = upstream(|client, _| {
        client.head_of_request();
        client.send("HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno");
        client.rest();
    });
    let proxy = Proxy::start(World::to(upstream).snapshot());
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 100\r\n\r\nsome");
    let answer = client.answer();
    assert_eq!((answer.status, answer.text()), (413, "no"));
}
