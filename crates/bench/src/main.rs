//! `cargo xtask bench`: our proxy beside Envoy (and nginx and HAProxy where they are installed), in one run.
//!
//! Everything runs on loopback: a backend that answers 1 KiB, the proxies, and a closed-loop client with keep-alive
//! connections. Rounds of all proxies alternate, so that a machine that gets slower or faster meets all of them alike.
//! The figure to trust is CPU time per request, read from the kernel's accounting of the proxy's own processes.

#![forbid(unsafe_code)]

mod backend;
mod certificates;
mod load;
mod peers;
mod process;
mod report;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;

use crate::peers::{Peer, Shape};
use crate::report::{Measurement, Report};

/// Measure mizzen's proxy beside its peers.
#[derive(Parser)]
struct Arguments {
    /// The release binary to measure.
    #[arg(long)]
    mizzen: PathBuf,
    /// A stock Envoy; without it there is nothing to divide by, and only our figures are printed.
    #[arg(long)]
    envoy: Option<PathBuf>,
    /// How long one proxy is loaded in one round, in seconds.
    #[arg(long, default_value_t = 3.0)]
    seconds: f32,
    /// How often each proxy is loaded; medians over the rounds are reported.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Keep-alive connections of the client.
    #[arg(long, default_value_t = 32)]
    connections: usize,
    /// Only these shapes: gateway, mtls-pair.
    #[arg(long)]
    only: Vec<String>,
    /// Where `bench.json`, `bench.md` and `bench.svg` are written.
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let folder = tempfile::tempdir().context("cannot make a scratch folder")?;
    let backend = backend::start(1024)?;
    let mut report = Report::default();
    for shape in [Shape::Gateway, Shape::MtlsPair] {
        if !arguments.only.is_empty() && !arguments.only.iter().any(|name| name == shape.name()) {
            continue;
        }
        let peers = peers::start_all(shape, &arguments.mizzen, arguments.envoy.as_deref(), folder.path(), backend)?;
        measure(&arguments, shape, &peers, &mut report)?;
    }
    report.print();
    report.write(&arguments.out)?;
    println!("written to {}", arguments.out.display());
    Ok(())
}

/// Loads each peer in turn, round by round.
fn measure(arguments: &Arguments, shape: Shape, peers: &[Peer], report: &mut Report) -> anyhow::Result<()> {
    let duration = Duration::from_secs_f32(arguments.seconds);
    for peer in peers {
        load::run(peer.address, arguments.connections, Duration::from_millis(500))
            .with_context(|| format!("{} does not forward", peer.name))?;
    }
    for _round in 0..arguments.rounds {
        for peer in peers {
            let before = peer.cpu()?;
            let result = load::run(peer.address, arguments.connections, duration)?;
            let cpu = peer.cpu()? - before;
            report.add(Measurement {
                shape: shape.name(),
                peer: peer.name,
                requests: result.requests,
                errors: result.errors,
                seconds: result.seconds,
                cpu_seconds: cpu.as_secs_f64(),
                p50_us: result.quantile(0.50),
                p99_us: result.quantile(0.99),
                rss_kib: peer.rss_kib()?,
            });
        }
    }
    Ok(())
}
