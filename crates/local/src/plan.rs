//! From manifests to processes: what shall run, and what is left out and why. Pure.

mod of_pods;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::capture::Capture;
use crate::images::{self, AppCommand, ImageMap};
use crate::manifest::{ContainerPort, Deployment, EnvVar, Manifests, PortRef, Service};
use crate::probe::Probe;

/// Annotation with the command that runs a Deployment here.
pub const COMMAND_ANNOTATION: &str = "mizzen.dev/command";
/// Annotation with the port on which the application listens when it cannot be told by `PORT`.
pub const PORT_ANNOTATION: &str = "mizzen.dev/app-port";

/// What shall run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    pub workloads: Vec<Arc<Workload>>,
    pub left_out: Vec<LeftOut>,
    /// Obeyed only in part.
    pub notes: Vec<String>,
}

/// A Deployment that can be run as local processes. Two equal workloads need no restart.
#[derive(Debug, Clone, PartialEq)]
pub struct Workload {
    pub namespace: String,
    pub name: String,
    pub replicas: u32,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub service_account: String,
    pub container: String,
    pub image: String,
    pub command: AppCommand,
    pub env: Vec<EnvVar>,
    /// Ports of the workload in the mesh; the application itself listens elsewhere.
    pub ports: Vec<ContainerPort>,
    /// The application listens on this port of 127.0.0.1, whatever `PORT` says.
    pub fixed_port: Option<u16>,
    pub readiness: Option<Probe>,
    /// Relative commands run in the folder of the manifest.
    pub folder: Arc<Path>,
}

/// A Deployment that is not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    pub deployment: String,
    pub why: String,
    pub hint: String,
}

/// Decides what to run for `manifests`.
pub fn plan(manifests: &Manifests, capture: Capture) -> Plan {
    let mut plan = Plan::default();
    for deployment in &manifests.deployments {
        match workload(deployment, manifests, &mut plan.notes) {
            Ok(workload) => {
                plan.workloads.push(Arc::new(workload));
                plan.notes.extend(of_pods::notes(deployment, capture));
            }
            Err(left_out) => plan.left_out.push(left_out),
        }
    }
    plan
}

fn workload(deployment: &Deployment, manifests: &Manifests, notes: &mut Vec<String>) -> Result<Workload, LeftOut> {
    let key = format!("{}/{}", deployment.namespace, deployment.name);
    let left_out = |why: &str, hint: String| LeftOut { deployment: key.clone(), why: why.to_owned(), hint };
    let container = deployment
        .containers
        .first()
        .ok_or_else(|| left_out("its pod template has no container", "add one with an image".to_owned()))?;
    if deployment.containers.len() > 1 {
        let others: Vec<&str> = deployment.containers[1..].iter().map(|container| container.name.as_str()).collect();
        notes.push(format!("Deployment {key}: only its first container runs here, not {}", others.join(", ")));
    }
    for variable in &container.env {
        if let crate::manifest::ValueSource::Unsupported(source) = &variable.value {
            notes.push(format!("Deployment {key}: {} is not set, since {source} is not read here", variable.name));
        }
    }
    let command = command(deployment, &container.image, &manifests.images).ok_or_else(|| {
        left_out(
            &format!("nothing says how to run the image `{}` as a local process", container.image),
            format!(
                "write the annotation `{COMMAND_ANNOTATION}: ./your-program --port $PORT` on the Deployment, or in mizzen.yaml: `images: {{\"{}\": ./your-program --port $PORT}}`",
                container.image
            ),
        )
    })?;
    let fixed_port = match deployment.annotations.get(PORT_ANNOTATION) {
        None => None,
        Some(text) => Some(text.parse().map_err(|_| {
            left_out(
                &format!("its annotation {PORT_ANNOTATION} is `{text}`, which is no port"),
                "write a number from 1 to 65535".to_owned(),
            )
        })?),
    };
    if fixed_port.is_some() && deployment.replicas > 1 {
        let hint = format!("remove {PORT_ANNOTATION} and let the application listen on $PORT, or run one replica");
        return Err(left_out("several replicas cannot all listen on one fixed port", hint));
    }
    Ok(Workload {
        namespace: deployment.namespace.clone(),
        name: deployment.name.clone(),
        replicas: deployment.replicas,
        labels: deployment.labels.clone(),
        annotations: deployment.annotations.clone(),
        service_account: deployment.service_account.clone(),
        container: container.name.clone(),
        image: container.image.clone(),
        command,
        env: container.env.clone(),
        ports: ports(deployment, container.ports.clone(), &manifests.services),
        fixed_port,
        readiness: container.readiness.clone(),
        folder: deployment
            .file
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
            .unwrap_or(Path::new("."))
            .into(),
    })
}

fn command(deployment: &Deployment, image: &str, images: &ImageMap) -> Option<AppCommand> {
    let annotated = deployment.annotations.get(COMMAND_ANNOTATION).filter(|line| !line.trim().is_empty());
    annotated
        .map(|line| images::from_annotation(line))
        .or_else(|| images.command(image).cloned())
        .or_else(|| images::bookinfo(image))
}

/// The container's ports, and the numeric target ports of Services over it that it does not declare (Kubernetes needs
/// no declaration either).
fn ports(deployment: &Deployment, mut ports: Vec<ContainerPort>, services: &[Service]) -> Vec<ContainerPort> {
    for service in services.iter().filter(|service| service.selects(&deployment.namespace, &deployment.labels)) {
        for port in service.ports.iter().filter(|port| !port.transport.eq_ignore_ascii_case("udp")) {
            if let PortRef::Number(number) = port.target
                && !ports.iter().any(|declared| declared.number == number)
            {
                ports.push(ContainerPort { name: port.name.clone(), number });
            }
        }
    }
    ports
}

impl Service {
    /// Whether pods of these labels are its endpoints. A Service without selector has none of its own.
    pub fn selects(&self, namespace: &str, labels: &BTreeMap<String, String>) -> bool {
        self.namespace == namespace
            && !self.selector.is_empty()
            && self.selector.iter().all(|(key, value)| labels.get(key) == Some(value))
    }
}

impl Workload {
    /// `NAMESPACE/NAME`.
    pub fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// The number of a port that a probe or a Service names.
    pub fn port(&self, port: &PortRef) -> Option<u16> {
        match port {
            PortRef::Number(number) => Some(*number),
            PortRef::Name(name) => self.ports.iter().find(|port| port.name == *name).map(|port| port.number),
        }
    }

    /// Whether `other` runs the same processes; only the number of them may differ.
    pub fn same_processes(&self, other: &Self) -> bool {
        Self { replicas: 0, ..self.clone() } == Self { replicas: 0, ..other.clone() }
    }
}

#[cfg(test)]
mod tests;
