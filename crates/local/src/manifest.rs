//! What the user's files say about processes: Deployments, the Services over them, Namespaces, and where requests from
//! outside may enter. Everything else in the files is the control plane's business and is only named here.
//!
//! Reading is lenient: one bad document never hides the others, and the control plane says in detail what is wrong with
//! Istio's resources. Pure but for [`read`], which reads files.

mod document;
mod entry;
mod pod;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use entry::{Entry, GatewayServer, entry_labels};
pub(crate) use pod::port_ref;
pub use pod::{Container, ContainerPort, EnvVar, PodTemplate, ValueSource};

use crate::images::ImageMap;
use crate::probe::Probe;

/// Everything of interest in the user's files.
#[derive(Debug, Clone, Default)]
pub struct Manifests {
    pub deployments: Vec<Deployment>,
    pub services: Vec<Service>,
    pub namespaces: Vec<Namespace>,
    /// Servers of Gateway resources, and the routes that requests from outside may take.
    pub gateways: Vec<GatewayServer>,
    pub entries: Vec<Entry>,
    pub images: ImageMap,
    /// The ConfigMap `istio-system/istio` with the mesh configuration is among the files.
    pub has_mesh_config: bool,
    /// Objects of kinds that neither the supervisor nor the control plane knows.
    pub skipped: Vec<Skipped>,
    pub problems: Vec<Problem>,
    /// Objects of any kind that were read.
    pub objects: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Deployment {
    pub namespace: String,
    pub name: String,
    pub file: Arc<Path>,
    pub replicas: u32,
    /// Those of the Deployment over those of its pod template.
    pub annotations: BTreeMap<String, String>,
    /// Those of the pod template.
    pub labels: BTreeMap<String, String>,
    pub service_account: String,
    pub containers: Vec<Container>,
    pub readiness: Option<Probe>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    pub namespace: String,
    pub name: String,
    pub selector: BTreeMap<String, String>,
    pub ports: Vec<ServicePort>,
    /// As written: an address, `None`, or nothing.
    pub cluster_ip: String,
    /// It is only another name for something elsewhere.
    pub external_name: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ServicePort {
    pub name: String,
    pub number: u16,
    pub target: PortRef,
    pub transport: String,
    pub app_protocol: Option<String>,
}

/// A port by number, or by the name that a container gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortRef {
    Number(u16),
    Name(String),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Namespace {
    pub name: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    pub kind: String,
    pub name: String,
    pub file: Arc<Path>,
}

/// Something that could not be read, in words for the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub file: Arc<Path>,
    pub message: String,
}

/// The file beside the manifests that is ours.
pub const SETTINGS_FILE: &str = "mizzen.yaml";
/// A file larger than this is not read (the control plane refuses it too).
const LARGEST_FILE: u64 = 2 * 1024 * 1024;

/// Reads `paths`: files, and folders with all `*.yaml`, `*.yml` and `*.json` in them (not in folders below).
pub fn read(paths: &[PathBuf]) -> Manifests {
    let mut manifests = Manifests::default();
    for file in files_of(paths, &mut manifests.problems) {
        let name: Arc<Path> = file.as_path().into();
        let text = match read_file(&file) {
            Ok(text) => text,
            // It was removed after the folder was listed.
            Err(_) if !paths.contains(&file) && !file.exists() => continue,
            Err(message) => {
                manifests.problems.push(Problem { file: name, message });
                continue;
            }
        };
        if file.file_name().is_some_and(|name| name == SETTINGS_FILE) {
            match ImageMap::parse(&text) {
                Ok(images) => manifests.images = images,
                Err(error) => manifests.problems.push(Problem { file: name, message: error.to_string() }),
            }
        } else {
            manifests.add_text(&name, &text);
        }
    }
    manifests
}

fn read_file(file: &Path) -> Result<String, String> {
    let size = std::fs::metadata(file).map_err(|error| error.to_string())?.len();
    if size > LARGEST_FILE {
        return Err(format!("the file has {size} bytes, more than {LARGEST_FILE}; split it"));
    }
    std::fs::read_to_string(file).map_err(|error| error.to_string())
}

fn files_of(paths: &[PathBuf], problems: &mut Vec<Problem>) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            // A `mizzen.yaml` beside a file that was named counts as well.
            let beside = path.with_file_name(SETTINGS_FILE);
            if beside.is_file() && !files.contains(&beside) {
                files.push(beside);
            }
            continue;
        }
        match std::fs::read_dir(path) {
            Ok(entries) => {
                let mut inside: Vec<PathBuf> =
                    entries.filter_map(Result::ok).map(|entry| entry.path()).filter(|path| is_manifest(path)).collect();
                inside.sort();
                files.extend(inside);
            }
            Err(error) => problems.push(Problem { file: path.as_path().into(), message: error.to_string() }),
        }
    }
    files
}

fn is_manifest(path: &Path) -> bool {
    let visible = path.file_name().and_then(|name| name.to_str()).is_some_and(|name| !name.starts_with('.'));
    let known = path.extension().and_then(|end| end.to_str()).is_some_and(|end| ["yaml", "yml", "json"].contains(&end));
    visible && known && path.is_file()
}

#[cfg(test)]
mod tests;
