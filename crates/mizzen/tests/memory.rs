//! What a sidecar of a large mesh keeps in memory: sent all of 1,000 services, and ten of them by a `Sidecar` resource.
//!
//! Each service has two pods, a VirtualService and a DestinationRule with two subsets, so three clusters. What is bounded
//! is memory of the process' own; pages of the program file come and go, and are those of the build. Of another binary:
//! `MIZZEN_BINARY=target/release/mizzen cargo test -p mizzen --test memory -- --nocapture`, which bounds the resident
//! memory too.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use mizzen_identity::token::{Issuer, LOCAL_ISSUER};
use mizzen_testing::ReservedPort;
use serde_json::{Value, json};

/// What has not come about by then does not come about.
const PATIENCE: Duration = Duration::from_secs(240);
/// Sooner than this after the load nothing is given back.
const SETTLED: Duration = Duration::from_secs(4);
const SERVICES: usize = 1000;
const NAMESPACES: usize = 20;

/// A process that ends with the test, and the JSON that it printed at its start.
struct Process {
    child: Child,
    said: Value,
}

impl Process {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let said = lines.find(|line| line.starts_with('{')).expect("it says where it listens");
        // Read on, so that it never waits for us.
        thread::spawn(move || lines.for_each(drop));
        Self { child, said: serde_json::from_str(&said).unwrap() }
    }

    fn address(&self, what: &str) -> SocketAddr {
        let text = self.said[what].as_str().unwrap_or_else(|| panic!("no {what} in {}", self.said));
        SocketAddr::new(Ipv4Addr::LOCALHOST.into(), text.parse::<SocketAddr>().unwrap().port())
    }

    fn memory(&self) -> Memory {
        let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.child.id())).unwrap();
        let mib = |name: &str| {
            let line = rollup.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
        };
        Memory { resident: mib("Rss:"), own: mib("Anonymous:") }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// In MiB.
#[derive(Debug, Clone, Copy)]
struct Memory {
    resident: f64,
    own: f64,
}

fn get(at: SocketAddr, path: &str) -> String {
    let asked = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(at)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    asked().unwrap_or_default()
}

