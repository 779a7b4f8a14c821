//! The step `demo` of `cargo xtask test`: what the README's first command promises, asked of the release build.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use mizzen_testing::ReservedPort;

use crate::steps::Counts;

/// What has not come about by then does not come about.
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs the release build `program` from its start to Ctrl-C.
pub(crate) fn run(program: &Path) -> Counts {
    println!("--- demo");
    let outcome = from_start_to_end(program);
    match &outcome {
        Ok(ready) => println!("--- demo: ok; the page was there after {:.1} s", ready.as_secs_f32()),
        Err(error) => println!("--- demo: FAILED: {error:#}"),
    }
    Counts::single("demo", outcome.is_ok())
}

/// A running demo; what is left of it is killed.
struct Demo {
    child: Child,
    folder: PathBuf,
}

impl Drop for Demo {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

/// How long it took until the page was there.
fn from_start_to_end(program: &Path) -> anyhow::Result<Duration> {
    let folder = std::env::temp_dir().join(format!("mizzen-xtask-demo-{}", std::process::id()));
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let reserved = ReservedPort::new();
    let port = reserved.port();
    let begun = Instant::now();
    let child = Command::new(program)
        .args(["demo", "--name", "xtask-demo", "--gateway-port", &port.to_string(), "--dir"])
        .arg(folder.join("config"))
        .env("XDG_RUNTIME_DIR", &folder)
        .env_remove("http_proxy")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .with_context(|| program.display().to_string())?;
    let mut demo = Demo { child, folder };
    loop {
        if let Ok((200, page)) = get(port, "istio.k3s.local", "/productpage")
            && page.contains("The Comedy of Errors")
        {
            break;
        }
        if let Some(status) = demo.child.try_wait()? {
            bail!("it ended before the page was there: {status}");
        }
        ensure!(begun.elapsed() < PATIENCE, "the page was not there within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    let ready = begun.elapsed();
    for (host, path) in [("other.test", "/productpage"), ("istio.k3s.local", "/nothing")] {
        let (status, _) = get(port, host, path)?;
        ensure!(status == 404, "{host}{path} was answered with {status}, not 404");
    }
    let all = processes(&demo.folder);
    ensure!(all.len() >= 14, "fewer processes than the demo has: {all:#?}");
    let interrupted = Command::new("kill").args(["-INT", &demo.child.id().to_string()]).status()?;
    ensure!(interrupted.success(), "SIGINT could not be sent");
    let begun = Instant::now();
    let status = loop {
        match demo.child.try_wait()? {
            Some(status) => break status,
            None => ensure!(begun.elapsed() < PATIENCE, "it did not end on SIGINT"),
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    ensure!(status.success(), "it ended with {status}");
    // The last of them may need a moment to see that the others are gone.
    let begun = Instant::now();
    loop {
        let left = processes(&demo.folder);
        if left.is_empty() {
            break;
        }
        ensure!(begun.elapsed() < PATIENCE / 10, "processes were left behind: {left:#?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(ready)
}

fn get(port: u16, host: &str, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    Ok((answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default(), answer))
}

/// Command lines of the processes whose environment has `folder`: the demo and all that it started.
fn processes(folder: &Path) -> Vec<String> {
    let folder = folder.display().to_string();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let read = |entry: &std::fs::DirEntry, file: &str| {
        std::fs::read(entry.path().join(file)).map(|bytes| String::from_utf8_lossy(&bytes).replace('\0', " "))
    };
    entries
        .filter_map(|entry| {
            let line = read(&entry, "cmdline").ok().filter(|line| !line.is_empty())?;
            let ours = line.contains(&folder) || read(&entry, "environ").is_ok_and(|all| all.contains(&folder));
            ours.then_some(line)
        })
        .collect()
}
