//! A proxy in this process, upstreams that say what a test wants, and clients that send exactly what a test wrote.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mizzen_identity::Secrets;
use mizzen_proxy::Limits;
use mizzen_proxy::facts::{HttpFacts, TcpFacts};
use mizzen_proxy::peer::Peer;
use mizzen_proxy::publish::Publisher;
use mizzen_proxy::run::Workers;
use mizzen_proxy::shared::{Recorder, Shared};
use mizzen_snapshot::Snapshot;
use mizzen_snapshot::cluster::{
    Cluster, ClusterPolicy, Discovery, Endpoint, EndpointAddress, EndpointSet, Health, LocalityEndpoints,
};
use mizzen_snapshot::http::{
    Codec, EscapedSlashes, ForwardClientCert, Http2Limits, HttpHandler, PeerExchange, RouteSource, ServerHeader,
    Underscores,
};
use mizzen_snapshot::listener::TcpHandler;
use mizzen_snapshot::listener::{ChainMatch, Direction, Drain, FilterChain, Handler, Inspect, ListenAddress, Listener};
use mizzen_snapshot::route::{Action, Forward, PathMatch, Route, RouteMatch, RouteTable, VirtualHost};

/// After this, what has not come about will not: the machine may be slow, so nothing is measured with it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What was recorded of one exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recorded {
    pub(crate) status: u16,
    pub(crate) flags: Vec<&'static str>,
    pub(crate) details: &'static str,
    pub(crate) cause: Option<String>,
    pub(crate) attempts: u32,
    /// Workloads of the client and of the upstream, as they described themselves.
    pub(crate) told: [Option<String>; 2],
}

fn told(client: &Option<Arc<Peer>>, upstream: &Option<Arc<Peer>>) -> [Option<String>; 2] {
    [client, upstream].map(|peer| peer.as_ref().map(|peer| peer.party.workload.clone()))
}

#[derive(Default)]
struct Memory(Mutex<Vec<Recorded>>);

impl Recorder for Memory {
    fn http(&self, facts: &HttpFacts) {
        self.0.lock().unwrap().push(Recorded {
            status: facts.status,
            flags: facts.flags.iter().map(|flag| flag.as_str()).collect(),
            details: facts.details,
            cause: facts.cause.clone(),
            attempts: facts.attempts,
            told: told(&facts.peer, &facts.upstream_workload),
        });
    }

    fn tcp(&self, facts: &TcpFacts) {
        self.0.lock().unwrap().push(Recorded {
            status: 0,
            flags: facts.flags.iter().map(|flag| flag.as_str()).collect(),
            details: facts.details,
            cause: facts.cause.clone(),
            attempts: 0,
            told: told(&facts.client_workload, &facts.upstream_workload),
        });
    }
}

pub(crate) struct Proxy {
    pub(crate) shared: Arc<Shared>,
    pub(crate) publisher: Publisher,
    workers: Option<Workers>,
    memory: Arc<Memory>,
}

impl Proxy {
    pub(crate) fn start(snapshot: Snapshot) -> Self {
        Self::start_with(snapshot, Limits::default(), Duration::from_millis(200))
    }

    pub(crate) fn start_with(snapshot: Snapshot, limits: Limits, drain: Duration) -> Self {
        Self::start_as(Secrets::new(), snapshot, limits, drain)
    }

    pub(crate) fn start_as(secrets: Secrets, snapshot: Snapshot, limits: Limits, drain: Duration) -> Self {
        let memory = Arc::new(Memory::default());
        let recorder: Arc<dyn Recorder> = Arc::<Memory>::clone(&memory);
        let shared = Arc::new(Shared::new(secrets, recorder, limits, drain));
        let workers = Workers::start(&shared, 1).unwrap();
        let mut publisher = workers.publisher(&shared);
        assert_eq!(publisher.publish(&Arc::new(snapshot)), []);
        Self { shared, publisher, workers: Some(workers), memory }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.publisher.addresses()[0].1
    }

    pub(crate) fn client(&self) -> Client {
        Client::to(self.address())
    }

