//! The binary as a user runs it: `mizzen demo` from start to end, on free ports, in folders of its own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use mizzen_testing::ReservedPort;
use rustix::process::{Pid, Signal, kill_process};

const MIZZEN: &str = env!("CARGO_BIN_EXE_mizzen");
/// What has not come about by then does not come about. What is promised (a start within 3 s, a change within one) is
/// promised of an idle machine; tests run beside others, on whatever machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A mesh that runs; what a failed test leaves is killed.
struct Mesh {
    child: Child,
    stderr: mpsc::Receiver<String>,
    folder: tempfile::TempDir,
    port: u16,
    _reserved: ReservedPort,
    json: String,
}

impl Mesh {
    fn start(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let config = folder.path().join("config");
        Self::run(folder, Command::new(MIZZEN).arg("demo").arg("--dir").arg(config), arguments)
    }

    /// Runs `command` in `folder` with what all tests need.
    fn run(folder: tempfile::TempDir, command: &mut Command, arguments: &[&str]) -> Self {
        let reserved = ReservedPort::new();
        let port = reserved.port();
        let mut child = prepared(command, folder.path())
            .args(["-o", "json", "--gateway-port", &port.to_string()])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("mizzen starts");
        let stderr = lines(child.stderr.take().expect("piped"));
        let (told, json) = mpsc::channel();
        let mut stdout = child.stdout.take().expect("piped");
        thread::spawn(move || {
            // One pretty-printed document, which ends with a brace in the first column.
            let (mut text, mut bytes) = (String::new(), [0; 4096]);
            while let Ok(read @ 1..) = stdout.read(&mut bytes) {
                text.push_str(&String::from_utf8_lossy(&bytes[..read]));
                if text.ends_with("\n}\n") {
                    let _ = told.send(std::mem::take(&mut text));
                }
            }
        });
        let mut mesh = Self { child, stderr, folder, port, _reserved: reserved, json: String::new() };
        match json.recv_timeout(PATIENCE) {
            Ok(json) => mesh.json = json,
            Err(_) => panic!("not ready within {PATIENCE:?}: {:?}", mesh.said()),
        }
        mesh
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// What was written to stderr since the last time.
    fn said(&mut self) -> Vec<String> {
        self.stderr.try_iter().collect()
    }

    fn config(&self, file: &str) -> PathBuf {
        self.folder.path().join("config").join(file)
    }

    fn page(&self) -> (u16, String) {
        get(self.port, "istio.k3s.local", "/productpage").unwrap_or((0, String::new()))
    }

    fn ask(&self, arguments: &[&str]) -> Output {
        command(self.folder.path()).args(arguments).output().expect("mizzen runs")
    }

    /// Processes that have this mesh's folder in their command line, other than the supervisor, or its children.
    fn processes(&self) -> Vec<(i32, String)> {
        let own = self.child.id().cast_signed();
        let folder = self.folder.path().display().to_string();
        let all = std::fs::read_dir("/proc").expect("/proc").flatten();
        let pids = all.filter_map(|entry| entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()));
        let described = pids.filter_map(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).map(str::trim).map(str::parse);
            let zombie = status.contains("State:\tZ");
            let ours = line.contains(&folder) || parent == Some(Ok(own));
            (ours && !zombie && pid != own).then_some((pid, line))
        });
        described.collect()
    }

    fn state_is_gone(&self) -> bool {
        !self.folder.path().join("mizzen").exists()
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `mizzen` with a runtime folder of its own and without anything that the tester's environment may say.
fn command(folder: &Path) -> Command {
    let mut command = Command::new(MIZZEN);
    prepared(&mut command, folder);
    command
}

fn prepared<'c>(command: &'c mut Command, folder: &Path) -> &'c mut Command {
    command.env("XDG_RUNTIME_DIR", folder).env_remove("MIZZEN_LOG").env_remove("http_proxy").current_dir(folder)
}

fn lines(from: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (told, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if told.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

fn get(port: u16, host: &str, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
    Ok((status, answer))
}

/// Waits until `done`; says after how long, or fails.
#[track_caller]
fn wait_for(what: &str, mut done: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(10));
    }
    begun.elapsed()
}

