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

    /// Waits for it; where it does not build, the failed step that it is, and nothing after that.
    pub(crate) fn program(&mut self) -> Result<&Path, Counts> {
        self.begin();
        if let State::Building(thread) = std::mem::replace(&mut self.state, State::Built(None)) {
            println!("--- release build");
            let began = Instant::now();
            match thread.join().unwrap_or_else(|_| Err(anyhow!("it panicked"))) {
                Ok(program) => {
                    println!("--- release build: ok, waited for {:.0} s", began.elapsed().as_secs_f32());
                    self.state = State::Built(Some(program));
                }
                Err(error) => {
                    println!("--- release build: FAILED: {error:#}");
                    return Err(Counts::single("release build", false));
                }
            }
        }
        match &self.state {
            State::Built(Some(program)) => Ok(program),
            _ => Err(Counts::default()),
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
