//! The folder that `mizzen demo` writes: Bookinfo's manifests, the way in from outside, and changes to try.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Files that are watched, in the order in which they are explained.
const FILES: [(&str, &str); 4] = [
    ("bookinfo.yaml", include_str!("demo/bookinfo.yaml")),
    ("gateway.yaml", include_str!("demo/gateway.yaml")),
    ("destination-rules.yaml", include_str!("demo/destination-rules.yaml")),
    ("browser.yaml", include_str!("demo/browser.yaml")),
];

/// Changes to try: copied into the folder above, they are obeyed.
const EXAMPLES: [(&str, &str); 8] = [
    ("README.md", include_str!("demo/examples/README.md")),
    ("reviews-v3-for-everyone.yaml", include_str!("demo/examples/reviews-v3-for-everyone.yaml")),
    ("reviews-weights.yaml", include_str!("demo/examples/reviews-weights.yaml")),
    ("reviews-by-user.yaml", include_str!("demo/examples/reviews-by-user.yaml")),
    ("ratings-delay.yaml", include_str!("demo/examples/ratings-delay.yaml")),
    ("ratings-abort.yaml", include_str!("demo/examples/ratings-abort.yaml")),
    ("productpage-resilience.yaml", include_str!("demo/examples/productpage-resilience.yaml")),
    ("broken.yaml", include_str!("demo/examples/broken.yaml")),
];
const EXAMPLES_FOLDER: &str = "examples";

/// What was done to the folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Written {
    pub fresh: Vec<PathBuf>,
    /// Files of these names were there already, with other contents, and were left as they are.
    pub kept: Vec<PathBuf>,
}

/// Writes the demo's files into `folder`. A file that exists is never touched.
pub fn write(folder: &Path) -> io::Result<Written> {
    let examples = folder.join(EXAMPLES_FOLDER);
    std::fs::create_dir_all(&examples)?;
    let mut written = Written::default();
    let files = FILES.iter().map(|(name, text)| (folder.join(name), text));
    let examples = EXAMPLES.iter().map(|(name, text)| (examples.join(name), text));
    for (path, text) in files.chain(examples) {
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(mut file) => {
                file.write_all(text.as_bytes())?;
                written.fresh.push(path);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if std::fs::read_to_string(&path).is_ok_and(|found| found != **text) {
                    written.kept.push(path);
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}

/// What to tell about it.
pub fn introduction(folder: &Path, written: &Written) -> Vec<String> {
    let shown = folder.display();
    let mut lines = vec![if written.fresh.is_empty() {
        format!("Configuration in {shown}: save a file there and the traffic follows.")
    } else {
        format!("Wrote the configuration to {shown}: save a file there and the traffic follows.")
    }];
    lines.push(format!("Changes to try: cp {shown}/{EXAMPLES_FOLDER}/reviews-by-user.yaml {shown}/"));
    if !written.kept.is_empty() {
        let names: Vec<String> =
            written.kept.iter().map(|path| path.strip_prefix(folder).unwrap_or(path).display().to_string()).collect();
        lines.push(format!("Left as they are, since you have changed them: {}", names.join(", ")));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_user_are_never_overwritten() {
        let folder = tempfile::tempdir().expect("a folder");
        let mine = folder.path().join("gateway.yaml");
        std::fs::write(&mine, "mine").expect("written");
        let first = write(folder.path()).expect("written");
        assert_eq!(first.kept, std::slice::from_ref(&mine));
        assert_eq!(first.fresh.len(), FILES.len() + EXAMPLES.len() - 1);
        assert_eq!(std::fs::read_to_string(&mine).expect("there"), "mine");
        let second = write(folder.path()).expect("written");
        assert_eq!((second.fresh.len(), second.kept.len()), (0, 1));
        assert!(introduction(folder.path(), &second).iter().any(|line| line.contains("gateway.yaml")));
    }

    #[test]
    fn the_demo_can_be_run_and_reached() {
        let folder = tempfile::tempdir().expect("a folder");
        write(folder.path()).expect("written");
        let manifests = crate::manifest::read(&[folder.path().to_owned()]);
        assert_eq!((&manifests.problems, &manifests.skipped), (&Vec::new(), &Vec::new()));
        let plan = crate::plan::plan(&manifests, crate::capture::Capture::Explicit);
        assert_eq!((plan.left_out.len(), plan.notes.len(), plan.workloads.len()), (0, 0, 6));
        assert!(manifests.entries.iter().any(|entry| entry.host == "istio.k3s.local" && entry.path == "/productpage"));
        assert!(manifests.gateways.iter().all(|server| server.ours && server.port == 80));
    }
}