/// What the proxies of both ends say of the calls from productpage to details.
fn both_sides_count_a_call_alike(mesh: &Mesh) {
    let json: serde_json::Value = serde_json::from_str(&mesh.json).expect("JSON");
    let workloads = json["workloads"].as_array().expect("a list");
    for (workload, reporter) in [("productpage-v1", "source"), ("details-v1", "destination")] {
        let it = workloads.iter().find(|it| it["workload"] == workload).expect("it is listed");
        let address: std::net::SocketAddr = it["stats"].as_str().expect("text").parse().expect("an address");
        let counted = |metrics: &str| {
            let lines = metrics.lines().filter(|line| line.starts_with("istio_requests_total{"));
            let mut lines = lines.filter(|line| line.contains("destination_service_name=\"details\""));
            lines.find(|line| line.contains(&format!("reporter=\"{reporter}\""))).map(str::to_owned)
        };
        let mut line = String::new();
        // A call is counted when all of it is over, which may be a moment after its answer.
        wait_for("the call is counted", || {
            line = scrape(address).and_then(|metrics| counted(&metrics)).unwrap_or_default();
            !line.is_empty()
        });
        for label in [
            "source_workload=\"productpage-v1\"",
            "source_workload_namespace=\"default\"",
            "source_principal=\"spiffe://cluster.local/ns/default/sa/bookinfo-productpage\"",
            "source_app=\"productpage\"",
            "source_version=\"v1\"",
            "source_canonical_service=\"productpage\"",
            "source_canonical_revision=\"v1\"",
            "source_cluster=\"Kubernetes\"",
            "destination_workload=\"details-v1\"",
            "destination_workload_namespace=\"default\"",
            "destination_principal=\"spiffe://cluster.local/ns/default/sa/bookinfo-details\"",
            "destination_app=\"details\"",
            "destination_version=\"v1\"",
            "destination_canonical_service=\"details\"",
            "destination_canonical_revision=\"v1\"",
            "destination_cluster=\"Kubernetes\"",
            "response_code=\"200\"",
        ] {
            assert!(line.contains(label), "{workload} does not say {label}: {line}");
        }
    }
}

