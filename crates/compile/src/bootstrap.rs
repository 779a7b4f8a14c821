//! The file that a proxy starts with: an Envoy bootstrap in YAML or JSON.
//!
//! Unknown fields are refused with their path. Fields that are known and have no effect here are named in
//! [`Bootstrap::without_effect`], so that the program can say so.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use mizzen_proto::envoy::config::bootstrap::v3::{Bootstrap as Wire, ClusterManager, bootstrap::DynamicResources};
use mizzen_proto::envoy::config::core::v3::{
    ApiConfigSource, BindConfig, ConfigSource, HeaderValue, Node, api_config_source::ApiType,
    config_source::ConfigSourceSpecifier, grpc_service::TargetSpecifier, socket_option,
};
use mizzen_proto::json::{Json, JsonError};
use mizzen_proto::type_url;
use mizzen_snapshot::cluster::EndpointAddress;
use mizzen_snapshot::tls::ClientTls;
use mizzen_types::ClusterName;
use prost::Message;

use crate::config::{Resource, Update};
use crate::invalid::{At, Invalid, Result, is_set};
use crate::value::{self, Place};
use crate::{cluster, limits};

/// Bytes of a bootstrap file.
const MAX_BYTES: usize = limits::RESOURCE_BYTES;

/// What a proxy starts with.
#[derive(Debug, Clone)]
pub struct Bootstrap {
    pub node: Node,
    /// Where the admin interface listens.
    pub admin: Option<SocketAddr>,
    /// Static clusters, secrets and listeners, in this order; for `Config::apply_static`.
    pub resources: Vec<Update>,
    pub ads: Option<AdsSource>,
    /// Listeners come by ADS.
    pub listeners_by_ads: bool,
    /// Clusters come by ADS.
    pub clusters_by_ads: bool,
    /// What the packets of connections to endpoints are marked with, so that rules of the kernel tell them apart.
    pub upstream_mark: Option<u32>,
    /// Paths of fields that are set and have no effect here.
    pub without_effect: Vec<String>,
}

