use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use mizzen_balance::Outcome;
use mizzen_identity::Secrets;
use mizzen_snapshot::cluster::{
    Cluster, ClusterPolicy, Discovery, Endpoint, EndpointAddress, EndpointSet, Health as Fitness, Limits,
    LocalityEndpoints, OutlierDetection,
};
use mizzen_snapshot::listener::{Direction, Drain, Inspect, ListenAddress};
use mizzen_snapshot::{Listener, Snapshot};
use mizzen_telemetry::Party;
use mizzen_telemetry::stats::HttpStat;
use mizzen_types::Locality;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::config::Limits as ProxyLimits;
use crate::shared::NoRecorder;

fn cluster(name: &str) -> Arc<Cluster> {
    let endpoint = |address: &str, weight, health| {
        let address = EndpointAddress::Socket(address.parse().unwrap());
        Arc::new(Endpoint { address, weight, health, transport_labels: Vec::new(), hostname: None, workload: None })
    };
    let mut policy = ClusterPolicy::plain(name.into(), Discovery::Static);
    policy.limits = Limits { max_connections: Some(5), ..Limits::default() };
    policy.outliers = Some(OutlierDetection {
        consecutive_5xx: 1,
        consecutive_gateway_failure: 0,
        split_local_origin: false,
        consecutive_local_origin_failure: 0,
        interval: Duration::from_secs(10),
        base_ejection_time: Duration::from_secs(30),
        max_ejection_time: Duration::from_secs(300),
        max_ejection_percent: 100,
        enforcing_consecutive_5xx: 100,
        enforcing_consecutive_gateway_failure: 0,
        enforcing_consecutive_local_origin_failure: 0,
        always_eject_one_host: false,
    });
    let locality = LocalityEndpoints {
        locality: Locality::parse("r/z/s"),
        priority: 0,
        weight: None,
        endpoints: vec![
            endpoint("127.0.0.1:29800", 3, Fitness::Healthy),
            endpoint("127.0.0.1:29801", 1, Fitness::Unhealthy),
        ],
    };
    let endpoints = EndpointSet { localities: vec![locality], overprovisioning: 140 };
    Arc::new(Cluster { policy: Arc::new(policy), endpoints: Arc::new(endpoints) })
}

fn listener() -> Arc<Listener> {
    Arc::new(Listener {
        name: "0.0.0.0_9080".into(),
        address: ListenAddress::Tcp("0.0.0.0:9080".parse().unwrap()),
        bind: true,
        transparent: false,
        use_original_dst: false,
        direction: Direction::Outbound,
        inspect: Inspect::default(),
        chains: Vec::new(),
        default_chain: None,
        drain: Drain::Default,
        max_connections: None,
        unmatched: None,
        notes: Vec::new(),
        fingerprint: 0,
        origin: None,
    })
}

struct Port {
    address: SocketAddr,
    admin: Arc<Admin>,
    ordered: Arc<Mutex<Vec<Order>>>,
}

impl Port {
    async fn open() -> Self {
        let secrets = Secrets::new();
        let shared = Shared::new(secrets.clone(), Arc::new(NoRecorder), ProxyLimits::default(), Duration::ZERO);
        let mut snapshot = Snapshot::default();
        snapshot.clusters.insert_mut("up".into(), cluster("up"));
        snapshot.clusters.insert_mut("idle".into(), cluster("idle"));
        snapshot.listeners.insert_mut("0.0.0.0_9080".into(), listener());
        let called = shared.balancers.of(&cluster("up"), &snapshot, Default::default());
        shared.snapshot.store(Arc::new(snapshot));
        let host = &called.hosts()[0];
        let _ended = host.begin_request();
        called.record(host, Outcome::Response(500), Default::default());
        let ordered: Arc<Mutex<Vec<Order>>> = Arc::default();
        let level = Arc::new(Mutex::new("info".to_owned()));
        let admin = Arc::new(Admin {
            shared: Arc::new(shared),
            record: Arc::new(Record::new(Party::default(), "vm", secrets)),
            health: Health::new(),
            held: Arc::default(),
            log_level: Some(LogLevel {
                get: Box::new({
                    let level = Arc::clone(&level);
                    move || level.lock().unwrap().clone()
                }),
                set: Box::new(move |wanted| {
                    if wanted.contains("nonsense") {
                        return Err("no such level".to_owned());
                    }
                    wanted.clone_into(&mut level.lock().unwrap());
                    Ok(())
                }),
            }),
            orders: Box::new({
                let ordered = Arc::clone(&ordered);
                move |order| ordered.lock().unwrap().push(order)
            }),
            about: About { version: "0.1.0".to_owned(), concurrency: 2, ..About::default() },
        });
        let (address, _task) = listen("127.0.0.1:0".parse().unwrap(), Arc::clone(&admin)).await.unwrap();
        Self { address, admin, ordered }
    }

