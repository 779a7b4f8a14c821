//! What listeners and clusters name: the route tables, secrets and endpoints for which a proxy asks once it has them.

use std::collections::BTreeSet;
use std::sync::Arc;

use mizzen_proto::envoy::config::cluster::v3::Cluster;
use mizzen_proto::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType};
use mizzen_proto::envoy::config::core::v3::TransportSocket;
use mizzen_proto::envoy::config::core::v3::transport_socket::ConfigType as SocketConfig;
use mizzen_proto::envoy::config::listener::v3::Listener;
use mizzen_proto::envoy::config::listener::v3::filter::ConfigType as FilterConfig;
use mizzen_proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use mizzen_proto::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use mizzen_proto::envoy::extensions::transport_sockets::proxy_protocol::v3::ProxyProtocolUpstreamTransport;
use mizzen_proto::envoy::extensions::transport_sockets::tls::v3::common_tls_context::ValidationContextType;
use mizzen_proto::envoy::extensions::transport_sockets::tls::v3::{
    CommonTlsContext, DownstreamTlsContext, UpstreamTlsContext,
};
use mizzen_proto::google::protobuf::Any;
use mizzen_proto::prost::{Message, Name};

/// Names by type; sorted, each once.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct References {
    pub(crate) routes: BTreeSet<Arc<str>>,
    pub(crate) secrets: BTreeSet<Arc<str>>,
    pub(crate) endpoints: BTreeSet<Arc<str>>,
}

impl References {
    /// Adds what an encoded listener names.
    pub(crate) fn listener(&mut self, body: &[u8]) {
        // What is made here can be read here; of anything else nothing is named.
        let Ok(listener) = Listener::decode(body) else { return };
        for chain in listener.filter_chains.into_iter().chain(listener.default_filter_chain) {
            for filter in chain.filters {
                let Some(FilterConfig::TypedConfig(config)) = filter.config_type else { continue };
                if let Some(RouteSpecifier::Rds(rds)) =
                    unpack::<HttpConnectionManager>(&config).and_then(|http| http.route_specifier)
                {
                    self.routes.insert(rds.route_config_name.into());
                }
            }
            self.socket(chain.transport_socket);
        }
    }

    /// Adds what an encoded cluster names.
    pub(crate) fn cluster(&mut self, body: &[u8]) {
        let Ok(cluster) = Cluster::decode(body) else { return };
        if cluster.cluster_discovery_type == Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into())) {
            let service = cluster.eds_cluster_config.map(|eds| eds.service_name).filter(|name| !name.is_empty());
            self.endpoints.insert(service.unwrap_or(cluster.name).into());
        }
        self.socket(cluster.transport_socket);
        for choice in cluster.transport_socket_matches {
            self.socket(choice.transport_socket);
        }
    }

    fn socket(&mut self, socket: Option<TransportSocket>) {
        let Some(SocketConfig::TypedConfig(config)) = socket.and_then(|socket| socket.config_type) else { return };
        if let Some(tls) = unpack::<DownstreamTlsContext>(&config) {
            self.tls(tls.common_tls_context);
        } else if let Some(tls) = unpack::<UpstreamTlsContext>(&config) {
            self.tls(tls.common_tls_context);
        } else if let Some(outer) = unpack::<ProxyProtocolUpstreamTransport>(&config) {
            self.socket(outer.transport_socket);
        }
    }

    fn tls(&mut self, common: Option<CommonTlsContext>) {
        let Some(common) = common else { return };
        let roots = match common.validation_context_type {
            Some(ValidationContextType::ValidationContextSdsSecretConfig(config)) => Some(config),
            Some(ValidationContextType::CombinedValidationContext(both)) => both.validation_context_sds_secret_config,
            _ => None,
        };
        let secrets = common.tls_certificate_sds_secret_configs.into_iter().chain(roots);
        self.secrets.extend(secrets.map(|config| Arc::from(config.name)));
    }
}

/// The message in an `Any`, if it is of this type.
fn unpack<M: Message + Name + Default>(any: &Any) -> Option<M> {
    (any.type_url.rsplit('/').next() == Some(&*M::full_name())).then(|| M::decode(&*any.value).ok()).flatten()
}

#[cfg(test)]
mod tests;
