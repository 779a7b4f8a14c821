//! The mesh's roots in every namespace: the ConfigMap `istio-ca-root-cert`, which pods mount to know the control plane by.
//!
//! Its owners are the MutatingWebhookConfigurations of all revisions: when the last control plane is uninstalled, Kubernetes
//! takes the ConfigMaps away too, and not before.
//!
//! Another control plane with another authority may write the same ConfigMaps. Then neither gives way by overwriting: what was
//! written once and is changed by somebody else is filled up with our roots, and taken as right when it holds them.

use std::collections::{BTreeSet, HashMap};
use std::pin::pin;
use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Resource;
use kube::api::{Api, Patch, PatchParams};
use kube::core::PartialObjectMeta;
use kube::runtime::watcher;
use mizzen_identity::certificate::certificates_from_pem;
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

    let hooks = Api::<PartialObjectMeta<MutatingWebhookConfiguration>>::all(place.client.clone());
    // Those of tags come and go.
    let lasting = watcher::Config::default().labels("app=sidecar-injector,!istio.io/tag");
    let mut hook_events = pin!(follow(hooks, lasting));

    // Namespaces, and whether they stay; what each ConfigMap says; the webhooks of all revisions.
    let mut namespaces = Shown::<bool>::default();
    let mut maps = Shown::<Said>::default();
    let mut others = Others::default();
    let mut work = Work::<String>::new(PACE);
    let mut pem = roots.borrow_and_update().clone();
    let mut hooks = Shown::<Option<OwnerReference>>::default();
    let mut owners: Vec<OwnerReference> = Vec::new();
    loop {
        let complete = namespaces.is_complete() && maps.is_complete() && hooks.is_complete();
        let touched: Vec<String> = tokio::select! {
            event = namespace_events.next() => {
                let Some(event) = event else { return };
                let names = namespaces.take(event, |it| it.metadata.deletion_timestamp.is_none());
                names.into_iter().map(|(_, name)| name).collect()
            }
            event = map_events.next() => {
                let Some(event) = event else { return };
                let names = maps.take(event, Said::read);
                for (namespace, name) in &names {
                    if let Some(said) = maps.get(&(namespace.clone(), name.clone())) {
                        others.seen(&place, namespace, said, &pem);
                    }
                }
                names.into_iter().map(|(namespace, _)| namespace).collect()
            }
            event = hook_events.next() => {
                let Some(event) = event else { return };
                hooks.take(event, |it| it.owner_ref(&()));
                let found: Vec<_> = hooks.iter().filter_map(|(_, owner)| owner.clone()).collect();
                // The last ones are kept: a ConfigMap that is written while they go away has to go with them.
                if !found.is_empty() {
                    owners = found;
                }
                namespaces.iter().map(|((_, name), _)| name.clone()).collect()
            }
            changed = roots.changed() => {
                if changed.is_err() {
                    return;
                }
                let before = std::mem::replace(&mut pem, roots.borrow_and_update().clone());
                others.replaced(&before, &pem);
                namespaces.iter().map(|((_, name), _)| name.clone()).collect()
            }
            () = sleep_until(work.wake()), if complete => {
                let now = Instant::now();
                if let Some(namespace) = work.take(now) {
                    let stays = namespaces.get(&(String::new(), namespace.clone())) == Some(&true);
                    let map = maps.get(&(namespace.clone(), CONFIG_MAP.to_owned()));
                    let said = map.and_then(|it| it.pem.as_deref());
                    let (wanted, from) = others.wanted(&namespace, said, &pem, now);
                    let owned = map.is_some_and(|map| owners.iter().all(|owner| map.owners.contains(&owner.uid)));
                    if now < from {
                        work.add_later(namespace, from);
                        continue;
                    }
                    if leading.now()
                        && stays
                        && (said != Some(&*wanted) || !owned)
                        && write(&place, &namespace, &wanted, &owners, &mut work).await
                    {
                        others.wrote(namespace, Instant::now());
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

async fn write(place: &Place, namespace: &str, pem: &str, owners: &[OwnerReference], work: &mut Work<String>) -> bool {
    let api = Api::<ConfigMap>::namespaced(place.client.clone(), namespace);
    let mut map = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": CONFIG_MAP, "namespace": namespace, "labels": {"istio.io/config": "true"}},
        "data": {KEY: pem},
    });
    if !owners.is_empty() {
        map["metadata"]["ownerReferences"] = json!(owners);
    }
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let outcome = in_time(api.patch(CONFIG_MAP, &params, &Patch::Apply(&map))).await;
    let now = Instant::now();
    match outcome {
        Ok(_) => {
            tracing::debug!(namespace, "the mesh's roots are written");
            work.wrote(&namespace.to_owned(), now);
            return true;
        }
        Err(error) if error.is_gone() => work.wrote(&namespace.to_owned(), now),
        Err(error) => {
            tracing::warn!(namespace, %error, "the mesh's roots cannot be written into {CONFIG_MAP}; trying again");
            work.failed(namespace.to_owned(), now);
        }
    }
    false
}

/// What a ConfigMap says.
#[derive(Debug)]
struct Said {
    pem: Option<String>,
    /// Who has written it, as the API server keeps book.
    writers: Vec<String>,
    /// By their uids.
    owners: BTreeSet<String>,
}

impl Said {
    fn read(map: ConfigMap) -> Self {
        let managers = map.metadata.managed_fields.into_iter().flatten().filter_map(|entry| entry.manager);
        let owners = map.metadata.owner_references.into_iter().flatten().map(|owner| owner.uid);
        Self {
            pem: map.data.and_then(|mut data| data.remove(KEY)),
            writers: managers.collect(),
            owners: owners.collect(),
        }
    }
}

/// Other control planes that write the same ConfigMaps.
#[derive(Debug, Default)]
struct Others {
    /// When we wrote into a namespace last.
    written: HashMap<String, Instant>,
    /// Namespaces where somebody else has changed what we wrote, into other certificates, and whether both have been written.
    contested: HashMap<String, bool>,
    /// Certificates that were ours and are not any more: nobody else's.
    former: BTreeSet<String>,
    /// Certificates that were warned of.
    warned: BTreeSet<String>,
}

/// Where somebody insists on his own, ours are put back at most this often.
const CONTEST: Duration = Duration::from_secs(60);

impl Others {
    fn seen(&mut self, place: &Place, namespace: &str, said: &Said, ours: &str) {
        let pem = said.pem.as_deref().unwrap_or_default();
        let ours = certificates(ours);
        let foreign: BTreeSet<_> =
            certificates(pem).into_iter().filter(|it| !ours.contains(it) && !self.former.contains(it)).collect();
        if foreign.is_empty() || !self.written.contains_key(namespace) {
            return;
        }
        self.contested.entry(namespace.to_owned()).or_insert(false);
        let new = foreign.iter().any(|certificate| !self.warned.contains(certificate));
        self.warned.extend(foreign.iter().cloned());
        if new {
            let print = |all: &BTreeSet<String>| all.iter().map(|it| fingerprint(it)).collect::<Vec<_>>().join(", ");
            tracing::warn!(
                namespace,
                ours = print(&ours),
                others = print(&foreign),
                writers = said.writers.join(", "),
                "another control plane with another certificate authority writes {CONFIG_MAP} too, beside that of revision \
                 {} in {}; both roots are kept there; give both the same authority (Secret cacerts), or take one away",
                place.revision,
                place.namespace
            );
        }
    }

    /// Our own roots are others now.
    fn replaced(&mut self, before: &str, now: &str) {
        self.former.extend(certificates(before));
        for certificate in certificates(now) {
            self.former.remove(&certificate);
        }
    }

    /// What has to stand in a namespace, and from when on it may be written.
    fn wanted(&self, namespace: &str, said: Option<&str>, ours: &str, now: Instant) -> (String, Instant) {
        let Some(said) = said else { return (ours.to_owned(), now) };
        let Some(both_written) = self.contested.get(namespace) else { return (ours.to_owned(), now) };
        let (own, there) = (certificates(ours), certificates(said));
        let stale = there.iter().any(|certificate| self.former.contains(certificate));
        if own.is_subset(&there) && !stale {
            return (said.to_owned(), now);
        }
        let theirs = there.into_iter().filter(|it| !own.contains(it) && !self.former.contains(it));
        let mut all = ours.to_owned();
        for certificate in theirs {
            if !all.ends_with('\n') {
                all.push('\n');
            }
            all.push_str(&certificate);
        }
        // The first time at once: the other may be content with both.
        let from = self.written.get(namespace).filter(|_| *both_written).map_or(now, |at| *at + CONTEST);
        (all, from)
    }

    fn wrote(&mut self, namespace: String, now: Instant) {
        if let Some(both_written) = self.contested.get_mut(&namespace) {
            *both_written = true;
        }
        self.written.insert(namespace, now);
    }
}

/// The certificates of a text, each as it stands there; none in what is no PEM.
fn certificates(pem: &str) -> BTreeSet<String> {
    const END: &str = "-----END CERTIFICATE-----";
    let begin = |text: &str| text.find("-----BEGIN CERTIFICATE-----").map(|at| text[at..].trim_end().to_owned());
    pem.split_inclusive(END).filter(|text| text.ends_with(END)).filter_map(begin).map(|it| it + "\n").collect()
}

/// By which people tell certificates apart: the first bytes of the SHA-256 of their DER.
fn fingerprint(pem: &str) -> String {
    let found = certificates_from_pem(pem.as_bytes()).ok().and_then(|found| found.into_iter().next());
    let Some(der) = found else { return "unreadable".to_owned() };
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &der);
    digest.as_ref().iter().take(8).map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}

#[cfg(test)]
mod tests;
