//! Starting: the control plane first, applications at the same time, proxies as soon as they can be told something.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::net::TcpStream;
use tokio::time::sleep;

use super::member::Member;
use super::{Event, RunError, Supervisor, TOKEN_LIFE};
use crate::ProxyKind;
use crate::bootstrap::{self, GATEWAY_BIND, MeshFacts};
use crate::capture::Capture;
use crate::child::Inside;
use crate::images::AppCommand;
use crate::instance::{Instance, Role};
use crate::logs::Log;
use crate::manifest::Manifests;
use crate::network::{self, DEBUG_PORT, SECURE_XDS_PORT, XDS_PORT};
use crate::plan::Workload;
use crate::probe::check::{From, Target, check, check_from};
use crate::probe::{Probe, Readiness};
use crate::process::{Process, Spec};
use crate::run_file;
use crate::state::write_private;

/// Between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(5);
/// A proxy finishes what it has begun for at most this long.
const DRAIN: &str = "2s";

/// Port of a Gateway server → port that is opened on this machine. Plain HTTP on 80 and 8080 means the one port that
/// the user asked for: people's Gateways say either.
pub(super) fn gateway_ports(manifests: &Manifests, http: u16) -> BTreeMap<u16, u16> {
    let mut ports = BTreeMap::from([(80, http), (443, if http == 443 { 8443 } else { http.saturating_add(363) })]);
    for server in manifests.gateways.iter().filter(|server| server.ours) {
        let opened = match server.port {
            80 | 8080 => http,
            port @ 1..1024 => port + 8000,
            port => port,
        };
        ports.entry(server.port).or_insert(opened);
    }
    ports
}

/// The ports of this machine that Gateways ask for.
pub(super) fn asked_ports(manifests: &Manifests, ports: &BTreeMap<u16, u16>) -> BTreeSet<u16> {
    let asked = manifests.gateways.iter().filter(|server| server.ours);
    asked.filter_map(|server| ports.get(&server.port)).copied().collect()
}

/// Whether the ports that Gateways ask for can be opened. Without a Gateway none is.
pub(super) fn check_ports(
    manifests: &Manifests,
    ports: &BTreeMap<u16, u16>,
    state_root: &Path,
) -> Result<(), RunError> {
    for port in asked_ports(manifests, ports) {
        network::check_gateway_port(GATEWAY_BIND, port)
            .map_err(|error| error.with_holder(|| holder(state_root, port)))?;
    }
    Ok(())
}

/// Who of our own holds a gateway port.
fn holder(state_root: &Path, port: u16) -> Option<String> {
    let runs = run_file::running(state_root);
    let holds = |run: &&run_file::RunFile| run.gateway_ports.values().any(|opened| *opened == port);
    runs.iter().find(holds).map(|run| format!("the mesh `{}`", run.name))
}

impl Supervisor {
    pub(super) fn start_all(&mut self) -> Result<(), RunError> {
        self.introduce();
        let gateway = Instance::gateway(self.network.gateway(), GATEWAY_BIND, self.opened_ports());
        let gateway = self.place(gateway);
        self.add_member(gateway)?;
        for workload in self.plan.workloads.clone() {
            for _ in 0..workload.replicas {
                self.add_workload_instance(&workload)?;
            }
        }
        let io = |what| move |reason| RunError::Io { what, reason };
        write_private(&self.state.path().join("issuer.pem"), self.issuer.public_key_pem())
            .map_err(io("cannot write the state folder"))?;
        self.publish();
        self.start_control();
        let keys: Vec<String> = self.members.keys().cloned().collect();
        keys.iter().for_each(|key| self.start_application(key));
        self.console.begin(self.members.len() + 1);
        self.console.progress(0, "control plane");
        Ok(())
    }

    /// Says what was read, before anything starts.
    fn introduce(&self) {
        for line in &self.settings.introduction {
            self.console.news(line);
        }
        self.report_reading(&self.manifests, &self.plan);
    }

    pub(super) fn opened_ports(&self) -> Vec<u16> {
        let http = self.settings.gateway_port;
        let others = self.gateway_ports.values().copied().filter(|port| *port != http);
        [http].into_iter().chain(others.collect::<BTreeSet<u16>>()).collect()
    }

