use std::path::PathBuf;
use std::time::Duration;

use http::HeaderMap;
use mizzen_snapshot::listener::{LogFormat, LogSink};
use mizzen_snapshot::log_format::{ENVOY_DEFAULT, ISTIO_DEFAULT};
use mizzen_types::Percent;
use proptest::prelude::*;

use super::*;
use crate::exchange::{Address, Kind};

fn headers(pairs: &[(&'static str, &[u8])]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (name.parse().unwrap(), http::HeaderValue::from_bytes(value).unwrap())).collect()
}

/// The moment 2026-11-22T16:43:25.042904Z.
fn start() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::new(1_795_365_805, 42_904_000)
}

fn line(format: &LogFormat, exchange: &Exchange<'_>) -> String {
    let mut out = String::new();
    render::line(&mut out, &LogTemplate::compile(format).unwrap(), exchange, "vm");
    out
}

fn text(format: &str, exchange: &Exchange<'_>) -> String {
    line(&LogFormat::Text(Some(format.to_owned())), exchange)
}

struct Sample {
    request: HeaderMap,
    response: HeaderMap,
}

impl Sample {
    fn new() -> Self {
        Self {
            request: headers(&[
                ("user-agent", b"curl/7.88.1"),
                ("x-request-id", b"0a3567f3"),
                ("x-forwarded-for", b"1.2.3.4"),
            ]),
            response: headers(&[("x-envoy-upstream-service-time", b"42")]),
        }
    }

    fn exchange(&self) -> Exchange<'_> {
        Exchange {
            method: Some("GET"),
            path: Some("/ok/fail?a=1&b"),
            authority: Some("127.0.0.1:29900"),
            protocol: Some("HTTP/1.1"),
            request_headers: Some(&self.request),
            response_headers: Some(&self.response),
            status: 500,
            details: Some("via_upstream"),
            bytes_sent: 5,
            upstream_responded: Some(Duration::from_millis(3)),
            attempts: 1,
            downstream_remote: Some("1.2.3.4:0".parse().unwrap()),
            downstream_local: Some("127.0.0.1:29900".parse().unwrap()),
            upstream_host: Some(Address::Socket("127.0.0.1:29800".parse().unwrap())),
            upstream_local: Some("127.0.0.1:47640".parse().unwrap()),
            cluster: Some("up"),
            route: Some("okroute"),
            ..Exchange::new(Kind::Http, start(), Duration::from_micros(43_900))
        }
    }
}

/// Lines recorded from Envoy 1.40 for the same exchanges.
#[test]
fn default_formats_are_envoys_and_istios() {
    let sample = Sample::new();
    let answered = sample.exchange();
    assert_eq!(
        line(&LogFormat::Text(None), &answered),
        "[2026-11-22T16:43:25.042Z] \"GET /ok/fail?a=1&b HTTP/1.1\" 500 - 0 5 43 42 \"1.2.3.4\" \"curl/7.88.1\" \
         \"0a3567f3\" \"127.0.0.1:29900\" \"127.0.0.1:29800\"\n"
    );
    assert_eq!(
        text(ISTIO_DEFAULT, &answered),
        "[2026-11-22T16:43:25.042Z] \"GET /ok/fail?a=1&b HTTP/1.1\" 500 - via_upstream - \"-\" 0 5 43 42 \"1.2.3.4\" \
         \"curl/7.88.1\" \"0a3567f3\" \"127.0.0.1:29900\" \"127.0.0.1:29800\" up 127.0.0.1:47640 127.0.0.1:29900 \
         1.2.3.4:0 - okroute\n"
    );
    let (request, response) = (headers(&[("user-agent", b"curl/7.88.1"), ("x-request-id", b"0a35")]), HeaderMap::new());
    let refused = Exchange {
        request_headers: Some(&request),
        response_headers: Some(&response),
        path: Some("/ok?a=1"),
        status: 503,
        flags: "UF",
        details: Some(
            "upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error: Connection refused}",
        ),
        upstream_transport_failure: Some("delayed_connect_error: Connection refused"),
        bytes_sent: 98,
        duration: Duration::from_micros(300),
        downstream_remote: Some("127.0.0.1:56864".parse().unwrap()),
        upstream_local: None,
        ..answered
    };
    assert_eq!(
        text(ISTIO_DEFAULT, &refused),
        "[2026-11-22T16:43:25.042Z] \"GET /ok?a=1 HTTP/1.1\" 503 UF \
         upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused} - \
         \"delayed_connect_error:_Connection_refused\" 0 98 0 - \"-\" \"curl/7.88.1\" \"0a35\" \"127.0.0.1:29900\" \
         \"127.0.0.1:29800\" up - 127.0.0.1:29900 127.0.0.1:56864 - okroute\n"
    );
}

#[test]
fn a_rewritten_path_is_logged_as_the_client_sent_it() {
    let request = headers(&[("x-envoy-original-path", b"/productpage")]);
    let exchange = Exchange {
        path: Some("/new"),
        request_headers: Some(&request),
        ..Exchange::new(Kind::Http, start(), Duration::ZERO)
    };
    assert_eq!(
        text("%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %REQ(:PATH)% %PATH%", &exchange),
        "/productpage /new /productpage"
    );
}

