//! What tests of several crates share: where outside material is found, ports, and how a test says that it could not run.
//!
//! A skipped test is never a green one: [`skip`] writes a line to the file that `MIZZEN_SKIP_LOG` names, and
//! `cargo xtask test` counts and names those lines in its summary.

#![forbid(unsafe_code)]

mod port;

use std::io::Write;
use std::path::{Path, PathBuf};

pub use port::ReservedPort;

/// Top folder of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or(Path::new(".")).to_path_buf()
}

/// A folder of the material that lies beside the repository (`../shared/NAME`), where it is present.
pub fn shared(name: &str) -> Option<PathBuf> {
    let folder = repository().join("../shared").join(name);
    folder.is_dir().then_some(folder)
}

/// As [`shared`], and says that `test` is skipped where the folder is missing.
pub fn shared_or_skip(test: &str, name: &str) -> Option<PathBuf> {
    let folder = shared(name);
    if folder.is_none() {
        skip(test, &format!("../shared/{name} is not there"));
    }
    folder
}

/// The stock Envoy to judge by: `MIZZEN_ENVOY`, or the one that `cargo xtask test` installs into `.cache/envoy`.
pub fn envoy() -> Option<PathBuf> {
    let named = std::env::var_os("MIZZEN_ENVOY").map(PathBuf::from);
    named.into_iter().chain([repository().join(".cache/envoy/envoy")]).find(|path| path.is_file())
}

/// Says that `test` could not run here, and why.
pub fn skip(test: &str, why: &str) {
    eprintln!("skipped: {test}: {why}");
    let Some(path) = std::env::var_os("MIZZEN_SKIP_LOG") else { return };
    let line = format!("{test}: {why}\n");
    let written = std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(&path)
        .and_then(|mut log| log.write_all(line.as_bytes()));
    if let Err(error) = written {
        eprintln!("cannot write to {}: {error}", path.display());
    }
}
