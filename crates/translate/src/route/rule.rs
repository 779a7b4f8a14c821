//! From one VirtualService to routes for one port (reference: semantics 17 to 24, 31 to 53).

use std::time::Duration;

use mizzen_api::networking::{Destination, HttpMatchRequest, HttpRoute, HttpRouteDestination};
use mizzen_mesh::{Attachment, DestinationPolicy, Mesh, Resolution, VirtualServiceRule};
use mizzen_proto::envoy::config::route::v3::route::Action;
use mizzen_proto::envoy::config::route::v3::route_action::{
    ClusterSpecifier, HashPolicy, HostRewriteSpecifier, RequestMirrorPolicy,
};
use mizzen_proto::envoy::config::route::v3::route_match::PathSpecifier;
use mizzen_proto::envoy::config::route::v3::weighted_cluster::{ClusterWeight, cluster_weight};
use mizzen_proto::envoy::config::route::v3::{Decorator, Route, RouteAction, RouteMatch, WeightedCluster};
use mizzen_types::{Hostname, Percent};
use serde_json::json;

use super::action::{self, HeaderChanges};
use super::delegate::{self, Rule};
use super::{matching, retry};
use crate::traffic_policy::Effective;
use crate::view::Scope;
use crate::{names, pb};

/// For whom and where routes are made.
pub(super) struct Place<'a> {
    pub(super) mesh: &'a Mesh,
    pub(super) scope: &'a Scope,
    pub(super) attachment: &'a Attachment,
    /// The port of the listener as rules see it: of the service, or of the gateway's server.
    pub(super) port: u16,
    /// Whether the table is of this port alone: then a destination without a port means this one.
    pub(super) one_port: bool,
}

/// The routes of a VirtualService, up to the first that leaves nothing for later ones.
pub(super) fn routes(place: &Place<'_>, service: &VirtualServiceRule) -> Vec<Route> {
    let mut routes = Vec::new();
    for rule in delegate::expand(place.mesh, service) {
        if rule.http.r#match.is_empty() {
            routes.extend(route(place, service, &rule, None));
            return routes;
        }
        for (index, request) in rule.http.r#match.iter().enumerate() {
            if !applies(place, request, &rule.source.order.namespace) {
                continue;
            }
            let Some(route) = route(place, service, &rule, Some((index, request))) else { continue };
            let last = route.r#match.as_ref().is_some_and(matching::is_catch_all);
            routes.push(route);
            if last {
                return routes;
            }
        }
    }
    routes
}

/// Conditions that hold for a whole table: the listener's port, the gateway, and the client (reference: semantics 22 to 24).
fn applies(place: &Place<'_>, request: &HttpMatchRequest, namespace: &str) -> bool {
    if request.port != 0 && request.port != place.port {
        return false;
    }
    if !request.gateways.is_empty() {
        return request.gateways.iter().any(|gateway| Attachment::read(gateway, namespace) == *place.attachment);
    }
    let from_namespace = request.source_namespace.is_empty() || request.source_namespace == place.scope.namespace;
    from_namespace && request.source_labels.selects(&place.scope.labels)
}

fn route(
    place: &Place<'_>,
    service: &VirtualServiceRule,
    rule: &Rule<'_>,
    request: Option<(usize, &HttpMatchRequest)>,
) -> Option<Route> {
    let http: &HttpRoute = &rule.http;
    let matched = request.map_or_else(matching::everything, |(_, request)| matching::route_match(request));
    let mut route = Route {
        name: match request {
            Some((_, request)) if !request.name.is_empty() => format!("{}.{}", http.name, request.name),
            _ => http.name.clone(),
        },
        metadata: pb::metadata(&origin(rule, request.map(|(index, _)| index))),
        typed_per_filter_config: action::filter_settings(http.fault.as_ref(), http.cors_policy.as_ref()),
        ..Default::default()
    };
    if let Some((_, request)) = request {
        route.stat_prefix = request.stat_prefix.clone();
    }
    let headers = http.headers.as_ref();
    let on_request = HeaderChanges::of_request(headers.and_then(|headers| headers.request.as_ref()));
    let on_response = HeaderChanges::of_response(headers.and_then(|headers| headers.response.as_ref()));
    route.request_headers_to_add = on_request.add;
    route.request_headers_to_remove = on_request.remove;
    route.response_headers_to_add = on_response.add;
    route.response_headers_to_remove = on_response.remove;
    if let Some(redirect) = &http.redirect {
        route.action = Some(Action::Redirect(action::redirect(redirect, place.port)?));
    } else if let Some(direct) = &http.direct_response {
        let body = direct.body.as_ref().map(|body| body.as_bytes());
        route.action = Some(Action::DirectResponse(action::direct_response(direct.status, body)));
    } else {
        forward(place, rule, &mut route, on_request.authority)?;
    }
    route.decorator =
        Some(Decorator { operation: operation(&route, &matched, service, place.port), ..Default::default() });
    route.r#match = Some(matched);
    Some(route)
}