/// What a proxy tells Prometheus; `None` when it does not answer.
fn scrape(address: std::net::SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    write!(stream, "GET /stats/prometheus HTTP/1.1\r\nHost: stats\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// Every proxy is connected over TLS, as the workload that it stands for.
fn every_proxy_proved_who_it_is(mesh: &Mesh) {
    let json: serde_json::Value = serde_json::from_str(&mesh.json).expect("JSON");
    let pages: std::net::SocketAddr = json["control"]["debug"].as_str().expect("text").parse().expect("an address");
    let mut stream = TcpStream::connect(pages).expect("it listens");
    write!(stream, "GET /debug/nodes HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    let body = answer.split_once("\r\n\r\n").expect("a body").1;
    let nodes: Vec<serde_json::Value> = serde_json::from_str(body).expect("JSON");
    let members = json["workloads"].as_array().expect("a list").iter().chain([&json["gateway"]]);
    let mut count = 0;
    for member in members {
        let node = nodes.iter().find(|node| node["id"] == member["node"]).expect("it is connected");
        assert!(member["identity"].as_str().is_some_and(|identity| identity.starts_with("spiffe://")), "{member}");
        assert_eq!(node["identity"], member["identity"]);
        count += 1;
    }
    assert_eq!((count, nodes.len()), (7, 7));
}

const EVERYBODY_V3: &str = "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
    - route: [{destination: {host: reviews, subset: v3}}]
";

#[test]
fn the_demo_from_start_to_end() {
    let name = "from-start-to-end";
    let mut mesh = Mesh::start(&["--name", name]);
    assert!(
        mesh.json.contains("productpage-v1")
            && mesh.json.contains("spiffe://cluster.local/ns/default/sa/bookinfo-ratings")
    );

    // The page, with what details and reviews say; and nothing for others.
    let (status, page) = mesh.page();
    assert_eq!(status, 200, "{page}");
    assert!(page.contains("The Comedy of Errors") && page.contains("reviews-v"), "{page}");
    assert_eq!(get(mesh.port, "other.test", "/productpage").expect("answered").0, 404);
    assert_eq!(get(mesh.port, "istio.k3s.local", "/nothing").expect("answered").0, 404);
    both_sides_count_a_call_alike(&mesh);
    every_proxy_proved_who_it_is(&mesh);

    // A file that is saved changes the traffic.
    std::fs::write(mesh.config("reviews.yaml"), EVERYBODY_V3).expect("written");
    let took = wait_for("the change", || (0..6).all(|_| mesh.page().1.contains("reviews-v3")));
    println!("the change was in force after {took:?}");

    // The mesh can be asked.
    let status = mesh.ask(&["proxy-status", "--name", name]);
    assert!(status.status.success(), "{status:?}");
    assert!(String::from_utf8_lossy(&status.stdout).contains("reviews-v3-0.default"), "{status:?}");
    let explained = mesh.ask(&["explain", "--from", "productpage", "GET", "http://reviews:9080/reviews/0"]);
    let text = String::from_utf8_lossy(&explained.stdout);
    assert!(explained.status.success(), "{explained:?}");
    assert!(text.contains("reviews.yaml:7") && text.contains("subset v3"), "{text}");
    let refused = mesh.ask(&["explain", "--gateway", "GET", "http://other.test/"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let routes = mesh.ask(&["proxy-config", "routes", "productpage"]);
    assert!(String::from_utf8_lossy(&routes.stdout).contains("reviews.default"), "{routes:?}");

    // Whoever has named a cluster is told that this machine's mesh answers.
    let status = |kubeconfig: &str| {
        let output = command(mesh.folder.path()).arg("proxy-status").env("KUBECONFIG", kubeconfig).output();
        String::from_utf8_lossy(&output.expect("mizzen runs").stderr).into_owned()
    };
    assert!(status("cluster.yaml").contains("not the cluster of KUBECONFIG"), "{}", status("cluster.yaml"));
    assert!(!status("").contains("KUBECONFIG"), "{}", status(""));

    // A process that dies is named and started again.
    let details = mesh.processes().into_iter().find(|(_, line)| line.contains("bookinfo details")).expect("it runs").0;
    kill_process(Pid::from_raw(details).expect("a process id"), Signal::KILL).expect("killed");
    let mut said = Vec::new();
    wait_for("the death is named", || {
        said.extend(mesh.said());
        said.iter().any(|line| line.contains("details-v1-0: the application") && line.contains("started again"))
    });
    wait_for("it is started again", || mesh.page().1.contains("ISBN-10"));

    // A Deployment that is added is started; one that is removed is ended.
    let second = std::fs::read_to_string(mesh.config("bookinfo.yaml")).expect("there");
    let second = second.split("---\n").find(|document| document.contains("name: details-v1")).expect("a Deployment");
    std::fs::write(mesh.config("second.yaml"), second.replace("name: details-v1", "name: details-second"))
        .expect("written");
    let runs = |mesh: &Mesh| mesh.processes().iter().any(|(_, line)| line.contains("/details-second-0/"));
    wait_for("the new Deployment runs", || runs(&mesh));
    std::fs::remove_file(mesh.config("second.yaml")).expect("removed");
    wait_for("the removed Deployment is gone", || !runs(&mesh));
    assert_eq!(mesh.page().0, 200);

    // One Ctrl-C ends everything.
    kill_process(mesh.pid(), Signal::INT).expect("it runs");
    let status = mesh.child.wait().expect("it ends");
    assert!(status.success(), "{status} {:?}", mesh.said());
    assert_eq!(mesh.processes(), []);
    assert!(mesh.state_is_gone());
}

#[test]
fn stock_envoys_in_the_place_of_our_proxies() {
    let Some(envoy) = mizzen_testing::envoy() else {
        return mizzen_testing::skip("demo::stock_envoys_in_the_place_of_our_proxies", "there is no Envoy");
    };
    let envoy = envoy.canonicalize().expect("it is there");
    let mut mesh = Mesh::start(&["--name", "envoys", "--proxy", "envoy", "--envoy-path", &envoy.display().to_string()]);
    let (status, page) = mesh.page();
    assert!(status == 200 && page.contains("ISBN-10") && page.contains("reviews-v"), "{page}");
    every_proxy_proved_who_it_is(&mesh);
    assert_eq!(get(mesh.port, "other.test", "/productpage").expect("answered").0, 404);
    std::fs::write(mesh.config("reviews.yaml"), EVERYBODY_V3).expect("written");
    wait_for("the change", || (0..6).all(|_| mesh.page().1.contains("reviews-v3")));
    let status = mesh.ask(&["proxy-status"]);
    assert!(status.status.success(), "nothing is refused: {status:?}");
    kill_process(mesh.pid(), Signal::TERM).expect("it runs");
    assert!(mesh.child.wait().expect("it ends").success());
    assert_eq!(mesh.processes(), []);
}

#[test]
fn up_runs_istio_s_samples_unchanged() {
    let name = "demo::up_runs_istio_s_samples_unchanged";
    let Some(samples) = mizzen_testing::shared_or_skip(name, "samples/bookinfo") else { return };
    let files = [
        "platform/kube/bookinfo.yaml",
        "networking/bookinfo-gateway.yaml",
        "networking/virtual-service-all-v1.yaml",
        "networking/destination-rule-all.yaml",
    ];
    let folder = tempfile::tempdir().expect("a folder");
    let files = files.map(|file| samples.join(file));
    let mesh = Mesh::run(folder, Command::new(MIZZEN).arg("up").args(files), &["--name", "samples"]);
    for _ in 0..6 {
        let (status, page) = get(mesh.port, "anything.test", "/productpage").expect("answered");
        assert!(status == 200 && page.contains("reviews-v1"), "{page}");
    }
}

#[test]
fn nothing_survives_a_supervisor_that_is_killed() {
    let mesh = Mesh::start(&["--name", "killed"]);
    let before = mesh.processes();
    assert!(before.len() >= 14, "{before:?}");
    kill_process(mesh.pid(), Signal::KILL).expect("it runs");
    let lives = |pid: i32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        !status.is_empty() && !status.contains("State:\tZ")
    };
    wait_for("all are gone", || !before.iter().any(|(pid, _)| lives(*pid)));
    wait_for("the state folder is gone", || !mesh.folder.path().join("mizzen/killed").exists());
}

#[test]
fn a_taken_port_is_told_with_a_free_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    let port = taken.local_addr().expect("an address").port().to_string();
    let output = command(folder.path()).args(["demo", "--gateway-port", &port]).output().expect("mizzen runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("port {port}")) && said.contains("--gateway-port "), "{said}");
}

#[test]
fn mistakes_end_with_a_reason() {
    let folder = tempfile::tempdir().expect("a folder");
    let broken = folder.path().join("broken.yaml");
    std::fs::write(&broken, "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\nspec:\n  hosts: [a]\n  htpp: []\n").expect("written");
    for (arguments, code, word) in [
        (vec!["validate", "broken.yaml"], 1, "broken.yaml:6:"),
        (vec!["up", "missing.yaml"], 1, "missing.yaml"),
        (vec!["proxy-status"], 1, "no mesh runs"),
        (vec!["explain", "--gateway", "GET", "http://"], 1, "URL"),
        (vec!["proxy", "-c", "missing.yaml"], 1, "missing.yaml"),
        (vec!["nonsense"], 2, "nonsense"),
        (vec!["explain", "GET", "http://a/"], 2, "--from"),
    ] {
        let output = command(folder.path()).args(&arguments).output().expect("mizzen runs");
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(word), "{arguments:?} names {word}: {said}");
        assert!(!said.contains("panicked"), "{said}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut child = Command::new(MIZZEN)
        .args(["completion", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("mizzen runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}
