//! The protocol of a client over any number of streams, one after the other. Pure: it is told what happened and says
//! what to send and what to hand to the consumer.
//!
//! What was accepted stays known over reconnects: in delta mode the next stream begins with the versions held, so only
//! what changed meanwhile is sent again.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use bytes::Bytes;
use mizzen_proto::envoy::config::core::v3::Node;
use mizzen_proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use mizzen_proto::google::rpc::Status;

use crate::wire::{Any, DeltaResponse, Request, SotwResponse, resource_name};
use crate::{Mode, ResourceType};

/// `google.rpc.Code.INVALID_ARGUMENT`, the code of a NACK.
const INVALID_ARGUMENT: i32 = 3;

/// What is asked for of one type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subscription {
    /// Everything (clusters and listeners).
    Wildcard,
    Names(BTreeSet<String>),
}

/// One resource as received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    pub name: String,
    pub version: String,
    /// The encoded message (the `value` of its `Any`).
    pub body: Bytes,
}

/// Names one update in the answer to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UpdateId(u64);

/// What the control plane said about one type; to be answered once, in the order of arrival.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    pub id: UpdateId,
    pub kind: ResourceType,
    pub resources: Vec<Received>,
    pub removed: Vec<String>,
    /// Whether what is not in `resources` is gone. Only clusters and listeners in state-of-the-world mode.
    pub full: bool,
}

/// Why a resource of an update is not obeyed; its last good version stays in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub name: String,
    pub message: String,
}

#[derive(Debug)]
struct Pending {
    id: UpdateId,
    stream: u64,
    nonce: String,
    version_info: String,
    versions: Vec<(String, String)>,
    removed: Vec<String>,
    full: bool,
    /// Resources that could not even be handed on.
    malformed: Vec<Refusal>,
}

#[derive(Debug, Default)]
struct TypeState {
    wanted: Option<Subscription>,
    /// What this stream has been asked for.
    asked: Option<Subscription>,
    /// Accepted versions by name.
    versions: BTreeMap<String, String>,
    /// State-of-the-world: the last accepted version, and the last nonce of this stream.
    version_info: String,
    nonce: String,
    pending: VecDeque<Pending>,
}

/// The state of one client.
#[derive(Debug)]
pub struct Session {
    mode: Mode,
    node: Node,
    types: [TypeState; ResourceType::ALL.len()],
    /// Number of the current stream; streams are counted so that late answers are not sent on the wrong one.
    stream: u64,
    connected: bool,
    /// A stream is open, but updates of the one before are not answered yet: what is held would be told wrongly.
    settling: bool,
    node_sent: bool,
    next_id: u64,
}

impl Session {
    pub fn new(mode: Mode, node: Node) -> Self {
        Self {
            mode,
            node,
            types: Default::default(),
            stream: 0,
            connected: false,
            settling: false,
            node_sent: false,
            next_id: 1,
        }
    }

    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// Replaces what is wanted of a type.
    pub fn subscribe(&mut self, kind: ResourceType, wanted: Subscription) -> Option<Request> {
        self.types[kind.index()].wanted = Some(wanted);
        (self.connected && !self.settling).then(|| self.ask(kind)).flatten()
    }

    /// A stream is open: what to send on it, in order. Nothing while updates of the stream before are unanswered; then
    /// the last answer gives it.
    pub fn connected(&mut self) -> Vec<Request> {
        self.stream += 1;
        self.connected = true;
        self.node_sent = false;
        for state in &mut self.types {
            state.asked = None;
            state.nonce.clear();
        }
        self.settling = self.types.iter().any(|state| !state.pending.is_empty());
        if self.settling { Vec::new() } else { self.ask_all() }
    }

    fn ask_all(&mut self) -> Vec<Request> {
        ResourceType::ALL.into_iter().filter_map(|kind| self.ask(kind)).collect()
    }

    pub const fn disconnected(&mut self) {
        self.connected = false;
    }

