//! From [`Inputs`] to everything that a start needs. Pure.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use mizzen_proxy::Ending;
use serde_json::Value;

use crate::bootstrap::{self, Discovery, DiscoveryTls};
use crate::dns::Dns;
use crate::duration;
use crate::inputs::{Inputs, Role};
use crate::node::{self, Facts};
use crate::probers::{self, Prober, Scrape};
use crate::proxy_config::{self, ANNOTATION};

/// The name in the control plane's certificate when it is reached by an address that no certificate has.
const DEFAULT_SERVER_NAME: &str = "istiod.istio-system.svc";

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    #[error("{source_name} cannot be read: {reason}")]
    Text { source_name: &'static str, reason: String },
    #[error("proxy configuration, field {field}: {reason}")]
    Field { field: &'static str, reason: String },
    #[error("environment variable {name}: {reason}")]
    Variable { name: &'static str, reason: String },
    #[error("environment variable {name} is not the JSON that it should be: {reason}")]
    MetadataJson { name: String, reason: String },
    #[error("this machine has no address: set INSTANCE_IP to the one that others reach it at")]
    NoAddress,
}

/// How a proxy starts and ends.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    pub node: Value,
    /// Envoy bootstrap, as JSON.
    pub bootstrap: String,
    /// `None`: without a certificate of its own (plaintext discovery).
    pub identity: Option<IdentityFiles>,
    /// Where the files of the machine lie.
    pub root: PathBuf,
    pub state_dir: PathBuf,
    pub ports: Ports,
    pub concurrency: usize,
    /// How long open connections may go on when a listener is removed.
    pub drain: Duration,
    pub ending: Ending,
    /// The application's probes, by the path that the kubelet asks the agent for.
    pub probers: BTreeMap<String, Prober>,
    /// The application's metrics.
    pub scrape: Option<Scrape>,
    /// The pod's main address.
    pub address: Option<IpAddr>,
    /// The name server beside the proxy, where one is asked for.
    pub dns: Option<Dns>,
    /// What was asked for and is not obeyed, in words.
    pub notes: Vec<String>,
}

/// How the workload proves itself and recognises the authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityFiles {
    /// `HOST:PORT` of the certificate authority.
    pub ca_address: String,
    pub ca_server_name: String,
    pub ca_roots: PathBuf,
    pub token: PathBuf,
}

/// Where the proxy is asked; all but the admin port on every address of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    pub admin: u16,
    /// `/healthz/ready` of the proxy.
    pub health: u16,
    /// The proxy's own metrics.
    pub stats: u16,
    /// The agent: merged metrics, probes of the application. `None`: not at all.
    pub status: Option<u16>,
}

/// Works out node, bootstrap and all else.
pub fn resolve(inputs: &Inputs) -> Result<Settings, SettingsError> {
    let annotations = node::labels(inputs, "ISTIO_METAJSON_ANNOTATIONS", inputs.annotations.as_deref())?;
    let labels = node::labels(inputs, "ISTIO_METAJSON_LABELS", inputs.labels.as_deref())?;
    let config = proxy_config::read(inputs, annotations.get(ANNOTATION).map(String::as_str))?;
    // Injection writes these into the container's environment; on a virtual machine nobody does.
    let mut inputs = inputs.clone();
    for (name, value) in &config.metadata {
        inputs.variables.entry(name.clone()).or_insert_with(|| value.clone());
    }
    let inputs = &inputs;
    let mut notes = Vec::new();
    let ports = Ports {
        admin: config.admin_port,
        health: port(inputs, "ENVOY_STATUS_PORT", 15021)?,
        stats: port(inputs, "ENVOY_PROMETHEUS_PORT", 15090)?,
        status: Some(config.status_port).filter(|port| *port != 0),
    };

    let (host, discovery_port) = address("discoveryAddress", &config.discovery_address)?;
    let server_name = server_name(inputs, &host);
    let roots = roots(inputs, "XDS_ROOT_CA");
    let facts = Facts {
        inputs,
        config: &config,
        labels: &labels,
        annotations: &annotations,
        server_name: &server_name,
        health_port: ports.health,
        stats_port: ports.stats,
    };
    let node = node::node(&facts)?;
    let discovery = Discovery {
        host,
        port: discovery_port,
        tls: (!config.plaintext)
            .then(|| DiscoveryTls { server_name: server_name.clone(), roots: roots.display().to_string() }),
        cluster_id: node["metadata"]["CLUSTER_ID"].as_str().unwrap_or_default().to_owned(),
    };
    let admin = (Ipv4Addr::LOCALHOST, ports.admin).into();
    let bootstrap = bootstrap::bootstrap(&node, admin, &discovery).to_string();

    let ca_address = inputs.variable("CA_ADDR").unwrap_or(&config.discovery_address).to_owned();
    let (ca_host, ca_port) = address("CA_ADDR", &ca_address)?;
    let identity = (!config.plaintext).then(|| IdentityFiles {
        ca_address: join(&ca_host, ca_port),
        ca_server_name: self::server_name(inputs, &ca_host),
        ca_roots: self::roots(inputs, "CA_ROOT_CA"),
        token: token(inputs),
    });
    not_obeyed(inputs, &config, &mut notes);
    Ok(Settings {
        node,
        bootstrap,
        identity,
        root: inputs.root.clone(),
        state_dir: state_dir(inputs, &config),
        ports,
        concurrency: concurrency(inputs, config.concurrency)?,
        drain: config.drain,
        ending: ending(inputs, config.termination_drain)?,
        probers: probers::probers(inputs.variable("ISTIO_KUBE_APP_PROBERS"))?,
        scrape: probers::scrape(inputs.variable("ISTIO_PROMETHEUS_ANNOTATIONS"), config.status_port)?,
        dns: dns(inputs)?,
        address: inputs.variable("INSTANCE_IP").and_then(|text| text.split(',').next()?.trim().parse().ok()),
        notes,
    })
}

