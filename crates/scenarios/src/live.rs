//! The runner on the wire: our control plane, proxies over real sockets, and workloads that say what they were asked.
//!
//! One mesh is started for all scenarios of a run; each scenario writes its files into the folder that the control plane
//! watches. A marker (a host that answers with a number, at every proxy) tells when the proxies obey the new files, so
//! nothing is waited for longer than needed, and nothing is judged too early.

mod certificate;
mod client;
mod echo;
mod proxies;
mod start;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use http::HeaderMap;
use mizzen_identity::token::{Issuer, LOCAL_ISSUER};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::expect::{Observed, Runner, Wrong};
use crate::findings::{self, Found};
use crate::memory::HTTP_PROXY_PORT;
use crate::scenario::{Block, Call, FindingLine, Scenario};
use crate::world::{self, GATEWAY_PORTS, WORKLOADS, Workload};
use client::{Client, HANGS};
use echo::{CALL_HEADER, Memory, WORKLOAD_HEADER, greeting};
use proxies::{Proxies, Running};
use start::{free_net, start_control, start_workloads};

pub use proxies::Kind;

const MARKER_HOST: &str = "marker.mizzen.test";
/// After this, what has not come about will not: the machine may be slow, so it is long, and nothing is measured with it.
const PATIENCE: Duration = Duration::from_secs(60);
/// A load of fewer calls proves nothing.
const LOAD: u32 = 50;

/// Calls that go on.
struct Load {
    line: usize,
    stop: Arc<AtomicBool>,
    made: Arc<AtomicU32>,
    tasks: Vec<JoinHandle<Result<(), Wrong>>>,
}

/// A running mesh.
pub struct Live {
    runtime: Runtime,
    runner: Runner,
    net: u8,
    folder: TempDir,
    memory: Memory,
    proxies: Running,
    generation: u64,
    calls: u64,
    files: BTreeMap<String, String>,
}

impl Live {
    /// Starts everything and waits until the proxies obey.
    pub fn start(kind: Kind) -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(|error| error.to_string())?;
        let runner = if matches!(kind, Kind::Mizzen) { Runner::Wire } else { Runner::Envoy };
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let net = free_net()?;
        let memory = Memory::default();
        let issuer = Issuer::generate(LOCAL_ISSUER).map_err(|error| error.to_string())?;
        let config = folder.path().join("config");
        let state = folder.path().join("state");
        let io = |error: std::io::Error| error.to_string();
        std::fs::create_dir(&config).map_err(io)?;
        std::fs::write(config.join("00-world.yaml"), world::yaml(net)).map_err(io)?;
        std::fs::write(config.join("zz-marker.yaml"), marker(0)).map_err(io)?;
        std::fs::write(folder.path().join("issuer.pem"), issuer.public_key_pem()).map_err(io)?;

