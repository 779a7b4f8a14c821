//! Watches what one URL answers, from a process of its own beside the cluster: when did the answer become another one?
//!
//! The test program calls itself with [`COMMAND`]. Both processes have the same clock.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};

use crate::load::{Connection, request};
use crate::place::Place;

/// First argument that makes the test program a watcher.
pub const COMMAND: &str = "poll";

/// A running watcher.
#[derive(Debug)]
pub struct Poll {
    child: Child,
    changes: Receiver<(SystemTime, String)>,
}

impl Poll {
    /// Asks again as soon as an answer is there.
    ///
    /// # Errors
    ///
    /// When the process cannot be started.
    pub fn begin(place: &Place, address: &str, host: &str, path: &str) -> anyhow::Result<Self> {
        let program = std::env::current_exe()?;
        let mut child = place
            .beside(&program.display().to_string())
            .args([COMMAND, address, host, path])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the watcher")?;
        let output = child.stdout.take().context("the watcher has no output")?;
        let (sender, changes) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let Some((micros, body)) = line.split_once(' ') else { continue };
                let Ok(micros) = micros.parse() else { continue };
                if sender.send((UNIX_EPOCH + Duration::from_micros(micros), body.to_owned())).is_err() {
                    return;
                }
            }
        });
        Ok(Self { child, changes })
    }

    /// Waits until the answer contains `wanted`; when that was.
    ///
    /// # Errors
    ///
    /// When it does not within `within`, with the last answer.
    pub fn until(&self, wanted: &str, within: Duration) -> anyhow::Result<SystemTime> {
        let end = Instant::now() + within;
        let mut last = String::new();
        while let Ok((when, body)) = self.changes.recv_timeout(end.saturating_duration_since(Instant::now())) {
            if body.contains(wanted) {
                return Ok(when);
            }
            last = body;
        }
        bail!("no answer with {wanted:?} within {within:?}; the last one that was new: {last:.200}")
    }
}

impl Drop for Poll {
    fn drop(&mut self) {
        // It ends when its input does.
        drop(self.child.stdin.take());
        self.child.wait().ok();
    }
}

/// The watcher's side: ADDRESS HOST PATH; ends when its standard input does.
pub fn client(arguments: &[String]) -> ExitCode {
    let [address, host, path] = arguments else {
        eprintln!("usage: {COMMAND} ADDRESS HOST PATH");
        return ExitCode::FAILURE;
    };
    let request = request(host, path);
    let address = address.clone();
    std::thread::spawn(move || {
        let mut connection = Connection::to(&address);
        let mut last = String::new();
        loop {
            let body = match connection.exchange(&request) {
                Ok(answer) => format!("{} {}", answer.status, answer.body),
                Err(error) => format!("{error:#}"),
            };
            let body = body.replace(['\r', '\n'], " ");
            if body != last {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                println!("{} {body}", now.as_micros());
                last = body;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    });
    std::io::stdin().read_to_end(&mut Vec::new()).ok();
    ExitCode::SUCCESS
}
