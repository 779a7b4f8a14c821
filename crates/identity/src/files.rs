//! Private files: written whole or not at all, readable by their owner alone.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Makes a folder (and missing parents) for its owner alone.
pub(crate) fn private_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Writes a file so that a reader sees the old or the new content, never a part.
pub(crate) fn write_atomic(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    let temporary = folder.join(format!(".{}.{:016x}", std::process::id(), rand::random::<u64>()));
    let write = || {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        // The mode of `open` is narrowed by the umask; a public file shall be readable all the same.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().inspect_err(|_| {
        // The temporary file is ours alone; if it cannot be removed there is nothing more to do.
        let _ = fs::remove_file(&temporary);
    })
}

/// Why a file with a private key is not used.
#[derive(Debug, thiserror::Error)]
pub enum PrivateFileError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{}: mode {mode:04o} lets others than its owner in; run `chmod {wanted:o}` on it", path.display())]
    Exposed { path: PathBuf, mode: u32, wanted: u32 },
    #[error("{}: belongs to user {owner}, not to this process's user {ours}", path.display())]
    Foreign { path: PathBuf, owner: u32, ours: u32 },
}

/// Reads a file that only its owner may read; the same is asked of the folder that it lies in.
pub(crate) fn read_private(path: &Path) -> Result<Vec<u8>, PrivateFileError> {
    if let Some(folder) = path.parent() {
        check_private(folder, 0o022, 0o700)?;
    }
    check_private(path, 0o077, 0o600)?;
    fs::read(path).map_err(|source| PrivateFileError::Io { path: path.to_owned(), source })
}

fn check_private(path: &Path, forbidden: u32, wanted: u32) -> Result<(), PrivateFileError> {
    let io = |source| PrivateFileError::Io { path: path.to_owned(), source };
    let metadata = fs::metadata(path).map_err(io)?;
    let mode = metadata.mode() & 0o7777;
    if mode & forbidden != 0 {
        return Err(PrivateFileError::Exposed { path: path.to_owned(), mode, wanted });
    }
    // The owner of our own entry in /proc is the user that this process runs as.
    let ours = fs::metadata("/proc/self").map_err(io)?.uid();
    if metadata.uid() != ours {
        return Err(PrivateFileError::Foreign { path: path.to_owned(), owner: metadata.uid(), ours });
    }
    Ok(())
}

/// Whether a folder lies in memory (tmpfs, ramfs), so that a key written there never reaches a disk.
pub(crate) fn memory_backed(path: &Path) -> bool {
    let (Ok(path), Ok(mounts)) = (fs::canonicalize(path), fs::read_to_string("/proc/self/mounts")) else {
        return false;
    };
    mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ');
            let (_, at, kind) = (fields.next()?, fields.next()?, fields.next()?);
            path.starts_with(at).then_some((at.len(), kind))
        })
        // Of two mounts at one place, the later one is in force.
        .fold(
            None,
            |best: Option<(usize, &str)>, next| {
                if best.is_some_and(|best| best.0 > next.0) { best } else { Some(next) }
            },
        )
        .is_some_and(|(_, kind)| matches!(kind, "tmpfs" | "ramfs"))
}
