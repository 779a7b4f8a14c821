//! What a push to many streams costs, without sockets: run with `--nocapture` to see the figures.

use std::sync::Arc;

use std::time::{Duration, Instant};

use mizzen_config::Change;
use mizzen_mesh::Mesh;
use mizzen_proto::envoy::config::core::v3::Node as ProtoNode;
use mizzen_proto::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use mizzen_xds::server::stream::Response;
use mizzen_xds::server::{Session, Stream};
use mizzen_xds::wire::{Request, encode_response};
use mizzen_xds::{Mode, ResourceType};
use tokio::sync::{Semaphore, mpsc};

use crate::audience::{Indirect, Touch};
use crate::engine::{Event, Shared};
use crate::node::Node;
use crate::queue::Slot;
use crate::session::{Common, ProxySession};
use crate::status::StreamId;

/// A proxy that acknowledges everything at once.
struct Client {
    stream: Stream,
    session: ProxySession,
    slot: Arc<Slot>,
    node: Node,
}

/// What serving took.
#[derive(Debug, Default, Clone, Copy)]
struct Cost {
    took: Duration,
    responses: usize,
    resources: usize,
    bytes: usize,
    made: u64,
}

struct Plane {
    shared: Shared,
    common: Common,
    events: mpsc::UnboundedReceiver<Event>,
    clients: Vec<Client>,
    misses: u64,
}

impl Plane {
    fn new() -> Self {
        let shared = Shared::new();
        let (sender, events) = mpsc::unbounded_channel();
        let common =
            Common { events: sender, metrics: shared.metrics.clone(), cache: shared.cache.clone(), permissions: None };
        Self { shared, common, events, clients: Vec::new(), misses: 0 }
    }

    /// Applies YAML as the engine does, without waiting.
    fn apply(&mut self, yaml: &str) {
        let parsed = mizzen_config::parse("scale.yaml", yaml);
        assert!(parsed.findings.iter().all(|it| it.severity < mizzen_types::Severity::Error), "{:?}", parsed.findings);
        let changes: Vec<_> = parsed.objects.into_iter().map(Change::Put).collect();
        let old = self.shared.world.load_full();
        let (mesh, dirty) = old.mesh.apply(&changes);
        let indirect = Indirect::of(&dirty, &old.mesh, &mesh);
        let world = Arc::new(old.next(mesh, &dirty, indirect, Instant::now()));
        self.shared.world.store(world.clone());
        let touch = Touch::new(&dirty, indirect, "istio-system");
        for client in &self.clients {
            client.slot.put(&world, touch.extent(&client.node));
        }
    }

    fn connect(&mut self, count: usize, namespaces: usize) {
        let permits = Arc::new(Semaphore::new(count));
        for index in 0..count {
            let id = format!(
                "sidecar~127.1.0.{}~p{index}.ns{n}~ns{n}.svc.cluster.local",
                index % 250,
                n = index % namespaces
            );
            let node = Node::read(ProtoNode { id, ..Default::default() }).unwrap();
            let permit = permits.clone().try_acquire_owned().unwrap();
            let world = self.shared.world.load_full();
            let id = StreamId(index as u64);
            let session = ProxySession::open(&self.common, id, node.clone(), None, Mode::Delta, world, permit).unwrap();
            let Ok(Event::Connected(connection)) = self.events.try_recv() else { panic!("connected") };
            self.clients.push(Client { stream: Stream::new(Mode::Delta), session, slot: connection.slot, node });
        }
    }

    /// Lets every client subscribe to everything that its clusters and listeners lead to.
    fn subscribe(&mut self) -> Cost {
        let routes = vec!["9080".to_owned()];
        let hosts: Vec<String> = {
            let mesh: &Mesh = &self.shared.world.load().mesh;
            mesh.services().map(|it| format!("outbound|9080||{}", it.key.host)).collect()
        };
        for client in &mut self.clients {
            let empty = Vec::new();
            for (kind, names) in [
                (ResourceType::Cluster, &empty),
                (ResourceType::Endpoint, &hosts),
                (ResourceType::Listener, &empty),
                (ResourceType::Route, &routes),
            ] {
                let type_url = kind.type_url().to_owned();
                let request =
                    DeltaDiscoveryRequest { type_url, resource_names_subscribe: names.clone(), ..Default::default() };
                client.stream.request(Request::Delta(request), Instant::now()).unwrap();
            }
        }
        self.serve()
    }