    /// A new instance of `workload`, not started yet. Returns its key.
    pub(super) fn add_workload_instance(&mut self, workload: &Arc<Workload>) -> Result<String, RunError> {
        let host = self.addresses.take(&self.network)?;
        if self.inner.is_some() {
            // It has all ports to itself, and so those of its containers.
            let ports = workload.ports.iter().map(|port| (port.number, port.number)).collect();
            return self.add_instance(workload, host, ports);
        }
        let listen = self.settings.capture.listen_address();
        let mut app_ports = BTreeMap::new();
        for (index, port) in workload.ports.iter().enumerate() {
            let real = match workload.fixed_port {
                Some(fixed) if index == 0 => fixed,
                _ => network::free_port(listen, &self.app_ports, rand::random())
                    .map_err(|reason| RunError::Io { what: "cannot give an application a port", reason })?,
            };
            self.app_ports.insert(real);
            app_ports.insert(port.number, real);
        }
        self.add_instance(workload, host, app_ports)
    }

    fn add_instance(
        &mut self,
        workload: &Arc<Workload>,
        host: Ipv4Addr,
        app_ports: BTreeMap<u16, u16>,
    ) -> Result<String, RunError> {
        let ordinal = self.ordinals.entry(workload.key()).or_default();
        let instance = Instance::sidecar(workload.clone(), *ordinal, host, app_ports);
        *ordinal += 1;
        let instance = self.place(instance);
        self.add_member(instance)
    }

    /// Gives an instance its address in the mesh's own network, if there is one.
    fn place(&self, instance: Instance) -> Instance {
        match &self.inner {
            Some(inner) => Instance { mesh: inner.ranges.pod(instance.host), ..instance },
            None => instance,
        }
    }

    fn add_member(&mut self, instance: Instance) -> Result<String, RunError> {
        let key = instance.key();
        self.prepare(&instance).map_err(|reason| RunError::Io { what: "cannot write the state folder", reason })?;
        let folder = self.state.path().join("workloads").join(instance.folder());
        let pod = match &mut self.inner {
            Some(inner) => Some(inner.add(&self.starter, &instance, &folder)?),
            None => None,
        };
        self.members.insert(key.clone(), Member::new(instance, pod));
        self.stale = true;
        Ok(key)
    }

    /// Writes what the proxy of `instance` is started with.
    fn prepare(&self, instance: &Instance) -> std::io::Result<()> {
        let folder = self.state.instance(&instance.folder())?;
        let sds = (self.settings.proxy == ProxyKind::Envoy).then(|| folder.join("sds.sock"));
        let roots = self.state.root_certificate();
        let bootstrap = bootstrap::bootstrap(&self.facts(&roots), instance, sds.as_deref());
        write_private(&folder.join("bootstrap.yaml"), bootstrap::yaml(&bootstrap))?;
        self.write_token(instance)
    }

    pub(super) fn facts<'a>(&'a self, roots: &'a Path) -> MeshFacts<'a> {
        MeshFacts {
            kind: self.settings.proxy,
            capture: self.settings.capture,
            xds: self.control_of_proxies(),
            roots,
            mesh_id: &self.settings.name,
            version: self.settings.version,
        }
    }

    /// The control plane as the proxies reach it.
    fn control_of_proxies(&self) -> SocketAddr {
        let ip = self.inner.as_ref().map_or_else(|| self.network.control(), |inner| inner.ranges.node());
        (ip, SECURE_XDS_PORT).into()
    }

    fn write_token(&self, instance: &Instance) -> std::io::Result<()> {
        let token = self
            .issuer
            .mint(&instance.namespace, &instance.service_account, TOKEN_LIFE, SystemTime::now())
            .map_err(std::io::Error::other)?;
        write_private(&self.state.instance(&instance.folder())?.join("token"), token)
    }

    pub(super) fn write_tokens(&mut self) {
        for member in self.members.values() {
            if let Err(error) = self.write_token(&member.instance) {
                self.console.warn(&format!("cannot renew the token of {}: {error}", member.instance.key()));
            }
        }
    }

