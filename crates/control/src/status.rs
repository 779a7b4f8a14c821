//! Who is connected, and what each proxy was sent, has acknowledged and has refused. Written by the engine alone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use k8s_openapi::jiff::Timestamp;
use mizzen_types::SpiffeId;
use mizzen_xds::server::Observed;
use mizzen_xds::{Mode, ResourceType};
use serde_json::{Map, Value, json};

use crate::node::Node;

/// Counts streams since start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct StreamId(pub(crate) u64);

#[derive(Debug, Clone)]
pub(crate) struct Moment {
    version: u64,
    nonce: u64,
    at: SystemTime,
}

#[derive(Debug, Clone)]
struct Refused {
    moment: Moment,
    message: String,
}

#[derive(Debug, Clone, Default)]
struct TypeStatus {
    subscribed: bool,
    wildcard: bool,
    names: usize,
    sent: Option<Moment>,
    acked: Option<Moment>,
    /// It came back with all that it asks for, so that nothing had to be sent.
    held: bool,
    /// The last refusal, until a later response is acknowledged.
    refused: Option<Refused>,
    rejects: u64,
}

/// Whether a proxy works with what it was sent of one type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sync {
    Ignored,
    NotSent,
    Synced,
    Stale,
    Refused,
}

impl Sync {
    /// In the words of `istioctl proxy-status`.
    const fn word(self) -> &'static str {
        match self {
            Self::Refused => "NACK",
            Self::NotSent => "NOT SENT",
            Self::Ignored => "IGNORED",
            Self::Synced => "SYNCED",
            Self::Stale => "STALE",
        }
    }
}

impl TypeStatus {
    fn sync(&self) -> Sync {
        match (&self.sent, &self.acked) {
            (_, _) if self.refused.is_some() => Sync::Refused,
            (None, _) if self.held => Sync::Synced,
            (None, _) if self.subscribed => Sync::NotSent,
            (None, _) => Sync::Ignored,
            (Some(sent), Some(acked)) if acked.nonce >= sent.nonce => Sync::Synced,
            (Some(_), _) => Sync::Stale,
        }
    }
}

/// One connected proxy.
#[derive(Debug, Clone)]
pub(crate) struct ProxyStatus {
    pub(crate) node: Arc<Node>,
    pub(crate) identity: Option<SpiffeId>,
    pub(crate) mode: Mode,
    pub(crate) connected_at: SystemTime,
    /// Whether it is given Secrets.
    pub(crate) secrets: bool,
    types: [TypeStatus; ResourceType::ALL.len()],
}

impl ProxyStatus {
    pub(crate) fn new(node: Arc<Node>, identity: Option<SpiffeId>, mode: Mode, connected_at: SystemTime) -> Self {
        Self { node, identity, mode, connected_at, secrets: false, types: Default::default() }
    }

    /// Whether it has asked for what every proxy needs.
    pub(crate) fn has_asked(&self) -> bool {
        [ResourceType::Cluster, ResourceType::Listener].into_iter().all(|kind| self.types[position(kind)].subscribed)
    }

    /// It works with all that there is for it now: also with what it was not sent, because it had it.
    pub(crate) fn settled(&mut self) {
        for status in &mut self.types {
            status.held = status.subscribed;
        }
    }

    pub(crate) fn observe(&mut self, event: &Observed, at: SystemTime) {
        let Some(kind) = kind_of(event) else { return };
        let status = &mut self.types[position(kind)];
        match event {
            Observed::Subscribed { wildcard, names, .. } => {
                status.subscribed = true;
                status.held = false;
                status.wildcard = *wildcard;
                status.names = *names;
            }
            Observed::Sent { nonce, version, .. } => {
                status.sent = Some(Moment { version: *version, nonce: *nonce, at });
            }
            Observed::Acked { nonce, .. } => {
                let version = status.sent.as_ref().map_or(0, |sent| sent.version);
                status.acked = Some(Moment { version, nonce: *nonce, at });
                status.refused = None;
            }
            Observed::Refused { nonce, message, .. } => {
                let version = status.sent.as_ref().map_or(0, |sent| sent.version);
                let moment = Moment { version, nonce: *nonce, at };
                status.refused = Some(Refused { moment, message: message.clone() });
                status.rejects += 1;
            }
            Observed::Stale { .. }
            | Observed::Unanswered { .. }
            | Observed::UnknownType { .. }
            | Observed::Settled { .. } => {}
        }
    }

