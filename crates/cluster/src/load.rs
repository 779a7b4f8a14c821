//! Steady HTTP load from outside of the cluster while something is restarted, as a process of its own beside the cluster.
//!
//! The test program calls itself with [`COMMAND`]. A request counts as failed when its status is not 2xx, or when no whole
//! answer came. As every HTTP client may, it repeats a request on a new connection when a kept one was closed before the
//! first byte of the answer.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use crate::place::Place;

/// First argument that makes the test program a load client.
pub const COMMAND: &str = "load";

/// A running client.
#[derive(Debug)]
pub struct Load {
    child: Child,
}

/// What it counted.
#[derive(Debug, Default, Clone)]
pub struct Counted {
    pub requests: u64,
    pub failed: u64,
    /// The first failures in words.
    pub reasons: Vec<String>,
    /// The slowest request.
    pub slowest: Duration,
}

impl Load {
    /// Begins `connections` kept connections, each with a request every 10 ms.
    ///
    /// # Errors
    ///
    /// When the process cannot be started.
    pub fn begin(place: &Place, address: &str, host: &str, path: &str, connections: usize) -> anyhow::Result<Self> {
        let program = std::env::current_exe()?;
        let child = place
            .beside(&program.display().to_string())
            .args([COMMAND, address, host, path, &connections.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the load client")?;
        Ok(Self { child })
    }

    /// Ends it.
    ///
    /// # Errors
    ///
    /// When the client died.
    pub fn end(mut self) -> anyhow::Result<Counted> {
        drop(self.child.stdin.take());
        let output = self.child.wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let mut counted = Counted::default();
        for line in text.lines() {
            match line.split_once(' ') {
                Some(("requests", number)) => counted.requests = number.parse()?,
                Some(("failed", number)) => counted.failed = number.parse()?,
                Some(("slowest_us", number)) => counted.slowest = Duration::from_micros(number.parse()?),
                Some(("reason", reason)) => counted.reasons.push(reason.to_owned()),
                _ => {}
            }
        }
        if counted.requests == 0 {
            bail!("the load client sent nothing: {text}");
        }
        Ok(counted)
    }
}

/// The client's side: ADDRESS HOST PATH CONNECTIONS; ends when its standard input does.
pub fn client(arguments: &[String]) -> ExitCode {
    let [address, host, path, connections] = arguments else {
        eprintln!("usage: {COMMAND} ADDRESS HOST PATH CONNECTIONS");
        return ExitCode::FAILURE;
    };
    let stop = Arc::new(AtomicBool::new(false));
    let total = Arc::new(Mutex::new(Counted::default()));
    let request = request(host, path);
    let workers: Vec<_> = (0..connections.parse().unwrap_or(1))
        .map(|_| {
            let (stop, total, address, request) = (stop.clone(), total.clone(), address.clone(), request.clone());
            std::thread::spawn(move || work(&address, &request, &stop, &total))
        })
        .collect();
    let mut rest = Vec::new();
    std::io::stdin().read_to_end(&mut rest).ok();
    stop.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.join().ok();
    }
    let total = total.lock().unwrap_or_else(PoisonError::into_inner);
    println!("requests {}\nfailed {}\nslowest_us {}", total.requests, total.failed, total.slowest.as_micros());
    for reason in &total.reasons {
        println!("reason {reason}");
    }
    ExitCode::SUCCESS
}

fn work(address: &str, request: &str, stop: &AtomicBool, total: &Mutex<Counted>) {
    let mut connection = Connection::to(address);
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        let outcome = connection.exchange(request).and_then(|answer| {
            ensure!((200..300).contains(&answer.status), "status {}: {:.200}", answer.status, answer.body);
            Ok(())
        });
        let took = began.elapsed();
        {
            let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
            total.requests += 1;
            total.slowest = total.slowest.max(took);
            if let Err(error) = outcome {
                total.failed += 1;
                if total.reasons.len() < 10 {
                    total.reasons.push(format!("{error:#} after {took:?}").replace('\n', " "));
                }
            }
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A kept connection, opened when it is needed.
#[derive(Debug)]
pub(crate) struct Connection {
    address: String,
    kept: Option<TcpStream>,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
    keep: bool,
}

/// A request's bytes.
pub(crate) fn request(host: &str, path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: mizzen-test\r\n\r\n")
}

impl Connection {
    pub(crate) fn to(address: &str) -> Self {
        Self { address: address.to_owned(), kept: None }
    }

    /// One request and its whole answer.
    pub(crate) fn exchange(&mut self, request: &str) -> anyhow::Result<Answer> {
        let reused = self.kept.is_some();
        let mut stream = match self.kept.take() {
            Some(stream) => stream,
            None => connect(&self.address)?,
        };
        let mut read = Vec::new();
        let sent = stream.write_all(request.as_bytes()).map_err(anyhow::Error::from);
        let outcome = sent.and_then(|()| answer(&mut stream, &mut read));
        let answer = match outcome {
            Err(_) if reused && read.is_empty() => {
                stream = connect(&self.address)?;
                stream.write_all(request.as_bytes())?;
                answer(&mut stream, &mut read)?
            }
            other => other?,
        };
        if answer.keep {
            self.kept = Some(stream);
        }
        Ok(answer)
    }
}

fn connect(address: &str) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect(address).context("connect")?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn answer(stream: &mut TcpStream, read: &mut Vec<u8>) -> anyhow::Result<Answer> {
    let head = loop {
        if let Some(end) = find(read, b"\r\n\r\n") {
            break end + 4;
        }
        more(stream, read)?;
    };
    let text = String::from_utf8_lossy(&read[..head]).to_ascii_lowercase();
    let header =
        |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned());
    let status = text.split(' ').nth(1).and_then(|word| word.parse().ok()).context("no status line")?;
    if let Some(length) = header("content-length:") {
        let length: usize = length.parse()?;
        while read.len() < head + length {
            more(stream, read)?;
        }
    } else if header("transfer-encoding:").is_some() {
        while !read.ends_with(b"0\r\n\r\n") {
            more(stream, read)?;
        }
    }
    let keep = header("connection:").as_deref() != Some("close");
    Ok(Answer { status, body: String::from_utf8_lossy(&read[head..]).into_owned(), keep })
}

fn more(stream: &mut TcpStream, read: &mut Vec<u8>) -> anyhow::Result<()> {
    let mut part = [0; 16 * 1024];
    match stream.read(&mut part)? {
        0 => bail!("the connection ended after {} bytes", read.len()),
        length => read.extend_from_slice(&part[..length]),
    }
    Ok(())
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}
