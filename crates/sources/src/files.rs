//! Watches files and folders.
//!
//! In a folder every `*.yaml`, `*.yml` and `*.json` counts, but for hidden files; folders in it do not, as with
//! `kubectl apply -f FOLDER`. A file is read when its writer has closed it or has been silent for a while, so that half a
//! file is not taken for a whole one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mizzen_config::{MAX_FILE_BYTES, oversized, parse};
use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use notify::{RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::state::{Batch, Reading, State};

/// After a file was closed, renamed or deleted: more of the same hand may follow at once.
const SETTLE: Duration = Duration::from_millis(5);
/// After a write that was not followed by a close: the writer may not have finished.
const SETTLE_OPEN: Duration = Duration::from_millis(300);
/// However busy the files are, they are read at least this often.
const SETTLE_MAX: Duration = Duration::from_secs(1);
/// A change that no event told of (a network file system, an overflow) is found after this.
const RESCAN: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("there is no file or folder {path}; name one that exists")]
    Missing { path: PathBuf },
    #[error("cannot watch {path}: {source}; is the limit of inotify watches (fs.inotify.max_user_watches) reached?")]
    Watch { path: PathBuf, source: notify::Error },
}

/// Files and folders that are watched for as long as it lives.
pub struct FileSource {
    paths: Vec<PathBuf>,
    state: State,
    known: BTreeMap<PathBuf, Stamp>,
    events: mpsc::UnboundedReceiver<notify::Result<notify::Event>>,
    /// Dropping it ends the watch.
    _watcher: notify::RecommendedWatcher,
}

/// What tells one state of a file from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl From<&Metadata> for Stamp {
    fn from(metadata: &Metadata) -> Self {
        Self { inode: metadata.ino(), size: metadata.size(), modified: (metadata.mtime(), metadata.mtime_nsec()) }
    }
}

impl FileSource {
    /// Starts to watch `paths` and reads them for the first time.
    ///
    /// # Errors
    ///
    /// When a path does not exist, or the kernel gives no watch. What files say is never an error here: see the
    /// findings.
    pub fn watch(paths: Vec<PathBuf>) -> Result<(Self, Batch), SourceError> {
        let (sender, events) = mpsc::unbounded_channel();
        let mut watcher = notify::recommended_watcher(move |event| {
            // The receiver is gone only when the source is being dropped.
            sender.send(event).ok();
        })
        .map_err(|source| SourceError::Watch { path: paths.first().cloned().unwrap_or_default(), source })?;
        // A file is watched by its folder: editors replace files instead of writing to them.
        let mut folders = BTreeSet::new();
        for path in &paths {
            let metadata = fs::metadata(path).map_err(|_| SourceError::Missing { path: path.clone() })?;
            let folder = if metadata.is_dir() { Some(path.as_path()) } else { path.parent() };
            folders.insert(folder.filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned());
        }
        for folder in folders {
            watcher
                .watch(&folder, RecursiveMode::NonRecursive)
                .map_err(|source| SourceError::Watch { path: folder, source })?;
        }
        let mut source = Self { paths, state: State::default(), known: BTreeMap::new(), events, _watcher: watcher };
        let readings = source.scan();
        let first = source.state.update(readings);
        Ok((source, first))
    }

    /// Waits until something is different and says what. Ends never, but may be dropped at any time.
    pub async fn next(&mut self) -> Batch {
        loop {
            self.settled().await;
            let readings = self.scan();
            if !readings.is_empty() {
                return self.state.update(readings);
            }
        }
    }

    /// Waits for events and then for their end, or for the time to look without one.
    async fn settled(&mut self) {
        let next_scan = Instant::now() + RESCAN;
        let mut latest = next_scan;
        let mut deadline = next_scan;
        let mut writing = BTreeSet::new();
        loop {
            tokio::select! {
                () = sleep_until(deadline) => return,
                Some(event) = self.events.recv() => {
                    if !concerns(&event, &self.paths) {
                        continue;
                    }
                    follow(&event, &mut writing);
                    let wait = if writing.is_empty() { SETTLE } else { SETTLE_OPEN };
                    latest = latest.min(Instant::now() + SETTLE_MAX);
                    deadline = latest.min(Instant::now() + wait);
                }
            }
        }
    }