    /// Each type, how it stands, and when something of it was last sent.
    pub(crate) fn states(&self) -> impl Iterator<Item = (ResourceType, Sync, Option<SystemTime>)> + '_ {
        let types = ResourceType::ALL.into_iter().zip(&self.types);
        types.map(|(kind, status)| (kind, status.sync(), status.sent.as_ref().map(|sent| sent.at)))
    }

    pub(crate) fn json(&self) -> Value {
        let mut row = json!({
            "proxy": &*self.node.name,
            "proxy_type": self.node.role,
            "proxy_version": self.node.version,
            "istio_version": self.node.metadata.get("ISTIO_VERSION").and_then(Value::as_str).unwrap_or(&self.node.version),
            "cluster_id": self.node.metadata.get("CLUSTER_ID").and_then(Value::as_str).unwrap_or("Kubernetes"),
            "node": &*self.node.id,
            "namespace": &*self.node.namespace,
            "address": self.node.address,
            "identity": self.identity.as_ref().map(ToString::to_string),
            "mode": match self.mode { Mode::Delta => "delta", Mode::Sotw => "sotw" },
            "connected_at": millis(self.connected_at),
        });
        let mut types = Map::new();
        for (kind, status) in ResourceType::ALL.into_iter().zip(&self.types) {
            // The genuine control plane's field names, so that its tools read this.
            let long = match kind {
                ResourceType::Cluster => "cluster",
                ResourceType::Endpoint => "endpoint",
                ResourceType::Listener => "listener",
                ResourceType::Route => "route",
                ResourceType::Secret => "secret",
                ResourceType::NameTable => "name_table",
            };
            let nonce = |moment: &Option<Moment>| moment.as_ref().map(|it| it.nonce.to_string());
            row[format!("{long}_sent")] = json!(nonce(&status.sent));
            row[format!("{long}_acked")] = json!(nonce(&status.acked));
            let entry = json!({
                "state": status.sync().word(),
                "subscribed": status.subscribed,
                "wildcard": status.wildcard,
                "names": status.names,
                "sent": status.sent.as_ref().map(moment),
                "acked": status.acked.as_ref().map(moment),
                "refused": status.refused.as_ref().map(|it| {
                    let mut refused = moment(&it.moment);
                    refused["message"] = json!(it.message);
                    refused
                }),
                "rejects": status.rejects,
            });
            types.insert(kind.short_name().to_owned(), entry);
        }
        row["types"] = Value::Object(types);
        row
    }
}

fn moment(moment: &Moment) -> Value {
    json!({
        "nonce": moment.nonce.to_string(),
        "version": mizzen_xds::resource::version_text(moment.version),
        "at": millis(moment.at),
    })
}

/// Milliseconds since 1970.
fn millis(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn position(kind: ResourceType) -> usize {
    ResourceType::ALL.iter().position(|it| *it == kind).unwrap_or_default()
}

pub(crate) const fn kind_of(event: &Observed) -> Option<ResourceType> {
    match event {
        Observed::Subscribed { kind, .. }
        | Observed::Sent { kind, .. }
        | Observed::Acked { kind, .. }
        | Observed::Refused { kind, .. }
        | Observed::Stale { kind }
        | Observed::Unanswered { kind, .. } => Some(*kind),
        Observed::UnknownType { .. } | Observed::Settled { .. } => None,
    }
}

/// All connected proxies.
#[derive(Debug, Default)]
pub(crate) struct Status {
    pub(crate) proxies: BTreeMap<StreamId, ProxyStatus>,
}

impl Status {
    /// Proxies, without those who only look; by name.
    pub(crate) fn listed(&self) -> Vec<&ProxyStatus> {
        let mut proxies: Vec<_> = self.proxies.values().filter(|it| !it.node.observer).collect();
        proxies.sort_by(|a, b| a.node.name.cmp(&b.node.name));
        proxies
    }

    /// `/debug/nodes`: what each proxy says of itself.
    pub(crate) fn nodes(&self) -> Value {
        let node = |it: &ProxyStatus| {
            json!({
                "id": &*it.node.id,
                "name": &*it.node.name,
                "namespace": &*it.node.namespace,
                "role": it.node.role,
                "address": it.node.address,
                "version": it.node.version,
                "identity": it.identity.as_ref().map(ToString::to_string),
                "metadata": it.node.metadata,
            })
        };
        self.listed().into_iter().map(node).collect()
    }
}

/// `/debug/connections`, of some proxies: the genuine control plane's fields.
pub(crate) fn connections<'a>(proxies: impl Iterator<Item = &'a ProxyStatus>) -> Value {
    let client = |it: &ProxyStatus| {
        json!({
            "connectionId": &*it.node.id,
            "connectedAt": Timestamp::try_from(it.connected_at).ok().map(|at| at.to_string()),
            "address": it.node.address,
        })
    };
    let clients: Vec<Value> = proxies.map(client).collect();
    json!({"totalClients": clients.len(), "clients": clients})
}