    /// Serves all streams until nothing is left to do.
    fn serve(&mut self) -> Cost {
        let mut cost = Cost::default();
        let began = Instant::now();
        let mut wire = Vec::new();
        for client in &mut self.clients {
            loop {
                for mark in client.session.take() {
                    client.stream.mark(mark);
                }
                let responses = client.stream.advance(Instant::now(), &mut client.session);
                if responses.is_empty() {
                    break;
                }
                for response in responses {
                    wire.clear();
                    encode_response(&response, &mut wire);
                    cost.responses += 1;
                    cost.resources += response.resources.len();
                    cost.bytes += wire.len();
                    client.stream.request(ack(&response), Instant::now()).unwrap();
                }
            }
            client.stream.observed();
        }
        cost.took = began.elapsed();
        let misses = self.shared.metrics.misses();
        cost.made = misses - std::mem::replace(&mut self.misses, misses);
        cost
    }
}

fn ack(response: &Response) -> Request {
    Request::Delta(DeltaDiscoveryRequest {
        type_url: response.kind.type_url().to_owned(),
        response_nonce: response.nonce.to_string(),
        ..Default::default()
    })
}

fn service(index: usize, namespaces: usize) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: s{index}, namespace: ns{n}}}\nspec: {{clusterIP: 10.{}.{}.1, selector: \
         {{app: s{index}}}, ports: [{{name: http, port: 9080}}]}}\n---\n{}",
        index / 250,
        index % 250,
        slice(index, namespaces, 2),
        n = index % namespaces,
    )
}

fn slice(index: usize, namespaces: usize, endpoints: usize) -> String {
    let endpoint =
        |e: usize| format!("{{addresses: [10.2{e}.{}.{}], conditions: {{ready: true}}}}", index / 250, index % 250);
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: s{index}-1, namespace: ns{n}, labels: \
         {{kubernetes.io/service-name: s{index}}}}}\naddressType: IPv4\nports: [{{name: http, port: 9080}}]\nendpoints: [{}]\n",
        (0..endpoints).map(endpoint).collect::<Vec<_>>().join(", "),
        n = index % namespaces,
    )
}

fn measure(streams: usize, services: usize, namespaces: usize) {
    let mut plane = Plane::new();
    let all: Vec<_> = (0..services).map(|index| service(index, namespaces)).collect();
    plane.apply(&all.join("---\n"));
    plane.connect(streams, namespaces);
    let show = |what: &str, cost: Cost| {
        println!(
            "{streams} streams, {services} services, {namespaces} namespaces: {what:<28} {:>8.1} µs/stream {:>6} responses {:>7} \
             resources {:>10} bytes {:>6} made",
            cost.took.as_secs_f64() * 1e6 / streams as f64,
            cost.responses,
            cost.resources,
            cost.bytes,
            cost.made
        );
    };
    let cost = plane.subscribe();
    show("everything at first", cost);
    assert_eq!(cost.responses, streams * 4, "one of each type");

    plane.apply(&service(0, namespaces));
    let cost = plane.serve();
    show("the same again", cost);
    assert_eq!((cost.responses, cost.made), (0, 0), "what did not change costs nothing");

    plane.apply(&slice(1, namespaces, 3));
    let cost = plane.serve();
    show("one endpoint", cost);
    assert_eq!((cost.responses, cost.resources), (streams, streams), "that service's endpoints, and nothing else");
    assert_eq!(cost.made, 1, "made once for the proxies of all namespaces");

    plane.apply(&format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: v, namespace: ns{n}}}\nspec: {{hosts: [s1], \
         http: [{{timeout: 3s, route: [{{destination: {{host: s1}}}}]}}]}}\n",
        n = 1 % namespaces
    ));
    let cost = plane.serve();
    show("a VirtualService", cost);
    assert_eq!((cost.responses, cost.resources), (streams, streams), "one route table");

    plane.apply(&format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: d, namespace: ns{n}}}\nspec: {{host: s1, \
         trafficPolicy: {{connectionPool: {{tcp: {{maxConnections: 7}}}}}}}}\n",
        n = 1 % namespaces
    ));
    let cost = plane.serve();
    show("a DestinationRule", cost);
    assert_eq!(cost.resources, streams * 2, "one cluster, and its endpoints to warm it with");

    plane.apply(&service(services, namespaces));
    let cost = plane.serve();
    show("a new service", cost);
    assert!(cost.resources <= streams * 4, "{cost:?}");
}

#[tokio::test]
async fn a_push_costs_what_it_touches() {
    measure(20, 30, 1);
    measure(20, 30, 4);
}

#[tokio::test]
#[ignore = "takes seconds without optimisation; cargo test -p mizzen-control scale -- --ignored --nocapture"]
async fn two_hundred_streams_and_three_hundred_services() {
    measure(200, 300, 1);
    measure(200, 300, 20);
}