#[track_caller]
fn check(format: &str, expected: &str, json: &str) {
    let sample = Sample::new();
    let exchange = Exchange { connection_id: Some(7), flags: "UF,URX", ..sample.exchange() };
    assert_eq!(text(format, &exchange), expected, "{format}");
    let fields = LogFormat::Json(vec![("k".to_owned(), format.to_owned())]);
    assert_eq!(line(&fields, &exchange), format!("{{\"k\":{json}}}\n"), "{format}");
}

#[test]
fn operators_have_envoys_values_in_text_and_in_json() {
    check("%RESPONSE_CODE%", "500", "500");
    check("%RESPONSE_CODE% x", "500 x", "\"500 x\"");
    check("a %REQ(NOPE)%", "a -", "\"a -\"");
    check("%REQ(NOPE)%", "-", "null");
    check("%REQ(NOPE?USER-AGENT):4%", "curl", "\"curl\"");
    check("100%%", "100%", "\"100%\"");
    check("%RESPONSE_FLAGS%", "UF,URX", "\"UF,URX\"");
    check(
        "%RESPONSE_FLAGS_LONG%",
        "UpstreamConnectionFailure,UpstreamRetryLimitExceeded",
        "\"UpstreamConnectionFailure,UpstreamRetryLimitExceeded\"",
    );
    check("%START_TIME(%s.%3f)%", "1795365805.042", "\"1795365805.042\"");
    check("%START_TIME(%Y/%m/%dT%H:%M:%S%z)%", "2026/11/22T16:43:25+0000", "\"2026/11/22T16:43:25+0000\"");
    check("%START_TIME(%f %1f %9f)%", "042904000 0 042904000", "\"042904000 0 042904000\"");
    check(
        "%START_TIME(%a %d %b %j %I %p %y %F %T)%",
        "Sun 22 Nov 326 04 PM 26 2026-11-22 16:43:25",
        "\"Sun 22 Nov 326 04 PM 26 2026-11-22 16:43:25\"",
    );
    check("%DOWNSTREAM_LOCAL_PORT%", "29900", "29900");
    check("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "1.2.3.4", "\"1.2.3.4\"");
    check("%CONNECTION_ID%", "7", "7");
    check("%HOSTNAME%", "vm", "\"vm\"");
    check("%UPSTREAM_REQUEST_ATTEMPT_COUNT%", "1", "1");
    check("%RESPONSE_DURATION%", "3", "3");
    check("%RESPONSE_TX_DURATION%", "40", "40");
    check("%REQUEST_DURATION%", "-", "null");
    check("%DOWNSTREAM_TLS_VERSION%", "-", "null");
    check("%DYNAMIC_METADATA(a:b)%", "-", "null");
    check("%QUERY_PARAM(a)%", "1", "\"1\"");
    check("%QUERY_PARAM(c)%", "-", "null");
    check("%GRPC_STATUS%", "-", "null");
    check("%STREAM_ID%", "0a3567f3", "\"0a3567f3\"");
    check("%ACCESS_LOG_TYPE%", "DownstreamEnd", "\"DownstreamEnd\"");
    check("%UPSTREAM_CLUSTER%", "up", "\"up\"");
}

#[test]
fn grpc_status_comes_from_trailers() {
    let request = headers(&[("content-type", b"application/grpc")]);
    let trailers = headers(&[("grpc-status", b"14")]);
    let exchange = Exchange {
        request_headers: Some(&request),
        response_trailers: Some(&trailers),
        ..Exchange::new(Kind::Http, start(), Duration::ZERO)
    };
    assert_eq!(text("%GRPC_STATUS% %GRPC_STATUS_NUMBER% %TRAILER(grpc-status)%", &exchange), "Unavailable 14 14");
}

#[test]
fn s29_what_a_client_sends_cannot_forge_a_line() {
    let request = headers(&[("user-agent", b"x\"\tforged\xff\"")]);
    let exchange = Exchange {
        path: Some("/a\n[2026] \"GET"),
        server_name: Some("a\x1b[31m"),
        request_headers: Some(&request),
        ..Exchange::new(Kind::Http, start(), Duration::ZERO)
    };
    assert_eq!(
        text("\"%REQ(:PATH)%\" \"%REQ(USER-AGENT)%\" %REQUESTED_SERVER_NAME%\n", &exchange),
        "\"/a\\x0a[2026] \\x22GET\" \"x\\x22\\x09forged\\xff\\x22\" a\\x1b[31m\n"
    );
}

