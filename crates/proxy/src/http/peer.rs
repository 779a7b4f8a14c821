//! Who the other workload is, told in headers (Istio: metadata exchange). A handler says on which sides this is done.
//!
//! Told only to endpoints of the mesh, and what is heard is never passed on.

use std::sync::Arc;

use http::header::{HeaderMap, HeaderName};
use mizzen_snapshot::Cluster;

use crate::connection::Connection;
use crate::peer::{Own, Peer};
use crate::worker::Worker;

const ID: HeaderName = HeaderName::from_static(crate::peer::ID);
const METADATA: HeaderName = HeaderName::from_static(crate::peer::METADATA);

/// Takes the headers out, and gives what they said.
pub fn take(worker: &Worker, headers: &mut HeaderMap) -> Option<Arc<Peer>> {
    headers.remove(ID);
    worker.peers.read(&headers.remove(METADATA)?)
}

/// Puts our description into a request for an endpoint of the mesh. Nobody else is told, and nothing that the client said
/// under these names gets through.
pub fn tell_upstream(connection: &Connection, cluster: &Cluster, headers: &mut HeaderMap) {
    match connection.worker.shared.own.get() {
        Some(own) if may_know(cluster) => tell(own, headers),
        _ => forget(headers),
    }
}

/// Puts our description into the response for a client that gave us its own.
pub fn tell_downstream(connection: &Connection, headers: &mut HeaderMap) {
    if let Some(own) = connection.worker.shared.own.get() {
        tell(own, headers);
    }
}

fn tell(own: &Own, headers: &mut HeaderMap) {
    headers.insert(ID, own.id.clone());
    headers.insert(METADATA, own.metadata.clone());
}

pub fn forget(headers: &mut HeaderMap) {
    headers.remove(ID);
    headers.remove(METADATA);
}

/// An endpoint of the mesh is one that the control plane knows the workload of. Istio by default also tells clusters that
/// are marked as external; here they are left out, as its `skip_external_clusters` has it.
pub fn may_know(cluster: &Cluster) -> bool {
    !cluster.policy.stranger && cluster.endpoints.iter().next().is_some_and(|endpoint| endpoint.workload.is_some())
}
