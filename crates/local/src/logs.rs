//! What a child writes: kept in a file that cannot grow without end, and its last lines at hand for when it dies.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

/// A file that reaches this size becomes `NAME.old`, in the place of the one before. State folders are in memory.
const LARGEST: u64 = 1024 * 1024;
/// Lines that are shown when a process ends by itself.
const TAIL_LINES: usize = 6;
const LONGEST_LINE: usize = 16 * 1024;

/// A bounded log file. Clones write to the same one.
#[derive(Debug, Clone)]
pub(crate) struct Log(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    file: Option<File>,
    size: u64,
    tail: VecDeque<String>,
}

impl Log {
    /// The file is made with the first line.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(Arc::new(Mutex::new(Inner { path, file: None, size: 0, tail: VecDeque::new() })))
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.inner().path.clone()
    }

    /// The last lines, oldest first.
    pub(crate) fn tail(&self) -> Vec<String> {
        self.inner().tail.iter().cloned().collect()
    }

    pub(crate) fn forget_tail(&self) {
        self.inner().tail.clear();
    }

    /// Adds one line. A disk that is full must not stop the mesh: errors are ignored.
    pub(crate) fn line(&self, line: &[u8]) {
        self.inner().line(line);
    }

    /// Copies all lines of `from` until it ends.
    pub(crate) async fn copy(self, from: impl AsyncRead + Unpin) {
        let mut reader = BufReader::new(from);
        let mut line = Vec::new();
        loop {
            line.clear();
            match read_line(&mut reader, &mut line).await {
                Ok(0) | Err(_) => return,
                Ok(_) => self.line(line.trim_ascii_end()),
            }
        }
    }

    // A panic while the lock is held cannot leave half a line: the value stays usable.
    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As `read_until`, but a line without end is cut.
async fn read_line(reader: &mut (impl AsyncBufReadExt + Unpin), line: &mut Vec<u8>) -> io::Result<usize> {
    let mut read = 0;
    loop {
        let available = reader.fill_buf().await?;
        let room = LONGEST_LINE - line.len();
        let (used, done) = match available.iter().take(room).position(|byte| *byte == b'\n') {
            Some(at) => (at + 1, true),
            None => (available.len().min(room), available.is_empty() || available.len() >= room),
        };
        line.extend_from_slice(&available[..used]);
        reader.consume(used);
        read += used;
        if done {
            return Ok(read);
        }
    }
}

impl Inner {
    fn line(&mut self, line: &[u8]) {
        if line.is_empty() {
            return;
        }
        if self.tail.len() == TAIL_LINES {
            self.tail.pop_front();
        }
        self.tail.push_back(String::from_utf8_lossy(line).into_owned());
        if self.write(line).is_err() {
            self.file = None;
        }
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.size >= LARGEST {
            self.file = None;
            std::fs::rename(&self.path, old(&self.path))?;
            self.size = 0;
        }
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path)?),
        };
        let mut bytes = Vec::with_capacity(line.len() + 1);
        bytes.extend_from_slice(line);
        bytes.push(b'\n');
        file.write_all(&bytes)?;
        self.size += bytes.len() as u64;
        Ok(())
    }
}

fn old(path: &Path) -> PathBuf {
    path.with_extension("log.old")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_tail_has_the_last_lines() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = Log::new(folder.path().join("app.log"));
        let text: String = (0..20).map(|number| format!("line {number}\n")).collect();
        log.clone().copy(text.as_bytes()).await;
        assert_eq!(log.tail().first().map(String::as_str), Some("line 14"));
        assert_eq!(log.tail().last().map(String::as_str), Some("line 19"));
        assert_eq!(std::fs::read_to_string(log.path()).expect("written"), text);
    }

    #[tokio::test]
    async fn files_and_lines_are_bounded() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = Log::new(folder.path().join("app.log"));
        let endless = vec![b'x'; 5 * 1024 * 1024];
        log.clone().copy(endless.as_slice()).await;
        let total: u64 = std::fs::read_dir(folder.path())
            .expect("there")
            .map(|entry| entry.and_then(|entry| entry.metadata()).map_or(0, |file| file.len()))
            .sum();
        assert!(total <= 2 * LARGEST + 2 * LONGEST_LINE as u64, "{total} bytes");
        assert!(log.tail().iter().all(|line| line.len() <= LONGEST_LINE));
    }
}