        let control = Ipv4Addr::new(127, net, 0, 1);
        runtime.block_on(start_control(control, &config, &state, folder.path().join("issuer.pem")))?;
        let apps = runtime.block_on(start_workloads(net, &memory))?;
        let plan = Proxies { kind, net, control, folder: folder.path(), state: &state, issuer: &issuer, apps: &apps };
        let proxies = plan.start(&runtime)?;
        let mut live =
            Self { runtime, runner, net, folder, memory, proxies, generation: 0, calls: 0, files: BTreeMap::new() };
        live.settle().map_err(|why| format!("{why}{}", live.proxies.logs()))?;
        Ok(live)
    }

    /// Runs a scenario; what does not hold.
    pub fn run(&mut self, scenario: &Scenario) -> Result<(), Vec<Wrong>> {
        let mut wrong = Vec::new();
        let fail = |line, found| Wrong { line, expected: "the mesh to obey the files".to_owned(), found };
        // Each begins with an empty folder: what a scenario leaves behind (a last good version too) ends with it.
        if let Err(why) = self.configure(&BTreeMap::new()) {
            wrong.push(fail(0, why));
        }
        let mut loads = Vec::new();
        let mut occupied = Vec::new();
        let mut may_refuse = false;
        for block in &scenario.blocks {
            match block {
                Block::Load(call) => loads.push(self.start_load(call)),
                Block::Occupy(address) => {
                    let text = world::renumbered(&address.to_string(), self.net);
                    match TcpListener::bind(&text) {
                        Ok(listener) => occupied.push(listener),
                        Err(error) => wrong.push(fail(0, format!("{text} cannot be occupied: {error}"))),
                    }
                }
                Block::Refused { line, text } => {
                    may_refuse = true;
                    wrong.extend(self.check_refused(*line, text));
                }
                Block::Config(files) => {
                    if let Err(why) = self.configure(files) {
                        wrong.push(fail(0, why));
                    }
                }
                Block::Findings(lines) => wrong.extend(self.check_findings(lines)),
                Block::Call(call) => self.check_call(call, &mut wrong),
            }
        }
        for load in loads {
            wrong.extend(self.end_load(load));
        }
        if !may_refuse {
            wrong.extend(self.refusals().into_iter().map(|why| fail(0, why)));
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    /// Writes the scenario's files, removes all others of scenarios, and waits until the proxies obey.
    fn configure(&mut self, files: &BTreeMap<String, String>) -> Result<(), String> {
        if self.files == *files {
            return Ok(());
        }
        let folder = self.folder.path().join("config");
        for name in self.files.keys().filter(|name| !files.contains_key(*name)) {
            std::fs::remove_file(folder.join(name)).map_err(|error| format!("{name}: {error}"))?;
        }
        for (name, text) in files {
            self.write(&folder.join(name), &world::renumbered(text, self.net))?;
        }
        self.files.clone_from(files);
        self.generation += 1;
        self.write(&folder.join("zz-marker.yaml"), &marker(self.generation))?;
        self.settle()
    }

    /// A reader sees the old file or the new one.
    fn write(&self, path: &Path, text: &str) -> Result<(), String> {
        let draft = self.folder.path().join("draft");
        std::fs::write(&draft, text)
            .and_then(|()| std::fs::rename(&draft, path))
            .map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Waits until every proxy obeys: who is called has to know what a caller knows already.
    fn settle(&mut self) -> Result<(), String> {
        let wanted = format!("generation {} ", self.generation);
        let begin = Instant::now();
        let net = self.net;
        let sidecars = WORKLOADS.iter().filter(|workload| workload.sidecar);
        let call = get(&format!("http://{MARKER_HOST}/"), "gateway");
        let gateway = client_for(net, &call)?.address();
        let sidecars = sidecars.map(|workload| (workload.name, sidecar(workload, net), true));
        self.runtime.block_on(async {
            for (caller, address, is_sidecar) in sidecars.chain([("gateway", gateway, false)]) {
                loop {
                    // A new connection each time: those that are open may stay with a listener that has been replaced.
                    let answer = Client::new(address, is_sidecar).call(&call, &[]).await;
                    if answer.as_ref().is_ok_and(|answer| answer.body.contains(&wanted)) {
                        break;
                    }
                    if begin.elapsed() > PATIENCE {
                        let last = answer.map(|answer| format!("{} {}", answer.status, answer.body));
                        return Err(format!(
                            "the proxy of {caller} did not obey the files within {PATIENCE:?}: {last:?}"
                        ));
                    }
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
            Ok(())
        })
    }

    fn check_call(&mut self, call: &Call, wrong: &mut Vec<Wrong>) {
        self.calls += 1;
        let observing = observe(self.net, &self.memory, self.calls, call);
        match self.runtime.block_on(observing) {
            Ok(observed) => {
                let lines = call.expects.iter().filter(|expect| expect.is_for(self.runner));
                wrong.extend(lines.filter_map(|expect| expect.check(&observed).err()));
            }
            Err(found) => {
                let expected = format!("an answer to {} {}", call.method, call.authority);
                wrong.push(Wrong { line: call.line, expected, found });
            }
        }
    }

    /// Calls without pause, on two connections, until the load is ended.
    fn start_load(&mut self, call: &Call) -> Load {
        let (stop, made) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let expects: Vec<_> = call.expects.iter().filter(|expect| expect.is_for(self.runner)).cloned().collect();
        let tasks = (0..2).map(|_| {
            self.calls += 1;
            let (stop, made, expects, call) = (Arc::clone(&stop), Arc::clone(&made), expects.clone(), call.clone());
            let (net, memory, number) = (self.net, self.memory.clone(), self.calls);
            self.runtime.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let observed = observe(net, &memory, number, &call).await.map_err(|found| Wrong {
                        line: call.line,
                        expected: "an answer".to_owned(),
                        found,
                    })?;
                    let number_made = made.fetch_add(1, Ordering::Relaxed) + 1;
                    for expect in &expects {
                        expect.check(&observed).map_err(|mut wrong| {
                            wrong.found.push_str(&format!(" (call {number_made} of the load)"));
                            wrong
                        })?;
                    }
                }
                Ok(())
            })
        });
        let tasks = tasks.collect();
        Load { line: call.line, stop, made, tasks }
    }

    fn end_load(&self, load: Load) -> Vec<Wrong> {
        let begin = Instant::now();
        while load.made.load(Ordering::Relaxed) < LOAD
            && !load.tasks.iter().any(JoinHandle::is_finished)
            && begin.elapsed() < PATIENCE
        {
            std::thread::sleep(Duration::from_millis(10));
        }
        load.stop.store(true, Ordering::Relaxed);
        let mut wrong = Vec::new();
        for task in load.tasks {
            match self.runtime.block_on(task) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => wrong.push(error),
                Err(error) => {
                    wrong.push(Wrong { line: load.line, expected: "a load".to_owned(), found: error.to_string() })
                }
            }
        }
        let made = load.made.load(Ordering::Relaxed);
        if wrong.is_empty() && made < LOAD {
            wrong.push(Wrong { line: load.line, expected: "a load".to_owned(), found: format!("{made} calls") });
        }
        wrong
    }

    /// A refusal may follow the configuration by a moment.
    fn check_refused(&self, line: usize, text: &str) -> Option<Wrong> {
        let begin = Instant::now();
        loop {
            let all = self.refusals();
            if all.iter().any(|refusal| refusal.contains(text)) {
                return None;
            }
            if begin.elapsed() > PATIENCE {
                return Some(Wrong { line, expected: format!("refused {text}"), found: format!("{all:?}") });
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Findings may follow the configuration by a moment.
    fn check_findings(&self, lines: &[FindingLine]) -> Vec<Wrong> {
        let begin = Instant::now();
        loop {
            let wrong = match self.page("/debug/findings") {
                Ok(page) => {
                    let all: Vec<Found> = page.as_array().into_iter().flatten().map(Found::from_json).collect();
                    findings::check(lines, &all)
                }
                Err(found) => vec![Wrong { line: 0, expected: "findings of the control plane".to_owned(), found }],
            };
            if wrong.is_empty() || begin.elapsed() > PATIENCE {
                return wrong;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What proxies refuse of what the control plane says: that is wrong whatever a scenario expects.
    fn refusals(&self) -> Vec<String> {
        let page = match self.page("/debug/syncz") {
            Ok(page) => page,
            Err(why) => return vec![why],
        };
        let mut found = Vec::new();
        for proxy in page.as_array().into_iter().flatten() {
            for (kind, status) in proxy["types"].as_object().into_iter().flatten() {
                if let Some(message) = status["refused"]["message"].as_str() {
                    found.push(format!("{} refuses {kind}: {message}", proxy["proxy"]));
                }
            }
        }
        found
    }

    fn page(&self, path: &str) -> Result<serde_json::Value, String> {
        let address = SocketAddr::from((Ipv4Addr::new(127, self.net, 0, 1), 15014));
        let call = get(&format!("http://{address}{path}"), "");
        let answer = self.runtime.block_on(Client::new(address, false).call(&call, &[]))?;
        serde_json::from_str(&answer.body).map_err(|error| format!("{path}: {error}: {}", answer.body))
    }
}

/// Where a caller sends its requests.
fn client_for(net: u8, call: &Call) -> Result<Client, String> {
    if call.from == world::OUTSIDE {
        let address = world::renumbered(&call.authority, net);
        let address = address.parse().map_err(|_| format!("{address} is no address with a port"))?;
        return Ok(Client::new(address, false));
    }
    if call.from == "gateway" {
        let port =
            GATEWAY_PORTS.iter().find(|(port, _)| *port == call.port()).map_or(call.port(), |(_, target)| *target);
        return Ok(Client::new((world::gateway_address(net), port).into(), false));
    }
    let workload = WORKLOADS.iter().find(|workload| workload.app == call.from && workload.sidecar);
    let workload = workload.ok_or_else(|| format!("nobody named {} has a proxy", call.from))?;
    Ok(Client::new(sidecar(workload, net), true))
}

/// Where the sidecar of a workload takes what the workload sends.
fn sidecar(workload: &Workload, net: u8) -> SocketAddr {
    (IpAddr::V4(workload.address(net)), HTTP_PROXY_PORT).into()
}

/// Makes a call as often as it says, and tells what came of it.
async fn observe(net: u8, memory: &Memory, number: u64, call: &Call) -> Result<Observed, String> {
    if call.parallel > 1 {
        return at_once(net, number, call).await;
    }
    let mut client = client_for(net, call)?;
    let mut observed = Observed::default();
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    let mut statuses = Vec::new();
    let delays_before = match call.expects.iter().find_map(crate::Expect::is_about_delays) {
        Some(injected) => Some((injected, delays(net, call).await?)),
        None => None,
    };
    for round in 0..call.times {
        let id = format!("{net}-{number}-{round}");
        let answer = match client.call(call, &[(CALL_HEADER, &id)]).await {
            Err(why) if call.expects.iter().any(crate::Expect::is_about_none) && !why.starts_with(HANGS) => {
                return Ok(Observed { answered: Some(false), ..Observed::default() });
            }
            answer => answer?,
        };
        observed.answered = Some(true);
        let workload = answered_by(&answer);
        if let Some(name) = &workload {
            *counts.entry(name.clone()).or_default() += 1;
        }
        statuses.push(answer.status);
        observed.took = observed.took.max(Some(answer.took));
        if round > 0 {
            memory.take(&id);
            continue;
        }
        if call.expects.iter().any(crate::Expect::is_about_copies) {
            wait_for_copy(memory, &id, workload.as_deref()).await;
        }
        let mut asked = memory.take(&id);
        observed.tries = Some(u32::try_from(asked.len()).unwrap_or(u32::MAX));
        observed.mirrors = Some(
            asked.iter().map(|(name, _)| (*name).to_owned()).filter(|name| Some(name) != workload.as_ref()).collect(),
        );
        if let Some(at) = asked.iter().rposition(|(name, _)| Some(*name) == workload.as_deref()) {
            let seen = asked.swap_remove(at).1;
            observed.mtls = Some(by_mutual_tls(&seen.headers));
            observed.seen = Some(seen);
        }
        observed.body = Some(answer.body);
        observed.trailers = Some(answer.trailers);
        observed.certificate = answer.certificate;
        observed.headers = Some(answer.headers);
    }
    // The first answer that differs from the first one is told, so that "all are 200" cannot hold by chance.
    observed.status = statuses.iter().find(|status| Some(*status) != statuses.first()).or(statuses.first()).copied();
    observed.statuses = Some(statuses);
    if let Some((injected, before)) = delays_before {
        observed.delays_counted = Some(delays_since(net, call, before, injected).await?);
    }
    let calls = f64::from(call.times);
    observed.same_workload = Some(counts.len() == 1);
    observed.shares = Some(counts.into_iter().map(|(name, count)| (name, f64::from(count) / calls)).collect());
    // Four standard deviations of a fair coin: a right share is off by more once in fifteen thousand runs.
    observed.tolerance = (4.0 * (0.25 / calls).sqrt()).clamp(0.05, 1.0);
    Ok(observed)
}

/// The workload that answered, if one did.
fn answered_by(answer: &client::Answer) -> Option<String> {
    let by_header = answer.headers.get(WORKLOAD_HEADER).and_then(|name| name.to_str().ok());
    let by_greeting =
        || WORKLOADS.iter().map(|workload| workload.name).find(|name| answer.body.starts_with(&greeting(name)));
    by_header.or_else(by_greeting).map(str::to_owned)
}

/// Makes calls at the same time, each on a connection of its own.
async fn at_once(net: u8, number: u64, call: &Call) -> Result<Observed, String> {
    let mut calls = tokio::task::JoinSet::new();
    for round in 0..call.parallel {
        let (mut client, call) = (client_for(net, call)?, call.clone());
        calls.spawn(async move { client.call(&call, &[(CALL_HEADER, &format!("{net}-{number}-{round}"))]).await });
    }
    let mut statuses = Vec::new();
    for answer in calls.join_all().await {
        statuses.push(answer?.status);
    }
    Ok(Observed { statuses: Some(statuses), ..Observed::default() })
}

/// How many delays were injected since there were `before`. A proxy may count after it has answered, so one that is
/// expected is waited for.
async fn delays_since(net: u8, call: &Call, before: u64, expected: bool) -> Result<u64, String> {
    let begin = Instant::now();
    loop {
        let since = delays(net, call).await?.saturating_sub(before);
        if since > 0 || !expected || begin.elapsed() > PATIENCE {
            return Ok(since);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// How many delays the caller's proxy has injected so far, as it says itself.
async fn delays(net: u8, call: &Call) -> Result<u64, String> {
    let address = SocketAddr::new(client_for(net, call)?.address().ip(), proxies::ADMIN_PORT);
    let page = Client::new(address, false).call(&get(&format!("http://{address}/stats"), ""), &[]).await?;
    let of_line = |line: &str| {
        line.split_once(".fault.delays_injected: ").and_then(|(_, count)| count.trim().parse::<u64>().ok())
    };
    Ok(page.body.lines().filter_map(of_line).sum::<u64>())
}

async fn wait_for_copy(memory: &Memory, id: &str, answered: Option<&str>) {
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE && memory.workloads(id).iter().all(|name| Some(*name) == answered) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A sidecar tells its application who the verified peer is.
fn by_mutual_tls(headers: &HeaderMap) -> bool {
    headers
        .get("x-forwarded-client-cert")
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.contains("URI=spiffe://cluster.local/"))
}

fn get(url: &str, from: &str) -> Call {
    let (authority, path) = url.trim_start_matches("http://").split_once('/').unwrap_or((url, ""));
    Call {
        line: 0,
        from: from.to_owned(),
        times: 1,
        parallel: 1,
        http2: false,
        trailers: HeaderMap::new(),
        method: http::Method::GET,
        scheme: "http".to_owned(),
        authority: authority.to_owned(),
        path_and_query: format!("/{path}"),
        headers: HeaderMap::new(),
        body: String::new(),
        expects: Vec::new(),
    }
}

/// A host that answers with a number, in the mesh and at the gateway.
fn marker(generation: u64) -> String {
    format!(
        r#"apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: a-marker}}
spec:
  hosts: [{MARKER_HOST}]
  ports: [{{number: 80, name: http, protocol: HTTP}}]
  resolution: STATIC
  endpoints: [{{address: 127.0.0.1}}]
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: a-marker}}
spec:
  selector: {{istio: ingressgateway}}
  servers:
  - port: {{number: 80, name: http, protocol: HTTP}}
    hosts: [{MARKER_HOST}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: a-marker}}
spec:
  hosts: [{MARKER_HOST}]
  gateways: [mesh, a-marker]
  http:
  - directResponse: {{status: 200, body: {{string: "generation {generation} "}}}}
"#
    )
}
