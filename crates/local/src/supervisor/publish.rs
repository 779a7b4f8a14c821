//! Showing what runs: to the control plane (runtime objects), to other commands (`run.json`), and to the person.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde_json::Value;
use tokio::time::{sleep, timeout};

use super::{Event, Supervisor};
use crate::bootstrap;
use crate::manifest::Manifests;
use crate::netns::names;
use crate::network::{DEBUG_PORT, SECURE_XDS_PORT, XDS_PORT};
use crate::plan::Plan;
use crate::probe::check::{Target, check, get_json};
use crate::run_file::{self, ControlAddresses, RunFile};
use crate::runtime::{self, Placed};
use crate::state::write_private;
use crate::table::Table;
use crate::{ProxyKind, capture};

/// How long the address to open is tried before it is printed all the same.
const REACHABLE_LIMIT: Duration = Duration::from_secs(3);
/// Addresses to open that are printed.
const SHOWN_ENTRIES: usize = 4;

/// A request that a person can make.
struct Door {
    host: String,
    port: u16,
    path: String,
}

impl Supervisor {
    /// Writes what changed: one file per object that differs.
    pub(super) fn publish(&mut self) {
        self.stale = false;
        let placed: Vec<Placed<'_>> = self
            .members
            .values()
            .map(|member| Placed { instance: &member.instance, ready: member.is_ready(), leaving: member.leaving })
            .collect();
        let mut files =
            runtime::objects(&self.manifests, &placed, &self.gateway_ports, self.settings.trust_domain.as_str());
        let mut problems = Vec::new();
        if let Some(inner) = &mut self.inner {
            let gateway_service = runtime::gateway_service(&self.gateway_ports);
            let services = || self.manifests.services.iter().chain([&gateway_service]);
            self.assigned.assign(services(), inner.ranges.services);
            inner.set_names(names::table(services(), &self.assigned, &placed));
            files.insert("addresses.yaml".to_owned(), runtime::addresses(self.assigned.iter()));
            let gateway = self.members.values().find(|member| member.is_gateway());
            if let Some((pod, address)) = gateway.and_then(|member| Some((member.pod.as_ref()?, member.instance.mesh)))
            {
                let asked = super::start::asked_ports(&self.manifests, &self.gateway_ports);
                problems = inner.open_doors(pod, address, asked.into_iter());
            }
        }
        for problem in problems {
            self.console.warn(&problem);
        }
        let folder = self.state.runtime();
        for (name, text) in &files {
            if self.published.get(name) != Some(text)
                && let Err(error) = write_private(&folder.join(name), text)
            {
                self.console.warn(&format!("cannot write {}: {error}", folder.join(name).display()));
            }
        }
        for name in self.published.keys().filter(|name| !files.contains_key(*name)) {
            let _ = std::fs::remove_file(folder.join(name));
        }
        self.published = files;
        self.write_run_file();
    }

    fn write_run_file(&self) {
        let Ok(text) = serde_json::to_string_pretty(&self.run_file()) else { return };
        let path = self.state.path().join(run_file::FILE);
        if let Err(error) = write_private(&path, text) {
            self.console.warn(&format!("cannot write {}: {error}", path.display()));
        }
    }

    fn run_file(&self) -> RunFile {
        let mut instances: Vec<run_file::Instance> = self.members.values().map(|member| self.shown(member)).collect();
        let gateway = instances.iter().position(|instance| instance.node.starts_with("router~"));
        let gateway = gateway.map(|at| instances.remove(at));
        RunFile {
            name: self.settings.name.clone(),
            pid: std::process::id(),
            version: self.settings.version.to_owned(),
            proxy: match self.settings.proxy {
                ProxyKind::Mizzen => "mizzen".to_owned(),
                ProxyKind::Envoy => "envoy".to_owned(),
            },
            config: self
                .settings
                .config
                .iter()
                .map(|path| path.canonicalize().unwrap_or_else(|_| path.clone()))
                .collect(),
            control: ControlAddresses {
                xds: self.control_address(XDS_PORT),
                secure_xds: self.control_address(SECURE_XDS_PORT),
                debug: self.control_address(DEBUG_PORT),
                log: self.control_log(),
            },
            gateway,
            gateway_ports: self.gateway_ports.clone(),
            workloads: instances,
        }
    }

