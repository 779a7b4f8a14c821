//! The proxies of the world: ours as parts of this process, or stock Envoys as processes of their own.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use mizzen_identity::WorkloadIdentity;
use mizzen_identity::client::Config as IdentityConfig;
use mizzen_identity::connect::{CONTROL_PLANE_NAME, ControlPlane, RootSource};
use mizzen_identity::token::Issuer;
use mizzen_proxy::config::{IdentityOptions, Limits, ProxyConfig};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::memory::HTTP_PROXY_PORT;
use crate::world::{self, GATEWAY, GATEWAY_LABELS, WORKLOADS};

/// Where each proxy's admin port is, at its own address.
pub(super) const ADMIN_PORT: u16 = 15000;

/// Whose proxies they are.
#[derive(Debug, Clone)]
pub enum Kind {
    Mizzen,
    /// The path of the program.
    Envoy(PathBuf),
}

/// What is needed to start them.
pub(super) struct Proxies<'a> {
    pub(super) kind: Kind,
    pub(super) net: u8,
    pub(super) control: Ipv4Addr,
    pub(super) folder: &'a Path,
    /// The control plane's folder, with `root-cert.pem`.
    pub(super) state: &'a Path,
    pub(super) issuer: &'a Issuer,
    /// Where the applications listen, by workload.
    pub(super) apps: &'a BTreeMap<&'static str, SocketAddr>,
}

/// One proxy to start.
struct Place {
    role: &'static str,
    name: &'static str,
    namespace: &'static str,
    service_account: &'static str,
    address: Ipv4Addr,
    labels: BTreeMap<&'static str, &'static str>,
    /// Workload port and where its application listens.
    app: Option<(u16, SocketAddr)>,
}

/// Running proxies. Envoys end with this.
pub(super) struct Running {
    envoys: Vec<(Child, PathBuf)>,
    identities: Vec<WorkloadIdentity>,
}

impl Running {
    /// The ends of the logs of Envoys, for whoever looks for a reason.
    pub(super) fn logs(&self) -> String {
        let mut text = String::new();
        for (_, path) in &self.envoys {
            let log = std::fs::read_to_string(path).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            for line in lines.iter().skip(lines.len().saturating_sub(15)) {
                text.push_str(&format!("\n{}: {line}", path.display()));
            }
        }
        text
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for (envoy, _) in &mut self.envoys {
            // It may have ended by itself.
            drop(envoy.kill());
            drop(envoy.wait());
        }
        self.identities.clear();
    }
}

