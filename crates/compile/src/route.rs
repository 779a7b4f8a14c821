//! Route tables (RDS, and inline in a listener).

mod action;
mod per_filter;
mod retry;

use std::sync::Arc;

use mizzen_proto::envoy::config::route::v3::{
    Route as WireRoute, RouteConfiguration, RouteMatch as WireMatch, VirtualHost as WireHost, route,
    route_match::PathSpecifier, virtual_host::TlsRequirementType,
};
use mizzen_snapshot::route::{Action, DomainIndex, PathMatch, Route, RouteMatch, RouteTable, VirtualHost};

use crate::invalid::{At, Invalid, Result, not_obeyed};
use crate::{header, limits, matcher, origin, value};

/// Envoy's default limit of the body of a direct response.
const DIRECT_RESPONSE_BYTES: u32 = 4096;

pub(crate) fn compile(wire: &RouteConfiguration) -> Result<RouteTable> {
    not_obeyed!(
        wire,
        vhds,
        cluster_specifier_plugins,
        request_mirror_policies,
        vhost_header,
        ignore_path_parameters_in_path_matching,
        typed_per_filter_config,
        most_specific_header_mutations_wins,
        internal_only_headers,
        route_specifiers,
    );
    limits::count("virtual hosts", wire.virtual_hosts.len(), limits::VIRTUAL_HOSTS).at("virtual_hosts")?;
    let max_direct_response_bytes =
        value::number(wire.max_direct_response_body_size_bytes.as_ref()).unwrap_or(DIRECT_RESPONSE_BYTES);
    let mut domains = DomainIndex::default();
    let mut hosts = Vec::with_capacity(wire.virtual_hosts.len());
    for (index, wire) in wire.virtual_hosts.iter().enumerate() {
        let host = host(wire, max_direct_response_bytes).at_index("virtual_hosts", index)?;
        for (place, domain) in wire.domains.iter().enumerate() {
            if domain.is_empty() || domain.trim_matches('*').contains('*') || domain == "**" {
                let message = format!("{domain:?} is no domain; a star may only stand at the start or the end");
                return Err(Invalid::new(message)).at_index("domains", place).at_index("virtual_hosts", index);
            }
            if !domains.insert(domain, index) {
                let message = format!("the domain {domain:?} has a virtual host already");
                return Err(Invalid::new(message)).at_index("domains", place).at_index("virtual_hosts", index);
            }
        }
        hosts.push(Arc::new(host));
    }
    Ok(RouteTable {
        name: wire.name.as_str().into(),
        hosts,
        domains,
        request_headers: header::edits(&wire.request_headers_to_add, &wire.request_headers_to_remove, REQUEST)?,
        response_headers: header::edits(&wire.response_headers_to_add, &wire.response_headers_to_remove, RESPONSE)?,
        ignore_port_in_host: wire.ignore_port_in_host_matching,
        max_direct_response_bytes,
    })
}

const REQUEST: (&str, &str) = ("request_headers_to_add", "request_headers_to_remove");
const RESPONSE: (&str, &str) = ("response_headers_to_add", "response_headers_to_remove");

fn host(wire: &WireHost, max_direct_response_bytes: u32) -> Result<VirtualHost> {
    not_obeyed!(
        wire,
        matcher,
        rate_limits,
        retry_policy_typed_config,
        hedge_policy,
        request_mirror_policies,
        include_attempt_count_in_response,
        include_is_timeout_retry_header,
        route_specifiers,
    );
    if wire.domains.is_empty() {
        return Err(Invalid::new("a domain is missing").within("domains"));
    }
    limits::count("domains", wire.domains.len(), limits::DOMAINS).at("domains")?;
    limits::count("routes", wire.routes.len(), limits::ROUTES).at("routes")?;
    let filters = per_filter::compile(&wire.typed_per_filter_config, wire.cors.as_ref())?;
    let routes = wire.routes.iter().enumerate();
    let routes = routes
        .map(|(index, wire)| compile_route(wire, max_direct_response_bytes).at_index("routes", index).map(Arc::new));
    Ok(VirtualHost {
        name: wire.name.clone(),
        domains: wire.domains.clone(),
        routes: routes.collect::<Result<_>>()?,
        require_tls: match TlsRequirementType::try_from(wire.require_tls) {
            Ok(TlsRequirementType::None) => false,
            // Nobody is internal to us: an address proves nothing.
            Ok(TlsRequirementType::ExternalOnly | TlsRequirementType::All) => true,
            Err(_) => return Err(Invalid::new("this requirement is not known").within("require_tls")),
        },
        request_headers: header::edits(&wire.request_headers_to_add, &wire.request_headers_to_remove, REQUEST)?,
        response_headers: header::edits(&wire.response_headers_to_add, &wire.response_headers_to_remove, RESPONSE)?,
        retry: wire.retry_policy.as_ref().map(retry::compile).transpose().at("retry_policy")?.map(Arc::new),
        cors: filters.cors,
        fault: filters.fault,
        include_attempt_count: wire.include_request_attempt_count,
        origin: origin::origin(wire.metadata.as_ref()),
    })
}