    fn shown(&self, member: &super::member::Member) -> run_file::Instance {
        let instance = &member.instance;
        let folder = self.state.path().join("workloads").join(instance.folder());
        run_file::Instance {
            workload: instance.workload.clone(),
            pod: instance.pod.clone(),
            namespace: instance.namespace.clone(),
            node: instance.node_id(),
            metadata: bootstrap::metadata(&self.facts(&self.state.root_certificate()), instance),
            address: instance.shown_address(),
            admin: instance.admin(),
            health: instance.health(),
            stats: instance.stats(),
            identity: instance.identity(&self.settings.trust_domain).to_string(),
            state: member.state(),
            bootstrap: folder.join("bootstrap.yaml"),
            logs: folder,
            sandbox: member.pod.as_ref().map(|pod| pod.sandbox.pid().as_raw_nonzero().get().unsigned_abs()),
        }
    }

    /// Once everything is ready: waits until every proxy has been told so and the addresses to open answer, so that what
    /// is printed works.
    pub(super) fn ask_whether_reachable(&mut self) {
        if self.reachability_asked || !self.control_up || self.members.values().any(|member| !member.is_ready()) {
            return;
        }
        self.reachability_asked = true;
        self.console.progress(self.members.len() + 1, "the way from the gateway");
        let doors = self.doors().into_iter().take(SHOWN_ENTRIES).map(|door| Target::Http {
            address: (Ipv4Addr::LOCALHOST, door.port).into(),
            path: door.path,
            headers: vec![("host".to_owned(), door.host)],
        });
        let (doors, debug) = (doors.collect::<Vec<Target>>(), self.control_address(DEBUG_PORT));
        let events = self.events.clone();
        tokio::task::spawn(async move {
            let _ = timeout(REACHABLE_LIMIT, reachable(debug, &doors)).await;
            let _ = events.send(Event::Reachable);
        });
    }

    /// Prints what runs and how to reach it.
    pub(super) fn announce(&mut self) {
        self.announced = true;
        self.console.end();
        self.write_run_file();
        if self.console.json() {
            self.console.print(&format!("{}\n", serde_json::to_string_pretty(&self.run_file()).unwrap_or_default()));
            return;
        }
        let waiting = self.members.values().filter(|member| !member.is_ready()).count();
        let seconds = self.begun.elapsed().as_secs_f64();
        if waiting == 0 {
            self.console.good(&format!("ready after {seconds:.1} s"));
        } else {
            self.console.warn(&format!("{waiting} of {} are not ready after {seconds:.1} s", self.members.len()));
        }
        let mut table = Table::new(["WORKLOAD", "ADDRESS", "PROXY", "IDENTITY", "STATE"]);
        let run = self.run_file();
        for instance in run.gateway.iter().chain(&run.workloads) {
            table.row([
                instance.pod.clone(),
                instance.address.clone(),
                run.proxy.clone(),
                instance.identity.clone(),
                instance.state.clone(),
            ]);
        }
        let mut text = format!("\n{table}\n");
        let doors = self.doors();
        for door in doors.iter().take(SHOWN_ENTRIES) {
            text.push_str(&self.door_text(door));
        }
        if doors.is_empty() {
            text.push_str("No Gateway selects istio: ingressgateway, so nothing is reached from outside yet.\n");
        }
        let name = match self.settings.name.as_str() {
            _ if run_file::running(&self.settings.state_root).len() < 2 => String::new(),
            name => format!(" --name {name}"),
        };
        text.push_str(&format!("\nAsk it   mizzen proxy-status{name}\n"));
        if let Some(first) = run.workloads.first() {
            text.push_str(&format!("         mizzen proxy-config routes {}{name}\n", first.workload));
        }
        text.push_str(&format!("Logs     {}\nStop     Ctrl-C\n", self.state.path().join("workloads").display()));
        self.console.print(&text);
    }