/// The name that the server behind `host` has to prove.
fn server_name(inputs: &Inputs, host: &str) -> String {
    if let Some(name) = inputs.variable("ISTIOD_SAN") {
        return name.to_owned();
    }
    // A port forwarded to this machine still ends at the control plane.
    let local = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    if local { DEFAULT_SERVER_NAME.to_owned() } else { host.to_owned() }
}

/// Paths of Istio's agent are relative to the root; absolute ones stay.
fn at(inputs: &Inputs, path: &str) -> PathBuf {
    let path = Path::new(path);
    let relative = path.strip_prefix("/").or_else(|_| path.strip_prefix("./")).unwrap_or(path);
    inputs.root.join(relative)
}

fn roots(inputs: &Inputs, variable: &str) -> PathBuf {
    match (inputs.variable(variable), inputs.variable("PILOT_CERT_PROVIDER")) {
        (Some("SYSTEM"), _) => at(inputs, "/etc/ssl/certs/ca-certificates.crt"),
        (Some(path), _) => at(inputs, path),
        (None, Some("kubernetes")) => at(inputs, "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"),
        (None, Some("custom")) => at(inputs, "/etc/certs/root-cert.pem"),
        (None, _) => at(inputs, "/var/run/secrets/istio/root-cert.pem"),
    }
}

fn token(inputs: &Inputs) -> PathBuf {
    match inputs.variable("JWT_POLICY") {
        Some("first-party-jwt") => at(inputs, "/var/run/secrets/kubernetes.io/serviceaccount/token"),
        _ => at(inputs, "/var/run/secrets/tokens/istio-token"),
    }
}

fn state_dir(inputs: &Inputs, config: &proxy_config::ProxyConfig) -> PathBuf {
    let folder = config.whole.get("configPath").and_then(Value::as_str).unwrap_or("/etc/istio/proxy");
    // The folder itself is shared with whoever mounts it; ours is for us alone.
    at(inputs, folder).join("mizzen")
}

fn port(inputs: &Inputs, name: &'static str, default: u16) -> Result<u16, SettingsError> {
    let read = |text: &str| {
        text.parse().map_err(|_| SettingsError::Variable { name, reason: format!("{text:?} is no port number") })
    };
    inputs.variable(name).map_or(Ok(default), read)
}

/// Host without brackets, and port.
fn address(field: &'static str, text: &str) -> Result<(String, u16), SettingsError> {
    let wrong = || SettingsError::Field { field, reason: format!("{text:?} is not of the form HOST:PORT") };
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let port = port.parse().map_err(|_| wrong())?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    match bare {
        Some(bare) if bare.parse::<IpAddr>().is_ok() => Ok((bare.to_owned(), port)),
        None if !host.is_empty() && !host.contains([':', '/', '[', ']', ' ']) => Ok((host.to_owned(), port)),
        _ => Err(wrong()),
    }
}

