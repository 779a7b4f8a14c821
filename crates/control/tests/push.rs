//! The control plane as it ships, on real sockets, with our own client in a proxy's place.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use mizzen_control::{Bound, ControlConfig, run};
use mizzen_proto::envoy::config::core::v3::Node;
use mizzen_proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
use mizzen_proto::google::protobuf::value::Kind;
use mizzen_proto::google::protobuf::{Struct, Value};
use mizzen_testing::ReservedPort;
use mizzen_xds::client::{Authority, Config, Event, Handle, Refusal, Subscription, Update, start};
use mizzen_xds::{Mode, ResourceType};
use prost::Message;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

const SERVICES: &str = r"
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: default}
spec:
  clusterIP: 10.0.0.10
  selector: {app: reviews}
  ports: [{name: http, port: 9080, protocol: TCP}]
---
apiVersion: v1
kind: Pod
metadata: {name: client-1, namespace: default, labels: {app: client}}
spec: {serviceAccountName: client, containers: [{name: app, image: x}]}
status: {podIP: 127.70.0.1, phase: Running, conditions: [{type: Ready, status: 'True'}]}
";

fn endpoints(addresses: &[&str]) -> String {
    let list: Vec<_> =
        addresses.iter().map(|it| format!("{{addresses: [{it}], conditions: {{ready: true}}}}")).collect();
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: reviews-1, namespace: default, labels: \
         {{kubernetes.io/service-name: reviews}}}}\naddressType: IPv4\nports: [{{name: http, port: 9080, protocol: \
         TCP}}]\nendpoints: [{}]\n",
        list.join(", ")
    )
}

const REVIEWS: &str = "outbound|9080||reviews.default.svc.cluster.local";

struct Plane {
    bound: Bound,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
    dir: tempfile::TempDir,
}

impl Plane {
    async fn start() -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Self::start_at([any; 3]).await
    }

    async fn start_at(addresses: [SocketAddr; 3]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "services.yaml", SERVICES);
        write(dir.path(), "endpoints.yaml", &endpoints(&["127.70.0.2"]));
        Self::start_in(dir, addresses).await
    }

    async fn start_in(dir: tempfile::TempDir, [xds, secure, http]: [SocketAddr; 3]) -> Self {
        let config = ControlConfig {
            config: vec![dir.path().to_owned()],
            xds_address: xds,
            secure_xds_address: secure,
            http_address: http,
            ..ControlConfig::default()
        };
        let (stop, stopped) = oneshot::channel();
        let (ready, bound) = oneshot::channel();
        let task = tokio::spawn(async move {
            let stopped = async { drop(stopped.await) };
            run(config, stopped, |bound| ready.send(bound).unwrap()).await.unwrap();
        });
        Self { bound: bound.await.unwrap(), stop: Some(stop), task, dir }
    }

    fn write(&self, name: &str, text: &str) {
        write(self.dir.path(), name, text);
    }

    async fn stop(mut self) -> (tempfile::TempDir, Bound) {
        self.stop.take().unwrap().send(()).unwrap();
        self.task.await.unwrap();
        (self.dir, self.bound)
    }

    async fn get(&self, path: &str) -> serde_json::Value {
        let (status, body) = http(self.bound.http, path, "localhost").await;
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap_or(serde_json::Value::String(body))
    }
}

/// Replaces a file as editors do.
fn write(dir: &Path, name: &str, text: &str) {
    let temporary = dir.join(format!(".{name}"));
    std::fs::write(&temporary, text).unwrap();
    std::fs::rename(temporary, dir.join(name)).unwrap();
}

/// A request by hand: a client that would add nothing of its own.
async fn http(address: SocketAddr, path: &str, host: &str) -> (u16, String) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

fn node(name: &str) -> Node {
    let metadata = [("NAMESPACE", "default"), ("MIZZEN_VERSION", "0.1.0"), ("INTERCEPTION_MODE", "NONE")];
    let text = |text: &str| Value { kind: Some(Kind::StringValue(text.to_owned())) };
    let fields = metadata.iter().map(|(key, value)| ((*key).to_owned(), text(value))).collect();
    Node {
        id: format!("sidecar~127.70.0.1~{name}.default~default.svc.cluster.local"),
        metadata: Some(Struct { fields }),
        ..Default::default()
    }
}

