//! The HTTP connection manager: what happens to requests on the way to their route (reference: semantics 53 to 59, 86).

use mizzen_api::mesh::NormalizationType;
use mizzen_mesh::Mesh;
use mizzen_proto::envoy::config::core::v3::Http1ProtocolOptions;
use mizzen_proto::envoy::config::listener::v3::Filter;
use mizzen_proto::envoy::config::route::v3::RouteConfiguration;
use mizzen_proto::envoy::extensions::filters::http::cors::v3::Cors;
use mizzen_proto::envoy::extensions::filters::http::fault::v3::HttpFault;
use mizzen_proto::envoy::extensions::filters::http::grpc_stats::v3::{FilterConfig, filter_config};
use mizzen_proto::envoy::extensions::filters::http::router::v3::Router;
use mizzen_proto::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::{
    ForwardClientCertDetails, PathWithEscapedSlashesAction, RouteSpecifier, SetCurrentClientCertDetails, Tracing,
    UpgradeConfig,
};
use mizzen_proto::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, Rds, RequestIdExtension, http_filter,
};
use mizzen_proto::envoy::extensions::request_id::uuid::v3::UuidRequestIdConfig;
use mizzen_proto::envoy::r#type::metadata::v3::{MetadataKey, MetadataKind, metadata_key, metadata_kind};
use mizzen_proto::envoy::r#type::tracing::v3::{CustomTag, custom_tag};

use super::{access_log, network_filter};
use crate::view::{Dialect, ProxyView};
use crate::{istio, pb};

/// On which side of a call the listener is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// Calls of the workload.
    Outbound,
    /// Calls to the workload.
    Inbound,
    /// Calls from outside of the mesh.
    Gateway,
}

/// Where the routes are.
pub(super) enum Routes {
    /// In a table that the control plane sends.
    Named(String),
    Inline(Box<RouteConfiguration>),
}

/// The filter that speaks HTTP. `stat_prefix` names it in statistics.
pub(super) fn manager(mesh: &Mesh, view: &ProxyView, side: Side, stat_prefix: &str, routes: Routes) -> Filter {
    let mut manager = HttpConnectionManager {
        // The separator tells the end of the name in names of statistics.
        stat_prefix: format!("{stat_prefix};"),
        route_specifier: Some(match routes {
            Routes::Named(name) => RouteSpecifier::Rds(Rds { config_source: pb::ads(), route_config_name: name }),
            Routes::Inline(table) => RouteSpecifier::RouteConfig(*table),
        }),
        http_filters: filters(view, side),
        tracing: tracing(mesh, view),
        // Streams may be silent for as long as they like (reference: semantics 31).
        stream_idle_timeout: pb::zero(),
        use_remote_address: pb::bool(side == Side::Gateway),
        proxy_100_continue: true,
        upgrade_configs: vec![UpgradeConfig { upgrade_type: "websocket".to_owned(), ..Default::default() }],
        request_id_extension: Some(RequestIdExtension {
            typed_config: Some(pb::any(&UuidRequestIdConfig {
                use_request_id_for_trace_sampling: pb::bool(true),
                ..Default::default()
            })),
        }),
        access_log: access_log::log(mesh),
        ..Default::default()
    };
    normalize_paths(mesh, &mut manager);
    if side != Side::Outbound {
        manager.server_name = "istio-envoy".to_owned();
        let details = match side {
            Side::Gateway => ForwardClientCertDetails::SanitizeSet,
            Side::Inbound | Side::Outbound => ForwardClientCertDetails::AppendForward,
        };
        manager.forward_client_cert_details = details as i32;
        manager.set_current_client_cert_details = Some(SetCurrentClientCertDetails {
            subject: pb::bool(true),
            cert: side == Side::Gateway,
            dns: true,
            uri: true,
            ..Default::default()
        });
    }
    if side == Side::Gateway {
        manager.http_protocol_options = Some(Http1ProtocolOptions::default());
    }
    network_filter("envoy.filters.network.http_connection_manager", &manager)
}

