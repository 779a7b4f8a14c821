//! The project's own commands. `cargo xtask help` lists them.

mod bench;
mod cluster;
mod crds;
mod demo;
mod envoy;
mod image;
mod protos;
mod release;
mod steps;
mod test;

use std::process::ExitCode;

const HELP: &str = "\
cargo xtask test            everything that must hold before a change lands; prints `N passed, N failed, N skipped`
cargo xtask test --cluster  what a person does on Kubernetes, on the cluster that KUBECONFIG names; it changes that cluster
cargo xtask test STEP…      only these steps: format, clippy, unit, docs, demo, cluster
cargo xtask bench control   the control plane with a large mesh and many streams (docs/large-meshes.md)
cargo xtask bench           our proxy beside Envoy (and nginx, HAProxy) in one run: CPU, latency, memory, ratios, a plot
cargo xtask envoy           install the stock Envoy that judges us into .cache/envoy
cargo xtask crds            write charts/base/files/crds.yaml from the types in crates/api
cargo xtask image           write container images without a container engine; `cargo xtask image --help` says more
cargo xtask protos          write crates/proto/descriptors/envoy.bin anew, after envoy-types was raised
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (command, rest) = match arguments.split_first() {
        Some((command, rest)) => (command.as_str(), rest),
        None => ("help", &[][..]),
    };
    let outcome = match command {
        "test" => test::run(rest),
        "bench" => bench::run(rest),
        "envoy" => envoy::install().map(|path| {
            println!("{}", path.display());
            true
        }),
        "crds" => crds::run(),
        "image" => image::run(rest),
        "protos" => protos::run(),
        "help" | "-h" | "--help" => {
            print!("{HELP}");
            Ok(true)
        }
        other => Err(anyhow::anyhow!("there is no command {other:?}; `cargo xtask help` lists them")),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
