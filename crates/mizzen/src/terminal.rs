//! What the terminal can do, and writing to it without falling over when it is gone.

use std::ffi::OsStr;
use std::io::{IsTerminal, Write};

use mizzen_local::console::ConsoleSettings;

/// `NO_COLOR` (<https://no-color.org>) and `TERM=dumb` are honoured.
fn color_allowed() -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    !set("NO_COLOR") && std::env::var_os("TERM").as_deref() != Some(OsStr::new("dumb"))
}

/// For output on stderr.
pub(crate) fn console(json: bool) -> ConsoleSettings {
    let interactive = std::io::stderr().is_terminal();
    ConsoleSettings { interactive, color: interactive && color_allowed(), json }
}

/// Writes a result to stdout. A reader that has gone away (`mizzen … | head`) is no error.
pub(crate) fn print(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// A JSON document on stdout.
pub(crate) fn print_json(value: &serde_json::Value) {
    print(&format!("{value:#}\n"));
}

/// Something that a person should know, on stderr.
pub(crate) fn warning(text: &str) {
    let color = std::io::stderr().is_terminal() && color_allowed();
    let word = if color { "\x1b[33;1mwarning:\x1b[0m" } else { "warning:" };
    let _ = writeln!(std::io::stderr().lock(), "{word} {text}");
}

/// An error with its causes on stderr.
pub(crate) fn error(error: &anyhow::Error) {
    let color = std::io::stderr().is_terminal() && color_allowed();
    let word = if color { "\x1b[31;1merror:\x1b[0m" } else { "error:" };
    let mut stderr = std::io::stderr().lock();
    let _ = writeln!(stderr, "{word} {error}");
    let mut said = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        // Many errors repeat their source in their own words.
        if !said.contains(&cause) {
            let _ = writeln!(stderr, "  because: {cause}");
        }
        said = cause;
    }
}