    /// Status and body.
    async fn ask(&self, method: &str, path: &str, headers: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    async fn get(&self, path: &str) -> String {
        let (status, body) = self.ask("GET", path, "host: localhost\r\n").await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }
}

#[tokio::test]
async fn clusters_have_envoys_keys() {
    let port = Port::open().await;
    let text = port.get("/clusters").await;
    // The keys that Envoy 1.40 prints for such a cluster, but for those of things that do not exist here: the high
    // priority of circuit breakers, and requests that wait for one endpoint's connection.
    let expected: BTreeSet<&str> = "observability_name outlier::success_rate_average \
        outlier::success_rate_ejection_threshold outlier::local_origin_success_rate_average \
        outlier::local_origin_success_rate_ejection_threshold default_priority::max_connections \
        default_priority::max_pending_requests default_priority::max_requests default_priority::max_retries \
        added_via_api cx_active cx_connect_fail cx_total rq_active rq_error rq_success rq_timeout rq_total hostname \
        health_flags weight region zone sub_zone canary priority success_rate local_origin_success_rate"
        .split_whitespace()
        .collect();
    let keys: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("up::"))
        .map(|line| {
            let line = line
                .strip_prefix("127.0.0.1:29800::")
                .or_else(|| line.strip_prefix("127.0.0.1:29801::"))
                .unwrap_or(line);
            line.rsplit_once("::").unwrap().0
        })
        .collect();
    assert_eq!(keys, expected);
    for line in [
        "up::default_priority::max_connections::5",
        "up::default_priority::max_requests::4294967295",
        "up::127.0.0.1:29800::health_flags::/failed_outlier_check",
        "up::127.0.0.1:29801::health_flags::/failed_eds_health",
        "up::127.0.0.1:29800::weight::3",
        "up::127.0.0.1:29800::rq_total::1",
        "up::127.0.0.1:29800::rq_error::1",
        "up::127.0.0.1:29800::sub_zone::s",
        "idle::127.0.0.1:29800::rq_total::0",
    ] {
        assert!(text.lines().any(|have| have == line), "{line} is missing in\n{text}");
    }
    assert!(!port.get("/clusters?filter=%5Eidle").await.contains("up::"));
    let json: serde_json::Value = serde_json::from_str(&port.get("/clusters?format=json&filter=up").await).unwrap();
    let host = &json["cluster_statuses"][0]["host_statuses"][0];
    assert_eq!(host["address"]["socket_address"]["port_value"], 29800);
    assert_eq!(host["health_status"]["failed_outlier_check"], true);
    assert_eq!(host["health_status"]["eds_health_status"], "HEALTHY");
    assert_eq!(port.admin.shared.balancers.all().len(), 1, "looking at a cluster does not make it a called one");
}

