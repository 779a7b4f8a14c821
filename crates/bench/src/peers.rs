//! The proxies that are measured, and the configuration that makes them do the same.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::bail;
use serde_json::{Value, json};

use crate::certificates::{self, Files};
use crate::process::Process;

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// One proxy, plaintext on both sides.
    Gateway,
    /// Two proxies with mTLS between them, as between two sidecars.
    MtlsPair,
}

impl Shape {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::MtlsPair => "mtls-pair",
        }
    }
}

/// One peer: one or two processes behind an address.
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    processes: Vec<Process>,
}

impl Peer {
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        self.processes.iter().map(Process::cpu).sum()
    }

    /// Resident memory; for a pair, of one of its two processes on average.
    pub(crate) fn rss_kib(&self) -> anyhow::Result<u64> {
        let sum: u64 = self.processes.iter().map(Process::rss_kib).sum::<anyhow::Result<u64>>()?;
        Ok(sum / self.processes.len().max(1) as u64)
    }
}

/// Starts every peer that this machine has for `shape`.
pub(crate) fn start_all(
    shape: Shape,
    mizzen: &Path,
    envoy: Option<&Path>,
    folder: &Path,
    backend: SocketAddr,
) -> anyhow::Result<Vec<Peer>> {
    let mut peers = vec![xds_peer("mizzen", mizzen, &["proxy", "--concurrency", "1"], shape, folder, backend)?];
    if let Some(envoy) = envoy {
        let arguments = ["--concurrency", "1", "--log-level", "error", "--disable-hot-restart"];
        peers.push(xds_peer("envoy", envoy, &arguments, shape, folder, backend)?);
    }
    if shape == Shape::Gateway {
        peers.extend(nginx(folder, backend)?);
        peers.extend(haproxy(folder, backend)?);
    }
    Ok(peers)
}

/// Ours or Envoy: the same bootstrap file runs both.
fn xds_peer(
    name: &'static str,
    program: &Path,
    arguments: &[&str],
    shape: Shape,
    folder: &Path,
    backend: SocketAddr,
) -> anyhow::Result<Peer> {
    let files = certificates::make(folder)?;
    let front = free_address()?;
    let bootstraps = match shape {
        Shape::Gateway => vec![bootstrap(front, backend, None, None)],
        Shape::MtlsPair => {
            let middle = free_address()?;
            vec![bootstrap(middle, backend, Some(&files), None), bootstrap(front, middle, None, Some(&files))]
        }
    };
    let mut processes = Vec::new();
    for (index, bootstrap) in bootstraps.iter().enumerate() {
        let path = folder.join(format!("{name}-{}-{index}.json", shape.name()));
        fs::write(&path, serde_json::to_vec_pretty(bootstrap)?)?;
        let mut command = Command::new(program);
        command.args(arguments).arg("-c").arg(&path);
        processes.push(Process::start(&mut command, &path.with_extension("log"))?);
    }
    wait_for(name, front, folder)?;
    Ok(Peer { name, address: front, processes })
}

/// A listener with one route to one cluster; `serve` terminates mTLS, `call` originates it.
fn bootstrap(listen: SocketAddr, upstream: SocketAddr, serve: Option<&Files>, call: Option<&Files>) -> Value {
    let mut chain = json!({"filters": [{
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "bench",
            "route_config": {"name": "bench", "virtual_hosts": [{
                "name": "bench", "domains": ["*"],
                "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "backend", "timeout": "0s"}}],
            }]},
            "http_filters": [{
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
            }],
        },
    }]});
    if let Some(files) = serve {
        chain["transport_socket"] = json!({"name": "envoy.transport_sockets.tls", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "require_client_certificate": true,
            "common_tls_context": tls(files),
        }});
    }
    let mut cluster = json!({
        "name": "backend", "type": "STATIC", "connect_timeout": "5s",
        "load_assignment": {"cluster_name": "backend", "endpoints": [{"lb_endpoints": [
            {"endpoint": {"address": socket(upstream)}},
        ]}]},
    });
    if let Some(files) = call {
        cluster["transport_socket"] = json!({"name": "envoy.transport_sockets.tls", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "sni": "bench.local",
            "common_tls_context": tls(files),
        }});
    }
    json!({"static_resources": {
        "listeners": [{"name": "bench", "address": socket(listen), "filter_chains": [chain]}],
        "clusters": [cluster],
    }})
}

fn tls(files: &Files) -> Value {
    json!({
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        "tls_certificates": [{
            "certificate_chain": {"filename": files.certificate}, "private_key": {"filename": files.key},
        }],
        "validation_context": {
            "trusted_ca": {"filename": files.root},
            "match_typed_subject_alt_names": [
                {"san_type": "URI", "matcher": {"prefix": "spiffe://cluster.local/"}},
            ],
        },
    })
}

fn socket(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

fn nginx(folder: &Path, backend: SocketAddr) -> anyhow::Result<Option<Peer>> {
    let address = free_address()?;
    let path = folder.join("nginx.conf");
    let (scratch, pid) = (folder.display(), folder.join("nginx.pid"));
    fs::write(
        &path,
        format!(
            "daemon off; worker_processes 1; pid {}; error_log stderr error;\n\
             events {{ worker_connections 1024; }}\n\
             http {{ access_log off; client_body_temp_path {scratch}/b; proxy_temp_path {scratch}/p;\n\
             fastcgi_temp_path {scratch}/f; uwsgi_temp_path {scratch}/u; scgi_temp_path {scratch}/s;\n\
             keepalive_requests 100000000; upstream backend {{ server {backend}; keepalive 64; keepalive_requests 100000000; }}\n\
             server {{ listen {address}; location / {{ proxy_pass http://backend; proxy_http_version 1.1;\n\
             proxy_set_header Connection \"\"; }} }} }}\n",
            pid.display(),
        ),
    )?;
    let mut command = Command::new("nginx");
    command.arg("-c").arg(&path).arg("-p").arg(folder);
    installed("nginx", &mut command, address, folder)
}

fn haproxy(folder: &Path, backend: SocketAddr) -> anyhow::Result<Option<Peer>> {
    let address = free_address()?;
    let path = folder.join("haproxy.cfg");
    fs::write(
        &path,
        format!(
            "global\n  nbthread 1\ndefaults\n  mode http\n  timeout client 60s\n  timeout server 60s\n  timeout connect 5s\n\
             frontend in\n  bind {address}\n  default_backend out\nbackend out\n  http-reuse always\n  server one {backend}\n",
        ),
    )?;
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(&path);
    installed("haproxy", &mut command, address, folder)
}

/// A peer that takes part only where it is installed.
fn installed(
    name: &'static str,
    command: &mut Command,
    address: SocketAddr,
    folder: &Path,
) -> anyhow::Result<Option<Peer>> {
    let Ok(process) = Process::start(command, &folder.join(format!("{name}.log"))) else {
        println!("{name} is not installed: left out");
        return Ok(None);
    };
    wait_for(name, address, folder)?;
    Ok(Some(Peer { name, address, processes: vec![process] }))
}

fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn wait_for(name: &str, address: SocketAddr, folder: &Path) -> anyhow::Result<()> {
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(10) {
        if TcpStream::connect(address).is_ok() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let logs: String = fs::read_dir(folder)?
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(name))
        .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "log"))
        .filter_map(|entry| fs::read_to_string(entry.path()).ok())
        .collect();
    bail!("{name} does not listen on {address} after 10 s; it said:\n{logs}")
}