struct Proxy {
    handle: Handle,
    events: mpsc::Receiver<Event>,
}

impl Proxy {
    fn start(plane: &Plane, mode: Mode) -> Self {
        Self::start_at(plane.bound.xds, mode)
    }

    fn start_at(address: SocketAddr, mode: Mode) -> Self {
        Self::start_as(address, mode, node("client-1"))
    }

    fn start_as(address: SocketAddr, mode: Mode, node: Node) -> Self {
        let config = Config { mode, ..Config::new(Authority::Plaintext(address.to_string()), node) };
        let (handle, events) = start(config);
        Self { handle, events }
    }

    fn subscribe(&self, kind: ResourceType, names: &[&str]) {
        let names: BTreeSet<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let wanted = if names.is_empty() { Subscription::Wildcard } else { Subscription::Names(names) };
        self.handle.subscribe(kind, wanted);
    }

    async fn next(&mut self) -> Event {
        let event = tokio::time::timeout(Duration::from_secs(60), self.events.recv()).await;
        event.expect("something happens in time").expect("the client runs")
    }

    /// The next update, accepted.
    async fn update(&mut self) -> Update {
        loop {
            if let Event::Update(update) = self.next().await {
                self.handle.accept(update.id);
                return update;
            }
        }
    }

    async fn silent(&mut self, time: Duration) {
        let event = tokio::time::timeout(time, self.events.recv()).await;
        assert!(event.is_err(), "nothing should come: {event:?}");
    }
}

fn names(update: &Update) -> Vec<&str> {
    update.resources.iter().map(|it| it.name.as_str()).collect()
}