fn service(number: usize, port: u16) -> String {
    let (name, namespace) = (format!("svc-{number}"), format!("ns-{}", number % NAMESPACES));
    let mut text = format!(
        "---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {namespace}, labels: {{app: {name}}}}}
spec: {{selector: {{app: {name}}}, ports: [{{name: http, port: {port}, targetPort: 8080}}]}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  hosts: [{name}.{namespace}.svc.cluster.local]
  http:
  - name: tester
    match: [{{headers: {{x-user: {{exact: tester}}}}}}]
    route: [{{destination: {{host: {name}.{namespace}.svc.cluster.local, subset: v2}}}}]
  - name: rest
    retries: {{attempts: 2, perTryTimeout: 2s, retryOn: '5xx,reset'}}
    route:
    - {{destination: {{host: {name}.{namespace}.svc.cluster.local, subset: v1}}, weight: 90}}
    - {{destination: {{host: {name}.{namespace}.svc.cluster.local, subset: v2}}, weight: 10}}
    timeout: 10s
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  host: {name}.{namespace}.svc.cluster.local
  subsets: [{{name: v1, labels: {{version: v1}}}}, {{name: v2, labels: {{version: v2}}}}]
  trafficPolicy: {{outlierDetection: {{consecutive5xxErrors: 5, interval: 10s}}}}
"
    );
    let mut endpoints = String::new();
    for version in 1..=2 {
        let (pod, ip) =
            (format!("{name}-{version}"), format!("10.{}.{}.{}", 127 + version, number / 250, number % 250 + 1));
        let _ = write!(
            text,
            "---
apiVersion: v1
kind: Pod
metadata: {{name: {pod}, namespace: {namespace}, labels: {{app: {name}, version: v{version}, security.istio.io/tlsMode: istio}}}}
spec: {{serviceAccountName: {name}, containers: [{{name: app, image: app, ports: [{{containerPort: 8080}}]}}]}}
status: {{phase: Running, podIP: {ip}, podIPs: [{{ip: {ip}}}]}}
"
        );
        let _ = write!(
            endpoints,
            "\n- {{addresses: [{ip}], conditions: {{ready: true}}, targetRef: {{kind: Pod, name: {pod}, namespace: {namespace}}}}}"
        );
    }
    let _ = write!(
        text,
        "---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}, namespace: {namespace}, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
endpoints: {endpoints}
ports: [{{name: http, port: 8080, protocol: TCP}}]
"
    );
    text
}

/// A sidecar of `svc-0` in a mesh of all services; `called` narrows what it is told of. Its memory once it is quiet.
fn measure(binary: &Path, called: Option<usize>, bound: impl Fn(Memory) -> bool) -> Memory {
    let root = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    let [inbound, admin, http_proxy] = [(); 3].map(|()| ReservedPort::new());
    for first in (0..SERVICES).step_by(100) {
        let text: String = (first..first + 100).map(|number| service(number, inbound.port())).collect();
        write(&format!("config/mesh-{first}.yaml"), &text);
    }
    if let Some(called) = called {
        let hosts =
            (0..called).map(|number| format!("\"*/svc-{number}.ns-{}.svc.cluster.local\"", number % NAMESPACES));
        let hosts = hosts.collect::<Vec<_>>().join(", ");
        let text = format!(
            "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {{name: default, namespace: ns-0}}\nspec: \
             {{egress: [{{hosts: [{hosts}]}}]}}\n"
        );
        write("config/sidecar.yaml", &text);
    }
    let issuer = Issuer::generate(LOCAL_ISSUER).unwrap();
    write("issuer.pem", issuer.public_key_pem());
    let control = Process::start(
        Command::new(binary)
            .args(["control", "--xds-address", "127.0.0.1:0", "--secure-xds-address", "127.0.0.1:0"])
            .args(["--http-address", "127.0.0.1:0", "-o", "json", "--config"])
            .arg(root.path().join("config"))
            .arg("--state-dir")
            .arg(root.path().join("control"))
            .arg("--token-issuer-key")
            .arg(root.path().join("issuer.pem"))
            .env("MIZZEN_LOG", "error"),
    );
    let roots = std::fs::read_to_string(root.path().join("control/root-cert.pem")).unwrap();
    write("var/run/secrets/istio/root-cert.pem", &roots);
    let token = issuer.mint("ns-0", "svc-0", Duration::from_secs(3600), SystemTime::now()).unwrap();
    write("var/run/secrets/tokens/istio-token", &token);
    write("etc/istio/pod/labels", "app=\"svc-0\"\nversion=\"v1\"\n");
    let address = control.address("secureXds").to_string();
    let config = json!({"discoveryAddress": address, "statusPort": 0, "proxyAdminPort": admin.port()});
    let sidecar = Process::start(
        Command::new(binary)
            .args(["proxy", "sidecar", "--domain", "ns-0.svc.cluster.local", "-o", "json", "--concurrency", "2"])
            .args(["--proxyLogLevel=error", "--log_output_level=default:error", "--root"])
            .arg(root.path())
            .env_clear()
            .env("POD_NAME", "svc-0-1")
            .env("POD_NAMESPACE", "ns-0")
            .env("INSTANCE_IP", "127.0.0.1")
            .env("SERVICE_ACCOUNT", "svc-0")
            .env("CA_ADDR", &address)
            .env("PROXY_CONFIG", config.to_string())
            .env("ENVOY_STATUS_PORT", "0")
            .env("ENVOY_PROMETHEUS_PORT", "0")
            .env("ISTIO_META_INTERCEPTION_MODE", "NONE")
            .env("ISTIO_META_WORKLOAD_NAME", "svc-0")
            .env("ISTIO_META_CLUSTER_ID", "Kubernetes")
            .env("ISTIO_META_HTTP_PROXY_PORT", http_proxy.port().to_string())
            .env("ISTIO_META_MIZZEN_BIND", "127.0.0.1"),
    );
    // It has what it is to have: three clusters for each service, and those that every sidecar has.
    let wanted = 3 * called.unwrap_or(SERVICES);
    let begun = Instant::now();
    let clusters = loop {
        let text = get(admin.address(), "/clusters");
        let names = text.lines().filter_map(|line| line.split("::").next());
        let count = names.filter(|name| name.starts_with("outbound|")).collect::<BTreeSet<_>>().len();
        if count >= wanted {
            break count;
        }
        assert!(begun.elapsed() < PATIENCE, "{count} of {wanted} clusters");
        thread::sleep(Duration::from_millis(500));
    };
    assert!(called.is_none() || clusters < 3 * SERVICES / 10, "{clusters} clusters are too many");
    // What only the load needed is given back within about a minute.
    let begun = Instant::now();
    loop {
        let memory = sidecar.memory();
        if bound(memory) && begun.elapsed() > SETTLED || begun.elapsed() > PATIENCE {
            return memory;
        }
        thread::sleep(Duration::from_millis(500));
    }
}

#[test]
fn a_sidecar_keeps_little_of_a_large_mesh() {
    let other = std::env::var_os("MIZZEN_BINARY");
    let binary = other.as_deref().map_or(Path::new(env!("CARGO_BIN_EXE_mizzen")), Path::new);
    // What is kept of the same mesh was 30.9 to 32.7 MiB: the order in which parts of the load come decides about gaps between them.
    for (called, resident, own) in [(None, 40.0, 36.0), (Some(10), 15.0, 8.0)] {
        // An unoptimised program has many more pages.
        let resident = if other.is_some() { resident } else { f64::INFINITY };
        let fits = |memory: Memory| memory.own <= own && memory.resident <= resident;
        let memory = measure(binary, called, fits);
        let services = called.unwrap_or(SERVICES);
        println!("{services} of {SERVICES} services: {:.1} MiB resident, {:.1} its own", memory.resident, memory.own);
        assert!(fits(memory), "{services} services: {memory:?}, and at most {resident} and {own} MiB were to be");
    }
}
