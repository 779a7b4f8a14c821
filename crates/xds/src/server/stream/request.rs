//! What a client's request does to the state of its stream.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use mizzen_proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use mizzen_proto::google::rpc::Status;

use super::{BadRequest, MAX_NAMES, Observed, Stream, WARM_TIMEOUT};
use crate::resource::parse_version;
use crate::server::watch::{Known, Names};
use crate::wire::Request;
use crate::{Mode, ResourceType};

const WILDCARD: &str = "*";

impl Stream {
    /// Takes one request; what follows from it comes out of [`Stream::advance`].
    pub fn request(&mut self, request: Request, now: Instant) -> Result<(), BadRequest> {
        let Some(kind) = ResourceType::from_type_url(request.type_url()) else {
            let type_url = request.type_url().chars().take(200).collect();
            self.observed.push(Observed::UnknownType { type_url });
            return Ok(());
        };
        self.unsettled = true;
        match request {
            Request::Delta(request) => self.delta_request(kind, request, now)?,
            Request::Sotw(request) => self.sotw_request(kind, request, now)?,
        }
        Ok(())
    }

    fn delta_request(
        &mut self,
        kind: ResourceType,
        request: DeltaDiscoveryRequest,
        now: Instant,
    ) -> Result<(), BadRequest> {
        let first = !std::mem::replace(&mut self.watches[kind.index()].subscribed, true);
        if first {
            self.remember(kind, request.initial_resource_versions, now);
        } else if !request.response_nonce.is_empty() {
            self.answered(kind, &request.response_nonce, request.error_detail, now);
        }
        let subscribe = request.resource_names_subscribe;
        let unsubscribe = request.resource_names_unsubscribe;
        if !first && subscribe.is_empty() && unsubscribe.is_empty() {
            return Ok(());
        }
        if self.watches[kind.index()].names.len() + subscribe.len() > MAX_NAMES {
            return Err(BadRequest::TooManyNames(kind));
        }
        let subscribe: Vec<Arc<str>> = subscribe.into_iter().map(|name| self.name(kind, name)).collect();
        let watch = &mut self.watches[kind.index()];
        let implicit = first && kind.is_wildcard() && subscribe.is_empty();
        if implicit || subscribe.iter().any(|name| **name == *WILDCARD) {
            watch.wildcard = true;
            watch.respond = true;
            // A client that has something works with it, and can wait for its turn.
            if watch.known.is_empty() {
                watch.asked = Names::All;
            } else {
                watch.dirty = Names::All;
            }
        }
        let mut cold = Vec::new();
        for name in subscribe.into_iter().filter(|name| **name != *WILDCARD) {
            // What the client told that it holds need not be sent to it; what it asks for again must be.
            if !watch.names.insert(name.clone()) || !first {
                watch.force(name);
            } else if watch.known.contains(&*name) {
                watch.dirty.insert(name);
            } else {
                cold.push(name.clone());
                watch.asked.insert(name);
            }
        }
        for name in unsubscribe {
            if name == WILDCARD {
                watch.wildcard = false;
                let names = &watch.names;
                watch.known.retain(|known| names.contains(known.name()));
            } else {
                watch.names.remove(name.as_str());
                watch.forget(&name);
                if kind == ResourceType::Endpoint {
                    self.warming.remove(name.as_str());
                }
            }
        }
        // A client may come back with clusters whose endpoints got lost on the way.
        let clusters = &self.watches[ResourceType::Cluster.index()];
        if kind == ResourceType::Endpoint {
            self.warming.extend(cold.into_iter().filter(|name| clusters.known.contains(&**name)));
            self.warm_by.get_or_insert(now + WARM_TIMEOUT);
        }
        self.note_subscription(kind);
        Ok(())
    }

    /// A name as it is to be kept: endpoints are mostly asked for under names of clusters, and these are shared.
    fn name(&self, kind: ResourceType, name: String) -> Arc<str> {
        let clusters = &self.watches[ResourceType::Cluster.index()].known;
        match clusters.get(name.as_str()).filter(|_| kind == ResourceType::Endpoint) {
            Some(known) => known.name().clone(),
            None => name.into(),
        }
    }