fn join(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// The flag, else the configuration, else the processor limit. 0 means all processors.
fn concurrency(inputs: &Inputs, configured: Option<u32>) -> Result<usize, SettingsError> {
    /// Without any limit: enough for most, and not one for each processor of a large machine.
    const UNLIMITED: usize = 2;
    let processors = inputs.processors.max(1);
    let wanted = match (inputs.concurrency.or(configured), inputs.variable("ISTIO_CPU_LIMIT")) {
        (Some(0), _) => processors,
        (Some(number), _) => usize::try_from(number).unwrap_or(processors),
        (None, Some(limit)) => cpu_limit(limit).ok_or_else(|| SettingsError::Variable {
            name: "ISTIO_CPU_LIMIT",
            reason: format!("{limit:?} is no number of processors"),
        })?,
        (None, None) => UNLIMITED.min(processors),
    };
    Ok(wanted.clamp(1, 1024))
}

/// `2`, `1.5` or `1500m`, rounded up.
fn cpu_limit(text: &str) -> Option<usize> {
    let cores = match text.strip_suffix('m') {
        Some(thousandths) => thousandths.parse::<f64>().ok()? / 1000.0,
        None => text.parse::<f64>().ok()?,
    };
    (cores.is_finite() && cores > 0.0).then(|| cores.ceil().min(1024.0) as usize)
}

fn ending(inputs: &Inputs, termination_drain: Duration) -> Result<Ending, SettingsError> {
    let idle = match inputs.variable("EXIT_ON_ZERO_ACTIVE_CONNECTIONS") {
        None => false,
        Some(text) => flag(text).ok_or_else(|| SettingsError::Variable {
            name: "EXIT_ON_ZERO_ACTIVE_CONNECTIONS",
            reason: format!("{text:?} is neither true nor false"),
        })?,
    };
    if !idle {
        return Ok(Ending::After(termination_drain));
    }
    let least = inputs.variable("MINIMUM_DRAIN_DURATION").unwrap_or("5s");
    let least =
        duration::parse(least).map_err(|reason| SettingsError::Variable { name: "MINIMUM_DRAIN_DURATION", reason })?;
    Ok(Ending::WhenIdle(least))
}

/// Where names are resolved, if they are (Istio: `ISTIO_META_DNS_CAPTURE`).
fn dns(inputs: &Inputs) -> Result<Option<Dns>, SettingsError> {
    const PORT: u16 = 15053;
    // A gateway has no application that asks.
    if inputs.role != Role::Sidecar || inputs.variable("ISTIO_META_DNS_CAPTURE").and_then(flag) != Some(true) {
        return Ok(None);
    }
    let both = |port: u16| vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()];
    let addresses = match inputs.variable("DNS_PROXY_ADDR") {
        None => both(PORT),
        Some(text) => match text.strip_prefix("localhost:").map(str::parse) {
            Some(Ok(port)) => both(port),
            _ => vec![text.parse().map_err(|_| SettingsError::Variable {
                name: "DNS_PROXY_ADDR",
                reason: format!("{text:?} is not of the form ADDRESS:PORT"),
            })?],
        },
    };
    let namespace = inputs.variable("POD_NAMESPACE").unwrap_or("default").to_owned();
    Ok(Some(Dns { addresses, namespace }))
}

/// Booleans as Go reads them.
fn flag(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "True" | "TRUE" => Some(true),
        "0" | "f" | "F" | "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

/// Says what is asked for and not done.
fn not_obeyed(inputs: &Inputs, config: &proxy_config::ProxyConfig, notes: &mut Vec<String>) {
    const SWITCHES: [(&str, &str); 5] = [
        ("ISTIO_META_ENABLE_HBONE", "tunnels (HBONE) are not spoken"),
        ("FILE_MOUNTED_CERTS", "certificates come from the certificate authority, not from files"),
        ("PROXY_CONFIG_XDS_AGENT", "proxy configuration is read once, at the start"),
        ("DISABLE_ENVOY", "the proxy always runs"),
        ("DNS_FORWARD_PARALLEL", "resolvers are asked one after another"),
    ];
    const PATHS: [(&str, &str); 4] = [
        ("PROV_CERT", "the workload proves itself by its token alone"),
        ("OUTPUT_CERTS", "certificates are not written into files"),
        ("ISTIO_BOOTSTRAP_OVERRIDE", "the bootstrap is not made from a template"),
        ("GRPC_XDS_BOOTSTRAP", "no bootstrap for gRPC applications is written"),
    ];
    for (name, why) in SWITCHES {
        if inputs.variable(name).and_then(flag) == Some(true) {
            notes.push(format!("{name} has no effect: {why}"));
        }
    }
    for (name, why) in PATHS {
        if inputs.variable(name).is_some() {
            notes.push(format!("{name} has no effect: {why}"));
        }
    }
    if let Some(other) = inputs.variable("CA_PROVIDER").filter(|name| *name != "Citadel") {
        notes.push(format!(
            "CA_PROVIDER {other:?} is not known; the certificate authority is asked by Istio's own protocol"
        ));
    }
    if !config.further_roots.is_empty() {
        notes.push("proxy configuration, field caCertificatesPem, has no effect".to_owned());
    }
    for field in
        ["customConfigFile", "envoyAccessLogService", "envoyMetricsService", "statsdUdpAddress", "readinessProbe"]
    {
        if config.whole.get(field).is_some_and(|value| *value != Value::String(String::new())) {
            notes.push(format!("proxy configuration, field {field}, has no effect"));
        }
    }
}

#[cfg(test)]
mod tests;
