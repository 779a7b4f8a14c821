//! Who may have a discovery stream: the checks before one is served.
//!
//! On the secure port a caller proves who it is, and must then be who its node says (reference: semantics 266). On the
//! plaintext port nobody proves anything: it is for this machine, and secrets are not served on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mizzen_identity::Authenticator;
use mizzen_identity::caller::address;
use mizzen_proto::envoy::config::core::v3::Node as ProtoNode;
use mizzen_proto::envoy::service::discovery::v3::DiscoveryResponse;
use mizzen_types::SpiffeId;
use mizzen_xds::Mode;
use mizzen_xds::server::{Question, Sessions};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Status};

use crate::engine::Shared;
use crate::inspect::{self, Plane};
use crate::node::Node;
use crate::session::{Common, ProxySession};
use crate::status::StreamId;

/// So long a caller waits for the configuration to be read for the first time.
const FIRST_CONFIGURATION: Duration = Duration::from_secs(5);

/// Admits streams of one port.
#[derive(Debug)]
pub(crate) struct Admission {
    pub(crate) shared: Arc<Shared>,
    pub(crate) common: Common,
    /// What the cluster is called that the control plane looks after.
    pub(crate) cluster_id: Arc<str>,
    /// `None` on the plaintext port.
    pub(crate) authenticator: Option<Authenticator>,
    /// How many streams may be open, over all ports.
    pub(crate) streams: Arc<Semaphore>,
    pub(crate) next: Arc<AtomicU64>,
    /// The replica's name, by which tools know who answered them.
    pub(crate) name: Arc<str>,
}

/// Who a caller proved to be.
#[derive(Debug)]
pub(crate) struct Admitted {
    identity: Option<SpiffeId>,
    /// Where it calls from, for the log.
    address: String,
    permit: OwnedSemaphorePermit,
}

impl Sessions for Admission {
    type Caller = Admitted;
    type Session = ProxySession;

    async fn admit(&self, extensions: &Extensions, metadata: &MetadataMap) -> Result<Admitted, Status> {
        let address = address(extensions);
        let refuse = |status: Status| {
            self.shared.metrics.stream_rejected();
            tracing::warn!(target: "mizzen::audit", address, reason = status.message(), "discovery stream refused");
            status
        };
        let identity = match &self.authenticator {
            Some(authenticator) => Some(authenticator.authenticate(metadata, extensions).await.map_err(refuse)?.id),
            None => None,
        };
        if tokio::time::timeout(FIRST_CONFIGURATION, self.shared.readiness()).await.is_err() {
            return Err(refuse(Status::unavailable("the configuration has not been read yet; try again")));
        }
        let permit =
            self.streams.clone().try_acquire_owned().map_err(|_| {
                refuse(Status::resource_exhausted("too many discovery streams are open; try again later"))
            })?;
        Ok(Admitted { identity, address, permit })
    }

    fn open(&self, caller: Admitted, node: ProtoNode, mode: Mode) -> Result<ProxySession, Status> {
        let address = caller.address.clone();
        let opened =
            Node::read(node).map_err(|error| Status::invalid_argument(error.to_string())).and_then(|mut node| {
                self.name_cluster(&mut node);
                if let Some(identity) = &caller.identity {
                    check_identity(&node, identity)?;
                }
                let id = StreamId(self.next.fetch_add(1, Ordering::Relaxed));
                let world = self.shared.world.load_full();
                ProxySession::open(&self.common, id, node, caller.identity, mode, world, caller.permit)
            });
        opened.inspect_err(|status| {
            self.shared.metrics.stream_rejected();
            tracing::warn!(target: "mizzen::audit", address, reason = status.message(), "discovery stream refused");
        })
    }

    fn inspect(&self, caller: &Admitted, question: Question<'_>) -> Result<DiscoveryResponse, Status> {
        let plane = Plane { shared: &self.shared, id: &self.name };
        inspect::answer(&plane, caller.identity.as_ref(), question).inspect_err(|status| {
            let (address, reason) = (&caller.address, status.message());
            tracing::warn!(target: "mizzen::audit", address, reason, "discovery question refused");
        })
    }
}

impl Admission {
    /// A proxy that does not say of which cluster it is, is of ours.
    fn name_cluster(&self, node: &mut Node) {
        let said = node.metadata.entry("CLUSTER_ID").or_insert_with(|| (*self.cluster_id).into());
        if said.as_str().is_some_and(|said| *said != *self.cluster_id) {
            tracing::warn!(
                node = %node.name, cluster = %said, ours = %self.cluster_id,
                "the proxy says that it is of another cluster; it is told what this control plane's cluster has"
            );
        }
    }
}

/// A workload may ask only for its own configuration. A node that names no service account says nothing about it.
fn check_identity(node: &Node, identity: &SpiffeId) -> Result<(), Status> {
    let account_fits = node.service_account.is_empty() || *node.service_account == *identity.service_account;
    if *node.namespace == *identity.namespace && account_fits {
        return Ok(());
    }
    Err(Status::permission_denied(format!(
        "the caller is {identity}, but node {} is in namespace {:?} with service account {:?}",
        node.name, node.namespace, node.service_account
    )))
}

#[cfg(test)]
mod tests {
    use mizzen_types::TrustDomain;

    use super::*;

    #[track_caller]
    fn check(namespace: &str, account: &str, allowed: bool) {
        let node = Node::read(ProtoNode { id: "sidecar~1.1.1.1~a.shop~shop.svc".to_owned(), ..Default::default() });
        let node = Node { service_account: "reviews".to_owned(), ..node.unwrap() };
        let identity = SpiffeId::new(TrustDomain::default(), namespace, account);
        let result = check_identity(&node, &identity);
        assert_eq!(result.is_ok(), allowed, "{identity}");
        if let Err(status) = result {
            assert_eq!(status.code(), tonic::Code::PermissionDenied);
        }
    }

    #[test]
    fn s33_a_workload_gets_only_its_own_configuration() {
        check("shop", "reviews", true);
        check("shop", "ratings", false);
        check("other", "reviews", false);
        check("shop", "", false);
    }
}
