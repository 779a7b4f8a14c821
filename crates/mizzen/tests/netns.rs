//! `mizzen up --capture netns`: programs as they are, in network namespaces of their own. On the real kernel; as root, and
//! as a user without privilege where the kernel lets users have namespaces.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use mizzen_testing::ReservedPort;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;

const MIZZEN: &str = env!("CARGO_BIN_EXE_mizzen");
/// What has not come about by then does not come about.
const PATIENCE: Duration = Duration::from_secs(120);
/// Somebody without privilege.
const NOBODY: u32 = 65534;
/// Says that this program is an application of a mesh, and which.
const APPLICATION: &str = "MIZZEN_TEST_APPLICATION";
const GREETING: &str = "220 who is there?\n";

const MANIFESTS: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    accessLogFile: /dev/stdout
    outboundTrafficPolicy: {mode: POLICY}
---
apiVersion: v1
kind: Service
metadata: {name: details}
spec: {selector: {app: details}, ports: [{name: http, port: 9080}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: details-v1}
spec:
  selector: {matchLabels: {app: details}}
  template:
    metadata: {labels: {app: details, version: v1}}
    spec:
      containers:
        - name: details
          image: docker.io/istio/examples-bookinfo-details-v1:1.20.3
          ports: [{containerPort: 9080}]
---
apiVersion: v1
kind: Service
metadata: {name: mail, namespace: shop}
spec: {selector: {app: mail}, ports: [{name: tcp-mail, port: 2525, targetPort: 25}]}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: mail
  namespace: shop
  annotations: {mizzen.dev/command: '["PROGRAM", "application", "--exact", "--nocapture"]'}
spec:
  selector: {matchLabels: {app: mail}}
  template:
    metadata: {labels: {app: mail}}
    spec:
      containers:
        - name: mail
          image: nothing
          ports: [{containerPort: 25}]
          env: [{name: MIZZEN_TEST_APPLICATION, value: 'greet:25'}]
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: door}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: door}
spec:
  hosts: ['*']
  gateways: [door]
  http: [{route: [{destination: {host: details, port: {number: 9080}}}]}]
"#;

const FAULT: &str = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: details}
spec:
  hosts: [details]
  http:
    - fault: {delay: {percentage: {value: 100}, fixedDelay: 3s}}
      route: [{destination: {host: details}}]
";

/// A mesh that runs; what a failed test leaves is killed.
struct Mesh {
    child: Child,
    stderr: mpsc::Receiver<String>,
    folder: PathBuf,
    port: u16,
    _reserved: ReservedPort,
    run: Value,
    user: Option<u32>,
}

/// Our own binary, as that user and with files in `folder`.
fn mizzen(folder: &Path, user: Option<u32>) -> Command {
    let mut command = Command::new(MIZZEN);
    command.current_dir(folder).env("XDG_RUNTIME_DIR", folder).env("NO_COLOR", "1").env("HOME", folder);
    // A user whose shell sends everything to a proxy that is not there.
    command.env("http_proxy", "http://127.0.0.1:9").env("HTTP_PROXY", "http://127.0.0.1:9");
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    command
}

impl Mesh {
    fn start(folder: &Path, user: Option<u32>) -> Result<Self, String> {
        let reserved = ReservedPort::new();
        let port = reserved.port().to_string();
        let mut child = mizzen(folder, user)
            .args(["up", "config", "--capture", "netns", "-o", "json", "--name", "namespaces"])
            .args(["--gateway-port", &port])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (tell, stderr) = mpsc::channel();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        thread::spawn(move || lines.map_while(Result::ok).for_each(|line| drop(tell.send(line))));
        let (told, json) = mpsc::channel();
        let mut stdout = child.stdout.take().unwrap();
        thread::spawn(move || {
            // One document, which ends with a brace in the first column.
            let (mut text, mut bytes) = (String::new(), [0; 4096]);
            while let Ok(read @ 1..) = stdout.read(&mut bytes) {
                text.push_str(&String::from_utf8_lossy(&bytes[..read]));
                if text.ends_with("\n}\n") {
                    let _ = told.send(std::mem::take(&mut text));
                }
            }
        });
        let mut mesh = Self {
            child,
            stderr,
            folder: folder.to_owned(),
            port: reserved.port(),
            _reserved: reserved,
            run: Value::Null,
            user,
        };
        match json.recv_timeout(PATIENCE) {
            Ok(json) => mesh.run = serde_json::from_str(&json).unwrap(),
            Err(_) => return Err(mesh.said()),
        }
        Ok(mesh)
    }

    fn said(&self) -> String {
        self.stderr.try_iter().collect::<Vec<_>>().join("\n")
    }

    /// A program beside a workload.
    fn exec(&self, workload: &str, program: &[&str]) -> Output {
        let mut command = mizzen(&self.folder, self.user);
        command.args(["exec", "--name", "namespaces", workload, "--"]).args(program).output().unwrap()
    }

