//! What a person sees while a mesh runs: progress and news on stderr, results on stdout. Nothing here fails: a terminal
//! that went away must not stop the mesh.

use std::io::Write;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How to write; decided by whoever reads flags and environment.
#[derive(Debug, Clone, Copy, Default)]
pub struct ConsoleSettings {
    /// Stderr is a terminal: progress may be redrawn.
    pub interactive: bool,
    /// Colours are wanted.
    pub color: bool,
    /// One JSON document on stdout in the place of tables.
    pub json: bool,
}

#[derive(Debug)]
pub struct Console {
    settings: ConsoleSettings,
    bar: Option<ProgressBar>,
}

impl Console {
    pub fn new(settings: ConsoleSettings) -> Self {
        Self { settings, bar: None }
    }

    pub fn json(&self) -> bool {
        self.settings.json
    }

    /// Begins to show progress over `total` parts.
    pub fn begin(&mut self, total: usize) {
        if !self.settings.interactive {
            return;
        }
        let bar = ProgressBar::with_draw_target(Some(total as u64), ProgressDrawTarget::stderr());
        let template = if self.settings.color {
            "  {spinner:.green} {bar:24.green/dim} {pos}/{len}  {msg}"
        } else {
            "  {spinner} {bar:24} {pos}/{len}  {msg}"
        };
        bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.enable_steady_tick(Duration::from_millis(80));
        self.bar = Some(bar);
    }

    /// `done` parts are ready; `what` is the latest, or what is waited for.
    pub fn progress(&self, done: usize, what: &str) {
        if let Some(bar) = &self.bar {
            bar.set_position(done as u64);
            bar.set_message(what.to_owned());
        }
    }

    /// As [`Self::progress`], and a line of its own where nothing can be redrawn.
    pub fn milestone(&self, done: usize, what: &str) {
        match &self.bar {
            Some(_) => self.progress(done, what),
            None => self.news(&format!("  {what}")),
        }
    }

    pub fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    /// A line that stays.
    pub fn news(&self, text: &str) {
        let write = || drop(writeln!(std::io::stderr().lock(), "{text}"));
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    /// Something that a person should act upon.
    pub fn warn(&self, text: &str) {
        self.news(&format!("{} {text}", self.painted("!", "33;1")));
    }

    pub fn good(&self, text: &str) {
        self.news(&format!("{} {text}", self.painted("✓", "32")));
    }

    /// A result, for stdout.
    pub fn print(&self, text: &str) {
        let mut stdout = std::io::stdout().lock();
        let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    }

    pub fn dim(&self, text: &str) -> String {
        self.painted(text, "2")
    }

    pub fn bold(&self, text: &str) -> String {
        self.painted(text, "1")
    }

    fn painted(&self, text: &str, code: &str) -> String {
        if self.settings.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}
