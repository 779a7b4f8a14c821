//! What the control plane writes to Kubernetes, and asks of it.
//!
//! Every replica checks tokens ([`tokens`]), asks what gateways may read ([`permissions`]), follows the certificate authority's Secrets ([`authority`]) and tells the others
//! how far its proxies are ([`replicas`]). All other writing is done by one replica at a time, the [`leader`]: the mesh's roots in every namespace ([`roots`]), the bundles
//! of the webhooks ([`webhooks`]) and the status of configuration objects ([`status`]).
//!
//! Not here: reading configuration (`mizzen-sources`) and answering the webhooks' calls.

pub(crate) mod authority;
#[cfg(test)]
pub(crate) mod fake;
pub(crate) mod leader;
pub(crate) mod objects;
pub(crate) mod permissions;
pub(crate) mod replicas;
pub(crate) mod roots;
pub(crate) mod status;
pub(crate) mod tokens;
pub(crate) mod webhooks;

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use mizzen_config::Kind;
use mizzen_sources::kubernetes::Statuses;
use serde_json::json;
use tokio::sync::watch;

use crate::engine::Shared;
use crate::run::KubernetesConfig;
pub(crate) use authority::CaError;
use leader::{Election, Leading};
use objects::{Patience, in_time};

/// Under this name fields are owned in Kubernetes.
pub(crate) const FIELD_MANAGER: &str = "istiod";

/// A control plane's place in its cluster.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) client: Client,
    /// The namespace of the control plane, which is also the mesh's root namespace.
    pub(crate) namespace: String,
    pub(crate) revision: String,
    /// What tells this replica from the others: its pod's name.
    pub(crate) replica: String,
}

/// An API server that sends nothing for so long does not answer any more. Watches are ended sooner, by either side.
const SILENCE: Duration = Duration::from_secs(300);

/// The mesh's roots as PEM; changes when the authority does.
pub(crate) type Roots = watch::Receiver<Arc<str>>;

/// Why the cluster cannot be worked with.
#[derive(Debug, thiserror::Error)]
pub enum KubernetesError {
    #[error("the cluster's address and credentials cannot be found: {0}; name a file with --kubeconfig")]
    Config(String),
    #[error("{path}: {reason}")]
    Kubeconfig { path: PathBuf, reason: String },
    #[error("the cluster cannot be called: {0}")]
    Client(String),
    #[error("the certificate authority cannot be used: {0}")]
    Authority(#[from] CaError),
}

impl Place {
    /// Finds the cluster; does not call it yet.
    pub(crate) async fn connect(config: &KubernetesConfig) -> Result<Self, KubernetesError> {
        let mut found = match &config.kubeconfig {
            Some(path) => {
                let wrong = |error: &dyn std::fmt::Display| KubernetesError::Kubeconfig {
                    path: path.clone(),
                    reason: error.to_string(),
                };
                let file = Kubeconfig::read_from(path).map_err(|error| wrong(&error))?;
                Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                    .await
                    .map_err(|error| wrong(&error))?
            }
            None => Config::infer().await.map_err(|error| KubernetesError::Config(error.to_string()))?,
        };
        found.read_timeout = Some(SILENCE);
        found.reset_reader_on_write = true;
        let client = Client::try_from(found).map_err(|error| KubernetesError::Client(error.to_string()))?;
        Ok(Self {
            client,
            namespace: config.namespace.clone(),
            revision: config.revision.clone(),
            replica: config.replica.clone(),
        })
    }

    /// The host names under which the control plane is called in its cluster.
    pub(crate) fn names(&self) -> Vec<String> {
        let Self { namespace, revision, .. } = self;
        let of_revision = format!("istiod-{revision}");
        let services = ["istiod", "istiod-remote", "istio-pilot", &of_revision];
        let forms =
            |service| [format!("{service}.{namespace}.svc"), format!("{service}.{namespace}.svc.cluster.local")];
        services.into_iter().flat_map(forms).collect()
    }

