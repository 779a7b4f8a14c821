//! A child process that is measured and never left behind.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context;

pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// Starts `command` with its output in `log`.
    pub(crate) fn start(command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let file = fs::File::create(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        Ok(Self { child })
    }

    /// User and system time of the process and its children so far.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        self.family().into_iter().map(cpu_of).sum()
    }

    pub(crate) fn rss_kib(&self) -> anyhow::Result<u64> {
        self.family().into_iter().map(rss_of).sum()
    }

    /// The process and its direct children (nginx works in a child).
    fn family(&self) -> Vec<u32> {
        let own = self.child.id();
        let children = fs::read_to_string(format!("/proc/{own}/task/{own}/children")).unwrap_or_default();
        std::iter::once(own).chain(children.split_whitespace().filter_map(|pid| pid.parse().ok())).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A process that has ended already needs neither.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Nanoseconds on a processor, from `/proc/PID/task/*/schedstat`: finer than the ticks of `/proc/PID/stat`.
fn cpu_of(pid: u32) -> anyhow::Result<Duration> {
    let mut nanoseconds = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task")).context("a measured process has ended; see its log")? {
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        nanoseconds += text.split(' ').next().and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(Duration::from_nanos(nanoseconds))
}

fn rss_of(pid: u32) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    Ok(line.trim().trim_end_matches(" kB").trim().parse().unwrap_or(0))
}