proptest! {
    #[test]
    fn one_exchange_is_one_line(path: String, agent in prop::collection::vec(any::<u8>(), 0..40), name: String) {
        let mut request = HeaderMap::new();
        if let Ok(value) = http::HeaderValue::from_bytes(&agent) {
            request.insert("user-agent", value);
        }
        let exchange = Exchange {
            path: Some(&path),
            authority: Some(&path),
            server_name: Some(&name),
            route: Some(&name),
            details: Some(&name),
            request_headers: Some(&request),
            ..Exchange::new(Kind::Http, start(), Duration::ZERO)
        };
        for format in [ENVOY_DEFAULT, ISTIO_DEFAULT] {
            let line = text(format, &exchange);
            prop_assert_eq!(line.matches('\n').count(), 1);
            prop_assert_eq!(line.matches('"').count(), format.matches('"').count());
        }
    }
}

fn log(sink: LogSink, filters: Vec<LogFilter>) -> AccessLog {
    AccessLog { sink, format: LogFormat::Text(Some("%RESPONSE_CODE% %RESPONSE_FLAGS%\n".to_owned())), filters }
}

fn exchange(status: u16, flags: &str) -> Exchange<'_> {
    Exchange { status, flags, ..Exchange::new(Kind::Http, start(), Duration::ZERO) }
}

#[test]
fn filters_choose_what_is_logged() {
    let folder = tempfile::tempdir().unwrap();
    let writers = Writers::new();
    let check = |name: &str, filter: LogFilter, expected: &str| {
        let path = folder.path().join(name);
        let logger = Logger::new(&log(LogSink::File(path.clone()), vec![filter]), &writers, &"vm".into()).unwrap();
        for (status, flags) in [(200, ""), (404, "NR"), (503, "UF,URX")] {
            logger.write(&exchange(status, flags), 600_000);
        }
        writers.flush();
        assert_eq!(std::fs::read_to_string(path).unwrap_or_default(), expected, "{name}");
    };
    check("flags", LogFilter::ResponseFlags(vec!["NR".into(), "URX".into()]), "404 NR\n503 UF,URX\n");
    check("any flag", LogFilter::ResponseFlags(Vec::new()), "404 NR\n503 UF,URX\n");
    check("status", LogFilter::StatusAtLeast(404), "404 NR\n503 UF,URX\n");
    check("none", LogFilter::Share(Percent::from_percent(50.0).unwrap()), "");
    check("all", LogFilter::Share(Percent::ALWAYS), "200 -\n404 NR\n503 UF,URX\n");
}

#[test]
fn lines_arrive_within_a_second_without_anybody_asking() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let writers = Writers::new();
    let logger = Logger::new(&log(LogSink::File(path.clone()), Vec::new()), &writers, &"vm".into()).unwrap();
    logger.write(&exchange(200, ""), 0);
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while std::fs::read_to_string(&path).unwrap_or_default() != "200 -\n" {
        assert!(std::time::Instant::now() < deadline, "the line does not come");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(writers.counts(), (1, 0));
}

#[test]
fn threads_write_whole_lines_and_lose_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let writers = Writers::new();
    let logger = Logger::new(&log(LogSink::File(path.clone()), Vec::new()), &writers, &"vm".into()).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..5_000).for_each(|_| logger.write(&exchange(200, "UF"), 0)));
        }
    });
    drop(writers);
    let text = std::fs::read_to_string(path).unwrap();
    assert_eq!(text.lines().count(), 20_000);
    assert!(text.lines().all(|line| line == "200 UF"));
}

#[test]
fn what_cannot_be_written_is_dropped_and_counted() {
    let writers = Writers::new();
    let nowhere = LogSink::File(PathBuf::from("/nonexistent/folder/log"));
    let logger = Logger::new(&log(nowhere, Vec::new()), &writers, &"vm".into()).unwrap();
    for _ in 0..10 {
        logger.write(&exchange(200, ""), 0);
    }
    writers.flush();
    // The writer's thread may have taken them before.
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while writers.counts() != (0, 10) {
        assert!(std::time::Instant::now() < deadline, "{:?}", writers.counts());
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn an_unknown_operator_is_an_error_that_names_it() {
    let mut bad = log(LogSink::Stdout, Vec::new());
    bad.format = LogFormat::Text(Some("%NOT_AN_OPERATOR%".to_owned()));
    let error = Logger::new(&bad, &Writers::new(), &"vm".into()).unwrap_err();
    assert!(error.to_string().contains("%NOT_AN_OPERATOR%"), "{error}");
}

/// What a line costs; `cargo test --release -p mizzen-telemetry -- --ignored --nocapture cost`.
#[test]
#[ignore = "measures, and says nothing in a debug build"]
fn cost_of_a_line() {
    let sample = Sample::new();
    let writers = Writers::new();
    let mut istio = log(LogSink::File("/dev/null".into()), Vec::new());
    istio.format = LogFormat::Text(Some(ISTIO_DEFAULT.to_owned()));
    let logger = Logger::new(&istio, &writers, &"vm".into()).unwrap();
    let start = std::time::Instant::now();
    for _ in 0..500_000 {
        logger.write(std::hint::black_box(&sample.exchange()), 0);
    }
    println!(
        "a line in Istio's format: {} ns, {:?} written and dropped",
        start.elapsed().as_nanos() / 500_000,
        writers.counts()
    );
}
