//! Workloads in network namespaces of their own: what `--capture netns` adds to a mesh on one machine.
//!
//! ```text
//!   this machine                │ the mesh's own network, made by us and gone with us
//!                               │
//!   127.0.0.1:8080  ── relay ───┼─▶ gateway 10.244.0.2
//!   127.N.h.l:15000 ── relay ───┼─▶ admin port of the pod 10.244.h.l
//!   everywhere  ◀── relay ──────┼── node 10.244.0.1: a bridge, a name server, the way out
//!   control plane ◀── relay ────┼──    ▲
//!                               │      └─ pod: eth0, rules of capture, sidecar, application
//! ```
//!
//! Nothing of the machine's own network is changed: no interface, route or rule. A namespace lives as long as a process
//! in it (a sandbox, see [`inside`]), and that dies with the supervisor, so there is nothing to clean up after a SIGKILL either.
//! Connections cross the border as sockets that were made on its other side: a socket stays in the namespace that it was
//! made in, whoever holds it. That needs no privilege, and so works in a user namespace as well.
//!
//! Not here: which connections are caught (`mizzen-capture`), and what the proxies do with them.

pub mod files;
pub mod inside;
pub mod names;
pub mod range;
mod relay;
pub(crate) mod sandbox;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use mizzen_dns::{Forwarder, Table};

use crate::instance::{Instance, Role};
use crate::network::{ADMIN_PORT, HEALTH_PORT, SECURE_XDS_PORT, STATS_PORT};
use crate::process::Starter;
use crate::state::write_private;
use range::Ranges;
use relay::{Door, Relays};
pub(crate) use sandbox::Sandbox;
pub use sandbox::SandboxError;

/// Packets of the proxies carry it, by which the rules know them: proxy and application are the same user here.
pub const PROXY_MARK: u32 = 1339;
/// The node's port to which everything is sent that leaves the mesh.
const WAY_OUT: u16 = 15001;
const BRIDGE: &str = "mesh";
const DNS_PORT: u16 = 53;

/// The mesh's own network.
pub(crate) struct MeshNetwork {
    pub(crate) ranges: Ranges,
    node: Sandbox,
    relays: Relays,
    names: Arc<ArcSwap<Table>>,
    /// Ports of this machine at which the gateway is reached.
    doors: BTreeMap<u16, Door>,
    /// Those that cannot be opened, so that it is said once.
    closed: BTreeSet<u16>,
    /// Number of the next pod's wire.
    wires: u32,
    /// The machine's own files, in the place of which a pod sees others.
    machine: files::Machine,
    _always: Vec<Door>,
}

/// A pod of it.
#[derive(Clone)]
pub(crate) struct Pod {
    pub(crate) sandbox: Arc<Sandbox>,
    /// What this machine reaches of it.
    _doors: Arc<Vec<Door>>,
}

impl std::fmt::Debug for Pod {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Pod").field(&self.sandbox.pid()).finish()
    }
}

impl MeshNetwork {
    /// Makes the network without pods. `control` is where the control plane listens on this machine.
    pub(crate) fn new(starter: &Starter, control: Ipv4Addr) -> Result<Self, SandboxError> {
        let ranges = range::choose(&std::fs::read_to_string("/proc/net/route").unwrap_or_default());
        let machine = files::Machine::read();
        let node =
            Sandbox::start(starter, None, &["node", BRIDGE, &ranges.node_net().to_string(), &WAY_OUT.to_string()])?;
        let relays = Relays::start().map_err(SandboxError::Relay)?;
        let names = Arc::new(ArcSwap::from_pointee(Table::default()));
        let mut always = Vec::new();
        let out = node.listen((Ipv4Addr::UNSPECIFIED, WAY_OUT).into())?;
        always.push(relays.way_out(out, ranges).map_err(SandboxError::Relay)?);
        // Only where every client has to prove who it is.
        let listener = node.listen((ranges.node(), SECURE_XDS_PORT).into())?;
        always.push(relays.to_machine(listener, (control, SECURE_XDS_PORT).into()).map_err(SandboxError::Relay)?);
        let at: SocketAddr = (ranges.node(), DNS_PORT).into();
        let forwarder = Forwarder { servers: machine.resolvers(), mark: None };
        let (udp, tcp) = (node.datagrams(at)?, node.listen(at)?);
        always.push(relays.names(udp, tcp, names.clone(), forwarder).map_err(SandboxError::Relay)?);
        Ok(Self {
            ranges,
            node,
            relays,
            names,
            doors: BTreeMap::new(),
            closed: BTreeSet::new(),
            wires: 0,
            machine,
            _always: always,
        })
    }

