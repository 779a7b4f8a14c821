//! The runner without a socket: the same functions that the control plane and the proxy ask, one after the other.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use mizzen_compile::{Config, Update};
use mizzen_config::parse;
use mizzen_mesh::Mesh;
use mizzen_sources::state::{Reading, State};
use mizzen_translate::{ProxyView, Resource, type_url};
use serde_json::json;

use crate::expect::{Runner, Wrong};
use crate::findings::{self, Found};
use crate::plan;
use crate::scenario::{Block, Call, Scenario};
use crate::world::{self, GATEWAY_LABELS, GATEWAY_PORTS, Workload};

const NET: u8 = 200;
/// Port of a sidecar's HTTP proxy listener.
pub(crate) const HTTP_PROXY_PORT: u16 = 15002;

/// Runs a scenario; what does not hold, or why it could not be run.
pub fn run(scenario: &Scenario) -> Result<(), Vec<Wrong>> {
    let mut mesh = Memory::new();
    let mut wrong = Vec::new();
    for block in &scenario.blocks {
        match block {
            Block::Config(files) => mesh.configure(files),
            Block::Findings(lines) => wrong.extend(findings::check(lines, &mesh.findings)),
            Block::Call(call) => mesh.call(call, &mut wrong),
            // These need time and sockets.
            Block::Load(_) | Block::Occupy(_) | Block::Refused { .. } => {}
        }
        // What the control plane says and the proxy refuses is wrong whatever the scenario expects.
        wrong.append(&mut mesh.refused);
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

/// A control plane and its proxies, without time and sockets.
struct Memory {
    sources: State,
    files: BTreeSet<String>,
    mesh: Arc<Mesh>,
    findings: Vec<Found>,
    proxies: BTreeMap<String, Proxy>,
    refused: Vec<Wrong>,
}

struct Proxy {
    node: String,
    metadata: serde_json::Value,
    address: Ipv4Addr,
    config: Config,
}

impl Memory {
    fn new() -> Self {
        let mut memory = Self {
            sources: State::default(),
            files: BTreeSet::new(),
            mesh: Mesh::empty(),
            findings: Vec::new(),
            proxies: BTreeMap::new(),
            refused: Vec::new(),
        };
        memory.update(vec![("world.yaml".to_owned(), Some(world::yaml(NET)))]);
        memory
    }

    fn configure(&mut self, files: &BTreeMap<String, String>) {
        let gone = self.files.iter().filter(|name| !files.contains_key(*name)).map(|name| (name.clone(), None));
        let changes = gone.chain(files.iter().map(|(name, text)| (name.clone(), Some(text.clone())))).collect();
        self.files = files.keys().cloned().collect();
        self.update(changes);
    }

    fn update(&mut self, changes: Vec<(String, Option<String>)>) {
        let readings = changes.into_iter().map(|(name, text)| {
            let reading = text.map_or(Reading::Gone, |text| Reading::Text(parse(&name, &text)));
            (PathBuf::from(name), reading)
        });
        let batch = self.sources.update(readings.collect());
        (self.mesh, _) = self.mesh.apply(&batch.changes);
        let objects: Vec<_> = self.sources.objects().cloned().collect();
        let across = mizzen_analysis::analyse(&self.mesh, &objects);
        self.findings = batch.findings.iter().flatten().chain(&across).map(Found::from).collect();
        for proxy in self.proxies.values_mut() {
            proxy.update(&self.mesh, &mut self.refused);
        }
    }

    fn call(&mut self, call: &Call, wrong: &mut Vec<Wrong>) {
        let fail = |found: String| Wrong { line: call.line, expected: format!("a call from {}", call.from), found };
        // From outside a call goes straight to the address of a workload, where its sidecar is.
        let addressed = call.host().parse().ok().and_then(Workload::at).filter(|_| call.from == world::OUTSIDE);
        let whose = addressed.map_or(call.from.as_str(), |workload| workload.app);
        if !self.proxies.contains_key(whose) {
            let Some(mut proxy) = Proxy::of(whose) else {
                wrong.push(fail("nobody of that name has a proxy".to_owned()));
                return;
            };
            proxy.update(&self.mesh, &mut self.refused);
            self.proxies.insert(whose.to_owned(), proxy);
        }
        let proxy = &self.proxies[whose];
        let port = if addressed.is_some() {
            call.port()
        } else if call.from == "gateway" {
            GATEWAY_PORTS.iter().find(|(port, _)| *port == call.port()).map_or(call.port(), |(_, target)| *target)
        } else {
            HTTP_PROXY_PORT
        };
        match plan::observe(proxy.config.snapshot(), (proxy.address, port).into(), call) {
            Ok(observed) => {
                let lines = call.expects.iter().filter(|expect| expect.is_for(Runner::Memory));
                wrong.extend(lines.filter_map(|expect| expect.check(&observed).err()));
            }
            Err(why) => wrong.push(fail(why)),
        }
    }
}

impl Proxy {
    /// The proxy of a caller: that of the first workload of that service, or the gateway.
    fn of(caller: &str) -> Option<Self> {
        let (role, name, namespace, address, labels): (_, _, _, _, BTreeMap<_, _>) = if caller == "gateway" {
            ("router", world::GATEWAY, "istio-system", world::gateway_address(NET), GATEWAY_LABELS.into())
        } else {
            let workload = world::WORKLOADS.iter().find(|workload| workload.app == caller && workload.sidecar)?;
            let labels = workload.labels().into_iter().collect();
            ("sidecar", workload.name, workload.namespace, workload.address(NET), labels)
        };
        let metadata = json!({
            "NAME": name, "NAMESPACE": namespace, "LABELS": labels, "CLUSTER_ID": "Kubernetes",
            "INTERCEPTION_MODE": "NONE", "HTTP_PROXY_PORT": HTTP_PROXY_PORT.to_string(), "MIZZEN_VERSION": "0",
            "MIZZEN_BIND": address.to_string(), "INSTANCE_IPS": address.to_string(),
        });
        let node = format!("{role}~{address}~{name}.{namespace}~{namespace}.svc.cluster.local");
        Some(Self { node, metadata, address, config: Config::new() })
    }

    /// Tells the proxy everything that the control plane would, in the order in which it would.
    fn update(&mut self, mesh: &Mesh, refused: &mut Vec<Wrong>) {
        let view = match ProxyView::new(&self.node, &self.metadata, mesh) {
            Ok(view) => view,
            Err(error) => {
                refused.push(Wrong { line: 0, expected: "a view of the proxy".to_owned(), found: error.to_string() });
                return;
            }
        };
        let scope = view.scope(mesh);
        self.take(type_url::CLUSTER, mizzen_translate::clusters(mesh, &view), true, refused);
        let named = |proxy: &Self| proxy.config.wanted().endpoints;
        let endpoints = named(self).iter().filter_map(|name| mizzen_translate::endpoints(mesh, &scope, name)).collect();
        self.take(type_url::ENDPOINT, endpoints, false, refused);
        self.take(type_url::LISTENER, mizzen_translate::listeners(mesh, &view), true, refused);
        let wanted = self.config.wanted().routes;
        let tables = wanted.iter().filter_map(|name| mizzen_translate::route_table(mesh, &scope, name)).collect();
        self.take(type_url::ROUTE, tables, false, refused);
        self.config.settle();
    }

    fn take(&mut self, type_url: &str, resources: Vec<Resource>, full: bool, refused: &mut Vec<Wrong>) {
        let resources = resources.into_iter().map(|resource| mizzen_compile::Resource {
            name: resource.name,
            version: String::new(),
            body: resource.body,
        });
        let update =
            Update { type_url: type_url.to_owned(), resources: resources.collect(), removed: Vec::new(), full };
        let outcome = self.config.apply(update);
        refused.extend(outcome.refused.into_iter().map(|refusal| Wrong {
            line: 0,
            expected: format!("{} to be obeyed", refusal.name),
            found: refusal.to_string(),
        }));
    }
}

/// The workload at an endpoint's address.
pub(crate) fn workload_at(address: &mizzen_snapshot::cluster::EndpointAddress) -> String {
    match address {
        mizzen_snapshot::cluster::EndpointAddress::Socket(socket) => match socket.ip() {
            std::net::IpAddr::V4(ip) => {
                Workload::at(ip).map_or_else(|| socket.to_string(), |workload| workload.name.to_owned())
            }
            std::net::IpAddr::V6(_) => socket.to_string(),
        },
        other => format!("{other:?}"),
    }
}