    /// The exchanges recorded so far, waiting until there are at least this many.
    pub(crate) fn recorded(&self, at_least: usize) -> Vec<Recorded> {
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            let all = self.memory.0.lock().unwrap().clone();
            if all.len() >= at_least {
                return all;
            }
            assert!(std::time::Instant::now() < deadline, "only {all:?} recorded");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Puts another snapshot in force.
    pub(crate) fn publish(&mut self, snapshot: Snapshot) {
        assert_eq!(self.publisher.publish(&Arc::new(snapshot)), []);
    }

    pub(crate) fn drain(mut self) {
        self.workers.take().unwrap().drain();
    }
}

/// A connection that sends bytes as they are.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    read: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

impl Client {
    pub(crate) fn to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream, read: Vec::new() }
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.stream.write_all(bytes.as_ref()).unwrap();
        self
    }

    pub(crate) fn over(stream: TcpStream) -> Self {
        Self { stream, read: Vec::new() }
    }

    /// The answer, unless the proxy closes the connection first.
    pub(crate) fn try_get(&mut self, path: &str) -> Option<Answer> {
        self.stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n").as_bytes()).ok()?;
        while !self.read.windows(4).any(|window| window == b"\r\n\r\n") {
            if self.more() == 0 {
                return None;
            }
        }
        Some(self.answer())
    }

    /// Reads the head of a request and nothing of its body.
    pub(crate) fn head_of_request(&mut self) -> String {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            head.push_str(&self.line());
        }
        head
    }

    pub(crate) fn get(&mut self, path: &str) -> Answer {
        self.send(format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n")).answer()
    }

    /// Reads one response.
    pub(crate) fn answer(&mut self) -> Answer {
        self.answer_to("GET")
    }

    pub(crate) fn answer_to(&mut self, method: &str) -> Answer {
        let (head, status) = self.head();
        let length = header(&head, "content-length").map(|length| length.parse::<usize>().unwrap());
        let chunked = header(&head, "transfer-encoding").is_some_and(|value| value == "chunked");
        let none = method == "HEAD" || status == 204 || status == 304 || status < 200;
        let body = if none {
            Vec::new()
        } else if chunked {
            self.chunks()
        } else if let Some(length) = length {
            self.exactly(length)
        } else {
            self.rest()
        };
        Answer { status, head, body }
    }

    pub(crate) fn head(&mut self) -> (String, u16) {
        let end = loop {
            if let Some(at) = self.read.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(self.more() > 0, "closed before a whole head: {:?}", String::from_utf8_lossy(&self.read));
        };
        let head = String::from_utf8(self.read.drain(..end).collect()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (head, status)
    }

    pub(crate) fn exactly(&mut self, length: usize) -> Vec<u8> {
        while self.read.len() < length {
            assert!(self.more() > 0, "closed after {} of {length} bytes", self.read.len());
        }
        self.read.drain(..length).collect()
    }

    /// As `exactly`, unless the peer closes first.
    pub(crate) fn try_exactly(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.read.len() < length {
            if self.more() == 0 {
                return None;
            }
        }
        Some(self.read.drain(..length).collect())
    }

    fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let size = usize::from_str_radix(self.line().trim(), 16).unwrap();
            if size == 0 {
                while self.line() != "\r\n" {}
                return body;
            }
            body.extend(self.exactly(size));
            assert_eq!(self.exactly(2), b"\r\n");
        }
    }

    pub(crate) fn line(&mut self) -> String {
        let end = loop {
            if let Some(at) = self.read.iter().position(|byte| *byte == b'\n') {
                break at + 1;
            }
            assert!(self.more() > 0, "closed in a line: {:?}", String::from_utf8_lossy(&self.read));
        };
        String::from_utf8(self.read.drain(..end).collect()).unwrap()
    }

    /// Everything until the peer closes.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        while self.more() > 0 {}
        std::mem::take(&mut self.read)
    }

    pub(crate) fn shutdown(&mut self) {
        self.stream.shutdown(std::net::Shutdown::Write).unwrap();
    }

    /// Whether the peer has closed, without a byte more.
    pub(crate) fn is_closed(&mut self) -> bool {
        self.read.is_empty() && self.more() == 0
    }

    fn more(&mut self) -> usize {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(count) => {
                self.read.extend_from_slice(&buffer[..count]);
                count
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => 0,
            Err(error) => panic!("{error}; so far {:?}", String::from_utf8_lossy(&self.read)),
        }
    }
}