/// Where the route was written, for statistics, logs and people.
fn origin(rule: &Rule<'_>, match_index: Option<usize>) -> serde_json::Value {
    let (namespace, name) = (&rule.root.order.namespace, &rule.root.order.name);
    let field = format!("spec.http[{}]", rule.index);
    let mut mizzen = json!({ "field": field });
    if let Some(index) = match_index.filter(|_| rule.matches_as_written) {
        mizzen["match"] = json!(format!("{field}.match[{index}]"));
    }
    if !std::ptr::eq(rule.root, rule.source) {
        mizzen["object"] = json!(format!("{}/{}", rule.source.order.namespace, rule.source.order.name));
    }
    json!({
        "istio": {"config": names::config_path("virtual-service", namespace, name)},
        "mizzen": mizzen,
    })
}

/// A description for traces: where it goes when that is one place, else which rule it is.
fn operation(route: &Route, matched: &RouteMatch, service: &VirtualServiceRule, port: u16) -> String {
    let path = match &matched.path_specifier {
        Some(PathSpecifier::Prefix(prefix)) => format!("{prefix}*"),
        Some(PathSpecifier::Path(path)) => path.clone(),
        Some(PathSpecifier::SafeRegex(regex)) => regex.regex.clone(),
        _ => "/*".to_owned(),
    };
    if let Some(Action::Route(RouteAction { cluster_specifier: Some(ClusterSpecifier::Cluster(cluster)), .. })) =
        &route.action
        && let Some((port, _, host)) = names::parse_outbound(cluster)
    {
        return format!("{host}:{port}{path}");
    }
    format!("{}:{port}{path}", service.order.name)
}

#[allow(deprecated)] // The limit of gRPC's own timeout, named as Istio names it.
fn forward(place: &Place<'_>, rule: &Rule<'_>, route: &mut Route, mut authority: Option<String>) -> Option<()> {
    let http: &HttpRoute = &rule.http;
    let namespace = &rule.source.order.namespace;
    let mut forward = RouteAction::default();
    // Of several destinations those without weight get nothing; a single one gets everything (reference: semantics 38).
    let destinations: Vec<&HttpRouteDestination> =
        http.route.iter().filter(|destination| http.route.len() == 1 || destination.weight > 0).collect();
    let mut hashes: Vec<HashPolicy> = Vec::new();
    for destination in &destinations {
        let hash = hash_of(place, &destination.destination, namespace);
        hashes.extend(hash.filter(|hash| !hashes.contains(hash)));
    }
    let timeout = http.timeout.unwrap_or(Duration::ZERO);
    forward.timeout = pb::duration(timeout);
    forward.max_grpc_timeout = pb::duration(timeout);
    forward.retry_policy = match &http.retries {
        Some(retries) => retry::policy(retries, !hashes.is_empty()),
        None => retry::default_policy(place.mesh.config()),
    };
    forward.hash_policy = hashes;
    if let Some(rewrite) = &http.rewrite {
        action::rewrite(&mut forward, rewrite);
    }
    if let [single] = destinations[..] {
        let headers = single.headers.as_ref();
        let on_request = HeaderChanges::of_request(headers.and_then(|headers| headers.request.as_ref()));
        let on_response = HeaderChanges::of_response(headers.and_then(|headers| headers.response.as_ref()));
        route.request_headers_to_add.extend(on_request.add);
        route.request_headers_to_remove.extend(on_request.remove);
        route.response_headers_to_add.extend(on_response.add);
        route.response_headers_to_remove.extend(on_response.remove);
        authority = authority.or(on_request.authority);
        forward.cluster_specifier = Some(ClusterSpecifier::Cluster(cluster_of(place, &single.destination, namespace)));
    } else if destinations.is_empty() {
        return None;
    } else {
        let clusters = destinations.iter().map(|destination| weight_of(place, destination, namespace)).collect();
        forward.cluster_specifier =
            Some(ClusterSpecifier::WeightedClusters(WeightedCluster { clusters, ..Default::default() }));
    }
    if forward.host_rewrite_specifier.is_none() {
        forward.host_rewrite_specifier = authority.map(HostRewriteSpecifier::HostRewriteLiteral);
    }
    forward.request_mirror_policies = http
        .all_mirrors()
        .into_iter()
        .filter(|(_, share)| *share != Percent::NEVER)
        .map(|(destination, share)| RequestMirrorPolicy {
            cluster: cluster_of(place, destination, namespace),
            runtime_fraction: pb::runtime_fraction(share),
            trace_sampled: pb::bool(false),
            disable_shadow_host_suffix_append: true,
            ..Default::default()
        })
        .collect();
    route.action = Some(Action::Route(forward));
    Some(())
}