    /// A reconnecting client tells which versions it holds, so that it need not be sent them.
    fn remember(&mut self, kind: ResourceType, versions: HashMap<String, String>, now: Instant) {
        if kind == ResourceType::Cluster && !versions.is_empty() {
            self.returned_until = Some(now + WARM_TIMEOUT);
        }
        let watch = &mut self.watches[kind.index()];
        for (name, version) in versions.into_iter().take(MAX_NAMES) {
            watch.known.replace(Known::told(name.into(), parse_version(&version)));
        }
    }

    fn sotw_request(&mut self, kind: ResourceType, request: DiscoveryRequest, now: Instant) -> Result<(), BadRequest> {
        let first = !std::mem::replace(&mut self.watches[kind.index()].subscribed, true);
        // Every request names everything, so the client's next one makes up for one that is passed over.
        let latest = request.response_nonce == self.watches[kind.index()].last_nonce.to_string();
        let initial = first || request.response_nonce.is_empty();
        if !initial && !latest {
            self.observed.push(Observed::Stale { kind });
            return Ok(());
        }
        if !initial {
            self.answered(kind, &request.response_nonce, request.error_detail, now);
        }
        if request.resource_names.len() > MAX_NAMES {
            return Err(BadRequest::TooManyNames(kind));
        }
        let before = self.watches[kind.index()].wildcard;
        let wildcard = request.resource_names.iter().any(|name| name == WILDCARD)
            || (kind.is_wildcard() && request.resource_names.is_empty() && (first || before));
        let named = request.resource_names.into_iter().filter(|name| name != WILDCARD);
        let names: HashSet<Arc<str>> = named.map(|name| self.name(kind, name)).collect();
        let watch = &mut self.watches[kind.index()];
        if !initial && wildcard == watch.wildcard && names == watch.names {
            return Ok(());
        }
        if initial {
            watch.known.clear();
        }
        let added: Vec<_> = names.difference(&watch.names).cloned().collect();
        let gone: Vec<_> = watch.names.difference(&names).cloned().collect();
        let widened = wildcard && !watch.wildcard;
        watch.names = names;
        watch.wildcard = wildcard;
        if initial || widened {
            watch.asked = Names::All;
            watch.respond = true;
        }
        for name in added {
            watch.force(name);
            watch.respond = true;
        }
        for name in gone {
            if !wildcard {
                watch.forget(&name);
            }
            if kind == ResourceType::Endpoint {
                self.warming.remove(&name);
            }
        }
        self.note_subscription(kind);
        Ok(())
    }

    fn note_subscription(&mut self, kind: ResourceType) {
        let watch = &self.watches[kind.index()];
        self.observed.push(Observed::Subscribed { kind, wildcard: watch.wildcard, names: watch.names.len() });
    }

    fn answered(&mut self, kind: ResourceType, nonce: &str, error: Option<Status>, now: Instant) {
        let watch = &mut self.watches[kind.index()];
        let answer_to = |it: &mut crate::server::watch::InFlight| nonce == it.nonce.to_string();
        let Some(response) = watch.in_flight.take_if(answer_to) else {
            self.observed.push(Observed::Stale { kind });
            return;
        };
        let nonce = response.nonce;
        watch.lost = false;
        match error {
            None => {
                if self.mode == Mode::Sotw && kind.is_wildcard() {
                    // The answer is to the whole set.
                    watch.refused.clear();
                }
                for name in &response.names {
                    watch.refused.remove(name);
                }
                watch.clean_at = response.covers.unwrap_or(watch.clean_at);
                self.observed.push(Observed::Acked {
                    kind,
                    nonce,
                    took: now.saturating_duration_since(response.since),
                });
            }
            Some(error) => {
                // The newest version stays in `known`: it is not sent again until it changes.
                watch.refused.extend(response.names.iter().cloned());
                let message = error.message.chars().take(4000).collect();
                self.observed.push(Observed::Refused { kind, nonce, message });
                if kind == ResourceType::Cluster {
                    // Some of these may never become warm.
                    self.warming.clear();
                }
            }
        }
        if kind == ResourceType::Endpoint {
            for name in &response.names {
                self.warming.remove(name);
            }
        }
    }
}