pub(crate) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// An upstream: `serve` gets each accepted connection on a thread of its own, numbered from 0.
pub(crate) fn upstream(serve: impl Fn(&mut Client, usize) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serve = Arc::new(serve);
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let Ok(stream) = stream else { return };
            let serve = Arc::clone(&serve);
            std::thread::spawn(move || {
                let _ = stream.set_read_timeout(Some(PATIENCE));
                serve(&mut Client { stream, read: Vec::new() }, number);
            });
        }
    });
    address
}

/// An upstream that answers every request with its head as the body.
pub(crate) fn echo() -> SocketAddr {
    upstream(|client, _| {
        while let Some((head, body)) = request(client) {
            let text = format!("{head}{}", String::from_utf8_lossy(&body));
            client.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len()));
        }
    })
}

/// Reads one request; `None` when the proxy closed.
pub(crate) fn request(client: &mut Client) -> Option<(String, Vec<u8>)> {
    loop {
        if let Some(at) = client.read.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8(client.read.drain(..at + 4).collect()).unwrap();
            let body = if header(&head, "transfer-encoding") == Some("chunked") {
                client.chunks()
            } else {
                let length = header(&head, "content-length").map_or(0, |length| length.parse().unwrap());
                client.exactly(length)
            };
            return Some((head, body));
        }
        let mut buffer = [0; 4096];
        match client.stream.read(&mut buffer) {
            Ok(0) | Err(_) => return None,
            Ok(count) => client.read.extend_from_slice(&buffer[..count]),
        }
    }
}

/// One listener with one route to one cluster.
pub(crate) struct World {
    pub(crate) tcp: bool,
    pub(crate) handler: HttpHandler,
    pub(crate) routes: Vec<Route>,
    pub(crate) clusters: Vec<(ClusterPolicy, Vec<SocketAddr>)>,
    pub(crate) inspect: Inspect,
    pub(crate) host: VirtualHost,
}

impl World {
    pub(crate) fn to(address: SocketAddr) -> Self {
        Self::to_all(&[address])
    }

    pub(crate) fn to_all(addresses: &[SocketAddr]) -> Self {
        let policy = ClusterPolicy::plain("c".into(), Discovery::Static);
        Self {
            tcp: false,
            handler: handler(),
            routes: vec![route(Forward::to_cluster("c"))],
            clusters: vec![(policy, addresses.to_vec())],
            inspect: Inspect::default(),
            host: VirtualHost {
                name: "all".to_owned(),
                domains: vec!["*".to_owned()],
                routes: Vec::new(),
                require_tls: false,
                request_headers: Default::default(),
                response_headers: Default::default(),
                retry: None,
                cors: None,
                fault: None,
                include_attempt_count: false,
                origin: None,
            },
        }
    }

    pub(crate) fn forward(&mut self, edit: impl FnOnce(&mut Forward)) -> &mut Self {
        if let Action::Forward(forward) = &mut self.routes[0].action {
            edit(forward);
        }
        self
    }

    pub(crate) fn policy(&mut self, edit: impl FnOnce(&mut ClusterPolicy)) -> &mut Self {
        edit(&mut self.clusters[0].0);
        self
    }

    pub(crate) fn snapshot(self) -> Snapshot {
        static NUMBER: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mut handler = self.handler;
        let host = VirtualHost { routes: self.routes.into_iter().map(Arc::new).collect(), ..self.host };
        handler.routes = RouteSource::Inline(Arc::new(RouteTable::new("t".into(), vec![Arc::new(host)])));
        let chain = FilterChain {
            name: "chain".to_owned(),
            matches: ChainMatch::default(),
            tls: None,
            handler: if self.tcp { Handler::Tcp(Arc::new(tcp_handler())) } else { Handler::Http(Arc::new(handler)) },
            handshake_timeout: None,
        };
        let listener = listener(chain, self.inspect, number);
        let mut snapshot = Snapshot::default();
        snapshot.listeners.insert_mut(listener.name.clone(), Arc::new(listener));
        for (policy, addresses) in self.clusters {
            snapshot.clusters.insert_mut(policy.name.clone(), Arc::new(cluster(policy, &addresses)));
        }
        snapshot
    }
}