    /// What an unmodified `curl` in a pod of `details` says: the status, and how long it took.
    fn curl(&self, url: &str) -> (String, Duration) {
        let begun = Instant::now();
        let output = self.exec("details-v1", &["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-m", "60", url]);
        (String::from_utf8_lossy(&output.stdout).into_owned(), begun.elapsed())
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.join("config").join(name), text).unwrap();
    }

    /// Process ids of the sandboxes.
    fn sandboxes(&self) -> Vec<i32> {
        let all = self.run["workloads"].as_array().unwrap().iter().chain([&self.run["gateway"]]);
        all.map(|instance| i32::try_from(instance["sandbox"].as_i64().unwrap()).unwrap()).collect()
    }

    fn end(mut self, signal: Signal) {
        let sandboxes = self.sandboxes();
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        self.child.wait().unwrap();
        eventually("no namespace is left", || sandboxes.iter().all(|id| !lives(*id)));
        eventually("the state folder is gone", || !self.folder.join("mizzen/namespaces").exists());
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A process that has ended may still wait for somebody to hear of it.
fn lives(id: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    let ended = stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'));
    test_kill_process(Pid::from_raw(id).unwrap()).is_ok() && !ended
}

#[track_caller]
fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// An application of the mesh, which knows nothing of it; no test where nobody asks for one.
#[test]
fn application() {
    let Ok(wanted) = std::env::var(APPLICATION) else { return };
    match wanted.split(':').collect::<Vec<_>>()[..] {
        // Speaks first, and waits for an answer, as mail servers do.
        ["greet", port] => {
            let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port.parse().unwrap())).unwrap();
            for mut stream in listener.incoming().flatten() {
                thread::spawn(move || {
                    let _ = stream.write_all(GREETING.as_bytes());
                    let mut line = String::new();
                    let _ = BufReader::new(&stream).read_line(&mut line);
                    let _ = (&stream).write_all(format!("250 {line}").as_bytes());
                });
            }
        }
        ["hear", host, port] => {
            let mut stream = TcpStream::connect((host, port.parse().unwrap())).unwrap();
            let mut greeting = String::new();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            reader.read_line(&mut greeting).unwrap();
            stream.write_all(b"me\n").unwrap();
            reader.read_line(&mut greeting).unwrap();
            print!("<{greeting}>");
        }
        _ => panic!("{wanted}"),
    }
}

/// The address by which this machine is reached from elsewhere, if it is.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // Nothing is sent.
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
}

/// A server outside of the mesh.
fn outside(address: IpAddr) -> String {
    let listener = TcpListener::bind((address, 0)).unwrap();
    let at = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut line = String::new();
                while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
                    line.clear();
                }
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: close\r\n\r\nout");
            });
        }
    });
    at.to_string()
}

fn from_the_machine(port: u16) -> String {
    let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else { return String::new() };
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let _ = stream.write_all(b"GET /details/0 HTTP/1.1\r\nhost: shop.example\r\nconnection: close\r\n\r\n");
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

/// Writes the configuration, for that user.
fn configuration(folder: &Path, user: Option<u32>) {
    let config = folder.join("config");
    std::fs::create_dir_all(&config).unwrap();
    let program = std::env::current_exe().unwrap();
    let text = MANIFESTS.replace("PROGRAM", &program.to_string_lossy()).replace("POLICY", "ALLOW_ANY");
    std::fs::write(config.join("mesh.yaml"), text).unwrap();
    for path in [folder, &config, &config.join("mesh.yaml")] {
        std::os::unix::fs::chown(path, user, user).unwrap();
    }
}

/// Whether that user can run what is needed, and may have what is needed.
fn possible(test: &str, user: Option<u32>) -> bool {
    let can = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/");
        if let Some(user) = user {
            command.uid(user).gid(user);
        }
        command.status().is_ok_and(|status| status.success())
    };
    let namespaces: &[&str] = if user.is_some() { &["-Urn", "true"] } else { &["-n", "true"] };
    let why = if !rustix::process::geteuid().is_root() {
        "only root can become somebody else, or make namespaces for sure"
    } else if !can("curl", &["--version"]) {
        "no `curl`"
    } else if !can("unshare", namespaces) {
        "the kernel permits no network namespaces here"
    } else if !can(MIZZEN, &["version"]) {
        "our binary lies where others cannot run it"
    } else {
        return true;
    };
    mizzen_testing::skip(test, why);
    false
}

