//! Cases as data: `tests/golden/NAME.yaml` holds, as its first document, the settings (keys as of
//! [`mizzen_inject::Sources`], and `path` for the webhook's), then manifests; `NAME.expected.yaml` holds what they become.
//!
//! `MIZZEN_UPDATE=1 cargo test -p mizzen-inject --test golden` writes the expectations anew; read the difference.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use mizzen_inject::{Settings, Sources, offline, yaml};
use serde_json::Value;

fn settings(of: &Value) -> (Settings, Vec<String>) {
    let text = |key: &str| match of.get(key) {
        None => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    let [values, config, mesh, revision] = ["values", "config", "mesh", "revision"].map(text);
    let native = of.get("native").and_then(Value::as_bool).unwrap_or(true);
    let sources =
        Sources { values: &values, config: &config, mesh: &mesh, revision: &revision, native, native_asked: "" };
    Settings::read(sources).unwrap()
}

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut cases: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.retain(|path| !path.to_string_lossy().ends_with(".expected.yaml"));
    cases.sort();
    cases
}

/// What a case becomes: its manifests, and as a last document what was said about them.
fn run(path: &Path) -> Vec<Value> {
    let mut documents = yaml::documents(&fs::read_to_string(path).unwrap()).unwrap();
    let (settings, mut said) = settings(&documents.remove(0));
    for document in &mut documents {
        match offline::document(&settings, &offline::Surroundings::default(), document) {
            Ok(notes) => said.extend(notes.into_iter().flat_map(|note| {
                let skipped = note.skipped.map(|why| format!("{}: no sidecar, {why}", note.object));
                let object = note.object;
                skipped.into_iter().chain(note.warnings.into_iter().map(move |text| format!("{object}: {text}")))
            })),
            Err(error) => said.push(format!("refused: {error}")),
        }
    }
    if !said.is_empty() {
        documents.push(serde_json::json!({"said": said}));
    }
    documents
}

#[test]
fn manifests_become_what_is_expected() {
    let mut wrong = Vec::new();
    for path in cases() {
        let got: Vec<String> = run(&path).iter().map(yaml::text).collect();
        let got = got.join("---\n");
        let expected = path.with_extension("expected.yaml");
        if std::env::var_os("MIZZEN_UPDATE").is_some() {
            fs::write(&expected, &got).unwrap();
        }
        if fs::read_to_string(&expected).unwrap_or_default() != got {
            wrong.push(format!("{} differs; it is now\n{got}", expected.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What is written is read again as the same.
#[test]
fn what_is_written_is_read_again() {
    for path in cases() {
        let documents = run(&path);
        let text: Vec<String> = documents.iter().map(yaml::text).collect();
        assert_eq!(yaml::documents(&text.join("---\n")).unwrap(), documents, "{}", path.display());
    }
}

#[test]
fn injecting_twice_is_injecting_once() {
    for path in cases() {
        let mut documents = yaml::documents(&fs::read_to_string(&path).unwrap()).unwrap();
        let (settings, _) = settings(&documents.remove(0));
        for document in &mut documents {
            if offline::document(&settings, &offline::Surroundings::default(), document).is_err() {
                continue;
            }
            let once = document.clone();
            offline::document(&settings, &offline::Surroundings::default(), document).unwrap();
            assert!(*document == once, "{}:\n{}\nnot\n{}", path.display(), yaml::text(document), yaml::text(&once));
        }
    }
}
