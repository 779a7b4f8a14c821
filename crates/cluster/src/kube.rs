//! `kubectl` and `helm` as a person calls them.

use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::Value;

/// How long a condition may take to hold. Usually it takes a second or two; the machine may be ten times slower.
pub const SOON: Duration = Duration::from_secs(90);

/// Runs a command to its end; its output, or what it said when it failed.
///
/// # Errors
///
/// The command, its exit code and its standard error.
pub fn run(command: &mut Command) -> anyhow::Result<String> {
    let shown = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {shown}"))?;
    finish(&shown, &output)
}

fn finish(shown: &str, output: &Output) -> anyhow::Result<String> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    bail!("{shown}: {}: {}{}", output.status, text, String::from_utf8_lossy(&output.stderr))
}

/// `kubectl ARGUMENTS…`.
///
/// # Errors
///
/// As [`run`].
pub fn kubectl(arguments: &[&str]) -> anyhow::Result<String> {
    run(Command::new("kubectl").args(arguments))
}

/// `helm ARGUMENTS…`.
///
/// # Errors
///
/// As [`run`].
pub fn helm(arguments: &[&str]) -> anyhow::Result<String> {
    run(Command::new("helm").args(arguments))
}

/// `kubectl apply -f -` with a manifest.
///
/// # Errors
///
/// As [`run`]: also what the API server or a webhook refuses.
pub fn apply(manifest: &str) -> anyhow::Result<String> {
    with_input(&["apply", "-f", "-"], manifest)
}

/// `kubectl delete -f -` with a manifest; what is not there is fine.
///
/// # Errors
///
/// As [`run`].
pub fn delete(manifest: &str) -> anyhow::Result<String> {
    with_input(&["delete", "--ignore-not-found", "--wait=false", "-f", "-"], manifest)
}

/// Does something when dropped.
pub struct Undo<F: FnMut() -> anyhow::Result<()>>(pub F);

impl<F: FnMut() -> anyhow::Result<()>> std::fmt::Debug for Undo<F> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Undo")
    }
}

impl<F: FnMut() -> anyhow::Result<()>> Drop for Undo<F> {
    fn drop(&mut self) {
        if let Err(error) = (self.0)() {
            println!("not undone: {error:#}");
        }
    }
}

/// `kubectl ARGUMENTS…` with something on its standard input.
///
/// # Errors
///
/// As [`run`].
pub fn kubectl_with(arguments: &[&str], input: &str) -> anyhow::Result<String> {
    with_input(arguments, input)
}

fn with_input(arguments: &[&str], manifest: &str) -> anyhow::Result<String> {
    let mut command = Command::new("kubectl");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let shown = format!("{command:?}");
    let mut child = command.spawn().with_context(|| format!("cannot start {shown}"))?;
    if let Some(mut input) = child.stdin.take() {
        match input.write_all(manifest.as_bytes()) {
            // What ended early says why by itself.
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => return Err(error.into()),
            _ => {}
        }
    }
    finish(&shown, &child.wait_with_output()?)
}

/// `kubectl get ARGUMENTS… -o json`.
///
/// # Errors
///
/// As [`run`].
pub fn get(arguments: &[&str]) -> anyhow::Result<Value> {
    let mut all = vec!["get"];
    all.extend(arguments);
    all.extend(["-o", "json"]);
    Ok(serde_json::from_str(&kubectl(&all)?)?)
}

/// The items of a list.
///
/// # Errors
///
/// As [`run`].
pub fn items(arguments: &[&str]) -> anyhow::Result<Vec<Value>> {
    Ok(get(arguments)?.get("items").and_then(Value::as_array).cloned().unwrap_or_default())
}

/// Waits until a rollout is through.
///
/// # Errors
///
/// As [`run`], after five minutes.
pub fn rolled_out(namespace: &str, object: &str) -> anyhow::Result<()> {
    kubectl(&["rollout", "status", "-n", namespace, object, "--timeout=300s"]).map(drop)
}

/// A text in an object; empty where there is none.
pub fn text<'a>(object: &'a Value, path: &str) -> &'a str {
    object.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

/// The list that stands in an object; empty where there is none.
pub fn list<'a>(object: &'a Value, path: &str) -> &'a [Value] {
    object.pointer(path).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// `meta.name` of an object.
pub fn name(object: &Value) -> &str {
    object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default()
}

/// Tries until it succeeds, for at most `within`.
///
/// # Errors
///
/// The last failure.
pub fn eventually<T>(within: Duration, mut attempt: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let end = Instant::now() + within;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() >= end => return Err(error.context(format!("not within {within:?}"))),
            Err(_) => std::thread::sleep(Duration::from_millis(200)),
        }
    }
}
