//! Every document of Istio's samples and of the recorded meshes is read without an error.

use std::path::{Path, PathBuf};

use mizzen_config::{parse, report};
use mizzen_types::Severity;

/// The folder beside the repository, when it is there.
fn shared(name: &str) -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared").join(name);
    if !folder.is_dir() {
        println!("SKIPPED: there is no folder {}", folder.display());
        return None;
    }
    Some(folder)
}

fn yaml_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder can be listed") {
        let path = entry.expect("an entry can be read").path();
        if path.is_dir() {
            yaml_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            found.push(path);
        }
    }
}

fn check(folder: &str, wanted: impl Fn(&Path) -> bool) {
    let Some(folder) = shared(folder) else { return };
    let mut files = Vec::new();
    yaml_files(&folder, &mut files);
    files.retain(|path| wanted(path));
    assert!(!files.is_empty());
    for path in files {
        let parsed = parse(&path.display().to_string(), &std::fs::read_to_string(&path).expect("a sample can be read"));
        let errors: Vec<_> =
            parsed.findings.into_iter().filter(|finding| finding.severity == Severity::Error).collect();
        assert!(errors.is_empty(), "{}", report::lines(&errors));
    }
}

#[test]
fn samples_are_read() {
    // An OpenAPI description, no resource.
    check("samples", |path| !path.ends_with("swagger.yaml"));
}

#[test]
fn recorded_meshes_are_read() {
    check("corpus/istiod-xds", |path| path.ends_with("input.yaml"));
}
