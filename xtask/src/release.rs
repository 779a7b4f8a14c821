//! The release build of all tests: made once, on what other steps leave of the machine.

use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::{Context, anyhow, ensure};

use crate::image;
use crate::steps::{Counts, Priority, cargo, target};

/// The program, as far as it is.
pub(crate) struct Release {
    /// An image is made of it.
    is_static: bool,
    state: State,
}

enum State {
    NotBegun,
    Building(JoinHandle<anyhow::Result<PathBuf>>),
    Built(Option<PathBuf>),
}

impl Release {
    pub(crate) fn new(is_static: bool) -> Self {
        Self { is_static, state: State::NotBegun }
    }

    /// Begins, beside what comes next: tests wait much of their time.
    pub(crate) fn begin(&mut self) {
        if matches!(self.state, State::NotBegun) {
            let is_static = self.is_static;
            self.state = State::Building(std::thread::spawn(move || build(is_static)));
        }
    }

    /// Waits for it. Where it does not build, that is one failed step, and whoever asks after that is skipped as `step`.
    pub(crate) fn program(&mut self, step: &str) -> Result<&Path, Counts> {
        self.begin();
        self.state = match std::mem::replace(&mut self.state, State::Built(None)) {
            State::Building(thread) => {
                println!("--- release build");
                let began = Instant::now();
                match thread.join().unwrap_or_else(|_| Err(anyhow!("it panicked"))) {
                    Ok(program) => {
                        println!("--- release build: ok, waited for {:.0} s", began.elapsed().as_secs_f32());
                        State::Built(Some(program))
                    }
                    Err(error) => {
                        println!("--- release build: FAILED: {error:#}");
                        return Err(Counts::single("release build", false));
                    }
                }
            }
            known => known,
        };
        match &self.state {
            State::Built(Some(program)) => Ok(program),
            _ => Err(Counts { skipped: vec![format!("{step}: there is no release build")], ..Counts::default() }),
        }
    }
}

fn build(is_static: bool) -> anyhow::Result<PathBuf> {
    if is_static {
        return image::build("release", Priority::Low);
    }
    let command = cargo(&["build", "--quiet", "--release", "--package", "mizzen"]);
    let status = Priority::Low.of(command).status().context("cannot run cargo")?;
    ensure!(status.success(), "the program does not build");
    Ok(target().join("release/mizzen"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn building(outcome: anyhow::Result<PathBuf>) -> Release {
        Release { is_static: false, state: State::Building(std::thread::spawn(|| outcome)) }
    }

    #[test]
    fn everybody_who_asks_gets_the_one_program() {
        let mut release = building(Ok(PathBuf::from("program")));
        for step in ["demo", "cluster"] {
            assert_eq!(release.program(step), Ok(Path::new("program")));
        }
    }

    #[test]
    fn a_failure_is_counted_once_and_then_skips_by_name() {
        let mut release = building(Err(anyhow!("no")));
        let failed = release.program("demo").expect_err("it failed");
        assert_eq!((failed.failed, failed.skipped), (1, vec![]));
        let skipped = release.program("cluster").expect_err("it failed");
        assert_eq!((skipped.failed, skipped.skipped), (0, vec!["cluster: there is no release build".to_owned()]));
    }
}
