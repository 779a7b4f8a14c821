//! What one proxy should have now, as Envoy's administration would show it of a proxy that has it: for
//! `istioctl proxy-status POD`, which lays it beside what the proxy says itself (Istio's `/debug/config_dump`).
//!
//! Made anew for each question from the shared cache, and not kept. Certificates are shown, keys are not.

use std::collections::BTreeSet;
use std::sync::Arc;

use mizzen_proto::envoy::admin::v3::clusters_config_dump::DynamicCluster;
use mizzen_proto::envoy::admin::v3::endpoints_config_dump::DynamicEndpointConfig;
use mizzen_proto::envoy::admin::v3::listeners_config_dump::{DynamicListener, DynamicListenerState};
use mizzen_proto::envoy::admin::v3::routes_config_dump::DynamicRouteConfig;
use mizzen_proto::envoy::admin::v3::secrets_config_dump::DynamicSecret;
use mizzen_proto::envoy::admin::v3::{
    ClustersConfigDump, ConfigDump, EndpointsConfigDump, ListenersConfigDump, RoutesConfigDump, SecretsConfigDump,
};
use mizzen_proto::envoy::config::core::v3::{DataSource, data_source::Specifier};
use mizzen_proto::envoy::extensions::transport_sockets::tls::v3::secret::Type;
use mizzen_proto::envoy::extensions::transport_sockets::tls::v3::{Secret, TlsCertificate};
use mizzen_proto::google::protobuf::Any;
use mizzen_proto::prost::{Message, Name};
use mizzen_xds::resource::version_text;
use mizzen_xds::server::Wanted;
use mizzen_xds::{Resource, ResourceType};

use crate::content::Contents;
use crate::references::References;

/// In place of a key.
const REDACTED: &[u8] = b"[redacted]";

/// The sections in Envoy's order. `endpoints`: with those of the clusters, which Envoy too shows only when asked.
pub(crate) fn config_dump(contents: &mut Contents, endpoints: bool) -> ConfigDump {
    let clusters = contents.resources(ResourceType::Cluster, Wanted::All);
    let listeners = contents.resources(ResourceType::Listener, Wanted::All);
    let mut named = References::default();
    listeners.iter().for_each(|listener| named.listener(&listener.body));
    if endpoints || contents.gives_secrets() {
        clusters.iter().for_each(|cluster| named.cluster(&cluster.body));
    }
    let mut by_name = |kind, names: BTreeSet<Arc<str>>| {
        contents.resources(kind, Wanted::Names(&names.into_iter().collect::<Vec<_>>()))
    };
    let routes = by_name(ResourceType::Route, named.routes);
    let secrets = by_name(ResourceType::Secret, named.secrets);
    let endpoints = endpoints.then(|| by_name(ResourceType::Endpoint, named.endpoints));

    let clusters = clusters.iter().map(|it| DynamicCluster {
        version_info: version_text(it.version),
        cluster: Some(resource(ResourceType::Cluster, it)),
        ..Default::default()
    });
    let listeners = listeners.iter().map(|it| DynamicListener {
        name: it.name.to_string(),
        active_state: Some(DynamicListenerState {
            version_info: version_text(it.version),
            listener: Some(resource(ResourceType::Listener, it)),
            ..Default::default()
        }),
        ..Default::default()
    });
    let routes = routes.iter().map(|it| DynamicRouteConfig {
        version_info: version_text(it.version),
        route_config: Some(resource(ResourceType::Route, it)),
        ..Default::default()
    });
    let secrets = secrets.iter().map(|it| DynamicSecret {
        name: it.name.to_string(),
        version_info: version_text(it.version),
        secret: redacted(it),
        ..Default::default()
    });
    let mut configs =
        vec![section(&ClustersConfigDump { dynamic_active_clusters: clusters.collect(), ..Default::default() })];
    if let Some(endpoints) = endpoints {
        let endpoints = endpoints.iter().map(|it| DynamicEndpointConfig {
            version_info: version_text(it.version),
            endpoint_config: Some(resource(ResourceType::Endpoint, it)),
            ..Default::default()
        });
        configs.push(section(&EndpointsConfigDump {
            dynamic_endpoint_configs: endpoints.collect(),
            ..Default::default()
        }));
    }
    configs.push(section(&ListenersConfigDump { dynamic_listeners: listeners.collect(), ..Default::default() }));
    configs.push(section(&RoutesConfigDump { dynamic_route_configs: routes.collect(), ..Default::default() }));
    configs.push(section(&SecretsConfigDump { dynamic_active_secrets: secrets.collect(), ..Default::default() }));
    ConfigDump { configs }
}

fn section<M: Message + Name>(message: &M) -> Any {
    Any { type_url: format!("type.googleapis.com/{}", M::full_name()), value: message.encode_to_vec() }
}

fn resource(kind: ResourceType, resource: &Resource) -> Any {
    Any { type_url: kind.type_url().to_owned(), value: resource.body.to_vec() }
}

/// A secret with what everybody may see of it: chains of certificates and roots. What is not known to be public is left out.
fn redacted(resource: &Resource) -> Option<Any> {
    let secret = Secret::decode(&*resource.body).ok()?;
    let shown = match secret.r#type? {
        Type::TlsCertificate(certificate) => Type::TlsCertificate(TlsCertificate {
            certificate_chain: certificate.certificate_chain,
            private_key: Some(DataSource {
                specifier: Some(Specifier::InlineBytes(REDACTED.to_vec())),
                ..Default::default()
            }),
            ..Default::default()
        }),
        Type::ValidationContext(context) => Type::ValidationContext(context),
        Type::SessionTicketKeys(_) | Type::GenericSecret(_) => return None,
    };
    let secret = Secret { name: secret.name, r#type: Some(shown) };
    Some(Any { type_url: ResourceType::Secret.type_url().to_owned(), value: secret.encode_to_vec() })
}

#[cfg(test)]
mod tests;
