//! The bootstrap file of a proxy: who it is, where its control plane is. In Envoy's format, so that the same file runs
//! our proxy and a stock Envoy. Pure.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use mizzen_identity::connect::CONTROL_PLANE_NAME;
use serde_json::{Map, Value, json};

use crate::ProxyKind;
use crate::capture::Capture;
use crate::instance::{Instance, Role};
use crate::netns::PROXY_MARK;
use crate::network::HTTP_PROXY_PORT;

/// What all proxies of one mesh have in common.
#[derive(Debug, Clone)]
pub struct MeshFacts<'a> {
    pub kind: ProxyKind,
    pub capture: Capture,
    /// The control plane's secure port.
    pub xds: SocketAddr,
    /// File with the roots that it is recognised by.
    pub roots: &'a Path,
    pub mesh_id: &'a str,
    pub version: &'a str,
}

/// The bootstrap of one instance's proxy. `sds` is the socket on which a stock Envoy gets its certificate.
pub fn bootstrap(facts: &MeshFacts<'_>, instance: &Instance, sds: Option<&Path>) -> Value {
    let mut xds = grpc_cluster("xds-grpc", &json!({"socket_address": socket(facts.xds)}));
    xds["transport_socket"] = mutual_tls(facts.roots, sds.is_some());
    let mut clusters = vec![xds];
    if let Some(path) = sds {
        clusters.push(grpc_cluster("sds-grpc", &json!({"pipe": {"path": path.display().to_string()}})));
    }
    let mut statics = Map::new();
    if facts.kind == ProxyKind::Envoy {
        clusters.push(plain_cluster("prometheus_stats", instance.listens().admin));
        statics.insert("listeners".to_owned(), json!([health_listener(instance), stats_listener(instance)]));
    }
    statics.insert("clusters".to_owned(), clusters.into());
    let mut bootstrap = json!({
        "node": {
            "id": instance.node_id(),
            "cluster": format!("{}.{}", instance.labels.get("app").unwrap_or(&instance.workload), instance.namespace),
            "metadata": metadata(facts, instance),
        },
        "admin": {"address": {"socket_address": socket(instance.listens().admin)}},
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
        "static_resources": statics,
    });
    if instance.is_inside() {
        // By the mark, the kernel's rules know what the proxy sends (SOL_SOCKET, SO_MARK).
        bootstrap["cluster_manager"] = json!({"upstream_bind_config": {"socket_options": [
            {"description": "capture", "level": 1, "name": 36, "int_value": PROXY_MARK, "state": "STATE_PREBIND"},
        ]}});
    }
    bootstrap
}

/// What the proxy says of itself: Istio's keys, and ours.
pub fn metadata(facts: &MeshFacts<'_>, instance: &Instance) -> Value {
    let mut metadata = json!({
        "NAME": instance.pod,
        "NAMESPACE": instance.namespace,
        "LABELS": instance.labels,
        "ANNOTATIONS": instance.annotations,
        "SERVICE_ACCOUNT": instance.service_account,
        "WORKLOAD_NAME": instance.workload,
        "OWNER": format!("kubernetes://apis/apps/v1/namespaces/{}/deployments/{}", instance.namespace, instance.workload),
        "CLUSTER_ID": "Kubernetes",
        "MESH_ID": facts.mesh_id,
        "NODE_NAME": crate::instance::NODE,
        "INSTANCE_IPS": instance.mesh.to_string(),
        "INTERCEPTION_MODE": facts.capture.interception_mode(),
        "PROXY_CONFIG": {},
    });
    if facts.kind == ProxyKind::Mizzen {
        metadata["MIZZEN_VERSION"] = facts.version.into();
    }
    match &instance.role {
        Role::Gateway { .. } | Role::Sidecar { .. } if instance.is_inside() => {}
        Role::Gateway { bind, .. } => metadata["MIZZEN_BIND"] = bind.to_string().into(),
        Role::Sidecar { app_ports, .. } => {
            metadata["HTTP_PROXY_PORT"] = HTTP_PROXY_PORT.to_string().into();
            let listen = facts.capture.listen_address();
            let ports: Map<String, Value> =
                app_ports.iter().map(|(port, real)| (port.to_string(), format!("{listen}:{real}").into())).collect();
            metadata["MIZZEN_APP"] = ports.into();
            metadata["MIZZEN_BIND"] = instance.mesh.to_string().into();
        }
    }
    metadata
}

/// TLS to the control plane: it has to be the one that the roots vouch for, and is shown the workload's certificate. A stock
/// Envoy gets that by SDS; our proxy has it.
fn mutual_tls(roots: &Path, sds: bool) -> Value {
    let source = if sds {
        json!({
            "resource_api_version": "V3",
            "api_config_source": {
                "api_type": "GRPC",
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "sds-grpc"}}],
            },
        })
    } else {
        json!({"ads": {}})
    };
    json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "sni": CONTROL_PLANE_NAME,
            "common_tls_context": {
                "alpn_protocols": ["h2"],
                "tls_params": {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3"},
                "tls_certificate_sds_secret_configs": [{"name": "default", "sds_config": source}],
                "validation_context": {
                    "trusted_ca": {"filename": roots.display().to_string()},
                    "match_typed_subject_alt_names":
                        [{"san_type": "DNS", "matcher": {"exact": CONTROL_PLANE_NAME}}],
                },
            },
        },
    })
}

fn socket(address: SocketAddr) -> Value {
    json!({"address": address.ip().to_string(), "port_value": address.port()})
}

fn plain_cluster(name: &str, address: SocketAddr) -> Value {
    cluster(name, &json!({"socket_address": socket(address)}))
}

fn cluster(name: &str, address: &Value) -> Value {
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    })
}

fn grpc_cluster(name: &str, address: &Value) -> Value {
    let mut cluster = cluster(name, address);
    cluster["typed_extension_protocol_options"] = json!({
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        },
    });
    cluster
}

/// Listener of a stock Envoy that answers `/healthz/ready` once it has its configuration.
fn health_listener(instance: &Instance) -> Value {
    let check = json!({
        "name": "envoy.filters.http.health_check",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.health_check.v3.HealthCheck",
            "pass_through_mode": false,
            "headers": [{"name": ":path", "string_match": {"exact": "/healthz/ready"}}],
        },
    });
    let nothing = json!({"match": {"prefix": "/"}, "direct_response": {"status": 404}});
    http_listener("health", instance.listens().health, Some(check), &nothing)
}

/// Listener of a stock Envoy for Prometheus.
fn stats_listener(instance: &Instance) -> Value {
    let route = json!({"match": {"prefix": "/stats/prometheus"}, "route": {"cluster": "prometheus_stats"}});
    http_listener("stats", instance.listens().stats, None, &route)
}

fn http_listener(name: &str, address: SocketAddr, filter: Option<Value>, route: &Value) -> Value {
    let router = json!({
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
    });
    let filters: Vec<Value> = filter.into_iter().chain([router]).collect();
    json!({
        "name": name,
        "address": {"socket_address": socket(address)},
        "filter_chains": [{"filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": name,
                "route_config": {"name": name, "virtual_hosts": [{"name": name, "domains": ["*"], "routes": [route]}]},
                "http_filters": filters,
            },
        }]}],
    })
}

/// For tests and for people: `bootstrap.yaml` begins with this.
pub fn yaml(bootstrap: &Value) -> String {
    format!("# An Envoy bootstrap, written by mizzen.\n{}", crate::yaml(bootstrap))
}

/// Where servers of a gateway listen when nothing else is said.
pub const GATEWAY_BIND: Ipv4Addr = Ipv4Addr::LOCALHOST;