/// The control plane.
#[derive(Debug, Clone)]
pub struct AdsSource {
    /// The static cluster that stands for it.
    pub cluster: ClusterName,
    /// Its addresses, most wanted first.
    pub addresses: Vec<EndpointAddress>,
    /// `None`: plaintext.
    pub tls: Option<Arc<ClientTls>>,
    /// `:authority` of the call; the cluster's name when absent.
    pub authority: Option<String>,
    pub initial_metadata: Vec<(String, String)>,
    /// Incremental, or state of the world.
    pub delta: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BootstrapError {
    #[error("the file has {0} bytes, more than the {MAX_BYTES} that are allowed")]
    TooLarge(usize),
    /// Not even YAML; the message has line and column.
    #[error("not valid YAML or JSON: {0}")]
    Syntax(String),
    #[error(transparent)]
    Json(#[from] JsonError),
    #[error("{field}: {message}")]
    Invalid { field: String, message: String },
}

/// Reads a bootstrap.
pub fn bootstrap(text: &str) -> std::result::Result<Bootstrap, BootstrapError> {
    if text.len() > MAX_BYTES {
        return Err(BootstrapError::TooLarge(text.len()));
    }
    // In YAML 1.1 a node called `y` would be a boolean.
    let options = serde_saphyr::options! { strict_booleans: true };
    let value: serde_json::Value = serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| BootstrapError::Syntax(error.to_string()))?;
    let wire: Wire = Json::new().read("envoy.config.bootstrap.v3.Bootstrap", &value)?;
    compile(wire).map_err(|Invalid { field, message }| BootstrapError::Invalid { field, message })
}

fn compile(wire: Wire) -> Result<Bootstrap> {
    let upstream_mark = upstream_mark(&wire);
    let without_effect = without_effect(&wire, upstream_mark);
    let admin = match wire.admin.as_ref().and_then(|admin| admin.address.as_ref()) {
        None => None,
        address => match value::place(address).at("admin.address")? {
            Place::Socket(address) => Some(address),
            Place::Name { .. } | Place::Pipe(_) => {
                return Err(Invalid::new("has to be an IP address").within("admin.address"));
            }
        },
    };
    let fixed = wire.static_resources.unwrap_or_default();
    let dynamic = wire.dynamic_resources.unwrap_or_default();
    let listeners_by_ads = by_ads(dynamic.lds_config.as_ref()).at("dynamic_resources.lds_config")?;
    let clusters_by_ads = by_ads(dynamic.cds_config.as_ref()).at("dynamic_resources.cds_config")?;
    let ads = ads(&dynamic, &fixed.clusters).at("dynamic_resources")?;
    if ads.is_none() && (listeners_by_ads || clusters_by_ads) {
        return Err(
            Invalid::new("is missing, and lds_config or cds_config asks for it").within("dynamic_resources.ads_config")
        );
    }
    let update = |type_url: &str, resources: Vec<(String, Vec<u8>)>| Update {
        type_url: type_url.to_owned(),
        resources: resources
            .into_iter()
            .map(|(name, body)| Resource { name, version: String::new(), body: Bytes::from(body) })
            .collect(),
        removed: Vec::new(),
        full: false,
    };
    // Envoy lets a static listener go without a name; here it gets one from its place.
    let listeners = fixed.listeners.into_iter().enumerate().map(|(index, mut listener)| {
        if listener.name.is_empty() {
            listener.name = format!("static_resources.listeners[{index}]");
        }
        (listener.name.clone(), listener.encode_to_vec())
    });
    let clusters = fixed.clusters.iter().map(|cluster| (cluster.name.clone(), cluster.encode_to_vec()));
    let secrets = fixed.secrets.iter().map(|secret| (secret.name.clone(), secret.encode_to_vec()));
    Ok(Bootstrap {
        node: wire.node.unwrap_or_default(),
        admin,
        resources: vec![
            update(type_url::CLUSTER, clusters.collect()),
            update(type_url::SECRET, secrets.collect()),
            update(type_url::LISTENER, listeners.collect()),
        ],
        ads,
        listeners_by_ads,
        clusters_by_ads,
        upstream_mark,
        without_effect,
    })
}

/// Whether a source is the aggregated stream, the only one there is here besides the file itself.
fn by_ads(source: Option<&ConfigSource>) -> Result<bool> {
    let Some(source) = source else { return Ok(false) };
    match &source.config_source_specifier {
        Some(ConfigSourceSpecifier::Ads(_)) => Ok(true),
        Some(_) => Err(Invalid::not_obeyed("a source other than ads")),
        None => Err(Invalid::new("a source is missing; write ads: {}")),
    }
}

fn ads(
    dynamic: &DynamicResources,
    clusters: &[mizzen_proto::envoy::config::cluster::v3::Cluster],
) -> Result<Option<AdsSource>> {
    let Some(source) = &dynamic.ads_config else { return Ok(None) };
    let delta = match ApiType::try_from(source.api_type) {
        Ok(ApiType::Grpc) => false,
        Ok(ApiType::DeltaGrpc) => true,
        _ => return Err(Invalid::new("has to be GRPC or DELTA_GRPC").within("ads_config.api_type")),
    };
    let service = service(source).at("ads_config")?;
    let named = service.cluster.as_str();
    let Some(index) = clusters.iter().position(|cluster| cluster.name == named) else {
        let message = format!("there is no static cluster {named:?}");
        return Err(Invalid::new(message).within("ads_config.grpc_services[0].envoy_grpc.cluster_name"));
    };
    let compiled = cluster::compile(&clusters[index], 0)
        .map_err(|invalid| invalid.within(&format!("static_resources.clusters[{index}]")))?;
    let endpoints = compiled.endpoints.unwrap_or_default();
    let addresses: Vec<_> = endpoints.iter().map(|endpoint| endpoint.address.clone()).collect();
    if addresses.is_empty() {
        let message = format!("the static cluster {named:?} has no endpoint");
        return Err(Invalid::new(message).within("ads_config.grpc_services[0].envoy_grpc.cluster_name"));
    }
    let tls = endpoints.iter().next().and_then(|endpoint| compiled.policy.transport(endpoint)).cloned();
    Ok(Some(AdsSource { addresses, tls, delta, ..service }))
}

/// The gRPC service of a source, without the addresses of its cluster.
fn service(source: &ApiConfigSource) -> Result<AdsSource> {
    let [service] = source.grpc_services.as_slice() else {
        return Err(Invalid::new("has to have exactly one entry").within("grpc_services"));
    };
    let Some(TargetSpecifier::EnvoyGrpc(target)) = &service.target_specifier else {
        return Err(Invalid::new("has to be envoy_grpc").within("grpc_services[0]"));
    };
    let metadata = |header: &HeaderValue| (header.key.to_ascii_lowercase(), header.value.clone());
    Ok(AdsSource {
        cluster: target.cluster_name.as_str().into(),
        addresses: Vec::new(),
        tls: None,
        authority: Some(target.authority.clone()).filter(|authority| !authority.is_empty()),
        initial_metadata: service.initial_metadata.iter().map(metadata).collect(),
        delta: false,
    })
}

/// The one socket option for connections to endpoints that is obeyed: `SO_MARK` of Linux.
fn upstream_mark(wire: &Wire) -> Option<u32> {
    const SOL_SOCKET: i64 = 1;
    const SO_MARK: i64 = 36;
    let bind = wire.cluster_manager.as_ref()?.upstream_bind_config.as_ref()?;
    let mark = bind.socket_options.iter().find(|option| (option.level, option.name) == (SOL_SOCKET, SO_MARK))?;
    match mark.value {
        Some(socket_option::Value::IntValue(mark)) => u32::try_from(mark).ok(),
        _ => None,
    }
}

/// Names of the fields that are set and that nothing here looks at: they serve Envoy's own working.
fn without_effect(wire: &Wire, upstream_mark: Option<u32>) -> Vec<String> {
    let mut names = Vec::new();
    let only_the_mark = upstream_mark.is_some()
        && wire.cluster_manager.as_ref().is_some_and(|manager| {
            let bind = manager.upstream_bind_config.clone().unwrap_or_default();
            let others = BindConfig { socket_options: Vec::new(), ..bind.clone() };
            bind.socket_options.len() == 1
                && !is_set(&others.encode_to_vec())
                && !is_set(&ClusterManager { upstream_bind_config: None, ..manager.clone() }.encode_to_vec())
        });
    if is_set(&wire.cluster_manager) && !only_the_mark {
        names.push("cluster_manager".to_owned());
    }
    macro_rules! look {
        ($($field:ident),+ $(,)?) => {
            $(if is_set(&wire.$field) { names.push(stringify!($field).to_owned()); })+
        };
    }
    look!(
        node_context_params,
        hds_config,
        flags_path,
        stats_sinks,
        deferred_stat_options,
        stats_config,
        stats_flush_interval,
        watchdog,
        watchdogs,
        tracing,
        layered_runtime,
        overload_manager,
        enable_dispatcher_stats,
        header_prefix,
        use_tcp_for_dns_lookups,
        dns_resolution_config,
        typed_dns_resolver_config,
        bootstrap_extensions,
        fatal_actions,
        config_sources,
        default_config_source,
        default_socket_interface,
        certificate_provider_instances,
        inline_headers,
        perf_tracing_file_path,
        default_regex_engine,
        xds_delegate_extension,
        xds_config_tracker_extension,
        listener_manager,
        application_log_config,
        grpc_async_client_manager_config,
        memory_allocator_manager,
        stats_flush,
        stats_eviction,
    );
    if let Some(admin) = &wire.admin {
        if !admin.access_log.is_empty() || !admin.access_log_path.is_empty() {
            names.push("admin.access_log".to_owned());
        }
        if !admin.profile_path.is_empty() {
            names.push("admin.profile_path".to_owned());
        }
    }
    names
}

#[cfg(test)]
mod tests;
