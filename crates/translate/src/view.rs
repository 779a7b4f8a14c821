//! Who a proxy is and how it wants to be spoken to: read once, from its node id and metadata.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use mizzen_mesh::{Mesh, Pod, Service, SidecarRule, Workload};
use mizzen_types::{Labels, Locality};
use serde_json::Value;
use thiserror::Error;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Beside one workload.
    Sidecar,
    /// A gateway at the edge of the mesh.
    Router,
}

/// The words a proxy understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dialect {
    /// Istio's filters beside Envoy's: genuine Istio proxies, and ours.
    Istio,
    /// Only what stock Envoy has. Mesh TLS then names the application protocol in the cluster.
    Envoy,
}

/// How traffic gets to a sidecar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Interception {
    /// The kernel sends everything to two ports of the proxy.
    Redirect,
    /// The same, but what comes in keeps both its addresses: the workload sees its client's.
    Tproxy,
    /// Listeners are bound for real: service ports on the workload's mesh address, and an HTTP proxy port for calls.
    None,
}

impl Interception {
    /// Whether clients of the proxy know nothing of it.
    pub fn is_by_kernel(self) -> bool {
        self != Self::None
    }
}

#[derive(Debug, Error, PartialEq, Eq)]
pub enum ViewError {
    #[error("node id {0:?} is not of the form TYPE~ADDRESS~NAME.NAMESPACE~DOMAIN")]
    NodeId(String),
    #[error("node id {id:?} has the type {role:?}; sidecar and router are served")]
    Role { id: String, role: String },
    #[error("node id {id:?} has no IP address: {address:?}")]
    Address { id: String, address: String },
    #[error("node metadata {key} of {id:?} cannot be used: {reason}")]
    Metadata { id: String, key: &'static str, reason: String },
}

/// One proxy, as the translators see it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ProxyView {
    pub id: String,
    pub role: Role,
    /// Name of the pod.
    pub name: String,
    pub namespace: String,
    /// The proxy's own addresses; the first is the main one.
    pub addresses: Vec<String>,
    pub labels: Labels,
    pub service_account: String,
    pub cluster_id: String,
    pub mesh_id: String,
    pub locality: Locality,
    pub dialect: Dialect,
    pub interception: Interception,
    /// Port of the explicit HTTP proxy listener.
    pub http_proxy_port: Option<u16>,
    /// Where the application listens, by workload port (`MIZZEN_APP`).
    pub application: BTreeMap<u16, String>,
    /// Address that gateway servers bind.
    pub bind: String,
    /// Whether ports below 1024 cannot be bound.
    pub unprivileged: bool,
    /// Whether the workload's names are resolved beside the proxy (Istio: `DNS_CAPTURE`).
    pub resolves_names: bool,
    /// A person looking, not a proxy.
    pub observer: bool,
    pub canonical_service: String,
    pub canonical_revision: String,
    /// Named container ports of the pod.
    pub named_ports: Vec<(String, u16)>,
}

/// What clusters and endpoints of one service depend on, besides the mesh and the rules that hold: what a proxy is, not
/// where it is. Part of the key of a cache.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Client {
    pub role: Role,
    pub dialect: Dialect,
    pub interception: Interception,
    pub cluster_id: String,
    pub locality: Locality,
    pub unprivileged: bool,
    pub given: Families,
}

/// Of which families a proxy takes the addresses that services without any are given. Of none where it does not answer for names
/// itself: nobody else knows them (Istio does the same).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Families {
    pub v4: bool,
    pub v6: bool,
}

impl Families {
    /// The addresses at which a service is called, without ranges.
    pub(crate) fn addresses(self, service: &Service) -> Vec<String> {
        let is_address = |text: &&String| text.parse::<IpAddr>().is_ok();
        let own: Vec<String> = service.addresses.iter().filter(is_address).cloned().collect();
        if !own.is_empty() {
            return own;
        }
        let taken = |address: &&IpAddr| if address.is_ipv4() { self.v4 } else { self.v6 };
        service.given_addresses.iter().filter(taken).map(ToString::to_string).collect()
    }
}

/// What the resources that several proxies may share depend on, besides the mesh: the key of a cache.
///
/// Two proxies with equal scopes get the same outbound clusters, route tables and endpoints, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scope {
    pub client: Arc<Client>,
    pub namespace: String,
    /// Empty when no rule in the mesh looks at the labels of clients.
    pub labels: Labels,
    /// Namespace and name of the Sidecar resource that is obeyed.
    pub sidecar: Option<(Arc<str>, Arc<str>)>,
}

