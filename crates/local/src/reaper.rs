//! The last resort: a process that does nothing until the supervisor is gone, and then ends whatever is left.
//!
//! Children die with the supervisor (see [`crate::child`]), but what *they* started does not. The reaper knows the
//! process groups; when its standard input ends, it kills those that are still there and removes the state folder. So
//! nothing survives even a SIGKILL of the supervisor.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{self, BufRead, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use rustix::process::{Pid, Signal};

/// First argument of `mizzen` when it is started as the reaper: `mizzen __reaper STATE-FOLDER`.
pub const REAPER: &str = "__reaper";

/// The supervisor's side.
#[derive(Debug)]
pub(crate) struct Reaper {
    child: Child,
    words: Mutex<Option<ChildStdin>>,
}

impl Reaper {
    pub(crate) fn start(mizzen: &Path, state: &Path) -> io::Result<Self> {
        let mut child = Command::new(mizzen)
            .arg(REAPER)
            .arg(state)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        let words = Mutex::new(child.stdin.take());
        Ok(Self { child, words })
    }

    /// A process group began.
    pub(crate) fn watch(&self, group: Pid) {
        self.say(&format!("+{}\n", group.as_raw_nonzero()));
    }

    /// It is gone, and its number may be given to somebody else.
    pub(crate) fn forget(&self, group: Pid) {
        self.say(&format!("-{}\n", group.as_raw_nonzero()));
    }

    fn say(&self, word: &str) {
        if let Some(words) = self.words.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            // A reaper that was killed is a pity, but no reason to stop.
            let _ = words.write_all(word.as_bytes());
        }
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        drop(self.words.lock().unwrap_or_else(PoisonError::into_inner).take());
        let _ = self.child.wait();
    }
}

/// The reaper itself. `arguments` are those after [`REAPER`].
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> io::Result<()> {
    let state = arguments.into_iter().next().map(PathBuf::from);
    let state = state.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, format!("{REAPER} needs a folder")))?;
    let left = groups_left(io::stdin().lock());
    for group in &left {
        // An error means that the group is gone.
        let _ = rustix::process::kill_process_group(*group, Signal::KILL);
    }
    match std::fs::remove_dir_all(&state) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Follows the words until they end; returns the groups that were not forgotten.
fn groups_left(words: impl BufRead) -> Vec<Pid> {
    let mut groups: BTreeSet<i32> = BTreeSet::new();
    for line in words.lines().map_while(Result::ok) {
        let Some((word, number)) = line.split_at_checked(1) else { continue };
        let Ok(group) = number.parse() else { continue };
        if word == "+" {
            groups.insert(group);
        } else if word == "-" {
            groups.remove(&group);
        }
    }
    groups.into_iter().filter_map(Pid::from_raw).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_that_were_forgotten_are_left_alone() {
        let left = groups_left("+12\n+13\n-12\nnonsense\n+\n+0\n\n+14".as_bytes());
        let numbers: Vec<i32> = left.into_iter().map(|group| group.as_raw_nonzero().get()).collect();
        assert_eq!(numbers, [13, 14]);
    }

    #[test]
    fn what_is_left_is_killed() {
        let folder = tempfile::tempdir().expect("a folder");
        let state = folder.path().join("state");
        std::fs::create_dir(&state).expect("made");
        let mut sleeper = Command::new("sleep").arg("60").process_group(0).spawn().expect("started");
        let group = i32::try_from(sleeper.id()).ok().and_then(Pid::from_raw).expect("a process id");
        for group in groups_left(format!("+{}", group.as_raw_nonzero()).as_bytes()) {
            rustix::process::kill_process_group(group, Signal::KILL).expect("killed");
        }
        assert!(!sleeper.wait().expect("it ended").success());
    }
}
