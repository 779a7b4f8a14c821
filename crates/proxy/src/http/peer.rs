//! Who the other workload is, told in headers (Istio: metadata exchange). What a certificate cannot say (name, version,
//! labels of the workload) goes into the metrics of both sides this way.
//!
//! Told only to endpoints of the mesh, and never passed on to the application.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use mizzen_proto::envoy::config::core::v3::Node;
use mizzen_proto::google::protobuf::Struct;
use mizzen_snapshot::Cluster;
use mizzen_telemetry::Party;
use prost::Message;

use crate::connection::Connection;

const ID: HeaderName = HeaderName::from_static("x-envoy-peer-metadata-id");
const METADATA: HeaderName = HeaderName::from_static("x-envoy-peer-metadata");
/// The parts of a node's metadata that metrics are made of.
const KEYS: [&str; 7] = ["NAME", "NAMESPACE", "WORKLOAD_NAME", "LABELS", "CLUSTER_ID", "MESH_ID", "OWNER"];
/// Longest metadata that is looked at.
const MAX_BYTES: usize = 16 * 1024;

/// What we tell about ourselves.
#[derive(Debug)]
pub struct Own {
    id: HeaderValue,
    metadata: HeaderValue,
}

/// A workload as it described itself.
#[derive(Debug)]
pub struct Peer {
    pub party: Party,
    /// Equal for equal descriptions.
    pub fingerprint: u64,
}

impl Own {
    pub fn of(node: &Node) -> Option<Self> {
        let all = &node.metadata.as_ref()?.fields;
        let kept = KEYS.iter().filter_map(|key| Some(((*key).to_owned(), all.get(*key)?.clone())));
        let encoded = Struct { fields: kept.collect() }.encode_to_vec();
        Some(Self {
            id: HeaderValue::from_str(&node.id).ok()?,
            metadata: HeaderValue::from_str(&BASE64.encode(encoded)).ok()?,
        })
    }

    fn tell(&self, headers: &mut HeaderMap) {
        headers.insert(ID, self.id.clone());
        headers.insert(METADATA, self.metadata.clone());
    }
}

/// Takes the headers out of an inbound request. Whoever describes himself gets our description in return.
pub fn take(connection: &Connection, headers: &mut HeaderMap) -> Option<Arc<Peer>> {
    headers.remove(ID);
    let metadata = headers.remove(METADATA)?;
    // A sidecar says the same with every request of a connection.
    let mut known = connection.peer.borrow_mut();
    if let Some((text, peer)) = known.as_ref()
        && *text == metadata
    {
        return Some(Arc::clone(peer));
    }
    let peer = Arc::new(read(&metadata)?);
    *known = Some((metadata, Arc::clone(&peer)));
    Some(peer)
}

fn read(metadata: &HeaderValue) -> Option<Peer> {
    let text = metadata.as_bytes();
    if text.len() > MAX_BYTES {
        return None;
    }
    let bytes = BASE64.decode(text).ok()?;
    let fields = Struct::decode(bytes.as_slice()).ok()?;
    let party = crate::record::party_of_node(&crate::run::struct_json(&fields));
    Some(Peer { party, fingerprint: xxhash_rust::xxh64::xxh64(text, 0) })
}

/// Adds our description to a request for an endpoint of the mesh.
pub fn tell_upstream(connection: &Connection, cluster: &Cluster, headers: &mut HeaderMap) {
    let in_mesh = cluster.endpoints.iter().next().is_some_and(|endpoint| endpoint.workload.is_some());
    if let (true, Some(own)) = (in_mesh, connection.worker.shared.own.get()) {
        own.tell(headers);
    }
}

/// Adds our description to the response for a client that gave us its own.
pub fn tell_downstream(connection: &Connection, headers: &mut HeaderMap) {
    if let Some(own) = connection.worker.shared.own.get() {
        own.tell(headers);
    }
}

/// Takes an upstream's description out of its response: what we know of it came with the endpoint.
pub fn forget(headers: &mut HeaderMap) {
    headers.remove(ID);
    headers.remove(METADATA);
}

#[cfg(test)]
mod tests {
    use mizzen_proto::google::protobuf::{Value, value::Kind};

    use super::*;

    #[test]
    fn what_one_tells_the_other_understands() {
        let text = |text: &str| Value { kind: Some(Kind::StringValue(text.to_owned())) };
        let fields = [("NAMESPACE", text("default")), ("WORKLOAD_NAME", text("reviews-v2")), ("SECRET", text("x"))];
        let metadata = Struct { fields: fields.map(|(key, value)| (key.to_owned(), value)).into() };
        let node = Node { id: "sidecar~1".to_owned(), metadata: Some(metadata), ..Node::default() };
        let mut headers = HeaderMap::new();
        Own::of(&node).unwrap().tell(&mut headers);
        let peer = read(&headers[METADATA]).unwrap();
        assert_eq!((peer.party.workload.as_str(), peer.party.namespace.as_str()), ("reviews-v2", "default"));
        assert!(read(&HeaderValue::from_static("!")).is_none());
        assert!(read(&HeaderValue::from_static("////")).is_none());
    }
}