    /// Reads what is new or different since the last time.
    fn scan(&mut self) -> Vec<(PathBuf, Reading)> {
        let present: BTreeSet<PathBuf> = self.paths.iter().flat_map(|path| listed(path)).collect();
        let mut readings = Vec::new();
        let gone: Vec<PathBuf> = self.known.keys().filter(|path| !present.contains(*path)).cloned().collect();
        for path in gone {
            self.known.remove(&path);
            readings.push((path, Reading::Gone));
        }
        for path in present {
            let Ok(metadata) = fs::metadata(&path) else { continue };
            let stamp = Stamp::from(&metadata);
            if self.known.insert(path.clone(), stamp) != Some(stamp) {
                let reading = read(&path, &metadata);
                readings.push((path, reading));
            }
        }
        readings
    }
}

/// Whether an event can be about configuration: other files in the folder may change as they like, and so may who only
/// reads.
fn concerns(event: &notify::Result<notify::Event>, paths: &[PathBuf]) -> bool {
    let Ok(event) = event else { return true };
    if matches!(event.kind, EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write)) {
        return false;
    }
    let counts = |path: &PathBuf| {
        // Kubernetes exchanges all files of a mounted folder by renaming the link `..data`.
        let linked = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".."));
        linked || has_configuration_name(path) || paths.iter().any(|named| named.file_name() == path.file_name())
    };
    event.need_rescan() || event.paths.iter().any(counts)
}

/// Remembers which files are in the middle of being written.
fn follow(event: &notify::Result<notify::Event>, writing: &mut BTreeSet<PathBuf>) {
    match event {
        Ok(event) => {
            let begins = matches!(event.kind, EventKind::Create(_) | EventKind::Modify(ModifyKind::Data(_)));
            let ends = matches!(
                event.kind,
                EventKind::Access(AccessKind::Close(AccessMode::Write))
                    | EventKind::Modify(ModifyKind::Name(_))
                    | EventKind::Remove(_)
            );
            for path in &event.paths {
                if begins {
                    writing.insert(path.clone());
                } else if ends {
                    writing.remove(path);
                }
            }
        }
        Err(error) => tracing::warn!(%error, "an event of the file watch was lost; all files are looked at"),
    }
}

/// The files that a path stands for, in the order of their names.
fn listed(path: &Path) -> Vec<PathBuf> {
    if !path.is_dir() {
        return if path.exists() { vec![path.to_owned()] } else { Vec::new() };
    }
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    let mut files: Vec<PathBuf> =
        entries.flatten().map(|entry| entry.path()).filter(|path| is_configuration(path)).collect();
    files.sort();
    files
}

fn is_configuration(path: &Path) -> bool {
    has_configuration_name(path) && path.is_file()
}

fn has_configuration_name(path: &Path) -> bool {
    let named =
        path.extension().is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|known| extension == *known));
    let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
    // Settings of the local runner (which image is run by which command) lie among the manifests.
    let settings = path.file_name().is_some_and(|name| name == "mizzen.yaml");
    named && !hidden && !settings
}

fn read(path: &Path, metadata: &Metadata) -> Reading {
    if !metadata.is_file() {
        return Reading::Unreadable("it is not a regular file".to_owned());
    }
    // One byte more than the limit is enough to be refused by it.
    let limit = MAX_FILE_BYTES as u64 + 1;
    let mut bytes = Vec::new();
    match fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes)) {
        Ok(length) if length > MAX_FILE_BYTES => {
            Reading::Text(oversized(&path.display().to_string(), metadata.len().max(length as u64)))
        }
        Ok(_) => match String::from_utf8(bytes) {
            Ok(text) => Reading::Text(parse(&path.display().to_string(), &text)),
            Err(error) => {
                Reading::Unreadable(format!("it is not UTF-8 from byte {} on", error.utf8_error().valid_up_to()))
            }
        },
        Err(error) => Reading::Unreadable(error.to_string()),
    }
}

#[cfg(test)]
mod tests;