    fn start_control(&mut self) {
        let address = |port| OsString::from(self.control_address(port).to_string());
        let mut arguments: Vec<OsString> = vec!["control".into()];
        for path in self.settings.config.iter().chain([&self.state.runtime()]) {
            arguments.extend(["--config".into(), path.clone().into()]);
        }
        let flags: [(&str, OsString); 6] = [
            ("--xds-address", address(XDS_PORT)),
            ("--secure-xds-address", address(SECURE_XDS_PORT)),
            ("--http-address", address(DEBUG_PORT)),
            ("--state-dir", self.state.path().into()),
            ("--trust-domain", self.settings.trust_domain.as_str().into()),
            ("--token-issuer-key", self.state.path().join("issuer.pem").into()),
        ];
        arguments.extend(flags.into_iter().flat_map(|(flag, value)| [OsString::from(flag), value]));
        let spec = self.own(arguments);
        let log = Log::new(self.control_log());
        self.control =
            Some(Process::keep_running(self.starter.clone(), spec, log, self.events.clone(), Event::Control));
        let (events, xds, secure) =
            (self.events.clone(), self.control_address(XDS_PORT), self.control_address(SECURE_XDS_PORT));
        tokio::task::spawn(async move {
            for address in [xds, secure] {
                while TcpStream::connect(address).await.is_err() {
                    sleep(Duration::from_millis(3)).await;
                }
            }
            let _ = events.send(Event::ControlReady);
        });
    }

    pub(super) fn control_ready(&mut self) {
        self.control_up = true;
        self.console.milestone(1, "control plane ready");
        let keys: Vec<String> = self.members.keys().cloned().collect();
        keys.iter().for_each(|key| self.start_proxy(key));
    }

    /// A process of our own binary.
    fn own(&self, arguments: Vec<OsString>) -> Spec {
        Spec {
            program: self.starter.mizzen.as_os_str().to_owned(),
            arguments,
            environment: Vec::new(),
            without: &[],
            inside: None,
            folder: std::env::current_dir().unwrap_or_else(|_| "/".into()),
            grace: GRACE,
        }
    }

    pub(super) fn start_application(&mut self, key: &str) {
        let Some(member) = self.members.get(key) else { return };
        let Role::Sidecar { plan, app_ports } = &member.instance.role else { return };
        let environment = environment(self.settings.capture, &member.instance, plan, app_ports);
        let mut spec = self.application_spec(plan, app_ports, environment.clone());
        spec.inside = member.pod.as_ref().map(|pod| Inside::pod(pod.sandbox.pid()));
        let log = Log::new(self.state.path().join("workloads").join(member.instance.folder()).join("app.log"));
        let name = key.to_owned();
        let process = Process::keep_running(self.starter.clone(), spec, log, self.events.clone(), move |happened| {
            Event::Application(name.clone(), happened)
        });
        let Some(member) = self.members.get_mut(key) else { return };
        member.application = Some(process);
    }

    /// A process of the application began: it is asked from the beginning, since the one before says nothing about it.
    pub(super) fn probe_application_anew(&mut self, key: &str) {
        let Some(member) = self.members.get_mut(key) else { return };
        let Role::Sidecar { plan, app_ports } = &member.instance.role else { return };
        let probe = plan.readiness.clone().or_else(|| plan.ports.first().map(|port| Probe::connect(port.number)));
        let listen = self.settings.capture.probe_address(member.instance.mesh);
        let environment = environment(self.settings.capture, &member.instance, plan, app_ports);
        let pod = member.pod.as_ref().map(|pod| pod.sandbox.clone());
        let mizzen = self.starter.mizzen.clone();
        let from = pod.map_or(From::Here, |pod| From::Pod { pod, mizzen });
        let target = probe.and_then(|probe| {
            let target = member.instance.probe_target(&probe.action, listen, &environment)?;
            Some((probe, target))
        });
        // Nothing can be asked of an application without a port: it is ready while it runs.
        member.application_ready = Some(target.is_none());
        let task = target.map(|(probe, target)| {
            tokio::task::spawn(probe_application(probe, target, from, key.to_owned(), self.events.clone()))
        });
        if let Some(before) = std::mem::replace(&mut member.application_probe, task) {
            before.abort();
        }
        self.stale = true;
    }

