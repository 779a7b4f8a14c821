//! The state folder of one run: in memory where the machine has it, readable by its owner alone, gone at the end.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::run_file::RunFile;

/// A run's folder; removed by [`StateFolder::remove`], or when dropped.
#[derive(Debug)]
pub struct StateFolder {
    path: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error(
        "a mesh named `{name}` runs already (process {pid}); stop it, or give this one another name: --name {name}2"
    )]
    Runs { name: String, pid: u32 },
    #[error("`{0}` is no name for a mesh: letters, digits, `-`, `_` and `.` are allowed, up to 40 of them")]
    BadName(String),
    #[error("the state folder {} belongs to another user; remove it, or set XDG_RUNTIME_DIR to a folder of your own", .0.display())]
    NotOurs(PathBuf),
    #[error("cannot write the state folder {}: {reason}", .path.display())]
    Io { path: PathBuf, reason: io::Error },
}

/// The folder in which all runs of this user have theirs. `runtime` is `XDG_RUNTIME_DIR`.
pub fn root(runtime: Option<&Path>) -> PathBuf {
    let user = rustix::process::getuid().as_raw();
    match runtime {
        Some(runtime) if runtime.is_dir() => runtime.join("mizzen"),
        _ if Path::new("/dev/shm").is_dir() => PathBuf::from(format!("/dev/shm/mizzen-{user}")),
        _ => std::env::temp_dir().join(format!("mizzen-{user}")),
    }
}

impl StateFolder {
    /// Makes the folder of the run `name` below `root`. What a run that was killed has left is removed first.
    pub fn create(root: &Path, name: &str) -> Result<Self, StateError> {
        let allowed = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
        if name.is_empty() || name.len() > 40 || name.starts_with('.') || !name.chars().all(allowed) {
            return Err(StateError::BadName(name.to_owned()));
        }
        let path = root.join(name);
        let fail = |reason| StateError::Io { path: path.clone(), reason };
        private_folder(root).map_err(fail)?;
        // Somebody else may have made the folder first where everybody can write, as in /dev/shm.
        let owner = std::fs::symlink_metadata(root).map_err(fail)?;
        if owner.uid() != rustix::process::getuid().as_raw() || owner.file_type().is_symlink() {
            return Err(StateError::NotOurs(root.to_owned()));
        }
        std::fs::set_permissions(root, Permissions::from_mode(0o700)).map_err(fail)?;
        if let Some(other) = RunFile::read(&path).filter(RunFile::is_alive) {
            return Err(StateError::Runs { name: name.to_owned(), pid: other.pid });
        }
        if path.exists() {
            std::fs::remove_dir_all(&path).map_err(fail)?;
        }
        private_folder(&path).map_err(fail)?;
        for inside in ["runtime", "workloads"] {
            private_folder(&path.join(inside)).map_err(fail)?;
        }
        Ok(Self { path })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Generated Kubernetes objects, watched by the control plane.
    pub fn runtime(&self) -> PathBuf {
        self.path.join("runtime")
    }

    /// The folder of one instance; made when it is not there.
    pub fn instance(&self, pod: &str) -> io::Result<PathBuf> {
        let folder = self.path.join("workloads").join(pod);
        private_folder(&folder)?;
        private_folder(&folder.join("state"))?;
        Ok(folder)
    }

    pub fn forget_instance(&self, pod: &str) {
        let _ = std::fs::remove_dir_all(self.path.join("workloads").join(pod));
    }

    /// Written by the control plane.
    pub fn root_certificate(&self) -> PathBuf {
        self.path.join("root-cert.pem")
    }

    pub fn remove(&self) -> io::Result<()> {
        match std::fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => {
                // Only when no other run has its folder here.
                if let Some(root) = self.path.parent() {
                    let _ = std::fs::remove_dir(root);
                }
                Ok(())
            }
        }
    }
}

impl Drop for StateFolder {
    fn drop(&mut self) {
        let _ = self.remove();
    }
}

fn private_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Writes a file that only its owner can read, in one step: readers see the old text or the new one.
pub fn write_private(path: &Path, text: impl AsRef<[u8]>) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let fresh = path.with_file_name(format!(".{name}.new"));
    let mut file: File = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(text.as_ref())?;
    drop(file);
    std::fs::rename(&fresh, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_is_private_and_goes_away() {
        let root = tempfile::tempdir().expect("a folder");
        let folder = StateFolder::create(&root.path().join("mizzen-0"), "demo").expect("made");
        let path = folder.path().to_owned();
        assert_eq!(std::fs::metadata(&path).expect("there").mode() & 0o777, 0o700);
        let file = path.join("token");
        write_private(&file, "secret").expect("written");
        assert_eq!(std::fs::metadata(&file).expect("there").mode() & 0o777, 0o600);
        drop(folder);
        assert!(!path.exists() && !root.path().join("mizzen-0").exists());
    }

    #[test]
    fn names_cannot_leave_the_root() {
        let root = tempfile::tempdir().expect("a folder");
        for name in ["", "..", "a/b", ".hidden", "a b", &"x".repeat(41)] {
            assert!(matches!(StateFolder::create(root.path(), name), Err(StateError::BadName(_))), "{name}");
        }
    }

    #[test]
    fn a_running_mesh_keeps_its_name() {
        let root = tempfile::tempdir().expect("a folder");
        let folder = StateFolder::create(root.path(), "demo").expect("made");
        let text = include_str!("state/run.json").replace("\"PID\"", &std::process::id().to_string());
        std::fs::write(folder.path().join(crate::run_file::FILE), text).expect("written");
        let error = StateFolder::create(root.path(), "demo").expect_err("it runs");
        assert!(matches!(error, StateError::Runs { .. }), "{error}");
        // Process ids end at 2^22: this one cannot live.
        let text = include_str!("state/run.json").replace("\"PID\"", "999999999");
        std::fs::write(folder.path().join(crate::run_file::FILE), text).expect("written");
        StateFolder::create(root.path(), "demo").expect("what a dead run left is removed");
    }
}
