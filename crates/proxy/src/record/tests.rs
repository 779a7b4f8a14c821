use std::time::{Duration, Instant, SystemTime};

use http::{HeaderMap, Method};
use mizzen_snapshot::http::RouteSource;
use mizzen_snapshot::listener::{Direction, Drain, Inspect, ListenAddress, LogFilter, LogFormat, LogSink};
use mizzen_snapshot::{Listener, log_format::ENVOY_DEFAULT};
use serde_json::json;

use super::*;

fn downstream(direction: Direction) -> Arc<Downstream> {
    let listener = Listener {
        name: "l".into(),
        address: ListenAddress::Tcp("127.0.0.1:9080".parse().unwrap()),
        bind: true,
        transparent: false,
        use_original_dst: false,
        direction,
        inspect: Inspect::default(),
        chains: Vec::new(),
        default_chain: None,
        drain: Drain::Default,
        max_connections: None,
        unmatched: None,
        notes: Vec::new(),
        fingerprint: 0,
        origin: None,
    };
    Arc::new(Downstream {
        listener: Arc::new(listener),
        id: 1,
        peer: "127.0.0.1:5000".parse().unwrap(),
        local: "127.0.0.1:9080".parse().unwrap(),
        tls: None,
        filter_chain: String::new(),
    })
}

fn handler(logs: Vec<AccessLog>) -> Arc<HttpHandler> {
    let mut handler = HttpHandler::plain(RouteSource::Named("9080".into()));
    handler.stat_prefix = "outbound_0.0.0.0_9080".to_owned();
    handler.istio_stats = true;
    handler.access_log = logs;
    Arc::new(handler)
}

fn facts(handler: &Arc<HttpHandler>, direction: Direction) -> HttpFacts {
    HttpFacts {
        downstream: downstream(direction),
        handler: Arc::clone(handler),
        started: Instant::now(),
        started_at: SystemTime::UNIX_EPOCH,
        method: Method::GET,
        path: "/productpage".to_owned(),
        authority: "istio.k3s.local".to_owned(),
        scheme: "http",
        version: Version::HTTP_11,
        request_headers: HeaderMap::new(),
        is_grpc: false,
        upgrade: None,
        response_headers: HeaderMap::new(),
        response_trailers: None,
        status: 404,
        flags: vec![Flag::NR],
        details: "route_not_found",
        cause: None,
        bytes_received: 0,
        bytes_sent: 0,
        duration: Duration::from_millis(2),
        request_received: None,
        upstream_sent: None,
        upstream_responded: None,
        remote: "127.0.0.1:5000".parse().unwrap(),
        peer: None,
        route: None,
        unfollowed: None,
        virtual_host: None,
        cluster: None,
        upstream: None,
        upstream_peer: None,
        upstream_local: None,
        upstream_connection: Default::default(),
        upstream_identity: None,
        upstream_tls: false,
        upstream_workload: None,
        upstream_failure: None,
        attempts: 0,
    }
}

fn own() -> Party {
    party_of_node(&json!({
        "NAME": "productpage-v1-abc",
        "NAMESPACE": "default",
        "CLUSTER_ID": "Kubernetes",
        "WORKLOAD_NAME": "productpage-v1",
        "LABELS": {"app": "productpage", "version": "v1"},
    }))
}

#[test]
fn node_metadata_says_who_we_are() {
    let party = own();
    assert_eq!((party.workload.as_str(), party.namespace.as_str()), ("productpage-v1", "default"));
    assert_eq!((party.app.as_str(), party.version.as_str()), ("productpage", "v1"));
    assert_eq!((party.canonical_service.as_str(), party.canonical_revision.as_str()), ("productpage", "v1"));
    let bare = party_of_node(&json!({"NAME": "pod"}));
    assert_eq!((bare.workload.as_str(), bare.canonical_service.as_str()), ("pod", "pod"));
    assert_eq!((bare.canonical_revision.as_str(), bare.app.as_str()), ("latest", ""));
    assert_eq!(party_of_node(&serde_json::Value::Null).workload, "");
}