    /// The request that brings the stream to what is wanted; none when it is there.
    fn ask(&mut self, kind: ResourceType) -> Option<Request> {
        let state = &mut self.types[kind.index()];
        let wanted = state.wanted.clone()?;
        if state.asked.as_ref() == Some(&wanted) {
            return None;
        }
        // An empty first subscription would mean "everything" to some servers.
        if state.asked.is_none() && matches!(&wanted, Subscription::Names(names) if names.is_empty()) {
            return None;
        }
        let before = state.asked.replace(wanted.clone());
        let first = before.is_none();
        let node = (!std::mem::replace(&mut self.node_sent, true)).then(|| self.node.clone());
        let type_url = kind.type_url().to_owned();
        if self.mode == Mode::Sotw {
            let names = if let Subscription::Names(names) = wanted { names.into_iter().collect() } else { Vec::new() };
            return Some(Request::Sotw(DiscoveryRequest {
                version_info: state.version_info.clone(),
                node,
                resource_names: names,
                type_url,
                response_nonce: state.nonce.clone(),
                ..Default::default()
            }));
        }
        let none = BTreeSet::new();
        let (old_all, old) = match &before {
            Some(Subscription::Wildcard) => (true, &none),
            Some(Subscription::Names(names)) => (false, names),
            None => (false, &none),
        };
        let (new_all, new) = match &wanted {
            Subscription::Wildcard => (true, &none),
            Subscription::Names(names) => (false, names),
        };
        let mut subscribe: Vec<String> = new.difference(old).cloned().collect();
        let mut unsubscribe: Vec<String> = old.difference(new).cloned().collect();
        // The first request of a type that names nothing asks for everything; later it has to be said.
        if new_all && !old_all && !first {
            subscribe.push("*".to_owned());
        }
        if old_all && !new_all {
            unsubscribe.push("*".to_owned());
        }
        if !new_all {
            state.versions.retain(|name, _| new.contains(name));
        }
        let initial_resource_versions: HashMap<_, _> =
            if first { state.versions.clone().into_iter().collect() } else { HashMap::new() };
        Some(Request::Delta(DeltaDiscoveryRequest {
            node,
            type_url,
            resource_names_subscribe: subscribe,
            resource_names_unsubscribe: unsubscribe,
            initial_resource_versions,
            ..Default::default()
        }))
    }

    /// A delta response came; `None` when it is of a type that was never asked for.
    pub fn delta_response(&mut self, response: DeltaResponse) -> Option<Update> {
        let kind = self.expected(&response.type_url)?;
        let mut malformed = Vec::new();
        let mut resources = Vec::with_capacity(response.resources.len());
        for item in response.resources {
            match item.resource {
                // A resource without a body is an acknowledgement of its version, or a heartbeat: nothing to do.
                None => {}
                Some(any) if any.type_url != response.type_url => malformed.push(wrong_type(item.name, &any)),
                Some(any) => {
                    resources.push(Received { name: item.name, version: item.version, body: any.value });
                }
            }
        }
        let pending = Pending {
            id: UpdateId(0),
            stream: self.stream,
            nonce: response.nonce,
            version_info: String::new(),
            versions: Vec::new(),
            removed: response.removed_resources,
            full: false,
            malformed,
        };
        Some(self.hand_over(kind, resources, pending))
    }

    /// A state-of-the-world response came.
    pub fn sotw_response(&mut self, response: SotwResponse) -> Option<Update> {
        let kind = self.expected(&response.type_url)?;
        self.types[kind.index()].nonce.clone_from(&response.nonce);
        let mut malformed = Vec::new();
        let mut resources = Vec::with_capacity(response.resources.len());
        for any in response.resources {
            if any.type_url != response.type_url {
                malformed.push(wrong_type(String::new(), &any));
                continue;
            }
            match resource_name(&any.value) {
                Some(name) => {
                    let version = response.version_info.clone();
                    resources.push(Received { name, version, body: any.value });
                }
                None => malformed
                    .push(Refusal { name: String::new(), message: format!("a {kind} resource has no readable name") }),
            }
        }
        let pending = Pending {
            id: UpdateId(0),
            stream: self.stream,
            nonce: response.nonce,
            version_info: response.version_info,
            versions: Vec::new(),
            removed: Vec::new(),
            // With an unreadable resource in it, the set does not say what is gone.
            full: kind.is_wildcard() && malformed.is_empty(),
            malformed,
        };
        Some(self.hand_over(kind, resources, pending))
    }