impl ProxyView {
    /// Whether the workload has addresses of IPv4, and of IPv6.
    pub(crate) fn families(&self) -> (bool, bool) {
        let v6 = |address: &&String| address.contains(':');
        (self.addresses.iter().any(|address| !v6(&address)), self.addresses.iter().any(|address| v6(&address)))
    }

    pub(crate) fn given(&self) -> Families {
        let (v4, v6) = self.families();
        if self.role == Role::Sidecar && self.resolves_names { Families { v4, v6 } } else { Families::default() }
    }

    /// Reads a node's id and metadata; what the mesh knows of the pod wins over what the proxy says of itself.
    ///
    /// # Errors
    /// When the id is not Istio's, or metadata that decides something cannot be read.
    pub fn new(node_id: &str, metadata: &Value, mesh: &Mesh) -> Result<Self, ViewError> {
        let parts: Vec<&str> = node_id.split('~').collect();
        let [role, address, workload, _domain] = parts[..] else { return Err(ViewError::NodeId(node_id.to_owned())) };
        let role = match role {
            "sidecar" => Role::Sidecar,
            "router" => Role::Router,
            other => return Err(ViewError::Role { id: node_id.to_owned(), role: other.to_owned() }),
        };
        let Some((name, namespace)) = workload.rsplit_once('.') else {
            return Err(ViewError::NodeId(node_id.to_owned()));
        };
        if address.parse::<IpAddr>().is_err() {
            return Err(ViewError::Address { id: node_id.to_owned(), address: address.to_owned() });
        }
        let text = |key: &str| metadata.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
        let namespace = text("NAMESPACE").unwrap_or(namespace).to_owned();
        // By its address too, but not one of a namespace that it is not in.
        let at_address = || mesh.pod_at(address).filter(|pod| *pod.workload.namespace == *namespace);
        let pod = mesh.pod(&namespace, name).or_else(at_address);
        let labels = match pod {
            Some(pod) => pod.workload.labels.clone(),
            None => string_map(metadata.get("LABELS")),
        };
        let workload = workload_of(pod.map(AsRef::as_ref), name, &namespace, &labels);
        let istio = ["ISTIO_VERSION", "MIZZEN_VERSION"].iter().any(|key| text(key).is_some());
        let mut addresses = vec![address.to_owned()];
        for listed in text("INSTANCE_IPS").unwrap_or_default().split(',').map(str::trim) {
            if listed.parse::<IpAddr>().is_ok() && !addresses.iter().any(|known| known == listed) {
                addresses.push(listed.to_owned());
            }
        }
        let port = |key: &'static str| match metadata.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match port_number(value) {
                Some(0) => Ok(None),
                Some(port) => Ok(Some(port)),
                None => Err(ViewError::Metadata {
                    id: node_id.to_owned(),
                    key,
                    reason: format!("{value} is no port number"),
                }),
            },
        };
        Ok(Self {
            role,
            name: name.to_owned(),
            addresses,
            service_account: match pod {
                Some(pod) => pod.workload.service_account.to_string(),
                None => text("SERVICE_ACCOUNT").unwrap_or("default").to_owned(),
            },
            cluster_id: text("CLUSTER_ID").unwrap_or("Kubernetes").to_owned(),
            mesh_id: text("MESH_ID").map_or_else(|| mesh.config().trust_domain.clone(), str::to_owned),
            locality: workload.locality.clone(),
            dialect: if istio { Dialect::Istio } else { Dialect::Envoy },
            interception: match text("INTERCEPTION_MODE") {
                Some(mode) if mode.eq_ignore_ascii_case("none") => Interception::None,
                Some(mode) if mode.eq_ignore_ascii_case("tproxy") => Interception::Tproxy,
                _ => Interception::Redirect,
            },
            http_proxy_port: port("HTTP_PROXY_PORT")?.or(Some(mesh.config().proxy_http_port).filter(|port| *port != 0)),
            application: application(node_id, metadata.get("MIZZEN_APP"))?,
            bind: text("MIZZEN_BIND").unwrap_or("0.0.0.0").to_owned(),
            unprivileged: matches!(metadata.get("UNPRIVILEGED_POD"), Some(value) if is_true(value)),
            resolves_names: matches!(metadata.get("DNS_CAPTURE"), Some(value) if is_true(value)),
            observer: matches!(metadata.get("MIZZEN_OBSERVER"), Some(value) if is_true(value)),
            canonical_service: workload.canonical_service().to_owned(),
            canonical_revision: workload.canonical_revision().unwrap_or("latest").to_owned(),
            named_ports: pod.map(|pod| pod.ports.clone()).unwrap_or_default(),
            id: node_id.to_owned(),
            namespace,
            labels,
        })
    }

    /// The part that shared resources depend on.
    pub fn scope(&self, mesh: &Mesh) -> Scope {
        // Gateways are selected by labels, so theirs always count.
        let labels_count = self.role == Role::Router || mesh.rules_select_clients();
        let client = Client {
            role: self.role,
            dialect: self.dialect,
            interception: self.interception,
            cluster_id: self.cluster_id.clone(),
            locality: self.locality.clone(),
            unprivileged: self.unprivileged,
            given: self.given(),
        };
        Scope {
            client: Arc::new(client),
            namespace: self.namespace.clone(),
            labels: if labels_count { self.labels.clone() } else { Labels::default() },
            sidecar: self.sidecar(mesh).map(|rule| (rule.order.namespace.clone(), rule.order.name.clone())),
        }
    }

    /// The Sidecar resource that this proxy obeys; gateways obey none.
    pub(crate) fn sidecar<'a>(&self, mesh: &'a Mesh) -> Option<&'a Arc<SidecarRule>> {
        if self.role == Role::Sidecar { mesh.sidecar_for(&self.namespace, &self.labels) } else { None }
    }

    /// The main address.
    pub fn address(&self) -> &str {
        self.addresses.first().map(String::as_str).unwrap_or_default()
    }
}

