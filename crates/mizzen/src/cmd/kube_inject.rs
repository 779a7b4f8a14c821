//! `mizzen kube-inject`: manifests with the sidecar written into them, without a cluster.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use mizzen_config::{Kind, Object, report};
use mizzen_inject::offline::{self, Surroundings};
use mizzen_inject::{Resource, Settings, Sources, yaml};
use mizzen_types::Severity;
use serde_json::Value;

use crate::terminal;

/// Write the sidecar into manifests, as the webhook would do it in a cluster.
///
/// Pods, Deployments, StatefulSets, DaemonSets, ReplicaSets, Jobs, CronJobs and lists of them get it; all other objects
/// come out as they went in. Comments are not kept. ProxyConfig resources among the manifests count, as they would in a cluster.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mizzen kube-inject -f bookinfo.yaml | kubectl apply -f -
  mizzen kube-inject -f bookinfo.yaml -o bookinfo-injected.yaml
  kubectl -n istio-system get configmap istio-sidecar-injector -o jsonpath='{.data.values}' > values.json
  mizzen kube-inject -f bookinfo.yaml --valuesFile values.json
  kubectl get proxyconfigs -A -o yaml > proxyconfigs.yaml
  mizzen kube-inject -f bookinfo.yaml --proxyConfigFile proxyconfigs.yaml

Exit status: 0 done, 1 a manifest cannot be read or injected (the reason is on stderr), 2 wrong usage.")]
pub(crate) struct KubeInject {
    /// Manifests, or - for standard input
    #[arg(short, long = "filename", value_name = "FILE")]
    file: PathBuf,
    /// Key `config` of the ConfigMap istio-sidecar-injector
    #[arg(long = "injectConfigFile", alias = "inject-config-file", value_name = "FILE")]
    inject_config_file: Option<PathBuf>,
    /// Key `values` of the ConfigMap istio-sidecar-injector
    #[arg(long = "valuesFile", alias = "values-file", value_name = "FILE")]
    values_file: Option<PathBuf>,
    /// Key `mesh` of the ConfigMap istio
    #[arg(long = "meshConfigFile", alias = "mesh-config-file", value_name = "FILE")]
    mesh_config_file: Option<PathBuf>,
    /// ProxyConfig resources beside those among the manifests; all other objects in it are left alone
    #[arg(long = "proxyConfigFile", alias = "proxy-config-file", value_name = "FILE")]
    proxy_config_file: Option<PathBuf>,
    /// Namespace of the workloads that name none; a ProxyConfig that names none is in `default`
    #[arg(short, long, default_value = "", hide_default_value = true, value_name = "NAMESPACE")]
    namespace: String,
    /// Revision of the control plane that the sidecars talk to
    #[arg(short, long, value_name = "REVISION")]
    revision: Option<String>,
    /// Whether the sidecar is an init container that restarts (Kubernetes 1.29 or later): true or false
    #[arg(long, env = "ENABLE_NATIVE_SIDECARS", hide_env_values = true, value_name = "BOOLEAN")]
    native_sidecars: Option<String>,
    /// Write here instead of to standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl KubeInject {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let of = |path: &Option<PathBuf>| path.as_deref().map(read).transpose().map(Option::unwrap_or_default);
        let (values, config, mesh) =
            (of(&self.values_file)?, of(&self.inject_config_file)?, of(&self.mesh_config_file)?);
        let (settings, notes) = Settings::read(Sources {
            values: &values,
            config: &config,
            mesh: &mesh,
            revision: self.revision.as_deref().unwrap_or_default(),
            native: true,
            native_asked: self.native_sidecars.as_deref().unwrap_or_default(),
        })?;
        for note in notes {
            terminal::warning(&note);
        }
        let text = if self.file.as_os_str() == "-" {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("standard input cannot be read")?;
            text
        } else {
            read(&self.file)?
        };
        let mut documents = yaml::documents(&text)
            .map_err(|reason| anyhow::anyhow!("{} is not YAML: {reason}", self.file.display()))?;
        let mut objects = proxy_configs(&self.file, &text)?;
        if let Some(path) = &self.proxy_config_file {
            objects.extend(proxy_configs(path, &read(path)?)?);
        }
        objects.sort_by(|one, other| one.age().cmp(&other.age()));
        let resources: Vec<Resource<'_>> = objects.iter().filter_map(|object| resource(object)).collect();
        let around = Surroundings { namespace: &self.namespace, proxy_configs: &resources };
        for document in &mut documents {
            inject(&settings, &around, document)?;
        }
        let out: Vec<String> = documents.iter().map(yaml::text).collect();
        let out = out.join("---\n");
        match &self.output {
            Some(path) => {
                std::fs::write(path, out).with_context(|| format!("{} cannot be written", path.display()))?;
            }
            None => terminal::print(&out),
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The ProxyConfig resources of a text. One that is wrong would not be in force in a cluster either, but here nobody would see it.
fn proxy_configs(path: &Path, text: &str) -> anyhow::Result<Vec<Arc<Object>>> {
    const KIND: &str = "ProxyConfig";
    let parsed = mizzen_config::parse(&path.display().to_string(), text);
    let about =
        |finding: &&mizzen_types::Finding| finding.origin.as_ref().is_some_and(|origin| &*origin.object.kind == KIND);
    let wrong: Vec<String> = parsed
        .findings
        .iter()
        .filter(about)
        .filter(|finding| finding.severity == Severity::Error)
        .map(report::line)
        .collect();
    anyhow::ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(parsed.objects.into_iter().filter(|object| &*object.key.kind == KIND).collect())
}

fn resource(object: &Object) -> Option<Resource<'_>> {
    match &object.kind {
        Kind::ProxyConfig(spec) => Some(Resource { namespace: &object.key.namespace, spec }),
        _ => None,
    }
}

fn inject(settings: &Settings, around: &Surroundings<'_>, document: &mut Value) -> anyhow::Result<()> {
    for note in offline::document(settings, around, document)? {
        if let Some(why) = note.skipped {
            terminal::warning(&format!("{} gets no sidecar: {why}", note.object));
        }
        for warning in note.warnings {
            terminal::warning(&format!("{}: {warning}", note.object));
        }
    }
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))
}
