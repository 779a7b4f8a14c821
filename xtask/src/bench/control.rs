//! `cargo xtask bench control`: a control plane with a large mesh and many streams.
//!
//! The load is made by programs that stand outside of this repository (`../shared/tools/controlplane`: an API server without a
//! cluster, a maker of meshes, a client with many discovery streams); without them this says so and measures nothing.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::steps::repository;

/// Measures `mizzen`; further `arguments` are those of the measuring program and count more than what is written here.
pub(super) fn run(mizzen: &Path, results: &Path, arguments: &[String]) -> anyhow::Result<bool> {
    let repository = repository();
    let tools = repository.join("../shared/tools/controlplane");
    let measure = tools.join("measure");
    if !measure.is_file() {
        bail!("{} is not there: a control plane cannot be measured without it", measure.display());
    }
    std::fs::create_dir_all(results).with_context(|| format!("{} cannot be made", results.display()))?;
    let control_plane = format!(
        "{} control --kubernetes --kubeconfig {{kubeconfig}} --xds-address 127.0.0.1:{{xds_port}} --http-address \
         127.0.0.1:{{http_port}} --secure-xds-address 127.0.0.1:0 --webhook-address 127.0.0.1:0",
        mizzen.display()
    );
    let mut command = Command::new(&measure);
    command.env_remove("KUBECONFIG").arg("--control-plane").arg(control_plane);
    command.arg("--crds").arg(repository.join("charts/base/files/crds.yaml"));
    command.arg("--scratch").arg(results.join("control")).arg("--out").arg(results.join("control.json"));
    command.args(["--services", "1000", "--streams", "1,50,200"]).args(arguments);
    Ok(command.status()?.success())
}