fn compile_route(wire: &WireRoute, max_direct_response_bytes: u32) -> Result<Route> {
    not_obeyed!(wire, route_specifiers);
    let matches = wire.r#match.as_ref().ok_or_else(|| Invalid::new("is missing").within("match"))?;
    let mut filters = per_filter::compile(&wire.typed_per_filter_config, None)?;
    let action = match &wire.action {
        Some(route::Action::Route(forward)) => {
            if filters.cors.is_none() {
                filters.cors = per_filter::older_cors(forward.cors.as_ref()).at("route.cors")?;
            }
            Action::Forward(Box::new(action::forward(forward).at("route")?))
        }
        Some(route::Action::Redirect(redirect)) => {
            Action::Redirect(Box::new(action::redirect(redirect).at("redirect")?))
        }
        Some(route::Action::DirectResponse(response)) => {
            let response = action::direct_response(response, max_direct_response_bytes).at("direct_response")?;
            Action::Respond(Box::new(response))
        }
        Some(route::Action::FilterAction(_)) => return Err(Invalid::not_obeyed("this action").within("filter_action")),
        Some(route::Action::NonForwardingAction(_)) => {
            return Err(Invalid::not_obeyed("this action").within("non_forwarding_action"));
        }
        None => return Err(Invalid::new("an action is missing: route, redirect or direct_response")),
    };
    Ok(Route {
        name: wire.name.clone(),
        matches: conditions(matches).at("match")?,
        action,
        request_headers: header::edits(&wire.request_headers_to_add, &wire.request_headers_to_remove, REQUEST)?,
        response_headers: header::edits(&wire.response_headers_to_add, &wire.response_headers_to_remove, RESPONSE)?,
        fault: filters.fault,
        cors: filters.cors,
        origin: origin::origin(wire.metadata.as_ref()),
        match_field: origin::match_field(wire.metadata.as_ref()),
        operation: wire.decorator.as_ref().map(|decorator| decorator.operation.clone()),
    })
}

fn conditions(wire: &WireMatch) -> Result<RouteMatch> {
    not_obeyed!(wire, cookies, tls_context, dynamic_metadata, filter_state);
    let ignore_case = !value::flag(wire.case_sensitive.as_ref(), true);
    let path = match &wire.path_specifier {
        Some(PathSpecifier::Path(path)) => PathMatch::Exact { path: path.as_str().into(), ignore_case },
        Some(PathSpecifier::Prefix(prefix)) => PathMatch::Prefix { prefix: prefix.as_str().into(), ignore_case },
        Some(PathSpecifier::PathSeparatedPrefix(prefix)) => {
            if !prefix.starts_with('/') || prefix.ends_with('/') || prefix.contains(['?', '#']) {
                let message = "has to begin with a slash, not to end with one, and to hold no ? or #";
                return Err(Invalid::new(message).within("path_separated_prefix"));
            }
            PathMatch::SegmentPrefix { prefix: prefix.as_str().into(), ignore_case }
        }
        Some(PathSpecifier::SafeRegex(regex)) => PathMatch::Regex(matcher::whole(regex).at("safe_regex")?),
        Some(PathSpecifier::ConnectMatcher(_)) => PathMatch::Connect,
        Some(PathSpecifier::PathMatchPolicy(_)) => {
            return Err(Invalid::not_obeyed("this condition").within("path_match_policy"));
        }
        None => return Err(Invalid::new("a condition on the path is missing")),
    };
    Ok(RouteMatch {
        path,
        headers: matcher::headers(&wire.headers).at("headers")?,
        query: matcher::query(&wire.query_parameters).at("query_parameters")?,
        grpc: wire.grpc.is_some(),
        share: value::runtime_fraction(wire.runtime_fraction.as_ref()).at("runtime_fraction")?,
    })
}
