//! `mizzen proxy sidecar` in a made-up pod: environment and files as injection writes them, a control plane beside it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use mizzen_identity::token::{Issuer, LOCAL_ISSUER};
use mizzen_testing::ReservedPort;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

const MIZZEN: &str = env!("CARGO_BIN_EXE_mizzen");
/// What has not come about by then does not come about.
const PATIENCE: Duration = Duration::from_secs(120);

/// A process that ends with the test, and the JSON that it printed at its start.
struct Process {
    child: Child,
    said: Value,
    /// What it logs goes nowhere, but is read, so that it never waits for us.
    _log: mpsc::Receiver<String>,
}

impl Process {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let (told, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = told.send(line);
            }
        });
        let mut before = Vec::new();
        let said = loop {
            match lines.recv_timeout(PATIENCE) {
                Ok(line) if line.starts_with('{') => break serde_json::from_str(&line).unwrap(),
                Ok(line) => before.push(line),
                Err(_) => panic!("it did not start: {before:#?}"),
            }
        };
        Self { child, said, _log: lines }
    }

    fn address(&self, what: &str) -> SocketAddr {
        let text = self.said[what].as_str().unwrap_or_else(|| panic!("no {what} in {}", self.said));
        // Bound to every address; asked at this one.
        SocketAddr::new(Ipv4Addr::LOCALHOST.into(), text.parse::<SocketAddr>().unwrap().port())
    }

    fn end(&mut self) -> ExitStatus {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let mut status = None;
        wait_for("it ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Status and everything; status 0 when nobody answers.
fn ask(at: SocketAddr, method: &str, path: &str, headers: &str) -> (u16, String) {
    let asked = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(at)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = asked().unwrap_or_default();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
    (status, answer)
}

fn get(at: SocketAddr, path: &str) -> (u16, String) {
    ask(at, "GET", path, "")
}

/// The application: a page, metrics, a probe that wants its header.
fn application() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = String::new();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            while reader.read_line(&mut head).is_ok_and(|read| read > 2) {}
            let (status, body) = match head.split(' ').nth(1).unwrap_or_default() {
                "/metrics" => (200, "# TYPE page_views counter\npage_views 3\n"),
                "/ready" if head.to_ascii_lowercase().contains("x-probe: yes") => (200, "ready"),
                "/ready" => (400, "who asks?"),
                _ => (200, "hello from the application"),
            };
            let length = body.len();
            let _ =
                write!(stream, "HTTP/1.1 {status} x\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
        }
    });
    port
}

/// Files of a pod below a folder, and what runs around it.
struct Pod {
    root: tempfile::TempDir,
    /// Whether keys may be kept there: the folder lies in memory.
    in_memory: bool,
    /// Where the sidecar takes inbound traffic.
    mesh_port: ReservedPort,
    status_port: ReservedPort,
    http_proxy_port: ReservedPort,
    app_port: u16,
    control: SocketAddr,
}