    /// Makes the namespace of an instance: its wire, address and files, the rules of capture, and the ports at which this
    /// machine asks its proxy.
    pub(crate) fn add(&mut self, starter: &Starter, instance: &Instance, folder: &Path) -> Result<Pod, SandboxError> {
        let sandbox = Sandbox::start(starter, Some(self.node.pid()), &["pod", &instance.pod])?;
        let wire = format!("pod{}", self.wires);
        self.wires = self.wires.wrapping_add(1);
        self.node.ask(&["attach", BRIDGE, &wire, &sandbox.pid().as_raw_nonzero().to_string()])?;
        let (net, gateway) = (self.ranges.net_of(instance.mesh).to_string(), self.ranges.node().to_string());
        sandbox.ask(&["settle", &net, &gateway])?;
        for (name, text) in self.machine.for_pod(instance, self.ranges.node()) {
            let fresh: PathBuf = folder.join(name);
            write_private(&fresh, &text).map_err(|error| SandboxError::File { path: fresh.clone(), error })?;
            // Other users' programs read these files as well.
            let _ = std::fs::set_permissions(&fresh, std::os::unix::fs::PermissionsExt::from_mode(0o644));
            sandbox.ask(&["file", &fresh.to_string_lossy(), &format!("/etc/{name}")])?;
        }
        for hidden in files::HIDDEN.iter().filter(|folder| Path::new(folder).is_dir()) {
            sandbox.ask(&["hide", hidden])?;
        }
        if let Role::Sidecar { .. } = instance.role {
            let mut words = vec!["capture".to_owned(), gateway];
            words.extend(inside::options_in(&instance.annotations));
            sandbox.ask(&words.iter().map(String::as_str).collect::<Vec<_>>())?;
        }
        let sandbox = Arc::new(sandbox);
        let mut doors = Vec::new();
        for (port, inside) in
            [(ADMIN_PORT, Ipv4Addr::LOCALHOST), (HEALTH_PORT, instance.mesh), (STATS_PORT, instance.mesh)]
        {
            let target = (inside, port).into();
            let door = self.relays.to_pod((instance.host, port).into(), sandbox.clone(), target);
            doors.push(door.map_err(SandboxError::Relay)?);
        }
        Ok(Pod { sandbox, _doors: Arc::new(doors) })
    }

    /// Opens `ports` of 127.0.0.1 towards the gateway, and closes all others. Says which could not be opened.
    pub(crate) fn open_doors(
        &mut self,
        gateway: &Pod,
        address: Ipv4Addr,
        ports: impl Iterator<Item = u16>,
    ) -> Vec<String> {
        let mut wanted: BTreeMap<u16, Door> = BTreeMap::new();
        let mut problems = Vec::new();
        for port in ports {
            let door = match self.doors.remove(&port) {
                Some(door) => Ok(door),
                None => {
                    let here = (crate::bootstrap::GATEWAY_BIND, port).into();
                    self.relays.to_pod(here, gateway.sandbox.clone(), (address, port).into())
                }
            };
            match door {
                Ok(door) => {
                    self.closed.remove(&port);
                    wanted.insert(port, door);
                }
                Err(error) if self.closed.insert(port) => {
                    problems.push(format!("cannot listen on {}:{port}: {error}", crate::bootstrap::GATEWAY_BIND));
                }
                Err(_) => {}
            }
        }
        self.doors = wanted;
        problems
    }

    /// What the mesh's name server answers from now on.
    pub(crate) fn set_names(&self, table: Table) {
        self.names.store(Arc::new(table));
    }
}