    fn expected(&self, type_url: &str) -> Option<ResourceType> {
        ResourceType::from_type_url(type_url).filter(|kind| self.types[kind.index()].wanted.is_some())
    }

    fn hand_over(&mut self, kind: ResourceType, resources: Vec<Received>, mut pending: Pending) -> Update {
        pending.id = UpdateId(self.next_id);
        self.next_id += 1;
        pending.versions = resources.iter().map(|it| (it.name.clone(), it.version.clone())).collect();
        let update = Update { id: pending.id, kind, resources, removed: pending.removed.clone(), full: pending.full };
        self.types[kind.index()].pending.push_back(pending);
        update
    }

    /// The consumer's answer to an update: ACK when nothing is refused, else NACK. Neither is sent when the stream that
    /// brought the update is gone.
    pub fn answer(&mut self, id: UpdateId, refused: Vec<Refusal>) -> Vec<Request> {
        let answer = self.note_answer(id, refused);
        if self.settling && self.types.iter().all(|state| state.pending.is_empty()) {
            self.settling = false;
            return if self.connected { self.ask_all() } else { Vec::new() };
        }
        answer.into_iter().collect()
    }

    fn note_answer(&mut self, id: UpdateId, refused: Vec<Refusal>) -> Option<Request> {
        let kind =
            ResourceType::ALL.into_iter().find(|kind| self.types[kind.index()].pending.iter().any(|it| it.id == id))?;
        let state = &mut self.types[kind.index()];
        let index = state.pending.iter().position(|it| it.id == id)?;
        let pending = state.pending.remove(index)?;
        let refused: Vec<Refusal> = pending.malformed.into_iter().chain(refused).collect();

        if pending.full {
            let kept: BTreeSet<_> = pending.versions.iter().map(|(name, _)| name).collect();
            state.versions.retain(|name, _| kept.contains(name));
        }
        for (name, version) in pending.versions {
            if !refused.iter().any(|it| it.name == name) {
                state.versions.insert(name, version);
            }
        }
        for name in &pending.removed {
            state.versions.remove(name);
        }
        if refused.is_empty() && self.mode == Mode::Sotw {
            state.version_info = pending.version_info;
        }
        if !self.connected || pending.stream != self.stream {
            return None;
        }
        let error_detail = (!refused.is_empty()).then(|| Status {
            code: INVALID_ARGUMENT,
            message: refused.iter().map(describe).collect::<Vec<_>>().join("; "),
            details: Vec::new(),
        });
        let type_url = kind.type_url().to_owned();
        Some(match self.mode {
            Mode::Delta => Request::Delta(DeltaDiscoveryRequest {
                type_url,
                response_nonce: pending.nonce,
                error_detail,
                ..Default::default()
            }),
            Mode::Sotw => Request::Sotw(DiscoveryRequest {
                version_info: state.version_info.clone(),
                resource_names: match &state.asked {
                    Some(Subscription::Names(names)) => names.iter().cloned().collect(),
                    Some(Subscription::Wildcard) | None => Vec::new(),
                },
                type_url,
                response_nonce: pending.nonce,
                error_detail,
                ..Default::default()
            }),
        })
    }
}

fn wrong_type(name: String, any: &Any) -> Refusal {
    Refusal { name, message: format!("has type {:?}, which is not the type of its response", any.type_url) }
}

fn describe(refusal: &Refusal) -> String {
    if refusal.name.is_empty() { refusal.message.clone() } else { format!("{}: {}", refusal.name, refusal.message) }
}
