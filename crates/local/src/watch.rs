//! Tells when the user's files change. What changed is found out by reading them again.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// Editors write in several steps: a change is told when nothing more has happened for this long.
const QUIET: Duration = Duration::from_millis(100);

/// Watches until it is dropped.
pub(crate) struct FileWatch {
    _watcher: notify::RecommendedWatcher,
    changes: mpsc::Receiver<()>,
    /// A change was heard; it is complete at this time, unless more is heard until then.
    quiet_at: Option<Instant>,
}

impl FileWatch {
    /// Watches `paths`: all files of a folder, or one file.
    pub(crate) fn new(paths: &[PathBuf]) -> notify::Result<Self> {
        let (tell, changes) = mpsc::channel(1);
        let named: BTreeSet<OsString> = paths
            .iter()
            .filter(|path| !path.is_dir())
            .filter_map(|path| path.file_name().map(OsString::from))
            .chain([OsString::from(crate::manifest::SETTINGS_FILE)])
            .collect();
        let folders: Vec<PathBuf> = paths.iter().filter(|path| path.is_dir()).map(|path| absolute(path)).collect();
        let concerns = move |path: &Path| {
            let inside =
                path.parent().is_some_and(|parent| folders.iter().any(|folder| folder == parent || folder == path));
            inside || path.file_name().is_some_and(|name| named.contains(name))
        };
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let Ok(event) = event else { return };
            if writes(&event.kind) && event.paths.iter().any(|path| concerns(path)) {
                // When one is waiting to be heard, that is enough.
                let _ = tell.try_send(());
            }
        })?;
        // A file is watched through its folder, since editors replace files.
        let watched: BTreeSet<PathBuf> = paths
            .iter()
            .map(|path| if path.is_dir() { absolute(path) } else { absolute(path.parent().unwrap_or(Path::new("."))) })
            .collect();
        for folder in watched {
            watcher.watch(&folder, RecursiveMode::NonRecursive)?;
        }
        Ok(Self { _watcher: watcher, changes, quiet_at: None })
    }

    /// Waits for the next change, until it is complete. May be dropped at any time: nothing is lost.
    pub(crate) async fn changed(&mut self) {
        loop {
            let Some(quiet_at) = self.quiet_at else {
                if self.changes.recv().await.is_none() {
                    return std::future::pending().await;
                }
                self.quiet_at = Some(Instant::now() + QUIET);
                continue;
            };
            sleep_until(quiet_at).await;
            self.quiet_at = self.changes.try_recv().is_ok().then(|| Instant::now() + QUIET);
            if self.quiet_at.is_none() {
                return;
            }
        }
    }
}

fn absolute(path: &Path) -> PathBuf {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

/// Reading is no change; we read these files ourselves.
fn writes(kind: &EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn changes_in_a_folder_are_told_and_reading_is_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("a.yaml");
        std::fs::write(&file, "a").expect("written");
        let mut watch = FileWatch::new(&[folder.path().to_owned()]).expect("watched");
        std::fs::write(&file, "b").expect("written");
        timeout(SOON, watch.changed()).await.expect("told");
        // A watch that cannot hear of the write any more.
        let mut watch = FileWatch::new(&[folder.path().to_owned()]).expect("watched");
        std::fs::read(&file).expect("read");
        timeout(Duration::from_millis(300), watch.changed()).await.expect_err("reading is no change");
    }

    #[tokio::test]
    async fn a_wait_that_is_given_up_loses_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut watch = FileWatch::new(&[folder.path().to_owned()]).expect("watched");
        // Long enough to hear of it, too short to see it complete; on a busy machine, once more.
        while watch.quiet_at.is_none() {
            std::fs::write(folder.path().join("a.yaml"), "a").expect("written");
            let _ = timeout(QUIET / 3, watch.changed()).await;
        }
        timeout(SOON, watch.changed()).await.expect("told all the same");
    }

    #[tokio::test]
    async fn a_file_that_is_replaced_is_still_watched() {
        let folder = tempfile::tempdir().expect("a folder");
        let (file, fresh) = (folder.path().join("a.yaml"), folder.path().join("new"));
        std::fs::write(&file, "a").expect("written");
        let mut watch = FileWatch::new(std::slice::from_ref(&file)).expect("watched");
        for text in ["b", "c"] {
            std::fs::write(&fresh, text).expect("written");
            std::fs::rename(&fresh, &file).expect("renamed");
            timeout(SOON, watch.changed()).await.expect("told");
        }
        // A watch that cannot hear of the renaming any more.
        let mut watch = FileWatch::new(std::slice::from_ref(&file)).expect("watched");
        std::fs::write(folder.path().join("other.yaml"), "x").expect("written");
        timeout(Duration::from_millis(300), watch.changed()).await.expect_err("another file is no change");
    }
}