    /// Hosts and paths at which requests may enter.
    fn doors(&self) -> Vec<Door> {
        let mut doors = Vec::new();
        let servers = self
            .manifests
            .gateways
            .iter()
            .filter(|server| server.ours && server.protocol.starts_with("HTTP") && server.protocol != "HTTPS");
        for server in servers {
            let Some(port) = self.gateway_ports.get(&server.port) else { continue };
            for entry in self.manifests.entries.iter().filter(|entry| entry.gateways.contains(&server.gateway)) {
                // The narrower of the two hosts, made one that can be asked for.
                let host = match (entry.host.as_str(), server.hosts.first().map_or("*", String::as_str)) {
                    ("*", server_host) => server_host,
                    (host, _) => host,
                };
                let host = match host.strip_prefix("*.") {
                    Some(rest) => format!("www.{rest}"),
                    None if host == "*" => format!("127.0.0.1:{port}"),
                    None => host.to_owned(),
                };
                doors.push(Door { host, port: *port, path: entry.path.clone() });
            }
        }
        doors
    }

    fn door_text(&self, door: &Door) -> String {
        let Door { host, port, path } = door;
        let local = format!("127.0.0.1:{port}");
        if *host == local {
            return format!("Open     {}\n", self.console.bold(&format!("http://{local}{path}")));
        }
        // Browsers and curl know that names below `localhost` are this machine.
        if host.ends_with(".localhost") || host == "localhost" {
            return format!("Open     {}\n", self.console.bold(&format!("http://{host}:{port}{path}")));
        }
        format!("Try      {}\n", self.console.bold(&format!("curl -H 'Host: {host}' http://{local}{path}")))
    }

    /// What was skipped, left out or not understood.
    pub(super) fn report_reading(&self, manifests: &Manifests, plan: &Plan) {
        for problem in &manifests.problems {
            self.console.warn(&format!("{}: {}", problem.file.display(), problem.message));
        }
        let kinds: BTreeSet<&str> = manifests.skipped.iter().map(|skipped| skipped.kind.as_str()).collect();
        for kind in kinds {
            let of_kind: Vec<String> = manifests
                .skipped
                .iter()
                .filter(|skipped| skipped.kind == kind)
                .map(|skipped| format!("{} ({})", skipped.name, skipped.file.display()))
                .collect();
            self.console.warn(&format!("skipped, kind {kind} has no meaning here: {}", of_kind.join(", ")));
        }
        for left_out in &plan.left_out {
            self.console.warn(&format!(
                "Deployment {} is left out: {}\n    {}",
                left_out.deployment, left_out.why, left_out.hint
            ));
        }
        for note in &plan.notes {
            self.console.warn(note);
        }
        for workload in plan.workloads.iter().filter(|workload| self.inner.is_some() && workload.fixed_port.is_some()) {
            self.console.warn(&format!(
                "Deployment {}: {} has no effect with --capture netns; the application has to listen on its container's port",
                workload.key(),
                crate::plan::PORT_ANNOTATION
            ));
        }
    }
}

/// Waits until the control plane has read that all endpoints are ready, every proxy has acknowledged what it was sent,
/// and every door opens.
async fn reachable(debug: SocketAddr, doors: &[Target]) {
    let limit = Duration::from_secs(1);
    let ready = |object: &Value| {
        let label = &object["metadata"]["labels"][runtime::ALL_READY_LABEL];
        object["kind"] != "EndpointSlice" || label.is_null() || label == "true"
    };
    let synced = |proxy: &Value| {
        proxy["types"].as_object().is_some_and(|types| types.values().all(|one| one["state"] != "STALE"))
    };
    wait_for(debug, "/debug/configz", ready).await;
    wait_for(debug, "/debug/syncz", synced).await;
    for door in doors {
        while check(door, limit).await.is_err() {
            sleep(PAUSE).await;
        }
    }
}

const PAUSE: Duration = Duration::from_millis(15);

/// Asks for a list until it has something and all of it is as `wanted`.
async fn wait_for(debug: SocketAddr, path: &str, wanted: impl Fn(&Value) -> bool) {
    loop {
        // What is true now was decided before now: the push that follows has time to begin.
        sleep(PAUSE).await;
        if let Ok(Value::Array(list)) = get_json(debug, path).await
            && !list.is_empty()
            && list.iter().all(&wanted)
        {
            return;
        }
    }
}

impl capture::Capture {
    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Explicit => "loopback addresses and http_proxy",
            Self::Netns => "network namespaces",
        }
    }
}