fn weight_of(place: &Place<'_>, destination: &HttpRouteDestination, namespace: &str) -> ClusterWeight {
    let headers = destination.headers.as_ref();
    let on_request = HeaderChanges::of_request(headers.and_then(|headers| headers.request.as_ref()));
    let on_response = HeaderChanges::of_response(headers.and_then(|headers| headers.response.as_ref()));
    ClusterWeight {
        name: cluster_of(place, &destination.destination, namespace),
        weight: u32::try_from(destination.weight).ok().and_then(pb::u32),
        request_headers_to_add: on_request.add,
        request_headers_to_remove: on_request.remove,
        response_headers_to_add: on_response.add,
        response_headers_to_remove: on_response.remove,
        host_rewrite_specifier: on_request.authority.map(cluster_weight::HostRewriteSpecifier::HostRewriteLiteral),
        ..Default::default()
    }
}

fn cluster_of(place: &Place<'_>, destination: &Destination, namespace: &str) -> String {
    let (host, port) = target_of(place, destination, namespace);
    names::outbound(port, &destination.subset, host.as_str())
}

/// The cluster that a destination in a rule of `namespace` means. Where no port is named it is the only one of the
/// service, else that of the listener (reference: semantics 50 to 52).
pub(crate) fn destination_cluster(
    mesh: &Mesh,
    scope: &Scope,
    destination: &Destination,
    namespace: &str,
    listener_port: u16,
) -> String {
    let host = destination_host(mesh, scope, destination, namespace);
    let port = destination.port_number().or_else(|| only_port(mesh, scope, &host)).unwrap_or(listener_port);
    names::outbound(port, &destination.subset, host.as_str())
}

fn only_port(mesh: &Mesh, scope: &Scope, host: &Hostname) -> Option<u16> {
    match &mesh.service_by_host(host, &scope.namespace)?.ports[..] {
        [single] => Some(single.number),
        _ => None,
    }
}

/// Tables of one port know services by that port alone, so there it is what a destination without a port means, even
/// when its service has another.
pub(super) fn target_of(place: &Place<'_>, destination: &Destination, namespace: &str) -> (Hostname, u16) {
    let host = destination_host(place.mesh, place.scope, destination, namespace);
    let only = || if place.one_port { None } else { only_port(place.mesh, place.scope, &host) };
    let port = destination.port_number().or_else(only).unwrap_or(place.port);
    (host, port)
}

fn destination_host(mesh: &Mesh, scope: &Scope, destination: &Destination, namespace: &str) -> Hostname {
    let mut host = mesh.resolve(&destination.host, namespace);
    // An alias has no cluster of its own; a chain of them ends, or is longer than any that is meant.
    for _ in 0..16 {
        match mesh.service_by_host(&host, &scope.namespace) {
            Some(service) if service.resolution == Resolution::Alias => match &service.alias_of {
                Some(target) => host = target.clone(),
                None => break,
            },
            _ => break,
        }
    }
    host
}

fn hash_of(place: &Place<'_>, destination: &Destination, namespace: &str) -> Option<HashPolicy> {
    let (host, port) = target_of(place, destination, namespace);
    consistent_hash(place.mesh, place.scope, &host, port, &destination.subset)
}

/// The hash that a DestinationRule asks for when a host is called (reference: semantics 125).
pub(super) fn consistent_hash(
    mesh: &Mesh,
    scope: &Scope,
    host: &Hostname,
    port: u16,
    subset: &str,
) -> Option<HashPolicy> {
    if !mesh.rules_hash() {
        return None;
    }
    let service = mesh.service_by_host(host, &scope.namespace);
    let namespace = service.map(|service| &*service.key.namespace);
    let policy = mesh.destination_policy_of(host, namespace, &scope.namespace, &scope.labels)?;
    let of_rule = DestinationPolicy::traffic_policy(&policy).map(|(_, traffic)| traffic);
    let of_subset = policy.subset(subset).and_then(|subset| subset.traffic_policy.as_ref());
    let effective = Effective::new(of_rule, of_subset, port);
    action::hash_policy(effective.load_balancer?.consistent_hash.as_ref()?)
}

/// A route to a service about which no rule says anything.
#[allow(deprecated)] // As in `forward`.
pub(super) fn default_route(mesh: &Mesh, scope: &Scope, host: &Hostname, port: u16) -> Route {
    let action = RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(names::outbound(port, "", host.as_str()))),
        timeout: pb::zero(),
        max_grpc_timeout: pb::zero(),
        retry_policy: retry::default_policy(mesh.config()),
        hash_policy: consistent_hash(mesh, scope, host, port, "").into_iter().collect(),
        ..Default::default()
    };
    Route {
        name: "default".to_owned(),
        r#match: Some(matching::everything()),
        action: Some(Action::Route(action)),
        decorator: Some(Decorator { operation: format!("{host}:{port}/*"), ..Default::default() }),
        ..Default::default()
    }
}

/// A route for everything, with any action.
pub(super) fn catch_all(name: &str, action: Action) -> Route {
    Route { name: name.to_owned(), r#match: Some(matching::everything()), action: Some(action), ..Default::default() }
}
