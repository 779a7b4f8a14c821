//! The webhooks' configurations: whom the API server is to trust, and since when it must not pass them by.
//!
//! The bundle (`caBundle`) of every webhook of this revision is kept at the mesh's roots. A validating webhook comes into
//! the cluster with `failurePolicy: Ignore`, so that nothing is refused while no control plane is there; once it answers,
//! the policy becomes `Fail`, and stays so.

use std::fmt::Debug;
use std::pin::pin;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration, WebhookClientConfig,
};
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use kube::runtime::watcher;
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_stream::StreamExt;

use super::leader::Leading;
use super::objects::{Shown, Work, follow, in_time, sleep_until};
use super::{FIELD_MANAGER, Place, Roots};

/// Between two writes.
const PACE: Duration = Duration::from_millis(100);
/// How often is looked whether the validating webhook answers, until it does.
const PROBE: Duration = Duration::from_secs(2);

/// A kind of webhook configuration.
trait Hooks: Resource<DynamicType = (), Scope = kube::core::ClusterResourceScope> {
    /// Selects those of a revision.
    fn selector(revision: &str) -> String;
    fn clients(&self) -> Vec<&WebhookClientConfig>;
    /// Which webhooks are passed by when nobody answers, where that is to end.
    fn ignored(&self) -> Vec<usize>;
}

impl Hooks for MutatingWebhookConfiguration {
    fn selector(revision: &str) -> String {
        format!("app=sidecar-injector,istio.io/rev={revision}")
    }

    fn clients(&self) -> Vec<&WebhookClientConfig> {
        self.webhooks.iter().flatten().map(|hook| &hook.client_config).collect()
    }

    fn ignored(&self) -> Vec<usize> {
        Vec::new()
    }
}

impl Hooks for ValidatingWebhookConfiguration {
    fn selector(revision: &str) -> String {
        format!("app=istiod,istio.io/rev={revision}")
    }

    fn clients(&self) -> Vec<&WebhookClientConfig> {
        self.webhooks.iter().flatten().map(|hook| &hook.client_config).collect()
    }

    fn ignored(&self) -> Vec<usize> {
        let hooks = self.webhooks.iter().flatten().enumerate();
        hooks.filter(|(_, hook)| hook.failure_policy.as_deref() == Some("Ignore")).map(|(index, _)| index).collect()
    }
}

/// What has to be changed, as a JSON patch. It fails when the configuration was changed since it was read.
fn changes(hooks: &impl Hooks, roots: &str, answers: bool) -> Vec<Value> {
    let bundle = ByteString(roots.as_bytes().to_vec());
    let clients = hooks.clients().into_iter().enumerate();
    let stale = clients.filter(|(_, client)| client.ca_bundle.as_ref() != Some(&bundle));
    let mut patch: Vec<_> = stale
        .map(|(index, _)| json!({"op": "add", "path": format!("/webhooks/{index}/clientConfig/caBundle"), "value": bundle}))
        .collect();
    if answers && patch.is_empty() {
        let policy = |index| json!({"op": "add", "path": format!("/webhooks/{index}/failurePolicy"), "value": "Fail"});
        patch.extend(hooks.ignored().into_iter().map(policy));
    }
    if !patch.is_empty() {
        let version = hooks.meta().resource_version.clone().unwrap_or_default();
        patch.insert(0, json!({"op": "test", "path": "/metadata/resourceVersion", "value": version}));
    }
    patch
}

/// Keeps the configurations of this revision.
pub(crate) async fn keep(place: Place, roots: Roots, leading: Leading) {
    tokio::join!(
        keep_kind::<MutatingWebhookConfiguration>(&place, roots.clone(), &leading),
        keep_kind::<ValidatingWebhookConfiguration>(&place, roots, &leading),
    );
}

async fn keep_kind<K>(place: &Place, mut roots: Roots, leading: &Leading)
where
    K: Hooks + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let api = Api::<K>::all(place.client.clone());
    let ours = watcher::Config::default().labels(&K::selector(&place.revision));
    let mut events = pin!(follow(api.clone(), ours));
    let mut shown = Shown::<K>::default();
    let mut work = Work::new(PACE);
    let mut answers = false;
    loop {
        let touched: Vec<_> = tokio::select! {
            event = events.next() => {
                let Some(event) = event else { return };
                shown.take(event, |it| it)
            }
            changed = roots.changed() => {
                if changed.is_err() {
                    return;
                }
                shown.iter().map(|(name, _)| name.clone()).collect()
            }
            () = sleep_until(work.wake()) => {
                let now = Instant::now();
                let Some(name) = work.take(now) else { continue };
                let Some(hooks) = shown.get(&name) else { continue };
                if !leading.now() {
                    continue;
                }
                let pem = roots.borrow().clone();
                let mut patch = changes(hooks, &pem, answers);
                if patch.is_empty() && !answers && !hooks.ignored().is_empty() {
                    answers = webhook_answers(&place.client, &place.namespace, &place.revision).await;
                    if answers {
                        patch = changes(hooks, &pem, answers);
                    } else {
                        work.add_later(name.clone(), now + PROBE);
                    }
                }
                if !patch.is_empty() {
                    write(&api, &name.1, patch, |outcome| match outcome {
                        Ok(()) => work.wrote(&name, now),
                        Err(()) => work.failed(name.clone(), now),
                    }).await;
                }
                continue;
            }
        };
        let now = Instant::now();
        for name in touched {
            work.add(name, now);
        }
    }
}

async fn write<K>(api: &Api<K>, name: &str, patch: Vec<Value>, done: impl FnOnce(Result<(), ()>))
where
    K: Hooks + Clone + Debug + DeserializeOwned,
{
    let kind = K::kind(&());
    let patch: Patch<()> = match serde_json::from_value(Value::Array(patch)) {
        Ok(patch) => Patch::Json(patch),
        // Cannot be: `changes` writes operations only.
        Err(error) => return tracing::error!(%kind, name, %error, "this patch is none"),
    };
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    match in_time(api.patch(name, &params, &patch)).await {
        Ok(_) => {
            tracing::info!(%kind, name, "the webhook's configuration is brought up to date");
            done(Ok(()));
        }
        Err(error) => {
            // Changed in the meantime, perhaps: the watch shows how it is now.
            tracing::warn!(%kind, name, %error, "the webhook's configuration cannot be written; trying again");
            done(Err(()));
        }
    }
}

/// Whether the API server asks the validating webhook and gets an answer: a Gateway without servers, which would be
/// written to nowhere even if it were accepted, has to be refused by it.
async fn webhook_answers(client: &Client, namespace: &str, revision: &str) -> bool {
    let resource =
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("networking.istio.io", "v1", "Gateway"), "gateways");
    let mut probe = DynamicObject::new("invalid-gateway", &resource).within(namespace).data(json!({"spec": {}}));
    // So that it is this revision's webhook that is asked.
    probe.labels_mut().insert("istio.io/rev".to_owned(), revision.to_owned());
    let api = Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &resource);
    let params = PostParams { dry_run: true, ..PostParams::default() };
    match in_time(api.create(&params, &probe)).await {
        Ok(_) => {
            tracing::debug!("the validating webhook is not asked yet");
            false
        }
        Err(error) => {
            let text = error.to_string();
            let denied = text.contains("admission webhook") && text.contains("denied the request");
            if !denied {
                tracing::debug!(%error, "the validating webhook does not answer yet");
            }
            denied
        }
    }
}

#[cfg(test)]
mod tests;
