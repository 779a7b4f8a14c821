//! `cargo xtask bench`: builds the release binary and measures it beside its peers; `bench control` the control plane.

mod control;

use anyhow::bail;

use crate::envoy;
use crate::steps::{cargo, repository};

/// Passes `arguments` on to the measuring program; `--help` lists them. After `control` they are for another one.
pub(crate) fn run(arguments: &[String]) -> anyhow::Result<bool> {
    let control = arguments.first().is_some_and(|first| first == "control");
    if !cargo(&["build", "--quiet", "--release", "-p", "mizzen", "-p", "mizzen-bench"]).status()?.success() {
        bail!("the release build failed");
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository().join("target"), Into::into);
    let programs = target.join("release");
    if let Some((_, arguments)) = arguments.split_first().filter(|_| control) {
        return control::run(&programs.join("mizzen"), &target.join("bench"), arguments);
    }
    let mut command = std::process::Command::new(programs.join("mizzen-bench"));
    command.current_dir(repository()).arg("--mizzen").arg(programs.join("mizzen"));
    match envoy::install() {
        Ok(path) => {
            command.arg("--envoy").arg(path);
        }
        Err(error) => println!("no stock Envoy to compare with: {error:#}"),
    }
    Ok(command.args(arguments).status()?.success())
}
