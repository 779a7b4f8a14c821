//! The injection settings, from the ConfigMaps that hold them, for as long as the control plane runs.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::runtime::watcher;
use mizzen_inject::{Settings, Sources};
use tokio_stream::StreamExt;

use super::{Hooks, Injection};
use crate::kubernetes::Place;
use crate::kubernetes::objects::{self, Shown, in_time};

/// The texts that the settings are read from.
#[derive(Debug, Clone, Default, PartialEq)]
struct Texts {
    values: String,
    config: String,
    mesh: String,
}

impl Texts {
    fn read(&self, revision: &str, native: bool, native_asked: &str) -> Injection {
        let Self { values, config, mesh } = self;
        match Settings::read(Sources { values, config, mesh, revision, native, native_asked }) {
            Ok((settings, notes)) => {
                for note in notes {
                    tracing::warn!("{note}");
                }
                Injection::Ready(Box::new(settings))
            }
            Err(error) => Injection::NotReady(error.to_string()),
        }
    }
}

/// Where there is no cluster: everything has its default.
pub(crate) fn defaults(native_asked: &str) -> Injection {
    Texts::default().read("", true, native_asked)
}

/// Follows `istio-sidecar-injector` and `istio` (with the revision, where it is not the default one) in the control
/// plane's namespace; for ever.
pub(crate) async fn follow(place: Place, hooks: Arc<Hooks>, native_asked: String) {
    let native = runs_native_sidecars(&place).await;
    let api = Api::<ConfigMap>::namespaced(place.client.clone(), &place.namespace);
    let named = |name: &str| watcher::Config::default().fields(&format!("metadata.name={name}"));
    let injector = match place.revision.as_str() {
        "default" | "" => "istio-sidecar-injector".to_owned(),
        revision => format!("istio-sidecar-injector-{revision}"),
    };
    let mut injectors = pin!(objects::follow(api.clone(), named(&injector)));
    let mut meshes = pin!(objects::follow(api, named(&place.mesh_config())));
    let (mut injector, mut mesh) = (Shown::<ConfigMap>::default(), Shown::<ConfigMap>::default());
    let mut known = None;
    loop {
        tokio::select! {
            Some(event) = injectors.next() => drop(injector.take(event, |it| it)),
            Some(event) = meshes.next() => drop(mesh.take(event, |it| it)),
            else => return,
        }
        // A restart of the watch shows nothing for a moment; what was read stays until all is there again.
        if !injector.is_complete() || !mesh.is_complete() {
            continue;
        }
        let text = |shown: &Shown<ConfigMap>, key: &str| {
            let map = shown.iter().next().and_then(|(_, map)| map.data.as_ref());
            map.and_then(|data| data.get(key)).cloned().unwrap_or_default()
        };
        let texts =
            Texts { values: text(&injector, "values"), config: text(&injector, "config"), mesh: text(&mesh, "mesh") };
        if known.as_ref() != Some(&texts) {
            hooks.take(texts.read(&place.revision, native, &native_asked));
            known = Some(texts);
        }
    }
}

/// Whether the cluster restarts init containers that ask for it: Kubernetes does from 1.29.
async fn runs_native_sidecars(place: &Place) -> bool {
    loop {
        match in_time(place.client.apiserver_version()).await {
            Ok(version) => {
                let digits = |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>().parse();
                let (major, minor): (Result<u32, _>, Result<u32, _>) = (digits(&version.major), digits(&version.minor));
                return match (major, minor) {
                    (Ok(major), Ok(minor)) => (major, minor) >= (1, 29),
                    _ => true,
                };
            }
            Err(error) => {
                tracing::warn!(%error, "the API server does not say its version; trying again");
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
        }
    }
}