impl Pod {
    fn new() -> (Self, Process) {
        let memory = Path::new("/dev/shm");
        let (root, in_memory) = match tempfile::tempdir_in(memory) {
            Ok(root) => (root, true),
            Err(_) => (tempfile::tempdir().unwrap(), false),
        };
        let folder = |path: &str| -> PathBuf {
            let path = root.path().join(path);
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&path).unwrap();
            path
        };
        let (mesh_port, app_port) = (ReservedPort::new(), application());
        let config = folder("config");
        std::fs::write(config.join("mesh.yaml"), manifests(mesh_port.port())).unwrap();
        let issuer = Issuer::generate(LOCAL_ISSUER).unwrap();
        let key = root.path().join("issuer.pem");
        std::fs::write(&key, issuer.public_key_pem()).unwrap();
        let state = folder("control");
        let control = Process::start(
            Command::new(MIZZEN)
                .args(["control", "--xds-address", "127.0.0.1:0", "--secure-xds-address", "127.0.0.1:0"])
                .args(["--http-address", "127.0.0.1:0", "-o", "json", "--config"])
                .arg(&config)
                .arg("--state-dir")
                .arg(&state)
                .arg("--token-issuer-key")
                .arg(&key)
                .env_remove("MIZZEN_LOG"),
        );
        std::fs::write(folder("etc/istio/pod").join("labels"), "app=\"web\"\nversion=\"v1\"\n").unwrap();
        std::fs::write(root.path().join("etc/istio/pod/annotations"), "note=\"x\"\n").unwrap();
        let roots = folder("var/run/secrets/istio").join("root-cert.pem");
        std::fs::copy(state.join("root-cert.pem"), roots).unwrap();
        let token = issuer.mint("shop", "web", Duration::from_secs(3600), SystemTime::now()).unwrap();
        std::fs::write(folder("var/run/secrets/tokens").join("istio-token"), token).unwrap();
        let secure = control.address("secureXds");
        let (status_port, http_proxy_port) = (ReservedPort::new(), ReservedPort::new());
        (Self { root, in_memory, mesh_port, status_port, http_proxy_port, app_port, control: secure }, control)
    }

    fn sidecar(&self) -> Process {
        let (mesh, app) = (self.mesh_port.port(), self.app_port);
        let config = json!({
            "discoveryAddress": self.control.to_string(), "statusPort": self.status_port.port(), "proxyAdminPort": 0,
            "terminationDrainDuration": "1s",
        });
        let probers = json!({
            "/app-health/web/readyz": {
                "httpGet": {"path": "/ready", "port": app, "scheme": "HTTP", "httpHeaders": [{"name": "X-Probe", "value": "yes"}]},
                "timeoutSeconds": 60,
            },
            "/app-health/web/livez": {"tcpSocket": {"port": app}, "timeoutSeconds": 60},
            "/app-health/web/startupz": {"httpGet": {"path": "/nothing", "port": 1, "scheme": "HTTPS"}, "timeoutSeconds": 60},
        });
        let metrics = json!({"scrape": "true", "path": "", "port": app.to_string()});
        let application = json!({mesh.to_string(): format!("127.0.0.1:{app}")});
        Process::start(
            Command::new(MIZZEN)
                .args([
                    "proxy",
                    "sidecar",
                    "--domain",
                    "shop.svc.cluster.local",
                    "--proxyLogLevel=warning",
                    "-o",
                    "json",
                ])
                .args(["--proxyComponentLogLevel=misc:error", "--log_output_level=default:info", "--root"])
                .arg(self.root.path())
                .env_clear()
                .env("POD_NAME", "web-1")
                .env("POD_NAMESPACE", "shop")
                .env("INSTANCE_IP", "127.0.0.1")
                .env("SERVICE_ACCOUNT", "web")
                .env("CA_ADDR", self.control.to_string())
                .env("PROXY_CONFIG", config.to_string())
                .env("ENVOY_STATUS_PORT", "0")
                .env("ENVOY_PROMETHEUS_PORT", "0")
                .env("ISTIO_CPU_LIMIT", "1")
                .env("ISTIO_META_INTERCEPTION_MODE", "NONE")
                .env("ISTIO_META_WORKLOAD_NAME", "web")
                .env("ISTIO_META_CLUSTER_ID", "Kubernetes")
                .env("ISTIO_META_HTTP_PROXY_PORT", self.http_proxy_port.port().to_string())
                .env("ISTIO_META_MIZZEN_BIND", "127.0.0.1")
                .env("ISTIO_META_MIZZEN_APP", application.to_string())
                .env("ISTIO_KUBE_APP_PROBERS", probers.to_string())
                .env("ISTIO_PROMETHEUS_ANNOTATIONS", metrics.to_string()),
        )
    }

    fn inbound(&self) -> SocketAddr {
        self.mesh_port.address()
    }
}

fn manifests(port: u16) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata: {{name: web, namespace: shop}}
spec: {{selector: {{app: web}}, clusterIP: 10.96.0.1, ports: [{{name: http, port: {port}, targetPort: {port}}}]}}
---
apiVersion: v1
kind: Pod
metadata: {{name: web-1, namespace: shop, labels: {{app: web, security.istio.io/tlsMode: istio}}}}
spec: {{serviceAccountName: web, containers: [{{name: web, image: web, ports: [{{containerPort: {port}}}]}}]}}
status: {{phase: Running, podIP: 127.0.0.1, podIPs: [{{ip: 127.0.0.1}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: web-1, namespace: shop, labels: {{kubernetes.io/service-name: web}}}}
addressType: IPv4
endpoints:
  - {{addresses: [127.0.0.1], conditions: {{ready: true}}, targetRef: {{kind: Pod, name: web-1, namespace: shop}}}}
ports: [{{name: http, port: {port}, protocol: TCP}}]
"
    )
}