#[tokio::test]
async fn what_is_in_force_is_shown() {
    let port = Port::open().await;
    assert_eq!(port.get("/listeners").await, "0.0.0.0_9080::0.0.0.0:9080\n");
    let json: serde_json::Value = serde_json::from_str(&port.get("/listeners?format=json").await).unwrap();
    assert_eq!(json["listener_statuses"][0]["local_address"]["socket_address"]["port_value"], 9080);

    port.admin.record.stats.http("inbound").inc(HttpStat::Rq2xx);
    let stats = port.get("/stats?filter=rq_2xx%7Cmembership").await;
    assert!(stats.contains("http.inbound.downstream_rq_2xx: 1\n"), "{stats}");
    assert!(stats.contains("cluster.up.membership_healthy: 0\ncluster.up.membership_total: 2\n"), "{stats}");
    assert!(stats.lines().all(|line| line.contains("rq_2xx") || line.contains("membership")), "{stats}");
    assert!(!port.get("/stats?usedonly").await.contains(": 0\n"));
    let metrics = port.get("/stats/prometheus").await;
    assert!(metrics.contains("envoy_cluster_membership_total{cluster_name=\"up\"} 2\n"), "{metrics}");
    assert!(metrics.contains("# TYPE envoy_server_live gauge\nenvoy_server_live 0\n"), "{metrics}");

    let info: serde_json::Value = serde_json::from_str(&port.get("/server_info").await).unwrap();
    assert_eq!((info["state"].as_str(), info["version"].as_str()), (Some("INITIALIZING"), Some("0.1.0")));
    assert!(port.get("/memory").await.contains("total_physical_bytes"));
    assert!(port.get("/certs").await.contains("certificates"));
    assert!(port.get("/help").await.contains("/quitquitquit (POST)"));
    assert_eq!(port.ask("GET", "/ready", "host: localhost\r\n").await.0, 503);
    port.admin.health.configured();
    assert_eq!(port.get("/ready").await, "LIVE\n");
    assert_eq!(port.ask("GET", "/nothing", "host: localhost\r\n").await.0, 404);
    assert_eq!(port.ask("GET", "/stats?filter=(", "host: localhost\r\n").await.0, 400);
}

#[tokio::test]
async fn s35_nothing_is_changed_by_get_and_nothing_is_told_to_strangers() {
    let port = Port::open().await;
    for path in ORDERS {
        let (status, body) = port.ask("GET", path, "host: localhost\r\n").await;
        assert_eq!(status, 405, "{path}: {body}");
    }
    for headers in [
        "host: evil.example\r\n",
        "host: localhost\r\norigin: http://evil.example\r\n",
        "host: localhost\r\nx-forwarded-proto: http\r\n",
        "host: localhost\r\nx-request-id: 1\r\n",
    ] {
        assert_eq!(port.ask("POST", "/quitquitquit", headers).await.0, 403, "{headers}");
        assert_eq!(port.ask("GET", "/config_dump", headers).await.0, 403, "{headers}");
    }
    // The target of a proxy request is a host too.
    assert_eq!(port.ask("GET", "http://evil.example/stats", "host: localhost\r\n").await.0, 403);
    assert!(port.ordered.lock().unwrap().is_empty());
    assert_eq!(port.admin.health.state().as_str(), "INITIALIZING");
}

#[tokio::test]
async fn orders_are_passed_on() {
    let port = Port::open().await;
    for path in ["/quitquitquit", "/drain_listeners?inboundonly", "/drain_listeners"] {
        assert_eq!(port.ask("POST", path, "host: localhost\r\n").await, (200, "OK\n".to_owned()));
    }
    let expected =
        [Order::Quit, Order::DrainListeners { inbound_only: true }, Order::DrainListeners { inbound_only: false }];
    assert_eq!(*port.ordered.lock().unwrap(), expected);
    port.admin.health.configured();
    port.ask("POST", "/healthcheck/fail", "host: localhost\r\n").await;
    assert!(!port.admin.health.is_ready());
    port.ask("POST", "/healthcheck/ok", "host: localhost\r\n").await;
    assert!(port.admin.health.is_ready());
}

#[tokio::test]
async fn the_log_level_is_shown_and_changed() {
    let port = Port::open().await;
    let steps = [
        ("/logging", 200, "active loggers:\n  info\n\n"),
        ("/logging?level=warning", 200, "active loggers:\n  warn\n\n"),
        ("/logging?paths=mizzen_proxy:debug", 200, "active loggers:\n  warn\n  mizzen_proxy: debug\n\n"),
        ("/logging?mizzen_proxy=trace", 200, "active loggers:\n  warn\n  mizzen_proxy: trace\n\n"),
        ("/logging?level=nonsense", 400, "no such level\n"),
        ("/logging?level=info,mizzen_xds%3Ddebug", 200, "active loggers:\n  info\n  mizzen_xds: debug\n\n"),
    ];
    for (path, status, body) in steps {
        assert_eq!(port.ask("POST", path, "host: localhost\r\n").await, (status, body.to_owned()), "{path}");
    }
}

#[tokio::test]
async fn an_admin_port_for_everybody_becomes_one_for_this_machine() {
    let port = Port::open().await;
    let (address, _task) = listen("0.0.0.0:0".parse().unwrap(), port.admin).await.unwrap();
    assert!(address.ip().is_loopback());
}