/// The whole of it, as one user.
fn check(test: &str, user: Option<u32>) {
    if !possible(test, user) {
        return;
    }
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    configuration(folder.path(), user);
    let mesh = Mesh::start(folder.path(), user).unwrap_or_else(|said| panic!("it does not start: {said}"));

    // From this machine through the gateway.
    eventually("the gateway answers on its port of this machine", || {
        from_the_machine(mesh.port).starts_with("HTTP/1.1 200")
    });

    // By names as in a cluster, without a variable; the Service's address exists in the mesh only.
    for url in [
        "http://details:9080/details/0",
        "http://details.default:9080/details/0",
        "http://details.default.svc.cluster.local:9080/details/0",
    ] {
        assert_eq!(mesh.curl(url).0, "200", "{url}: {}", mesh.said());
    }

    // Rules are obeyed by a client that knows nothing of them, until they are gone.
    mesh.write("fault.yaml", FAULT);
    eventually("3 s are added", || {
        let (status, took) = mesh.curl("http://details:9080/details/0");
        status == "200" && took >= Duration::from_secs(3)
    });
    std::fs::remove_file(folder.path().join("config/fault.yaml")).unwrap();
    eventually("no 3 s are added", || {
        let (status, took) = mesh.curl("http://details:9080/details/0");
        status == "200" && took < Duration::from_secs(3)
    });

    // A server that speaks first, behind a port of the Service that is not the container's.
    let program = std::env::current_exe().unwrap();
    let program = program.to_string_lossy();
    let hear =
        ["env", &format!("{APPLICATION}=hear:mail.shop:2525"), &program, "application", "--exact", "--nocapture"];
    let heard = mesh.exec("details-v1", &hear);
    let heard = String::from_utf8_lossy(&heard.stdout).into_owned();
    assert!(heard.contains(&format!("<{GREETING}250 me\n>")), "{heard}");

    // The pod's name is its own, and so is its loopback.
    let name = mesh.exec("details-v1", &["hostname"]);
    if name.status.success() {
        assert_eq!(String::from_utf8_lossy(&name.stdout).trim(), "details-v1-0");
    }
    assert_eq!(
        mesh.curl(&format!("http://127.0.0.1:{}/", mesh.port)).0,
        "000",
        "the machine's loopback is not the pod's"
    );

    match own_address() {
        Some(address) => leaves_the_mesh(&mesh, &outside(address)),
        None => mizzen_testing::skip(test, "outbound connections: this machine has no address but loopback"),
    }
    // Asked of the proxy itself, from this machine.
    let routes = mizzen(folder.path(), user)
        .args(["proxy-config", "routes", "details-v1", "--name", "namespaces"])
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&routes.stdout).contains("details.default.svc.cluster.local"), "{routes:?}");

    // Nothing survives, however it ends; and what was killed does not stand in the way of the next.
    mesh.end(Signal::KILL);
    let mesh = Mesh::start(folder.path(), user).unwrap_or_else(|said| panic!("it does not start again: {said}"));
    eventually("it answers again", || from_the_machine(mesh.port).starts_with("HTTP/1.1 200"));
    mesh.end(Signal::INT);
}

fn leaves_the_mesh(mesh: &Mesh, server: &str) {
    let url = format!("http://{server}/");
    eventually("what is outside is reached", || mesh.curl(&url).0 == "200");
    let program = std::env::current_exe().unwrap();
    let only = MANIFESTS.replace("PROGRAM", &program.to_string_lossy()).replace("POLICY", "REGISTRY_ONLY");
    mesh.write("mesh.yaml", &only);
    // On a port of HTTP somebody can say so; on any other the connection is closed.
    let (host, port) = server.rsplit_once(':').unwrap();
    eventually("what nobody declared is blocked", || mesh.curl(&url).0 == "000");
    assert_eq!(mesh.curl(&format!("http://{host}:9080/")).0, "502");
    assert_eq!(mesh.curl("http://details:9080/details/0").0, "200");
    mesh.write(
        "outside.yaml",
        &format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: outside}}\nspec: {{hosts: \
             [outside.example], addresses: [{host}], ports: [{{number: {port}, name: http, protocol: HTTP}}], resolution: \
             STATIC, endpoints: [{{address: {host}}}]}}\n"
        ),
    );
    let declared = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-H", "host: outside.example", &url];
    eventually("what is declared is reached", || {
        String::from_utf8_lossy(&mesh.exec("details-v1", &declared).stdout) == "200"
    });
}

#[test]
fn where_the_kernel_forbids_it_the_error_says_what_to_do() {
    let test = "netns::where_the_kernel_forbids_it_the_error_says_what_to_do";
    if !possible(test, None) {
        return;
    }
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    configuration(folder.path(), None);
    // A user namespace in which there may be no other.
    let forbid =
        "echo 0 > /proc/sys/user/max_user_namespaces && echo 0 > /proc/sys/user/max_net_namespaces && exec \"$@\"";
    let output = Command::new("unshare")
        .args([
            "-Ur",
            "sh",
            "-c",
            forbid,
            "sh",
            MIZZEN,
            "up",
            "config",
            "--capture",
            "netns",
            "--gateway-port",
            &ReservedPort::new().port().to_string(),
        ])
        .current_dir(folder.path())
        .env("XDG_RUNTIME_DIR", folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{said}");
    for word in ["--capture netns", "run it as root", "user.max_user_namespaces", "leave --capture netns away"] {
        assert!(said.contains(word), "{word}: {said}");
    }
}

#[test]
fn as_root() {
    check("netns::as_root", None);
}

#[test]
fn without_privilege() {
    check("netns::without_privilege", Some(NOBODY));
}