    /// The same for its proxy.
    pub(super) fn probe_proxy_anew(&mut self, key: &str) {
        let Some(member) = self.members.get_mut(key) else { return };
        member.proxy_ready = false;
        let task = tokio::task::spawn(probe_proxy(member.instance.health(), key.to_owned(), self.events.clone()));
        if let Some(before) = member.proxy_probe.replace(task) {
            before.abort();
        }
        self.stale = true;
    }

    fn application_spec(
        &self,
        plan: &Workload,
        app_ports: &BTreeMap<u16, u16>,
        environment: Vec<(String, String)>,
    ) -> Spec {
        let (program, arguments): (OsString, Vec<OsString>) = match &plan.command {
            AppCommand::Shell(line) => ("/bin/sh".into(), vec!["-c".into(), line.into()]),
            AppCommand::Argv(words) => match words.split_first() {
                Some((program, rest)) => (program.into(), rest.iter().map(OsString::from).collect()),
                None => ("/bin/true".into(), Vec::new()),
            },
            AppCommand::Bookinfo { service, version } => {
                let port = plan.ports.first().and_then(|port| app_ports.get(&port.number)).copied().unwrap_or_default();
                let words = ["bookinfo", service, "--service-version", version, "--port", &port.to_string()]
                    .map(OsString::from);
                (self.starter.mizzen.as_os_str().to_owned(), words.to_vec())
            }
        };
        Spec {
            program,
            arguments,
            environment,
            without: self.settings.capture.hidden_variables(),
            inside: None,
            folder: plan.folder.to_path_buf(),
            grace: GRACE,
        }
    }

    pub(super) fn start_proxy(&mut self, key: &str) {
        let Some(member) = self.members.get(key) else { return };
        let instance = &member.instance;
        let folder = self.state.path().join("workloads").join(instance.folder());
        let mut spec = match self.settings.proxy {
            ProxyKind::Mizzen => self.own(self.mizzen_arguments(instance, &folder)),
            ProxyKind::Envoy => Spec { program: self.envoy().into(), ..self.own(envoy_arguments(&folder)) },
        };
        spec.inside = member.pod.as_ref().map(|pod| Inside::pod_as_proxy(pod.sandbox.pid()));
        let mut tasks = Vec::new();
        if self.settings.proxy == ProxyKind::Envoy {
            tasks.push(tokio::task::spawn(self.serve_certificates(instance, &folder)));
        }
        let log = Log::new(folder.join("proxy.log"));
        let name = key.to_owned();
        let process = Process::keep_running(self.starter.clone(), spec, log, self.events.clone(), move |happened| {
            Event::Proxy(name.clone(), happened)
        });
        let Some(member) = self.members.get_mut(key) else { return };
        member.proxy = Some(process);
        member.tasks.extend(tasks);
    }

    fn envoy(&self) -> std::path::PathBuf {
        // `RunError::NoEnvoy` was given before anything started, if there is none.
        self.settings.envoy.clone().unwrap_or_else(|| "envoy".into())
    }

    fn mizzen_arguments(&self, instance: &Instance, folder: &Path) -> Vec<OsString> {
        let flags: [(&str, OsString); 9] = [
            ("-c", folder.join("bootstrap.yaml").into()),
            ("--ca-address", self.control_of_proxies().to_string().into()),
            ("--ca-root", self.state.root_certificate().into()),
            ("--token", folder.join("token").into()),
            ("--state-dir", folder.join("state").into()),
            ("--health-address", instance.listens().health.to_string().into()),
            ("--stats-address", instance.listens().stats.to_string().into()),
            ("--drain-time", DRAIN.into()),
            // A local application is never busy enough for two threads; the gateway has all requests.
            ("--concurrency", if matches!(instance.role, Role::Gateway { .. }) { "2" } else { "1" }.into()),
        ];
        let flags = flags.into_iter().flat_map(|(flag, value)| [OsString::from(flag), value]);
        [OsString::from("proxy")].into_iter().chain(flags).collect()
    }

