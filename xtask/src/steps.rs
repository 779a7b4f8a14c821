//! Running a command as a step and reading its counts.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// What a step found.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    /// Names and reasons.
    pub(crate) skipped: Vec<String>,
    pub(crate) failures: Vec<String>,
}

impl Counts {
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped.extend(other.skipped);
        self.failures.extend(other.failures);
    }

    /// A step that is one check.
    pub(crate) fn single(name: &str, passed: bool) -> Self {
        Self {
            passed: usize::from(passed),
            failed: usize::from(!passed),
            skipped: Vec::new(),
            failures: if passed { Vec::new() } else { vec![name.to_owned()] },
        }
    }
}

pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).to_path_buf()
}

/// Where cargo puts what it builds.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository().join("target"), PathBuf::from)
}

/// Cargo in the repository.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(repository());
    command
}

/// How much of the machine a command may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Priority {
    Usual,
    /// What others leave.
    Low,
}

impl Priority {
    /// The same command, at this priority.
    pub(crate) fn of(self, command: Command) -> Command {
        if self == Self::Usual {
            return command;
        }
        let mut low = Command::new("nice");
        low.args(["-n", "15"]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => low.env(name, value),
                None => low.env_remove(name),
            };
        }
        if let Some(folder) = command.get_current_dir() {
            low.current_dir(folder);
        }
        low
    }
}

/// Runs a command that is one check, with its output shown.
pub(crate) fn check(name: &str, command: &mut Command) -> anyhow::Result<Counts> {
    let started = Instant::now();
    println!("--- {name}");
    let passed = command.status()?.success();
    println!("--- {name}: {} in {:.0} s", if passed { "ok" } else { "FAILED" }, started.elapsed().as_secs_f32());
    Ok(Counts::single(name, passed))
}

/// Runs `cargo test …`, shows its output and adds up what its runners counted.
pub(crate) fn cargo_test(name: &str, command: &mut Command) -> anyhow::Result<Counts> {
    let started = Instant::now();
    println!("--- {name}");
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let mut counts = Counts::default();
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).lines() {
            let line = line?;
            println!("{line}");
            read_line(&mut counts, &line);
        }
    }
    let succeeded = child.wait()?.success();
    if !succeeded && counts.failed == 0 {
        // Did not build, or a runner died without counting.
        counts.add(Counts::single(name, false));
    }
    println!("--- {name}: {} in {:.0} s", if succeeded { "ok" } else { "FAILED" }, started.elapsed().as_secs_f32());
    Ok(counts)
}

/// Reads libtest's output: `test NAME ... FAILED`, `test NAME ... ignored, REASON`, `test result: … N passed; N failed`.
fn read_line(counts: &mut Counts, line: &str) {
    if let Some((name, outcome)) = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ")) {
        if outcome.starts_with("FAILED") {
            counts.failures.push(name.to_owned());
        } else if let Some(reason) = outcome.strip_prefix("ignored") {
            counts.skipped.push(format!("{name}{}", reason.replacen(", ", ": ", 1)));
        }
    } else if let Some(result) = line.strip_prefix("test result: ") {
        counts.passed += count_before(result, " passed");
        counts.failed += count_before(result, " failed");
    }
}

fn count_before(text: &str, word: &str) -> usize {
    let before = text.split(word).next().unwrap_or_default();
    before.rsplit(|letter: char| !letter.is_ascii_digit()).next().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{Counts, read_line};

    #[test]
    fn libtest_lines_are_counted() {
        let mut counts = Counts::default();
        for line in [
            "test a::b ... ok",
            "test a::c ... FAILED",
            "test a::d ... ignored, no Envoy here",
            "test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        ] {
            read_line(&mut counts, line);
        }
        assert_eq!((counts.passed, counts.failed), (1, 1));
        assert_eq!(counts.failures, ["a::c"]);
        assert_eq!(counts.skipped, ["a::d: no Envoy here"]);
    }
}
