//! A closed-loop client: each connection sends its next request when it has read the answer to the last.
//!
//! One thread with an event loop, as the backend. On loopback the kernel charges a sender with waking up whoever receives:
//! with a thread for every connection each proxy would mostly be measured by the thread switches of its neighbours.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A proxy that does not answer for so long does not answer.
const PATIENCE: Duration = Duration::from_secs(30);

const REQUEST: &[u8] = b"GET /bench HTTP/1.1\r\nhost: bench.local\r\nuser-agent: mizzen-bench\r\naccept: */*\r\n\r\n";

/// What one loading found.
pub(crate) struct Loaded {
    pub(crate) requests: u64,
    /// Answers other than 200.
    pub(crate) errors: u64,
    pub(crate) seconds: f64,
    /// In microseconds, sorted.
    latencies: Vec<u32>,
}

impl Loaded {
    /// The latency below which this share of the requests was answered, in microseconds.
    pub(crate) fn quantile(&self, share: f64) -> u32 {
        let index = (self.latencies.len() as f64 * share) as usize;
        self.latencies.get(index.min(self.latencies.len().saturating_sub(1))).copied().unwrap_or(0)
    }
}

/// Loads `address` for `duration` over `connections` keep-alive connections.
///
/// # Errors
///
/// When a connection cannot be made, breaks, or answers something that is not HTTP/1.1 with a content length.
pub(crate) fn run(address: SocketAddr, connections: usize, duration: Duration) -> anyhow::Result<Loaded> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let started = Instant::now();
    let mut loaded = Loaded { requests: 0, errors: 0, seconds: 0.0, latencies: Vec::new() };
    runtime.block_on(async {
        let clients: Vec<_> = (0..connections).map(|_| tokio::spawn(connection(address, started, duration))).collect();
        for client in clients {
            let client = tokio::time::timeout(duration + PATIENCE, client).await;
            let (latencies, errors) = client.context("the proxy stopped answering")???;
            loaded.errors += errors;
            loaded.latencies.extend(latencies);
        }
        anyhow::Ok(())
    })?;
    loaded.requests = loaded.latencies.len() as u64;
    loaded.seconds = started.elapsed().as_secs_f64();
    loaded.latencies.sort_unstable();
    Ok(loaded)
}

async fn connection(address: SocketAddr, started: Instant, duration: Duration) -> anyhow::Result<(Vec<u32>, u64)> {
    let mut stream = TcpStream::connect(address).await.with_context(|| format!("cannot connect to {address}"))?;
    stream.set_nodelay(true)?;
    let (mut latencies, mut errors) = (Vec::with_capacity(100_000), 0);
    let mut buffer = vec![0; 64 * 1024];
    while started.elapsed() < duration {
        let sent = Instant::now();
        stream.write_all(REQUEST).await?;
        if read_response(&mut stream, &mut buffer).await? != 200 {
            errors += 1;
        }
        latencies.push(u32::try_from(sent.elapsed().as_micros()).unwrap_or(u32::MAX));
    }
    Ok((latencies, errors))
}

/// Reads one whole response and returns its status.
async fn read_response(stream: &mut TcpStream, buffer: &mut [u8]) -> anyhow::Result<u16> {
    let (mut filled, mut wanted) = (0, None);
    loop {
        if wanted.is_some_and(|(length, _)| filled >= length) {
            return Ok(wanted.map_or(0, |(_, status)| status));
        }
        let count = stream.read(&mut buffer[filled..]).await?;
        if count == 0 {
            bail!("the connection was closed after {filled} bytes of a response");
        }
        filled += count;
        if wanted.is_none() {
            wanted = head(&buffer[..filled])?;
        }
    }
}

/// Length of the whole response and its status, once the head is complete.
fn head(bytes: &[u8]) -> anyhow::Result<Option<(usize, u16)>> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let text = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no status line")?;
    let length: usize = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"))
        .and_then(|value| value.trim().parse().ok())
        .context("a response without content-length")?;
    Ok(Some((end + 4 + length, status)))
}