/// As injection's hook does.
fn wait_until_ready(sidecar: &Process) {
    let url = format!("http://{}/healthz/ready", sidecar.address("health"));
    let seconds = PATIENCE.as_secs().to_string();
    let output =
        Command::new(MIZZEN).args(["proxy", "wait", "--timeoutSeconds", &seconds, "--url", &url]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_sidecar_lives_by_its_environment() {
    let (pod, mut control) = Pod::new();
    let mut sidecar = pod.sidecar();
    wait_until_ready(&sidecar);
    let agent = sidecar.address("agent");

    // It serves, and is known as the workload that its token names.
    let (status, answer) = get(pod.inbound(), "/");
    assert!(status == 200 && answer.contains("hello from the application"), "{answer}");
    let (_, nodes) = get(control.address("http"), "/debug/nodes");
    let nodes: Value = serde_json::from_str(nodes.split_once("\r\n\r\n").unwrap().1).unwrap();
    let node = nodes.as_array().unwrap().iter().find(|node| node["name"] == "web-1.shop").unwrap();
    assert_eq!(node["identity"], "spiffe://cluster.local/ns/shop/sa/web");
    assert_eq!(node["metadata"]["LABELS"]["version"], "v1");

    // One page of metrics for Prometheus.
    wait_for("the request is counted", || {
        get(agent, "/stats/prometheus")
            .1
            .lines()
            .any(|line| line.starts_with("istio_requests_total{") && line.contains("destination_workload=\"web\""))
    });
    let (status, metrics) = get(agent, "/stats/prometheus");
    assert!(status == 200 && metrics.contains("\npage_views 3\n"), "{metrics}");
    assert!(!get(sidecar.address("stats"), "/stats/prometheus").1.contains("page_views"));

    // The kubelet's questions.
    assert_eq!(get(agent, "/app-health/web/readyz").0, 200, "with the probe's own header");
    assert_eq!(get(agent, "/app-health/web/livez").0, 200);
    assert_eq!(get(agent, "/app-health/web/startupz").0, 500, "nothing listens there");
    assert_eq!(get(agent, "/app-health/other/livez").0, 404);
    assert_eq!(get(agent, "/healthz/ready").0, 200);
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
        for port in ["health", "stats", "agent"] {
            let address = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), sidecar.address(port).port());
            assert_ne!(get(address, "/healthz/ready").0, 0, "{port} listens on IPv6 too");
        }
    }

    // Orders: not by a page, not by GET.
    for path in ["/quitquitquit", "/drain"] {
        assert_eq!(get(agent, path).0, 405);
        assert_eq!(ask(agent, "POST", path, "Origin: http://a\r\nContent-Length: 0\r\n").0, 403);
    }

    // The control plane goes away; the container is started anew and serves all the same.
    assert!(control.end().success());
    if pod.in_memory {
        // What is kept is written a moment after it changes.
        let kept = pod.root.path().join("etc/istio/proxy/mizzen");
        wait_for("the state is kept", || kept.join("identity.pem").exists() && kept.join("xds/lds.pb").exists());
        assert!(sidecar.end().success());
        sidecar = pod.sidecar();
        wait_until_ready(&sidecar);
        assert!(get(pod.inbound(), "/").1.contains("hello from the application"));
    } else {
        mizzen_testing::skip("agent: a restart without a control plane", "there is no folder in memory");
    }

    // Draining: not ready at once, still serving, clients told to leave; then the end at the first word.
    // As the hook of a native sidecar's container orders it.
    let hook = |method: &str| {
        let mut command = Command::new(MIZZEN);
        let port = sidecar.address("agent").port().to_string();
        command.args(["proxy", "request", "--debug-port", &port, method, "drain"]).output().unwrap()
    };
    let refused = hook("GET");
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("405"), "{refused:?}");
    let obeyed = hook("POST");
    assert!(obeyed.status.success(), "{obeyed:?}");
    wait_for("it is not ready any more", || get(sidecar.address("health"), "/healthz/ready").0 == 503);
    assert_eq!(get(sidecar.address("agent"), "/healthz/ready").0, 503);
    assert_eq!(get(pod.inbound(), "/").0, 200);
    assert!(sidecar.end().success());
    assert_eq!(get(pod.inbound(), "/").0, 0, "nobody listens any more");
}

#[test]
fn a_job_ends_its_sidecar() {
    let (pod, _control) = Pod::new();
    let mut sidecar = pod.sidecar();
    wait_until_ready(&sidecar);
    assert_eq!(ask(sidecar.address("agent"), "POST", "/quitquitquit", "Content-Length: 0\r\n").0, 200);
    let mut status = None;
    wait_for("it ends", || {
        status = sidecar.child.try_wait().unwrap();
        status.is_some()
    });
    assert!(status.unwrap().success());
}

#[test]
fn mistakes_in_the_environment_are_named() {
    for (name, value, word) in [
        ("PROXY_CONFIG", "{", "PROXY_CONFIG"),
        ("INSTANCE_IP", "here", "INSTANCE_IP"),
        ("ISTIO_KUBE_APP_PROBERS", "[]", "ISTIO_KUBE_APP_PROBERS"),
    ] {
        let output = Command::new(MIZZEN).args(["proxy", "sidecar", "--dry-run"]).env(name, value).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(word) && !said.contains("panicked"), "{said}");
    }
    let output = Command::new(MIZZEN).args(["proxy", "sidecar", "--templateFil", "x"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--templateFil"), "{output:?}");
    // What Istio's own templates may pass is taken; what of it would change something and does not is told.
    for (argument, told) in [
        ("--stsPort=15463", Some("--stsPort is not obeyed")),
        ("--templateFile=/etc/istio/custom-bootstrap/envoy_bootstrap.json", Some("--templateFile is not obeyed")),
        ("--stsPort=0", None),
        ("--tokenManagerPlugin=GoogleTokenExchange", None),
        ("--meshConfig=/etc/istio/config/mesh", None),
        ("--profiling=false", None),
    ] {
        let arguments = ["proxy", "sidecar", "--dry-run", "--domain", "default.svc.cluster.local", argument];
        let mut command = Command::new(MIZZEN);
        let output = command.args(arguments).env("INSTANCE_IP", "127.0.0.1").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{argument}: {said}");
        assert_eq!(told.is_some(), said.contains("is not obeyed"), "{argument}: {said}");
        assert!(told.is_none_or(|told| said.contains(told)), "{argument}: {said}");
    }
}