fn addresses(update: &Update) -> Vec<String> {
    use mizzen_proto::envoy::config::core::v3::{SocketAddress, address::Address};
    use mizzen_proto::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
    let assignment = ClusterLoadAssignment::decode(update.resources[0].body.clone()).unwrap();
    let endpoints = assignment.endpoints.into_iter().flat_map(|it| it.lb_endpoints);
    let address = endpoints.filter_map(|it| match it.host_identifier? {
        HostIdentifier::Endpoint(endpoint) => match endpoint.address?.address? {
            Address::SocketAddress(SocketAddress { address, .. }) => Some(address),
            _ => None,
        },
        HostIdentifier::EndpointName(_) => None,
    });
    address.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_file_reaches_a_proxy() {
    for mode in [Mode::Delta, Mode::Sotw] {
        let plane = Plane::start().await;
        let mut proxy = Proxy::start(&plane, mode);
        proxy.subscribe(ResourceType::Cluster, &[]);
        let clusters = proxy.update().await;
        assert!(names(&clusters).contains(&REVIEWS), "{:?}", names(&clusters));
        proxy.subscribe(ResourceType::Endpoint, &[REVIEWS]);
        assert_eq!(addresses(&proxy.update().await), ["127.70.0.2"]);

        plane.write("endpoints.yaml", &endpoints(&["127.70.0.2", "127.70.0.3"]));
        let update = proxy.update().await;
        assert_eq!(
            (update.kind, names(&update)),
            (ResourceType::Endpoint, vec![REVIEWS]),
            "{mode:?}: clusters untouched"
        );
        assert_eq!(addresses(&update), ["127.70.0.2", "127.70.0.3"]);

        // Touched, but the same: nobody is told.
        plane.write("endpoints.yaml", &endpoints(&["127.70.0.2", "127.70.0.3"]));
        proxy.silent(Duration::from_millis(200)).await;
        plane.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_service_is_added_and_an_old_one_removed() {
    let plane = Plane::start().await;
    let mut proxy = Proxy::start(&plane, Mode::Delta);
    proxy.subscribe(ResourceType::Cluster, &[]);
    proxy.update().await;
    let ratings = SERVICES.replace("reviews", "ratings").replace("10.0.0.10", "10.0.0.11");
    plane.write("ratings.yaml", ratings.split("---").next().unwrap());
    let update = proxy.update().await;
    assert_eq!(names(&update), ["outbound|9080||ratings.default.svc.cluster.local"], "and nothing else");
    std::fs::remove_file(plane.dir.path().join("ratings.yaml")).unwrap();
    let update = proxy.update().await;
    assert_eq!(update.removed, ["outbound|9080||ratings.default.svc.cluster.local"]);
    plane.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_proxy_says_of_itself_gives_way_to_its_pod() {
    let plane = Plane::start().await;
    let mut node = node("late");
    node.id = "sidecar~127.70.0.9~late.default~default.svc.cluster.local".to_owned();
    let claims =
        Struct { fields: [("app".to_owned(), Value { kind: Some(Kind::StringValue("other".to_owned())) })].into() };
    if let Some(metadata) = &mut node.metadata {
        metadata.fields.remove("INTERCEPTION_MODE");
        metadata.fields.insert("LABELS".to_owned(), Value { kind: Some(Kind::StructValue(claims)) });
    }
    let mut proxy = Proxy::start_as(plane.bound.xds, Mode::Delta, node);
    proxy.subscribe(ResourceType::Cluster, &[]);
    let update = proxy.update().await;
    assert!(!names(&update).contains(&"inbound|9080||"), "{:?}", names(&update));
    // Its pod is seen only now, and is one of those that answer for the Service.
    plane.write(
        "late.yaml",
        "{apiVersion: v1, kind: Pod, metadata: {name: late, namespace: default, labels: {app: reviews}}, spec: \
         {serviceAccountName: reviews, containers: [{name: app, image: x}]}, status: {podIP: 127.70.0.9, phase: Running, \
         conditions: [{type: Ready, status: 'True'}]}}",
    );
    let inbound = async { while !names(&proxy.update().await).contains(&"inbound|9080||") {} };
    tokio::time::timeout(Duration::from_secs(60), inbound).await.expect("the pod's labels count");
    plane.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_tells_what_each_proxy_has_and_refused() {
    let plane = Plane::start().await;
    let mut proxy = Proxy::start(&plane, Mode::Delta);
    proxy.subscribe(ResourceType::Cluster, &[]);
    proxy.update().await;
    proxy.subscribe(ResourceType::Endpoint, &[REVIEWS]);
    let Event::Update(update) = proxy.next().await else { panic!("an update") };
    proxy.handle.refuse(update.id, vec![Refusal { name: REVIEWS.to_owned(), message: "no room".to_owned() }]);
    let mut row = serde_json::Value::Null;
    for _ in 0..3000 {
        row = plane.get("/debug/syncz").await[0].clone();
        if row["types"]["eds"]["state"] == "NACK" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(row["proxy"], "client-1.default", "{row}");
    assert_eq!(row["types"]["cds"]["state"], "SYNCED", "{row}");
    assert_eq!(row["types"]["eds"]["refused"]["message"], format!("{REVIEWS}: no room"), "{row}");
    assert_eq!(row["types"]["lds"]["state"], "IGNORED", "{row}");
    let metrics = plane.get("/metrics").await;
    let metrics = metrics.as_str().unwrap();
    assert!(metrics.contains("pilot_total_xds_rejects{type=\"eds\"} 1\n"), "{metrics}");
    assert!(metrics.contains("pilot_services 1\n"), "{metrics}");
    plane.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_proxy_should_have_is_what_it_was_sent() {
    let plane = Plane::start().await;
    let mut redirected = node("client-1");
    if let Some(metadata) = &mut redirected.metadata {
        metadata.fields.remove("INTERCEPTION_MODE");
    }
    let mut proxy = Proxy::start_as(plane.bound.xds, Mode::Delta, redirected);
    let json = mizzen_proto::json::Json::new().with_proto_names();
    let mut sent = std::collections::BTreeMap::new();
    for (kind, wanted) in [
        (ResourceType::Cluster, &[][..]),
        (ResourceType::Endpoint, &[REVIEWS]),
        (ResourceType::Listener, &[]),
        (ResourceType::Route, &["9080"]),
    ] {
        proxy.subscribe(kind, wanted);
        let update = proxy.update().await;
        assert_eq!(update.kind, kind);
        let shown = update.resources.iter().map(|it| json.decode_any(kind.type_url(), &it.body).unwrap().to_string());
        sent.insert(kind, shown.collect::<BTreeSet<_>>());
    }
    let dump = plane.get("/debug/config_dump?proxyID=client-1.default&include_eds").await;
    for (kind, list, entry) in [
        (ResourceType::Cluster, "dynamic_active_clusters", "/cluster"),
        (ResourceType::Endpoint, "dynamic_endpoint_configs", "/endpoint_config"),
        (ResourceType::Listener, "dynamic_listeners", "/active_state/listener"),
        (ResourceType::Route, "dynamic_route_configs", "/route_config"),
    ] {
        let entries = dump["configs"].as_array().unwrap().iter().find_map(|section| section[list].as_array());
        let entries = entries.unwrap_or_else(|| panic!("no {list} in {dump}"));
        let shown: BTreeSet<_> = entries.iter().map(|it| it.pointer(entry).unwrap().to_string()).collect();
        assert_eq!(shown, sent[&kind], "{kind}");
    }
    let (status, text) = http(plane.bound.http, "/debug/config_dump?proxyID=nobody.default", "localhost").await;
    assert_eq!(status, 404, "{text}");
    assert!(text.contains("nobody.default"), "{text}");
    assert_eq!(http(plane.bound.http, "/debug/config_dump", "localhost").await.0, 400);
    assert_eq!(plane.get("/debug/connections").await["totalClients"], 1);
    plane.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_comes_back_to_a_restarted_control_plane_and_is_sent_only_news() {
    // Nobody else gets the ports while nobody listens on them.
    let reserved = [(); 3].map(|()| ReservedPort::new());
    let plane = Plane::start_at(reserved.each_ref().map(ReservedPort::address)).await;
    let mut proxy = Proxy::start(&plane, Mode::Delta);
    proxy.subscribe(ResourceType::Cluster, &[]);
    proxy.update().await;
    proxy.subscribe(ResourceType::Endpoint, &[REVIEWS]);
    proxy.update().await;
    let (dir, bound) = plane.stop().await;
    assert!(matches!(proxy.next().await, Event::Disconnected { .. }));
    write(dir.path(), "endpoints.yaml", &endpoints(&["127.70.0.9"]));
    let plane = Plane::start_in(dir, [bound.xds, bound.secure_xds, bound.http]).await;
    let first = proxy.update().await;
    assert_eq!((first.kind, names(&first), first.removed.len()), (ResourceType::Cluster, vec![], 0), "unchanged");
    assert_eq!(addresses(&proxy.update().await), ["127.70.0.9"]);
    plane.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn debug_pages_are_for_this_machine() {
    let plane = Plane::start().await;
    assert_eq!(http(plane.bound.http, "/debug/syncz", "localhost:15014").await.0, 200);
    assert_eq!(http(plane.bound.http, "/debug/syncz", "evil.example").await.0, 403, "DNS rebinding");
    assert_eq!(http(plane.bound.http, "/ready", "evil.example").await.0, 200);
    let place =
        plane.get("/debug/positions?kind=Service&namespace=default&name=reviews&field=spec.ports[0].port").await;
    assert_eq!(place["line"], 8, "{place}");
    assert_eq!(http(plane.bound.http, "/debug/positions?kind=Service&name=nobody", "localhost").await.0, 404);
    let objects = plane.get("/debug/configz").await;
    assert_eq!(objects.as_array().unwrap().len(), 3);
    plane.stop().await;
}

/// Addresses that configuration names are not the control plane's to call: they may be a cloud's metadata service, or one that
/// only this machine reaches.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s34_no_address_in_configuration_is_called() {
    let plane = Plane::start().await;
    let mut proxy = Proxy::start(&plane, Mode::Delta);
    proxy.subscribe(ResourceType::Cluster, &[]);
    proxy.update().await;
    let inside = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    inside.set_nonblocking(true).unwrap();
    let address = inside.local_addr().unwrap();
    plane.write(
        "tokens.yaml",
        &format!(
            "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {{name: a, namespace: default}}\nspec: \
             {{jwtRules: [{{issuer: i, jwksUri: 'http://{address}/keys'}}, {{issuer: 'http://{address}'}}]}}\n---\n\
             apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: b, namespace: default}}\nspec: \
             {{hosts: [inside.example], ports: [{{number: 80, name: http, protocol: HTTP}}], resolution: DNS, endpoints: \
             [{{address: 127.0.0.1, ports: {{http: {}}}}}]}}\n",
            address.port()
        ),
    );
    // By then both are read.
    let update = proxy.update().await;
    assert!(names(&update).iter().any(|name| name.contains("inside.example")), "{:?}", names(&update));
    proxy.silent(Duration::from_millis(300)).await;
    assert_eq!(inside.accept().map(drop).unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "somebody called");
    plane.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plaintext_discovery_is_not_opened_to_the_network_unasked() {
    let config = ControlConfig { xds_address: ([0, 0, 0, 0], 0).into(), ..ControlConfig::default() };
    let error = run(config, std::future::pending(), |_| ()).await.unwrap_err();
    assert!(error.to_string().contains("loopback"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_secure_port_wants_a_proof() {
    let plane = Plane::start().await;
    // Plaintext to the TLS port, then TLS without any proof.
    let mut proxy = Proxy::start_at(plane.bound.secure_xds, Mode::Delta);
    assert!(matches!(proxy.next().await, Event::Disconnected { .. }));
    plane.stop().await;
}

fn to_reviews(subset: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: reviews, namespace: default}}\nspec:\n  \
         hosts: [reviews]\n  http: [{{route: [{{destination: {{host: reviews, subset: {subset}}}}}]}}]\n---\napiVersion: \
         networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: reviews, namespace: default}}\nspec: {{host: \
         reviews, subsets: [{{name: {subset}, labels: {{version: {subset}}}}}]}}\n"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subset_is_there_before_its_route_and_goes_after_it() {
    for mode in [Mode::Delta, Mode::Sotw] {
        let plane = Plane::start().await;
        plane.write("rules.yaml", &to_reviews("v1"));
        let mut proxy = Proxy::start(&plane, mode);
        proxy.subscribe(ResourceType::Cluster, &[]);
        let subset = |name: &str| format!("outbound|9080|{name}|reviews.default.svc.cluster.local");
        let (v1, v2) = (subset("v1"), subset("v2"));
        while !names(&proxy.update().await).contains(&v1.as_str()) {}
        proxy.subscribe(ResourceType::Endpoint, &[REVIEWS, &v1]);
        assert_eq!(proxy.update().await.kind, ResourceType::Endpoint);
        proxy.subscribe(ResourceType::Listener, &[]);
        assert_eq!(proxy.update().await.kind, ResourceType::Listener);
        proxy.subscribe(ResourceType::Route, &["http_proxy"]);
        let routes = proxy.update().await;
        assert_eq!((routes.kind, names(&routes)), (ResourceType::Route, vec!["http_proxy"]));
        assert!(contains(&routes, &v1), "the route goes to v1");

        plane.write("rules.yaml", &to_reviews("v2"));
        let clusters = proxy.update().await;
        assert_eq!(clusters.kind, ResourceType::Cluster);
        assert!(names(&clusters).contains(&v2.as_str()), "{mode:?}");
        assert!(clusters.removed.is_empty(), "{mode:?}: {:?}", clusters.removed);
        assert_eq!(clusters.full, names(&clusters).contains(&v1.as_str()), "{mode:?}: v1 stays");
        proxy.subscribe(ResourceType::Endpoint, &[REVIEWS, &v1, &v2]);
        let endpoints = proxy.update().await;
        assert_eq!((endpoints.kind, names(&endpoints)), (ResourceType::Endpoint, vec![v2.as_str()]), "{mode:?}");
        let routes = proxy.update().await;
        assert_eq!((routes.kind, contains(&routes, &v2)), (ResourceType::Route, true), "{mode:?}");
        let clusters = proxy.update().await;
        assert_eq!(clusters.kind, ResourceType::Cluster);
        match mode {
            Mode::Delta => assert_eq!(clusters.removed, [v1]),
            Mode::Sotw => assert!(!names(&clusters).contains(&v1.as_str())),
        }
        proxy.silent(Duration::from_millis(200)).await;
        plane.stop().await;
    }
}

/// Whether a name occurs in the encoded resources.
fn contains(update: &Update, name: &str) -> bool {
    update.resources.iter().any(|it| it.body.windows(name.len()).any(|window| window == name.as_bytes()))
}
