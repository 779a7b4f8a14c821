//! `kubectl` and `helm` as a person calls them.

use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::Value;

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

fn with_input(arguments: &[&str], manifest: &str) -> anyhow::Result<String> {
    let mut command = Command::new("kubectl");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let shown = format!("{command:?}");
    let mut child = command.spawn().with_context(|| format!("cannot start {shown}"))?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(manifest.as_bytes())?;
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
/// As [`run`], after three minutes.
pub fn rolled_out(namespace: &str, object: &str) -> anyhow::Result<()> {
    kubectl(&["rollout", "status", "-n", namespace, object, "--timeout=180s"]).map(drop)
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