impl Proxies<'_> {
    pub(super) fn start(&self, runtime: &Runtime) -> Result<Running, String> {
        let mut running = Running { envoys: Vec::new(), identities: Vec::new() };
        for place in self.places() {
            let folder = self.folder.join(place.name);
            let token_file = folder.join("token");
            let token = self
                .issuer
                .mint(place.namespace, place.service_account, Duration::from_secs(3600), SystemTime::now())
                .map_err(|error| error.to_string())?;
            std::fs::create_dir(&folder)
                .and_then(|()| std::fs::write(&token_file, token))
                .map_err(|error| error.to_string())?;
            match &self.kind {
                Kind::Mizzen => self.start_ours(&place, token_file),
                Kind::Envoy(program) => {
                    let identity = self.identity(runtime, &folder, token_file);
                    running.identities.push(identity);
                    running.envoys.push(self.start_envoy(program, &place, &folder)?);
                }
            }
        }
        Ok(running)
    }

    fn places(&self) -> Vec<Place> {
        let sidecars = WORKLOADS.iter().filter(|workload| workload.sidecar).map(|workload| Place {
            role: "sidecar",
            name: workload.name,
            namespace: workload.namespace,
            service_account: workload.service_account,
            address: workload.address(self.net),
            labels: workload.labels().into_iter().collect(),
            app: self.apps.get(workload.name).map(|app| (workload.port, *app)),
        });
        let gateway = Place {
            role: "router",
            name: GATEWAY,
            namespace: "istio-system",
            service_account: "istio-ingressgateway-service-account",
            address: world::gateway_address(self.net),
            labels: GATEWAY_LABELS.into(),
            app: None,
        };
        sidecars.chain([gateway]).collect()
    }

    fn start_ours(&self, place: &Place, token: PathBuf) {
        let config = ProxyConfig {
            bootstrap: self.bootstrap(place, None).to_string(),
            bootstrap_name: format!("{}.json", place.name),
            concurrency: 1,
            identity: Some(IdentityOptions {
                ca_address: format!("{}:15012", self.control),
                ca_server_name: None,
                ca_root: self.state.join("root-cert.pem"),
                token,
            }),
            state_dir: None,
            health_address: None,
            stats_address: None,
            drain_time: Duration::from_secs(1),
            ending: mizzen_proxy::Ending::AtOnce,
            limits: Limits::default(),
        };
        let name = place.name;
        // Ends with the process of the test.
        std::thread::spawn(move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return eprintln!("{name}: {error}"),
            };
            let running = mizzen_proxy::run::run(config, None, |_| (), std::future::pending());
            if let Err(error) = runtime.block_on(running) {
                eprintln!("the proxy {name} ended: {error}");
            }
        });
    }

    /// Gets a certificate and hands it to an Envoy.
    fn identity(&self, runtime: &Runtime, folder: &Path, token: PathBuf) -> WorkloadIdentity {
        let roots = RootSource::File(self.state.join("root-cert.pem"));
        let config = IdentityConfig {
            control_plane: ControlPlane::new(&format!("{}:15012", self.control), roots),
            token,
            id: None,
            ttl: None,
            state_dir: None,
        };
        let _inside = runtime.enter();
        let client = WorkloadIdentity::start(config);
        let (socket, watch) = (folder.join("sds.sock"), client.watch());
        runtime.spawn(async move {
            if let Err(error) = mizzen_identity::sds::serve(&socket, watch).await {
                eprintln!("{}: {error}", socket.display());
            }
        });
        client
    }

    fn start_envoy(&self, program: &Path, place: &Place, folder: &Path) -> Result<(Child, PathBuf), String> {
        let (bootstrap, log) = (folder.join("bootstrap.json"), folder.join("log"));
        let text = self.bootstrap(place, Some(&folder.join("sds.sock"))).to_string();
        std::fs::write(&bootstrap, text).map_err(|error| error.to_string())?;
        let child = Command::new(program)
            .arg("-c")
            .arg(&bootstrap)
            .args(["--disable-hot-restart", "--concurrency", "1", "--log-level", "warning", "--log-path"])
            .arg(&log)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("{}: {error}", program.display()))?;
        Ok((child, log))
    }

    fn bootstrap(&self, place: &Place, sds: Option<&Path>) -> Value {
        let mut metadata = json!({
            "NAME": place.name,
            "NAMESPACE": place.namespace,
            "LABELS": place.labels,
            "SERVICE_ACCOUNT": place.service_account,
            "CLUSTER_ID": "Kubernetes",
            "MESH_ID": "cluster.local",
            "INSTANCE_IPS": place.address.to_string(),
            "INTERCEPTION_MODE": "NONE",
            "MIZZEN_BIND": place.address.to_string(),
        });
        if place.role == "sidecar" {
            metadata["HTTP_PROXY_PORT"] = HTTP_PROXY_PORT.to_string().into();
        }
        if let Some((port, app)) = place.app {
            metadata["MIZZEN_APP"] = json!({port.to_string(): app.to_string()});
        }
        if sds.is_none() {
            metadata["MIZZEN_VERSION"] = env!("CARGO_PKG_VERSION").into();
        }
        let xds = json!({"socket_address": {"address": self.control.to_string(), "port_value": 15012}});
        let mut xds = grpc_cluster("xds-grpc", &xds);
        xds["transport_socket"] = mutual_tls(&self.state.join("root-cert.pem"), sds.is_some());
        let mut clusters = vec![xds];
        clusters
            .extend(sds.map(|path| grpc_cluster("sds-grpc", &json!({"pipe": {"path": path.display().to_string()}}))));
        json!({
            "node": {
                "id": format!("{}~{}~{}.{namespace}~{namespace}.svc.cluster.local", place.role, place.address, place.name, namespace = place.namespace),
                "cluster": place.name,
                "metadata": metadata,
            },
            "admin": {"address": {"socket_address": {"address": place.address.to_string(), "port_value": ADMIN_PORT}}},
            "dynamic_resources": {
                "ads_config": {
                    "api_type": "DELTA_GRPC",
                    "transport_api_version": "V3",
                    "set_node_on_first_message_only": true,
                    "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}],
                },
                "cds_config": {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"},
                "lds_config": {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"},
            },
            "static_resources": {"clusters": clusters},
        })
    }
}

/// TLS to the control plane, with the workload's certificate: only who has proved who it is gets secrets.
fn mutual_tls(roots: &Path, sds: bool) -> Value {
    let grpc = json!({
        "api_type": "GRPC",
        "transport_api_version": "V3",
        "grpc_services": [{"envoy_grpc": {"cluster_name": "sds-grpc"}}],
    });
    let source =
        if sds { json!({"resource_api_version": "V3", "api_config_source": grpc}) } else { json!({"ads": {}}) };
    json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "sni": CONTROL_PLANE_NAME,
            "common_tls_context": {
                "alpn_protocols": ["h2"],
                "tls_certificate_sds_secret_configs": [{"name": "default", "sds_config": source}],
                "validation_context": {
                    "trusted_ca": {"filename": roots.display().to_string()},
                    "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": CONTROL_PLANE_NAME}}],
                },
            },
        },
    })
}

fn grpc_cluster(name: &str, address: &Value) -> Value {
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            },
        },
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    })
}