#[test]
fn an_exchange_reaches_metrics_counters_and_log() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let log = AccessLog {
        sink: LogSink::File(path.clone()),
        format: LogFormat::Text(Some(ENVOY_DEFAULT.to_owned())),
        filters: Vec::new(),
    };
    let record = Record::new(own(), "vm", Secrets::new());
    let handler = handler(vec![log]);
    for _ in 0..3 {
        record.http(&facts(&handler, Direction::Outbound));
    }
    record.http(&facts(&handler, Direction::Inbound));
    record.writers.flush();
    let lines = std::fs::read_to_string(path).unwrap();
    assert_eq!(lines.lines().count(), 4);
    assert_eq!(
        lines.lines().next().unwrap(),
        "[1970-01-01T00:00:00.000Z] \"GET /productpage HTTP/1.1\" 404 NR 0 0 2 - \"-\" \"-\" \"-\" \"istio.k3s.local\" \"-\""
    );
    let metrics = record.istio.prometheus();
    let series = |reporter: &str, side: &str| {
        let found = metrics.lines().find(|line| {
            line.starts_with(&format!("istio_requests_total{{reporter=\"{reporter}\""))
                && line.contains(&format!("{side}_workload=\"productpage-v1\""))
                && line.contains("response_code=\"404\",response_flags=\"NR\"")
        });
        found.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
    };
    assert_eq!(series("source", "source"), Some(3));
    assert_eq!(series("destination", "destination"), Some(1));
    assert_eq!(record.istio.series(), 2);
    let stats = record.stats.read();
    let value = |name: &str| stats.iter().find(|reading| reading.name == name).map(|reading| reading.value);
    assert_eq!(value("http.outbound_0.0.0.0_9080.downstream_rq_4xx"), Some(4));
    assert_eq!(value("http.outbound_0.0.0.0_9080.no_route"), Some(4));
}

#[test]
fn without_the_filter_there_are_no_istio_metrics() {
    let record = Record::new(own(), "vm", Secrets::new());
    let mut plain = HttpHandler::plain(RouteSource::Named("9080".into()));
    plain.istio_stats = false;
    record.http(&facts(&Arc::new(plain), Direction::Outbound));
    assert_eq!(record.istio.prometheus(), "");
}

#[test]
fn handles_do_not_keep_old_configuration() {
    let record = Record::new(own(), "vm", Secrets::new());
    let handler = handler(Vec::new());
    record.http(&facts(&handler, Direction::Outbound));
    assert_eq!((read(&record.kept).len(), lock(&record.loggers).len()), (1, 1));
    assert_eq!(Arc::strong_count(&handler), 1);
    drop(handler);
    record.sweep(|_| true);
    assert_eq!((read(&record.kept).len(), lock(&record.loggers).len()), (0, 0));
}

#[test]
fn a_connection_that_no_filter_chain_matches_is_logged_and_not_counted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let format = "%RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %DOWNSTREAM_REMOTE_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS%\n";
    let log = |flags: &str| AccessLog {
        sink: LogSink::File(path.clone()),
        format: LogFormat::Text(Some(format.to_owned())),
        filters: vec![LogFilter::ResponseFlags(vec![flags.to_owned()])],
    };
    let unmatched = Arc::new(Unmatched { access_log: vec![log("NR"), log("UF")] });
    let record = Record::new(own(), "vm", Secrets::new());
    record.unmatched(&unmatched, &downstream(Direction::Inbound), SystemTime::now());
    record.writers.flush();
    let lines = std::fs::read_to_string(path).unwrap();
    assert_eq!(lines, "NR filter_chain_not_found 127.0.0.1:5000 127.0.0.1:9080\n");
    assert_eq!(record.istio.series(), 0);
}
