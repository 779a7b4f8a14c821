//! A mesh of pods: control plane, `mizzen init` and a sidecar in each, from files.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use mizzen_identity::token::Issuer;

use crate::apps::{PATIENCE, try_get};
use crate::bed::Pod;
use crate::envoy;

/// Our own address, at which pods reach the control plane.
const CONTROL: &str = "10.66.9.1";

#[derive(Debug, Clone)]
pub(crate) enum Sidecar {
    Mizzen,
    Envoy(PathBuf),
}

pub(crate) struct Mesh {
    folder: tempfile::TempDir,
    binary: PathBuf,
    pods: Vec<Pod>,
    children: Vec<Child>,
    said: Arc<Mutex<Vec<String>>>,
    issuer: Issuer,
}

impl Mesh {
    /// Pods `client` and `server` with sidecars, and `outside` without one; nobody listens in them yet.
    pub(crate) fn start(init: &[&str], sidecar: Sidecar) -> Self {
        Self::with(init, sidecar, "")
    }

    /// With a further line in the mesh configuration.
    pub(crate) fn with(init: &[&str], sidecar: Sidecar, setting: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
        // Where the sidecar's user can run it.
        let binary = folder.path().join("mizzen");
        std::fs::copy(env!("CARGO_BIN_EXE_mizzen"), &binary).unwrap();
        crate::bed::run("ip", &format!("address add {CONTROL}/32 dev lo"));
        let pods = vec![Pod::new("client", 1), Pod::new("server", 2), Pod::new("outside", 3)];
        let issuer = Issuer::generate("test").unwrap();
        let mut mesh = Self { folder, binary, pods, children: Vec::new(), said: Arc::default(), issuer };
        mesh.configure(setting, &sidecar);
        mesh.start_control();
        for name in ["client", "server"] {
            mesh.init(mesh.pod(name), init);
            mesh.start_sidecar(name, &sidecar, init);
        }
        mesh
    }

    pub(crate) fn pod(&self, name: &str) -> &Pod {
        self.pods.iter().find(|pod| pod.name == name).unwrap()
    }

    /// The latest log lines.
    pub(crate) fn said(&self) -> Vec<String> {
        let said = self.said.lock().unwrap();
        said[said.len().saturating_sub(60)..].to_vec()
    }

