//! The mesh's roots in every namespace: the ConfigMap `istio-ca-root-cert`, which pods mount to know the control plane by.
//!
//! Its owner is the revision's MutatingWebhookConfiguration: when the control plane is uninstalled, Kubernetes takes the
//! ConfigMaps away too.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::core::PartialObjectMeta;
use kube::runtime::watcher;
use kube::{Resource, ResourceExt};
use serde_json::json;
use tokio::time::Instant;
use tokio_stream::StreamExt;

use super::leader::Leading;
use super::objects::{Shown, Work, follow, in_time, sleep_until};
use super::{FIELD_MANAGER, Place, Roots};

pub(crate) const CONFIG_MAP: &str = "istio-ca-root-cert";
pub(crate) const KEY: &str = "root-cert.pem";
/// Kubernetes' own namespaces, where nothing of a mesh runs (reference: features, injection's decision order).
const LEFT_OUT: [&str; 4] = ["kube-system", "kube-public", "kube-node-lease", "local-path-storage"];
/// At most 50 ConfigMaps a second.
const PACE: Duration = Duration::from_millis(20);

/// Keeps the ConfigMap right in all namespaces, also new ones, and when somebody changes or deletes it.
pub(crate) async fn distribute(place: Place, mut roots: Roots, leading: Leading) {
    let namespaces = Api::<PartialObjectMeta<Namespace>>::all(place.client.clone());
    let mut namespace_events = pin!(follow(namespaces, watcher::Config::default()));
    let maps = Api::<ConfigMap>::all(place.client.clone());
    let ours = watcher::Config::default().fields(&format!("metadata.name={CONFIG_MAP}"));
    let mut map_events = pin!(follow(maps, ours));

    // Namespaces, and whether they stay; what each ConfigMap says.
    let mut namespaces = Shown::<bool>::default();
    let mut maps = Shown::<Option<String>>::default();
    let mut work = Work::<String>::new(PACE);
    let mut pem = roots.borrow_and_update().clone();
    let mut owner = None;
    loop {
        let complete = namespaces.is_complete() && maps.is_complete();
        let touched: Vec<String> = tokio::select! {
            event = namespace_events.next() => {
                let Some(event) = event else { return };
                let names = namespaces.take(event, |it| it.metadata.deletion_timestamp.is_none());
                names.into_iter().map(|(_, name)| name).collect()
            }
            event = map_events.next() => {
                let Some(event) = event else { return };
                let names = maps.take(event, |map| map.data.and_then(|mut data| data.remove(KEY)));
                names.into_iter().map(|(namespace, _)| namespace).collect()
            }
            changed = roots.changed() => {
                if changed.is_err() {
                    return;
                }
                pem = roots.borrow_and_update().clone();
                namespaces.iter().map(|((_, name), _)| name.clone()).collect()
            }
            () = sleep_until(work.wake()), if complete => {
                let now = Instant::now();
                if let Some(namespace) = work.take(now) {
                    let stays = namespaces.get(&(String::new(), namespace.clone())) == Some(&true);
                    let said = maps.get(&(namespace.clone(), CONFIG_MAP.to_owned())).and_then(Option::as_deref);
                    if leading.now() && stays && said != Some(&*pem) {
                        // Once found, it is kept: a ConfigMap that is written while the owner goes away has to go with it.
                        if owner.is_none() {
                            owner = find_owner(&place).await;
                        }
                        write(&place, namespace, &pem, owner.as_ref(), &mut work).await;
                    }
                }
                continue;
            }
        };
        let now = Instant::now();
        for namespace in touched {
            if !LEFT_OUT.contains(&namespace.as_str()) {
                work.add(namespace, now);
            }
        }
    }
}

/// The injection webhooks of this revision, if it has any: what lives as long as the installation does.
async fn find_owner(place: &Place) -> Option<OwnerReference> {
    let api = Api::<MutatingWebhookConfiguration>::all(place.client.clone());
    let ours = ListParams::default().labels(&format!("app=sidecar-injector,istio.io/rev={}", place.revision));
    let found = match in_time(api.list(&ours)).await {
        Ok(found) => found,
        Err(error) => {
            tracing::warn!(%error, "the webhooks of this revision cannot be read; {CONFIG_MAP} is written without an owner");
            return None;
        }
    };
    // Tags come and go.
    let lasting = found.items.into_iter().find(|hooks| !hooks.labels().contains_key("istio.io/tag"))?;
    lasting.owner_ref(&())
}

async fn write(
    place: &Place,
    namespace: String,
    pem: &Arc<str>,
    owner: Option<&OwnerReference>,
    work: &mut Work<String>,
) {
    let api = Api::<ConfigMap>::namespaced(place.client.clone(), &namespace);
    let mut map = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": CONFIG_MAP, "namespace": namespace, "labels": {"istio.io/config": "true"}},
        "data": {KEY: **pem},
    });
    if let Some(owner) = owner {
        map["metadata"]["ownerReferences"] = json!([owner]);
    }
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let outcome = in_time(api.patch(CONFIG_MAP, &params, &Patch::Apply(&map))).await;
    let now = Instant::now();
    match outcome {
        Ok(_) => {
            tracing::debug!(namespace, "the mesh's roots are written");
            work.wrote(&namespace, now);
        }
        Err(error) if error.is_gone() => work.wrote(&namespace, now),
        Err(error) => {
            tracing::warn!(namespace, %error, "the mesh's roots cannot be written into {CONFIG_MAP}; trying again");
            work.failed(namespace, now);
        }
    }
}

#[cfg(test)]
mod tests;