pub(crate) fn listener(chain: FilterChain, inspect: Inspect, fingerprint: u64) -> Listener {
    Listener {
        name: "l".into(),
        address: ListenAddress::Tcp("127.0.0.1:0".parse().unwrap()),
        bind: true,
        transparent: false,
        use_original_dst: false,
        direction: Direction::Outbound,
        inspect,
        chains: vec![Arc::new(chain)],
        default_chain: None,
        drain: Drain::Default,
        origin: None,
        max_connections: None,
        unmatched: None,
        notes: Vec::new(),
        fingerprint,
    }
}

pub(crate) fn cluster(policy: ClusterPolicy, addresses: &[SocketAddr]) -> Cluster {
    let endpoints = addresses.iter().map(|address| {
        Arc::new(Endpoint {
            address: EndpointAddress::Socket(*address),
            weight: 1,
            health: Health::Healthy,
            transport_labels: Vec::new(),
            hostname: None,
            workload: None,
        })
    });
    let locality =
        LocalityEndpoints { locality: Default::default(), priority: 0, weight: None, endpoints: endpoints.collect() };
    Cluster {
        policy: Arc::new(policy),
        endpoints: Arc::new(EndpointSet { localities: vec![locality], overprovisioning: 140 }),
    }
}

pub(crate) fn route(forward: Forward) -> Route {
    Route {
        name: "r".to_owned(),
        matches: RouteMatch {
            path: PathMatch::Prefix { prefix: "/".into(), ignore_case: false },
            headers: Vec::new(),
            query: Vec::new(),
            grpc: false,
            share: None,
        },
        action: Action::Forward(Box::new(forward)),
        request_headers: Default::default(),
        response_headers: Default::default(),
        fault: None,
        cors: None,
        origin: None,
        match_field: None,
        operation: None,
    }
}

pub(crate) fn tcp_handler() -> TcpHandler {
    TcpHandler {
        stat_prefix: "tcp".to_owned(),
        clusters: vec![("c".into(), 1)],
        idle_timeout: None,
        access_log: Vec::new(),
        max_connect_attempts: 1,
        hash_source_ip: false,
        peer_exchange: None,
    }
}

pub(crate) fn handler() -> HttpHandler {
    HttpHandler {
        stat_prefix: "test".to_owned(),
        codec: Codec::Auto,
        routes: RouteSource::Named("none".into()),
        server_header: ServerHeader::Overwrite("envoy".to_owned()),
        client_certificate: ForwardClientCert::Sanitize,
        use_remote_address: false,
        trusted_hops: 0,
        skip_xff_append: false,
        normalize_path: true,
        merge_slashes: false,
        escaped_slashes: EscapedSlashes::Keep,
        strip_port: false,
        upgrades: Vec::new(),
        stream_idle_timeout: None,
        request_timeout: None,
        request_headers_timeout: None,
        idle_timeout: None,
        max_connection_duration: None,
        max_requests_per_connection: None,
        max_request_headers_kb: 60,
        max_headers: 100,
        underscores: Underscores::Allow,
        http2: Http2Limits::default(),
        accept_http10: true,
        fault: true,
        cors: true,
        istio_alpn: false,
        istio_stats: false,
        peers: PeerExchange::default(),
        access_log: Vec::new(),
        generate_request_id: true,
        preserve_external_request_id: false,
        suppress_envoy_headers: false,
        normalize_host_case: true,
    }
}

/// Waits until something holds; fails when it does not in time.
pub(crate) fn eventually(mut holds: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !holds() {
        assert!(std::time::Instant::now() < deadline, "it never came true");
        std::thread::sleep(Duration::from_millis(2));
    }
}