    /// Gets a certificate for `instance` and hands it to its Envoy.
    fn serve_certificates(&self, instance: &Instance, folder: &Path) -> impl Future<Output = ()> + use<> {
        let config = mizzen_identity::client::Config {
            control_plane: mizzen_identity::connect::ControlPlane::new(
                &self.control_address(SECURE_XDS_PORT).to_string(),
                mizzen_identity::connect::RootSource::File(self.state.root_certificate()),
            ),
            token: folder.join("token"),
            id: Some(instance.identity(&self.settings.trust_domain)),
            ttl: None,
            state_dir: None,
        };
        let (socket, name, log) = (folder.join("sds.sock"), instance.key(), Log::new(folder.join("sds.log")));
        async move {
            let identity = mizzen_identity::WorkloadIdentity::start(config);
            if let Err(error) = mizzen_identity::sds::serve(&socket, identity.watch()).await {
                log.line(format!("cannot serve certificates to the Envoy of {name}: {error}").as_bytes());
            }
        }
    }
}

/// What an application finds in its environment. What the manifest says comes last and wins, but for the port: only
/// we know which one is free.
fn environment(
    capture: Capture,
    instance: &Instance,
    plan: &Workload,
    app_ports: &BTreeMap<u16, u16>,
) -> Vec<(String, String)> {
    let mut environment: Vec<(String, String)> = Vec::new();
    let mut set = |name: &str, value: String| environment.push((name.to_owned(), value));
    if let Some(version) = plan.labels.get("version") {
        set("SERVICE_VERSION", version.clone());
    }
    for (name, value) in capture.environment(instance.mesh) {
        set(name, value);
    }
    set("POD_NAME", instance.pod.clone());
    set("POD_NAMESPACE", instance.namespace.clone());
    environment.extend(instance.container_environment(plan));
    let mut set = |name: &str, value: String| environment.push((name.to_owned(), value));
    set("HOST", capture.listen_address().to_string());
    for (index, port) in plan.ports.iter().enumerate() {
        let Some(real) = app_ports.get(&port.number) else { continue };
        if index == 0 {
            set("PORT", real.to_string());
        }
        set(&format!("PORT_{}", port.number), real.to_string());
    }
    environment
}

fn envoy_arguments(folder: &Path) -> Vec<OsString> {
    let words = ["--disable-hot-restart", "--concurrency", "1", "--log-level", "warning", "--drain-time-s", "2", "-c"];
    words.into_iter().map(OsString::from).chain([folder.join("bootstrap.yaml").into()]).collect()
}

/// Asks an application until it is told to stop (by being dropped).
async fn probe_application(
    probe: Probe,
    target: Target,
    from: From,
    key: String,
    events: tokio::sync::mpsc::UnboundedSender<Event>,
) {
    let mut readiness = Readiness::new(&probe);
    sleep(probe.initial_delay).await;
    loop {
        let outcome = check_from(&from, &target, probe.timeout).await;
        let changed = readiness.observe(outcome.is_ok());
        let outcome = outcome.map_err(|failure| failure.to_string());
        // A failure before the threshold is no news.
        if changed.is_some() && events.send(Event::ApplicationProbed(key.clone(), outcome)).is_err() {
            return;
        }
        sleep(readiness.pause()).await;
    }
}

/// A proxy's health is asked more often than an application's: the table waits for it.
async fn probe_proxy(health: SocketAddr, key: String, events: tokio::sync::mpsc::UnboundedSender<Event>) {
    let target = Target::Http { address: health, path: "/healthz/ready".to_owned(), headers: Vec::new() };
    let mut ready = false;
    loop {
        let now = check(&target, Duration::from_secs(1)).await.is_ok();
        if now != ready {
            ready = now;
            if events.send(Event::ProxyProbed(key.clone(), ready)).is_err() {
                return;
            }
        }
        sleep(if ready { Duration::from_secs(2) } else { Duration::from_millis(20) }).await;
    }
}
