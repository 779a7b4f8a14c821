//! The workload that a pod belongs to, told from its owner.

use serde_json::Value;

use crate::pod;

/// Kind, version and name of what made the pod; for a pod by itself, the pod.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Workload {
    pub api_version: String,
    pub kind: String,
    pub name: String,
    pub namespace: String,
}

impl Workload {
    pub fn new(api_version: &str, kind: &str, name: &str, namespace: &str) -> Self {
        let [api_version, kind, name, namespace] = [api_version, kind, name, namespace].map(str::to_owned);
        Self { api_version, kind, name, namespace }
    }

    /// Sees through the ReplicaSet of a Deployment, the Job of a CronJob, and their like.
    pub fn of(pod: &Value, namespace: &str) -> Self {
        let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let owners = pod.pointer("/metadata/ownerReferences").and_then(Value::as_array);
        let is_controller = |owner: &&Value| owner.get("controller").and_then(Value::as_bool) == Some(true);
        let owner = owners.and_then(|owners| owners.iter().find(is_controller));
        let Some(owner) = owner.filter(|_| !text("/metadata/generateName").is_empty()) else {
            return Self::new("v1", "Pod", text("/metadata/name"), namespace);
        };
        let of_owner = |key: &str| owner.get(key).and_then(Value::as_str).unwrap_or_default();
        let (kind, name) = (of_owner("kind"), of_owner("name"));
        let labels = pod::labels(pod);
        let without = |label: &str| {
            let hash = labels.get(label).filter(|hash| !hash.is_empty())?;
            name.strip_suffix(hash)?.strip_suffix('-')
        };
        match kind {
            "ReplicaSet" => {
                if let Some(name) = without("rollouts-pod-template-hash") {
                    return Self::new("argoproj.io/v1alpha1", "Rollout", name, namespace);
                }
                if let Some(name) = without("pod-template-hash") {
                    return Self::new("apps/v1", "Deployment", name, namespace);
                }
            }
            "ReplicationController" => {
                if let Some(name) = labels.get("deploymentconfig") {
                    return Self::new("apps.openshift.io/v1", "DeploymentConfig", name, namespace);
                }
            }
            "Job" => {
                if let Some(name) = scheduled(name) {
                    return Self::new("batch/v1", "CronJob", name, namespace);
                }
            }
            _ => {}
        }
        Self::new(of_owner("apiVersion"), kind, name, namespace)
    }

    /// The form of `ISTIO_META_OWNER`.
    pub(crate) fn owner(&self) -> Option<String> {
        if self.name.is_empty() || self.api_version.is_empty() {
            return None;
        }
        let namespace = if self.namespace.is_empty() { "default" } else { &self.namespace };
        let kind = self.kind.to_lowercase();
        Some(format!("kubernetes://apis/{}/namespaces/{namespace}/{kind}s/{}", self.api_version, self.name))
    }
}

/// The CronJob of a Job: its name is followed by the time in minutes (or, of old, in seconds).
fn scheduled(job: &str) -> Option<&str> {
    let (name, time) = job.rsplit_once('-')?;
    let is_time = (8..=10).contains(&time.len()) && time.bytes().all(|digit| digit.is_ascii_digit());
    (is_time && !name.is_empty()).then_some(name)
}