impl Client {
    /// Whether original destinations are known, so that a cluster may use them.
    pub(crate) fn knows_original_destination(&self) -> bool {
        self.role == Role::Sidecar && self.interception.is_by_kernel()
    }
}

fn workload_of(pod: Option<&Pod>, name: &str, namespace: &str, labels: &Labels) -> Workload {
    match pod {
        Some(pod) => (*pod.workload).clone(),
        None => Workload {
            name: name.into(),
            namespace: namespace.into(),
            labels: labels.clone(),
            service_account: "".into(),
            locality: Locality::default(),
            sidecar: false,
            own_name: None,
        },
    }
}

fn application(id: &str, value: Option<&Value>) -> Result<BTreeMap<u16, String>, ViewError> {
    let refuse = |reason: String| ViewError::Metadata { id: id.to_owned(), key: "MIZZEN_APP", reason };
    let parsed;
    let object = match value {
        None | Some(Value::Null) => return Ok(BTreeMap::new()),
        // Metadata in a bootstrap may only be able to carry strings.
        Some(Value::String(text)) => {
            parsed = serde_json::from_str::<Value>(text).map_err(|error| refuse(error.to_string()))?;
            &parsed
        }
        Some(value) => value,
    };
    let Some(object) = object.as_object() else { return Err(refuse("it is no object".to_owned())) };
    let entry = |(port, address): (&String, &Value)| {
        let port: u16 = port.parse().map_err(|_| refuse(format!("{port:?} is no port number")))?;
        let address = address.as_str().filter(|address| split_address(address).is_some());
        let address = address.ok_or_else(|| refuse(format!("port {port} has no ADDRESS:PORT")))?;
        Ok((port, address.to_owned()))
    };
    object.iter().map(entry).collect()
}

/// Address and port of `127.0.0.1:8080` or `[::1]:8080`.
pub(crate) fn split_address(text: &str) -> Option<(&str, u16)> {
    let (address, port) = text.rsplit_once(':')?;
    let address = address.trim_start_matches('[').trim_end_matches(']');
    address.parse::<IpAddr>().ok()?;
    Some((address, port.parse().ok()?))
}

fn port_number(value: &Value) -> Option<u16> {
    match value {
        Value::String(text) => text.parse().ok(),
        other => {
            other.as_f64().filter(|number| number.fract() == 0.0 && (0.0..65536.0).contains(number)).map(|n| n as u16)
        }
    }
}

/// Booleans as Go reads them, and so Istio's agent writes them.
fn is_true(value: &Value) -> bool {
    let text = |text: &str| matches!(text, "1" | "t" | "T") || text.eq_ignore_ascii_case("true");
    value.as_bool().unwrap_or_else(|| value.as_str().is_some_and(text))
}

fn string_map(value: Option<&Value>) -> Labels {
    let entries = value.and_then(Value::as_object).into_iter().flatten();
    entries.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}
