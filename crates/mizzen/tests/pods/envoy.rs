//! Stock Envoys in the sidecars' place.

use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use mizzen_identity::WorkloadIdentity;
use mizzen_identity::client::Config;
use mizzen_identity::connect::{ControlPlane, RootSource};
use serde_json::{Value, json};

/// The agent's bootstrap, with certificates by SDS from a socket, and health where the kubelet asks for it.
pub(crate) fn bootstrap(agent: &mut Command, root: &Path) -> Value {
    let output = agent.arg("--dry-run").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut bootstrap: Value = serde_json::from_slice(&output.stdout).unwrap();
    let clusters = bootstrap["static_resources"]["clusters"].as_array_mut().unwrap();
    let xds = &mut clusters[0];
    xds["transport_socket"]["typed_config"]["common_tls_context"]["tls_certificate_sds_secret_configs"] = json!([{"name": "default", "sds_config": {
        "resource_api_version": "V3",
        "api_config_source": {
            "api_type": "GRPC", "transport_api_version": "V3",
            "grpc_services": [{"envoy_grpc": {"cluster_name": "sds-grpc"}}],
        },
    }}]);
    let mut sds = json!({
        "name": "sds-grpc", "type": "STATIC", "connect_timeout": "1s",
        "load_assignment": {"cluster_name": "sds-grpc", "endpoints": [{"lb_endpoints": [{"endpoint": {
            "address": {"pipe": {"path": root.join("sds.sock").display().to_string()}},
        }}]}]},
    });
    sds["typed_extension_protocol_options"] = xds["typed_extension_protocol_options"].clone();
    clusters.push(sds);
    // It says so when it asks for its configuration: a stock Envoy knows none of Istio's filters.
    let metadata = bootstrap["node"]["metadata"].as_object_mut().unwrap();
    metadata.retain(|key, _| !key.starts_with("MIZZEN"));
    bootstrap["static_resources"]["listeners"] = json!([{
        "name": "health",
        "address": {"socket_address": {"address": "0.0.0.0", "port_value": 15021}},
        "filter_chains": [{"filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": "health",
                "route_config": {"virtual_hosts": [{"name": "health", "domains": ["*"], "routes": [
                    {"match": {"prefix": "/"}, "direct_response": {"status": 200}},
                ]}]},
                "http_filters": [{
                    "name": "envoy.filters.http.router",
                    "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
                }],
            },
        }]}],
    }]);
    bootstrap
}

/// Gets the workload's certificate and offers it at `root/sds.sock` until the process ends.
pub(crate) fn serve_certificates(root: &Path, control: &str) {
    let config = Config {
        control_plane: ControlPlane::new(
            &format!("{control}:15012"),
            RootSource::File(root.join("var/run/secrets/istio/root-cert.pem")),
        ),
        token: root.join("var/run/secrets/tokens/istio-token"),
        id: None,
        ttl: None,
        state_dir: None,
    };
    let socket = root.join("sds.sock");
    let serving = socket.clone();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let identity = WorkloadIdentity::start(config);
            mizzen_identity::sds::serve(&serving, identity.watch()).await.unwrap();
        });
    });
    let deadline = Instant::now() + crate::apps::PATIENCE;
    while chown(&socket, Some(1337), Some(1337)).is_err() {
        assert!(Instant::now() < deadline, "no socket for certificates");
        std::thread::sleep(Duration::from_millis(10));
    }
}