    /// The ConfigMap with the mesh's configuration.
    pub(crate) fn mesh_config(&self) -> String {
        if self.revision == "default" { "istio".to_owned() } else { format!("istio-{}", self.revision) }
    }

    /// What of the cluster is configuration.
    pub(crate) fn watched(&self) -> mizzen_sources::kubernetes::Options {
        mizzen_sources::kubernetes::Options {
            namespace: self.namespace.clone(),
            mesh_config: self.mesh_config(),
            ..Default::default()
        }
    }

    /// The trust domain that the mesh's configuration names, if it does; as soon as the API server answers.
    pub(crate) async fn trust_domain(&self, shared: &Shared) -> Option<String> {
        let name = self.mesh_config();
        let maps = Api::<ConfigMap>::namespaced(self.client.clone(), &self.namespace);
        let what = format!("the ConfigMap {}/{name} cannot be read", self.namespace);
        let mut patience = Patience::new(shared, what);
        loop {
            match in_time(maps.get_opt(&name)).await {
                Ok(map) => {
                    patience.over();
                    return trust_domain(map?.data?.get("mesh")?);
                }
                Err(error) => patience.wait(&error).await,
            }
        }
    }
}

/// `trustDomain` of a mesh's configuration; `None` when that is broken.
fn trust_domain(mesh: &str) -> Option<String> {
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "istio"}, "data": {"mesh": mesh}});
    let parsed = mizzen_config::parse("istio", &map.to_string());
    parsed.objects.into_iter().find_map(|object| match &object.kind {
        Kind::MeshConfig(mesh) => Some(mesh.trust_domain.clone()),
        _ => None,
    })
}

/// The elections that this replica takes part in.
#[derive(Debug, Clone)]
pub(crate) struct Leaders {
    /// For what is one in the mesh.
    mesh: Election,
    /// For what is one in a revision.
    revision: Election,
}

impl Leaders {
    pub(crate) fn new(place: &Place) -> Self {
        let revision = format!("istio-leader-{}", place.revision);
        Self { mesh: Election::new(place, "istio-leader".to_owned()), revision: Election::new(place, revision) }
    }

    pub(crate) fn of_mesh(&self) -> Leading {
        self.mesh.leading()
    }

    /// Takes part, and does a leader's work while this replica is one. Ends with `stop`, after leaderships are given back.
    pub(crate) async fn run(
        self,
        place: Place,
        shared: Arc<Shared>,
        statuses: Statuses,
        roots: Roots,
        stop: watch::Receiver<bool>,
    ) {
        let reports = replicas::report(place.clone(), shared.clone(), stop.clone());
        let of_mesh = {
            let (place, roots) = (place.clone(), roots.clone());
            while_leading(self.mesh.leading(), move |leading| {
                let (place, roots, shared, statuses) = (place.clone(), roots.clone(), shared.clone(), statuses.clone());
                async move {
                    tokio::join!(
                        roots::distribute(place.clone(), roots, leading.clone()),
                        status::write(place, shared, statuses, leading),
                    );
                }
            })
        };
        let of_revision = while_leading(self.revision.leading(), move |leading| {
            webhooks::keep(place.clone(), roots.clone(), leading)
        });
        tokio::select! {
            _ = async { tokio::join!(self.mesh.run(stop.clone()), self.revision.run(stop), reports) } => {}
            _ = async { tokio::join!(of_mesh, of_revision) } => {}
        }
    }
}

/// Runs `work` whenever this replica leads, and drops it at once when it does not any more.
async fn while_leading<W: Future<Output = ()>>(mut leading: Leading, work: impl Fn(Leading) -> W) {
    loop {
        leading.begun().await;
        tokio::select! {
            () = work(leading.clone()) => {}
            () = leading.ended() => {}
        }
    }
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Place")
            .field("namespace", &self.namespace)
            .field("revision", &self.revision)
            .field("replica", &self.replica)
            .finish_non_exhaustive()
    }
}
