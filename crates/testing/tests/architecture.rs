//! Keeps `ARCHITECTURE.md` true: paths that it names exist, and crates depend downwards only.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use mizzen_testing::repository;

/// Crates by layer, lowest first: a crate may depend on crates of its own layer that stand before it, and on lower layers.
const LAYERS: [(&str, &[&str]); 5] = [
    ("words", &["types", "api", "proto"]),
    ("pure", &["config", "mesh", "analysis", "translate", "inject", "snapshot", "compile", "balance"]),
    ("input and output", &["net", "xds", "sources", "identity", "capture", "dns", "telemetry"]),
    ("engines", &["proxy", "control", "agent"]),
    ("programs", &["local", "cli", "dashboard", "bookinfo", "mizzen"]),
];

/// Crates that only tests use.
const TEST_ONLY: [&str; 4] = ["testing", "scenarios", "bench", "cluster"];

/// What would make a pure crate impure.
const IMPURE: [&str; 9] = ["tokio", "hyper", "tonic", "notify", "rustls", "tokio-rustls", "axum", "reqwest", "socket2"];

/// For each crate, the names in its `[dependencies]`.
fn dependencies() -> BTreeMap<String, Vec<String>> {
    let folders = fs::read_dir(repository().join("crates")).expect("the crates folder");
    folders
        .map(|entry| entry.expect("an entry of the crates folder").path())
        .filter(|folder| folder.join("Cargo.toml").is_file())
        .map(|folder| {
            let name = folder.file_name().expect("a folder name").to_string_lossy().into_owned();
            let manifest = fs::read_to_string(folder.join("Cargo.toml")).expect("a manifest");
            (name, section(&manifest, "[dependencies]"))
        })
        .collect()
}

fn section(manifest: &str, header: &str) -> Vec<String> {
    manifest
        .lines()
        .skip_while(|line| line.trim() != header)
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split(['.', '=', ' ']).next())
        .filter(|name| !name.is_empty() && !name.starts_with('#'))
        .map(str::to_owned)
        .collect()
}

fn layer(name: &str) -> Option<usize> {
    LAYERS.iter().position(|(_, crates)| crates.contains(&name))
}

#[test]
fn crates_depend_downwards_only() {
    let mut wrong = Vec::new();
    for (name, dependencies) in dependencies() {
        if TEST_ONLY.contains(&name.as_str()) {
            continue;
        }
        let Some(own) = layer(&name) else {
            wrong.push(format!("crate {name} stands in no layer of ARCHITECTURE.md"));
            continue;
        };
        for used in dependencies.iter().filter_map(|dependency| dependency.strip_prefix("mizzen-")) {
            match layer(used) {
                _ if TEST_ONLY.contains(&used) => wrong.push(format!("{name} uses {used}, which is for tests")),
                None => wrong.push(format!("{name} uses {used}, which stands in no layer")),
                Some(other) if other > own => wrong.push(format!("{name} uses {used} of a higher layer")),
                Some(_) => {}
            }
        }
    }
    let graph = dependencies();
    let meets = |one: &str, other: &str| graph.get(one).is_some_and(|used| used.contains(&format!("mizzen-{other}")));
    if meets("proxy", "control") || meets("control", "proxy") {
        wrong.push("proxy and control meet on xDS only".to_owned());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn pure_crates_have_no_input_and_output() {
    let pure = LAYERS.iter().take(2).flat_map(|(_, crates)| crates.iter());
    let graph = dependencies();
    let wrong: Vec<String> = pure
        .filter(|name| **name != "proto")
        .filter_map(|name| graph.get(*name).map(|dependencies| (name, dependencies)))
        .flat_map(|(name, dependencies)| {
            let impure = dependencies.iter().filter(|dependency| IMPURE.contains(&dependency.as_str()));
            impure.map(move |dependency| format!("{name} is pure and depends on {dependency}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Paths in backquotes such as `crates/proxy/src/run.rs`, and the table's `proxy/run.rs` short forms.
#[test]
fn paths_that_documents_name_exist() {
    let mut missing = Vec::new();
    for document in ["ARCHITECTURE.md", "README.md"] {
        let text = fs::read_to_string(repository().join(document)).expect("the document");
        for word in text.split('`').skip(1).step_by(2) {
            let is_path = word.contains('/')
                && !word.contains([' ', '<', '{', '*', '$', ':', '|', '('])
                && !word.starts_with(['/', '.', '-']);
            let in_tree = ["crates/", "xtask/", "scenarios/", "docs/"].iter().any(|top| word.starts_with(top));
            if is_path && in_tree && !repository().join(word).exists() {
                missing.push(format!("{document} names {word}"));
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

/// The map lists every crate, and only crates that exist.
#[test]
fn the_map_lists_every_crate() {
    let text = fs::read_to_string(repository().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let unlisted: Vec<String> =
        dependencies().into_keys().filter(|name| !text.contains(&format!("`crates/{name}`"))).collect();
    assert!(unlisted.is_empty(), "ARCHITECTURE.md does not list: {}", unlisted.join(", "));
    assert!(Path::new(&repository()).join("ARCHITECTURE.md").is_file());
}
