//! One thread writes all access logs. Whoever has a line appends it to a buffer and goes on; when files are slower
//! than traffic, lines are dropped and counted, and nobody waits.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use mizzen_snapshot::listener::LogSink;

/// A buffer of this size is written at once.
const FLUSH_SIZE: usize = 64 * 1024;
/// A full buffer: further lines are dropped.
const CAPACITY: usize = 1024 * 1024;
/// How long a line may wait in a small buffer.
const FLUSH_INTERVAL: Duration = Duration::from_millis(500);

/// All files that access logs of this process go to.
#[derive(Debug)]
pub struct Writers {
    shared: Arc<Shared>,
}

/// One file or stream.
#[derive(Debug)]
pub struct Sink {
    target: LogSink,
    buffer: Mutex<String>,
    /// Held while bytes are written, so that lines of two flushes do not mix.
    file: Mutex<Option<Output>>,
    written: AtomicU64,
    dropped: AtomicU64,
    shared: Weak<Shared>,
}

#[derive(Debug)]
enum Output {
    Stdout,
    Stderr,
    File(File),
}

#[derive(Debug, Default)]
struct Shared {
    sinks: Mutex<HashMap<LogSink, Arc<Sink>>>,
    signal: Mutex<Signal>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct Signal {
    /// Some buffer has lines.
    lines: bool,
    /// Some buffer is large.
    urgent: bool,
    closing: bool,
    started: bool,
}

impl Default for Writers {
    fn default() -> Self {
        Self::new()
    }
}

impl Writers {
    /// The thread starts with the first sink, and sleeps while there is nothing to write.
    pub fn new() -> Self {
        Self { shared: Arc::default() }
    }

    pub fn sink(&self, target: &LogSink) -> Arc<Sink> {
        // Opening the device would fail where it is a socket, and would not share the buffer of the stream.
        let target = &match target {
            LogSink::File(path) if path.as_os_str() == "/dev/stdout" => LogSink::Stdout,
            LogSink::File(path) if path.as_os_str() == "/dev/stderr" => LogSink::Stderr,
            other => other.clone(),
        };
        let mut sinks = lock(&self.shared.sinks);
        if let Some(sink) = sinks.get(target) {
            return Arc::clone(sink);
        }
        self.start();
        let sink = Arc::new(Sink {
            target: target.clone(),
            buffer: Mutex::default(),
            file: Mutex::default(),
            written: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            shared: Arc::downgrade(&self.shared),
        });
        sinks.insert(target.clone(), Arc::clone(&sink));
        sink
    }

    /// Writes what is in the buffers now, on this thread. For the end of the process, and for tests.
    pub fn flush(&self) {
        self.shared.flush();
    }

    /// Lines written and lines dropped so far, over all files.
    pub fn counts(&self) -> (u64, u64) {
        let sinks = lock(&self.shared.sinks);
        sinks.values().fold((0, 0), |(written, dropped), sink| {
            (written + sink.written.load(Relaxed), dropped + sink.dropped.load(Relaxed))
        })
    }

    fn start(&self) {
        let mut signal = lock(&self.shared.signal);
        if signal.started {
            return;
        }
        let shared = Arc::clone(&self.shared);
        match std::thread::Builder::new().name("access-log".to_owned()).spawn(move || shared.run()) {
            Ok(_) => signal.started = true,
            // The next listener tries again; until then lines wait in their buffers, and then are dropped.
            Err(error) => tracing::error!(%error, "the access log's thread does not start"),
        }
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        lock(&self.shared.signal).closing = true;
        self.shared.wake.notify_one();
        self.shared.flush();
    }
}

impl Sink {
    /// Appends one line.
    pub(super) fn append(&self, line: impl FnOnce(&mut String)) {
        let mut buffer = lock(&self.buffer);
        let before = buffer.len();
        if before >= CAPACITY {
            self.dropped.fetch_add(1, Relaxed);
            return;
        }
        line(&mut buffer);
        let after = buffer.len();
        drop(buffer);
        self.written.fetch_add(1, Relaxed);
        let urgent = before < FLUSH_SIZE && after >= FLUSH_SIZE;
        if (before == 0 || urgent)
            && let Some(shared) = self.shared.upgrade()
        {
            let mut signal = lock(&shared.signal);
            signal.lines = true;
            signal.urgent |= urgent;
            drop(signal);
            shared.wake.notify_one();
        }
    }

    fn flush(&self) {
        let mut file = lock(&self.file);
        let text = std::mem::take(&mut *lock(&self.buffer));
        if text.is_empty() {
            return;
        }
        if let Err(error) = write(&mut file, &self.target, text.as_bytes()) {
            let lines = text.lines().count() as u64;
            self.dropped.fetch_add(lines, Relaxed);
            self.written.fetch_sub(lines, Relaxed);
            // Opened again for the next lines: the disk may have room again, or the file a new place.
            *file = None;
            tracing::warn!(%error, target = ?self.target, lines, "access log lines are lost");
        }
    }
}

impl Shared {
    fn run(self: Arc<Self>) {
        loop {
            let mut signal = lock(&self.signal);
            while !signal.lines && !signal.closing {
                signal = self.wake.wait(signal).unwrap_or_else(PoisonError::into_inner);
            }
            // Somebody has written a line: others follow, and are written together.
            let waited =
                self.wake.wait_timeout_while(signal, FLUSH_INTERVAL, |signal| !signal.urgent && !signal.closing);
            let (mut signal, _) = waited.unwrap_or_else(PoisonError::into_inner);
            let closing = signal.closing;
            signal.lines = false;
            signal.urgent = false;
            drop(signal);
            self.flush();
            if closing {
                return;
            }
        }
    }

    fn flush(&self) {
        let sinks: Vec<Arc<Sink>> = lock(&self.sinks).values().cloned().collect();
        for sink in sinks {
            sink.flush();
        }
    }
}

fn write(file: &mut Option<Output>, target: &LogSink, bytes: &[u8]) -> io::Result<()> {
    if file.is_none() {
        *file = Some(match target {
            LogSink::Stdout => Output::Stdout,
            LogSink::Stderr => Output::Stderr,
            LogSink::File(path) => Output::File(OpenOptions::new().create(true).append(true).open(path)?),
        });
    }
    match file {
        Some(Output::Stdout) => {
            let mut stdout = io::stdout().lock();
            stdout.write_all(bytes)?;
            stdout.flush()
        }
        Some(Output::Stderr) => io::stderr().write_all(bytes),
        Some(Output::File(file)) => file.write_all(bytes),
        None => Ok(()),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere leaves at worst half a line.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