    /// Waits for a line that says all of this.
    pub(crate) fn wait_for_line(&self, words: &[&str]) {
        let deadline = Instant::now() + PATIENCE;
        while !self.said.lock().unwrap().iter().any(|line| words.iter().all(|word| line.contains(word))) {
            assert!(Instant::now() < deadline, "no line with {words:?}: {:#?}", self.said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Catches the pod's traffic.
    pub(crate) fn init(&self, pod: &Pod, arguments: &[&str]) {
        let output = pod.command(&self.binary).arg("init").args(arguments).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    }

    /// Adds configuration to what the control plane watches.
    pub(crate) fn apply(&self, name: &str, text: &str) {
        std::fs::write(self.path("config").join(name), text).unwrap();
    }

    /// Waits until both sidecars are ready, and the client's request reaches the server.
    pub(crate) fn ready(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let ready = |name: &str| {
                let at = SocketAddr::new(self.pod(name).address, 15021).to_string();
                // Health is asked from outside, as the kubelet does.
                matches!(try_get_path(&at, "/healthz/ready"), Ok(200))
            };
            let page = || self.pod("client").call(|| try_get("10.96.0.10:80", "web"));
            if ready("client") && ready("server") && page().is_ok_and(|page| page.status == 200) {
                return;
            }
            assert!(Instant::now() < deadline, "not ready: {:#?}", self.said());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn configure(&self, setting: &str, sidecar: &Sidecar) {
        std::fs::create_dir(self.path("config")).unwrap();
        let mut all = OBJECTS.replace("    accessLogFile", &format!("    {setting}\n    accessLogFile"));
        if matches!(sidecar, Sidecar::Envoy(_)) {
            // It opens the file anew, and our pipe belongs to another user.
            all = all.replace("accessLogFile: /dev/stdout", "accessLogFile: ''");
        }
        std::fs::write(self.path("config/mesh.yaml"), all).unwrap();
        std::fs::write(self.path("issuer.pem"), self.issuer.public_key_pem()).unwrap();
    }

    fn start_control(&mut self) {
        let mut command = Command::new(&self.binary);
        command.args(["control", "--trust-domain", "cluster.local", "--concurrency", "1"]);
        command.args(["--secure-xds-address", &format!("{CONTROL}:15012")]);
        command.arg("--config").arg(self.path("config"));
        command.arg("--state-dir").arg(self.path("control"));
        command.arg("--token-issuer-key").arg(self.path("issuer.pem"));
        self.spawn("control", &mut command);
        let roots = self.path("control/root-cert.pem");
        let deadline = Instant::now() + PATIENCE;
        while !roots.exists() {
            assert!(Instant::now() < deadline, "no control plane: {:#?}", self.said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn start_sidecar(&mut self, name: &str, sidecar: &Sidecar, init: &[&str]) {
        let (tproxy, dns) = (init.contains(&"TPROXY"), init.contains(&"--redirect-dns"));
        let root = self.path(name);
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let token = self.issuer.mint("default", name, Duration::from_secs(3600), SystemTime::now()).unwrap();
        write("var/run/secrets/tokens/istio-token", &token);
        write(
            "var/run/secrets/istio/root-cert.pem",
            &std::fs::read_to_string(self.path("control/root-cert.pem")).unwrap(),
        );
        write("etc/istio/pod/labels", &format!("app=\"{name}\"\nsecurity.istio.io/tlsMode=\"istio\"\n"));
        write("etc/istio/proxy/.keep", "");
        // The pod `outside`.
        write("etc/resolv.conf", "nameserver 10.66.3.2\nsearch default.svc.cluster.local\n");
        give(&root);
        let as_proxy = if tproxy { Pod::command_as_mighty_proxy } else { Pod::command_as_proxy };
        let mut agent = as_proxy(self.pod(name), &self.binary);
        agent.args(["proxy", "sidecar", "--domain", "default.svc.cluster.local", "--proxyLogLevel=info"]);
        agent.args(["--concurrency", "1"]).arg("--root").arg(&root).env_clear();
        for (name, value) in [
            ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
            ("POD_NAME", name),
            ("POD_NAMESPACE", "default"),
            ("SERVICE_ACCOUNT", name),
            ("INSTANCE_IP", &self.pod(name).address.to_string()),
            ("CA_ADDR", &format!("{CONTROL}:15012")),
            ("PROXY_CONFIG", &format!("{{\"discoveryAddress\":\"{CONTROL}:15012\"}}")),
            ("ISTIOD_SAN", "istiod.istio-system.svc"),
            ("ISTIO_META_CLUSTER_ID", "Kubernetes"),
            ("ISTIO_META_WORKLOAD_NAME", name),
            ("ISTIO_META_INTERCEPTION_MODE", if tproxy { "TPROXY" } else { "REDIRECT" }),
            ("ISTIO_META_DNS_CAPTURE", if dns { "true" } else { "false" }),
        ] {
            agent.env(name, value);
        }
        match sidecar {
            Sidecar::Mizzen => self.spawn(name, &mut agent),
            Sidecar::Envoy(envoy) => {
                let bootstrap = envoy::bootstrap(&mut agent, &root);
                std::fs::write(root.join("bootstrap.json"), bootstrap.to_string()).unwrap();
                envoy::serve_certificates(&root, CONTROL);
                give(&root);
                let binary = self.path("envoy");
                if !binary.exists() {
                    std::fs::copy(envoy, &binary).unwrap();
                }
                let mut command = as_proxy(self.pod(name), &binary);
                command.arg("-c").arg(root.join("bootstrap.json"));
                command.args(["--disable-hot-restart", "--concurrency", "1", "-l", "warning"]);
                self.spawn(name, &mut command);
            }
        }
    }

    fn spawn(&mut self, name: &str, command: &mut Command) {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let streams: [Box<dyn std::io::Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        for stream in streams {
            let (said, name) = (Arc::clone(&self.said), name.to_owned());
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    if std::env::var_os("MIZZEN_TEST_LOUD").is_some() {
                        eprintln!("{name}: {line}");
                    }
                    said.lock().unwrap().push(format!("{name}: {line}"));
                }
            });
        }
        self.children.push(child);
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Gives a folder to the sidecar's user.
fn give(path: &Path) {
    chown(path, Some(1337), Some(1337)).unwrap();
    if path.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            give(&entry.unwrap().path());
        }
    }
}

fn try_get_path(to: &str, path: &str) -> std::io::Result<u16> {
    use std::io::{Read, Write};
    let mut stream = crate::apps::connect(to)?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {to}\r\nconnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default())
}

/// What a cluster would know.
const OBJECTS: &str = include_str!("objects.yaml");
