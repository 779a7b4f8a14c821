//! The objects that have a status, watched for it: every kind of Istio's that the API server has.

use std::time::Duration;

use kube::api::{Api, DynamicObject};
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, Error};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::StreamExt;

/// A group with its versions, the best first.
#[derive(Clone, Copy)]
struct Group(&'static str, &'static [&'static str]);

const NETWORKING: Group = Group("networking.istio.io", &["v1", "v1beta1", "v1alpha3"]);
const SECURITY: Group = Group("security.istio.io", &["v1", "v1beta1"]);
const TELEMETRY: Group = Group("telemetry.istio.io", &["v1", "v1alpha1"]);

/// Kinds and their plurals.
const KINDS: [(Group, &str, &str); 13] = [
    (NETWORKING, "VirtualService", "virtualservices"),
    (NETWORKING, "DestinationRule", "destinationrules"),
    (NETWORKING, "Gateway", "gateways"),
    (NETWORKING, "ServiceEntry", "serviceentries"),
    (NETWORKING, "WorkloadEntry", "workloadentries"),
    (NETWORKING, "WorkloadGroup", "workloadgroups"),
    (NETWORKING, "Sidecar", "sidecars"),
    (NETWORKING, "EnvoyFilter", "envoyfilters"),
    (NETWORKING, "ProxyConfig", "proxyconfigs"),
    (SECURITY, "PeerAuthentication", "peerauthentications"),
    (SECURITY, "RequestAuthentication", "requestauthentications"),
    (SECURITY, "AuthorizationPolicy", "authorizationpolicies"),
    (TELEMETRY, "Telemetry", "telemetries"),
];

/// How often a kind that is not installed is looked for, and the pause after a failure.
const AGAIN: Duration = Duration::from_secs(5);
const PAGE: u32 = 500;
const WAITING: usize = 64;

/// Everything that all watches say. They end with the receiver.
pub(super) fn watch(client: &Client) -> Events {
    let (out, events) = mpsc::channel(WAITING);
    let mut watches = JoinSet::new();
    for kind in KINDS {
        watches.spawn(one(client.clone(), kind, out.clone()));
    }
    Events { events, _watches: watches }
}

pub(super) struct Events {
    events: mpsc::Receiver<(ApiResource, Event<DynamicObject>)>,
    _watches: JoinSet<()>,
}

impl Events {
    pub(super) async fn recv(&mut self) -> Option<(ApiResource, Event<DynamicObject>)> {
        self.events.recv().await
    }
}

async fn one(
    client: Client,
    (Group(group, versions), kind, plural): (Group, &str, &str),
    out: mpsc::Sender<(ApiResource, Event<DynamicObject>)>,
) {
    loop {
        for version in versions {
            let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
            let api = Api::<DynamicObject>::all_with(client.clone(), &resource);
            let mut events = std::pin::pin!(watcher(api, watcher::Config::default().page_size(PAGE)));
            while let Some(event) = events.next().await {
                let failed = match event {
                    Ok(event) => {
                        if out.send((resource.clone(), event)).await.is_err() {
                            return;
                        }
                        continue;
                    }
                    Err(watcher::Error::InitialListFailed(Error::Api(status))) if status.code == 404 => break,
                    Err(error) => error,
                };
                tracing::debug!(kind, error = %failed, "the status of objects of this kind cannot be watched");
                tokio::time::sleep(AGAIN).await;
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}