/// Dot segments and backslashes are gone before anything looks at a path (reference: semantics 58).
fn normalize_paths(mesh: &Mesh, manager: &mut HttpConnectionManager) {
    let normalization = mesh.config().path_normalization.normalization;
    manager.normalize_path = pb::bool(normalization != NormalizationType::None);
    manager.merge_slashes =
        matches!(normalization, NormalizationType::MergeSlashes | NormalizationType::DecodeAndMergeSlashes);
    let action = match normalization {
        NormalizationType::DecodeAndMergeSlashes => PathWithEscapedSlashesAction::UnescapeAndForward,
        _ => PathWithEscapedSlashesAction::KeepUnchanged,
    };
    manager.path_with_escaped_slashes_action = action as i32;
}

fn filter<M: prost::Message + prost::Name>(name: &str, config: &M) -> HttpFilter {
    HttpFilter {
        name: name.to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(pb::any(config))),
        ..Default::default()
    }
}

fn filters(view: &ProxyView, side: Side) -> Vec<HttpFilter> {
    let istio = view.dialect == Dialect::Istio;
    let grpc_stats = FilterConfig {
        emit_filter_state: true,
        per_method_stat_specifier: Some(filter_config::PerMethodStatSpecifier::StatsForAllMethods(Default::default())),
        ..Default::default()
    };
    let mut filters = Vec::new();
    if istio {
        filters.push(istio::http_metadata_exchange(side == Side::Inbound));
    }
    filters.push(filter("envoy.filters.http.grpc_stats", &grpc_stats));
    if istio && side != Side::Inbound {
        filters.push(istio::alpn_filter());
    }
    filters.push(filter("envoy.filters.http.fault", &HttpFault::default()));
    filters.push(filter("envoy.filters.http.cors", &Cors {}));
    if istio {
        filters.push(istio::http_stats(side != Side::Outbound));
    }
    filters.push(filter("envoy.filters.http.router", &Router::default()));
    filters
}

/// Settings of traces; where they go is said elsewhere, so without a provider nothing is sent.
fn tracing(mesh: &Mesh, view: &ProxyView) -> Option<Tracing> {
    if view.dialect != Dialect::Istio || !mesh.config().enable_tracing {
        return None;
    }
    let dry_run = |name: &str, key: &str| CustomTag {
        tag: format!("istio.authorization.dry_run.{name}"),
        r#type: Some(custom_tag::Type::Metadata(custom_tag::Metadata {
            kind: Some(MetadataKind { kind: Some(metadata_kind::Kind::Request(Default::default())) }),
            metadata_key: Some(MetadataKey {
                key: "envoy.filters.http.rbac".to_owned(),
                path: vec![metadata_key::PathSegment {
                    segment: Some(metadata_key::path_segment::Segment::Key(format!("istio_dry_run_{key}"))),
                }],
            }),
            ..Default::default()
        })),
    };
    let literal = |tag: &str, value: &str| CustomTag {
        tag: tag.to_owned(),
        r#type: Some(custom_tag::Type::Literal(custom_tag::Literal { value: value.to_owned() })),
    };
    Some(Tracing {
        client_sampling: pb::percent(100.0),
        random_sampling: pb::percent(1.0),
        overall_sampling: pb::percent(100.0),
        custom_tags: vec![
            dry_run("allow_policy.name", "allow_shadow_effective_policy_id"),
            dry_run("allow_policy.result", "allow_shadow_engine_result"),
            dry_run("deny_policy.name", "deny_shadow_effective_policy_id"),
            dry_run("deny_policy.result", "deny_shadow_engine_result"),
            literal("istio.canonical_revision", &view.canonical_revision),
            literal("istio.canonical_service", &view.canonical_service),
            literal("istio.cluster_id", &view.cluster_id),
            literal("istio.mesh_id", &view.mesh_id),
            literal("istio.namespace", &view.namespace),
        ],
        ..Default::default()
    })
}
