//! What a route does: forward, redirect, answer.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, StatusCode, uri::Scheme};
use mizzen_proto::envoy::config::route::v3::{
    DirectResponseAction, RedirectAction, RouteAction, WeightedCluster as WireWeighted,
    redirect_action::{PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier},
    route_action::{
        self, ClusterNotFoundResponseCode, ClusterSpecifier, HostRewriteSpecifier, RequestMirrorPolicy,
        hash_policy::PolicySpecifier,
    },
    weighted_cluster::{ClusterWeight, cluster_weight},
};
use mizzen_proto::envoy::r#type::matcher::v3::RegexMatchAndSubstitute;
use mizzen_snapshot::route::{
    DirectResponse, Forward, HashOn, HashPolicy, HostRewrite, Mirror, PathRewrite, Redirect, Target, WeightedCluster,
};
use mizzen_types::Percent;

use super::{REQUEST, RESPONSE, retry};
use crate::invalid::{At, Invalid, Result, not_obeyed};
use crate::value::{self, Source};
use crate::{header, limits, matcher};

/// Envoy's default for a whole exchange.
const TIMEOUT: Duration = Duration::from_secs(15);

pub(super) fn forward(wire: &RouteAction) -> Result<Forward> {
    not_obeyed!(
        wire,
        metadata_match,
        path_rewrite_policy,
        path_rewrite,
        early_data_policy,
        retry_policy_typed_config,
        priority,
        rate_limits,
        grpc_timeout_offset,
        internal_redirect_policy,
        internal_redirect_action,
        hedge_policy,
    );
    let target = match &wire.cluster_specifier {
        Some(ClusterSpecifier::Cluster(name)) if name.is_empty() => {
            return Err(Invalid::new("a name is missing").within("cluster"));
        }
        Some(ClusterSpecifier::Cluster(name)) => Target::Cluster(name.as_str().into()),
        Some(ClusterSpecifier::ClusterHeader(name)) => {
            Target::ClusterHeader(matcher::header_key(name).at("cluster_header")?)
        }
        Some(ClusterSpecifier::WeightedClusters(weighted)) => weighted_clusters(weighted).at("weighted_clusters")?,
        Some(ClusterSpecifier::ClusterSpecifierPlugin(_) | ClusterSpecifier::InlineClusterSpecifierPlugin(_)) => {
            return Err(Invalid::not_obeyed("a plugin that names the cluster"));
        }
        None => return Err(Invalid::new("cluster, cluster_header or weighted_clusters is missing")),
    };
    let rewrite_path = match (&wire.regex_rewrite, wire.prefix_rewrite.as_str()) {
        (Some(_), prefix) if !prefix.is_empty() => {
            return Err(Invalid::new("prefix_rewrite and regex_rewrite cannot both be given"));
        }
        (Some(regex), _) => Some(regex_rewrite(regex).at("regex_rewrite")?),
        (None, "") => None,
        (None, prefix) => Some(PathRewrite::Matched(prefix.into())),
    };
    let (timeout, grpc_timeout_max) = timeouts(wire)?;
    let mirrors = wire.request_mirror_policies.iter().enumerate();
    let mirrors =
        mirrors.filter_map(|(index, wire)| mirror(wire).at_index("request_mirror_policies", index).transpose());
    let hash = wire.hash_policy.iter().enumerate();
    let hash = hash.map(|(index, wire)| hash_policy(wire).at_index("hash_policy", index));
    let mut upgrades = Vec::new();
    for (index, upgrade) in wire.upgrade_configs.iter().enumerate() {
        if upgrade.connect_config.is_some() {
            return Err(Invalid::not_obeyed("connect_config")).at_index("upgrade_configs", index);
        }
        upgrades.push((upgrade.upgrade_type.to_ascii_lowercase(), value::flag(upgrade.enabled.as_ref(), true)));
    }
    let missing_cluster_status = match ClusterNotFoundResponseCode::try_from(wire.cluster_not_found_response_code) {
        Ok(ClusterNotFoundResponseCode::ServiceUnavailable) => StatusCode::SERVICE_UNAVAILABLE,
        Ok(ClusterNotFoundResponseCode::NotFound) => StatusCode::NOT_FOUND,
        Ok(ClusterNotFoundResponseCode::InternalServerError) => StatusCode::INTERNAL_SERVER_ERROR,
        Err(_) => return Err(Invalid::new("this code is not known").within("cluster_not_found_response_code")),
    };
    Ok(Forward {
        target,
        missing_cluster_status,
        rewrite_path,
        rewrite_host: host_rewrite(wire)?,
        timeout,
        idle_timeout: value::limit(wire.idle_timeout.as_ref(), None).at("idle_timeout")?,
        grpc_timeout_max,
        retry: wire.retry_policy.as_ref().map(retry::compile).transpose().at("retry_policy")?.map(Arc::new),
        mirrors: mirrors.collect::<Result<_>>()?,
        hash: hash.collect::<Result<_>>()?,
        upgrades,
        append_x_forwarded_host: wire.append_x_forwarded_host,
    })
}

/// The limit of the exchange, and the bound of a `grpc-timeout` header (zero: none; absent: the header is ignored).
fn timeouts(wire: &RouteAction) -> Result<(Option<Duration>, Option<Duration>)> {
    let mut timeout = value::limit(wire.timeout.as_ref(), Some(TIMEOUT)).at("timeout")?;
    let mut grpc = value::optional_duration(wire.max_grpc_timeout.as_ref()).at("max_grpc_timeout")?;
    if let Some(stream) = &wire.max_stream_duration {
        let offset = value::limit(stream.grpc_timeout_header_offset.as_ref(), None);
        if offset.at("max_stream_duration.grpc_timeout_header_offset")?.is_some() {
            let field = "max_stream_duration.grpc_timeout_header_offset";
            return Err(Invalid::not_obeyed("this field").within(field));
        }
        let longest = value::limit(stream.max_stream_duration.as_ref(), None);
        if let Some(longest) = longest.at("max_stream_duration.max_stream_duration")? {
            timeout = Some(timeout.map_or(longest, |timeout| timeout.min(longest)));
        }
        let header = value::optional_duration(stream.grpc_timeout_header_max.as_ref());
        grpc = header.at("max_stream_duration.grpc_timeout_header_max")?.or(grpc);
    }
    Ok((timeout, grpc))
}

fn host_rewrite(wire: &RouteAction) -> Result<Option<HostRewrite>> {
    Ok(match &wire.host_rewrite_specifier {
        None => None,
        Some(HostRewriteSpecifier::HostRewriteLiteral(host)) => {
            Some(HostRewrite::Literal(header_value(host).at("host_rewrite_literal")?))
        }
        Some(HostRewriteSpecifier::AutoHostRewrite(flag)) => flag.value.then_some(HostRewrite::Endpoint),
        Some(HostRewriteSpecifier::HostRewriteHeader(name)) => {
            Some(HostRewrite::Header(matcher::header_name(name).at("host_rewrite_header")?))
        }
        Some(_) => return Err(Invalid::not_obeyed("this way of rewriting the host")),
    })
}

fn header_value(text: &str) -> Result<HeaderValue> {
    HeaderValue::from_str(text).map_err(|_| Invalid::new(format!("{text:?} cannot stand in a header")))
}

fn weighted_clusters(wire: &WireWeighted) -> Result<Target> {
    not_obeyed!(wire, random_value_specifier);
    limits::count("clusters", wire.clusters.len(), limits::CLUSTERS_PER_ROUTE).at("clusters")?;
    let clusters = wire.clusters.iter().enumerate().map(|(index, wire)| weighted(wire).at_index("clusters", index));
    let clusters: Vec<WeightedCluster> = clusters.collect::<Result<_>>()?;
    let total: u64 = clusters.iter().map(|cluster| u64::from(cluster.weight)).sum();
    match u32::try_from(total) {
        Ok(0) => Err(Invalid::new("the weights sum up to 0").within("clusters")),
        Ok(total) => Ok(Target::Weighted { clusters, total }),
        Err(_) => Err(Invalid::new("the weights sum up to more than 2^32-1").within("clusters")),
    }
}

fn weighted(wire: &ClusterWeight) -> Result<WeightedCluster> {
    not_obeyed!(wire, cluster_header, metadata_match, typed_per_filter_config);
    if wire.name.is_empty() {
        return Err(Invalid::new("a name is missing").within("name"));
    }
    let rewrite_host = match &wire.host_rewrite_specifier {
        Some(cluster_weight::HostRewriteSpecifier::HostRewriteLiteral(host)) => {
            Some(HostRewrite::Literal(header_value(host).at("host_rewrite_literal")?))
        }
        None => None,
    };
    Ok(WeightedCluster {
        cluster: wire.name.as_str().into(),
        weight: value::number(wire.weight.as_ref()).unwrap_or(0),
        request_headers: header::edits(&wire.request_headers_to_add, &wire.request_headers_to_remove, REQUEST)?,
        response_headers: header::edits(&wire.response_headers_to_add, &wire.response_headers_to_remove, RESPONSE)?,
        rewrite_host,
    })
}

fn regex_rewrite(wire: &RegexMatchAndSubstitute) -> Result<PathRewrite> {
    let pattern = wire.pattern.as_ref().ok_or_else(|| Invalid::new("is missing").within("pattern"))?;
    let pattern = matcher::anywhere(&pattern.regex).at("pattern.regex")?;
    let substitution = matcher::substitution(&wire.substitution, pattern.captures_len()).at("substitution")?;
    Ok(PathRewrite::Regex { pattern, substitution })
}

/// `None` for a mirror that no request takes.
fn mirror(wire: &RequestMirrorPolicy) -> Result<Option<Mirror>> {
    not_obeyed!(wire, cluster_header, request_headers_mutations, host_rewrite_literal);
    if wire.cluster.is_empty() {
        return Err(Invalid::new("a name is missing").within("cluster"));
    }
    let share = value::runtime_fraction(wire.runtime_fraction.as_ref()).at("runtime_fraction")?;
    let share = share.unwrap_or(Percent::ALWAYS);
    Ok((share != Percent::NEVER).then(|| Mirror {
        cluster: wire.cluster.as_str().into(),
        share,
        shadow_host: !wire.disable_shadow_host_suffix_append,
    }))
}

fn hash_policy(wire: &route_action::HashPolicy) -> Result<HashPolicy> {
    let on = match &wire.policy_specifier {
        Some(PolicySpecifier::Header(header)) => {
            not_obeyed!(header, regex_rewrite);
            HashOn::Header(matcher::header_key(&header.header_name).at("header.header_name")?)
        }
        Some(PolicySpecifier::Cookie(cookie)) if cookie.name.is_empty() => {
            return Err(Invalid::new("a name is missing").within("cookie.name"));
        }
        Some(PolicySpecifier::Cookie(cookie)) => HashOn::Cookie {
            name: cookie.name.clone(),
            ttl: value::optional_duration(cookie.ttl.as_ref()).at("cookie.ttl")?,
            path: Some(cookie.path.clone()).filter(|path| !path.is_empty()),
            attributes: cookie.attributes.iter().map(|of| (of.name.clone(), of.value.clone())).collect(),
        },
        Some(PolicySpecifier::ConnectionProperties(properties)) if properties.source_ip => HashOn::SourceIp,
        Some(PolicySpecifier::QueryParameter(parameter)) => HashOn::QueryParameter(parameter.name.clone()),
        Some(PolicySpecifier::ConnectionProperties(_) | PolicySpecifier::FilterState(_)) => {
            return Err(Invalid::not_obeyed("this policy"));
        }
        None => return Err(Invalid::new("a policy is missing")),
    };
    Ok(HashPolicy { on, terminal: wire.terminal })
}

pub(super) fn redirect(wire: &RedirectAction) -> Result<Redirect> {
    let status = match RedirectResponseCode::try_from(wire.response_code) {
        Ok(RedirectResponseCode::MovedPermanently) => StatusCode::MOVED_PERMANENTLY,
        Ok(RedirectResponseCode::Found) => StatusCode::FOUND,
        Ok(RedirectResponseCode::SeeOther) => StatusCode::SEE_OTHER,
        Ok(RedirectResponseCode::TemporaryRedirect) => StatusCode::TEMPORARY_REDIRECT,
        Ok(RedirectResponseCode::PermanentRedirect) => StatusCode::PERMANENT_REDIRECT,
        Err(_) => return Err(Invalid::new("this code is not known").within("response_code")),
    };
    let scheme = match &wire.scheme_rewrite_specifier {
        Some(SchemeRewriteSpecifier::HttpsRedirect(true)) => Some(Scheme::HTTPS),
        Some(SchemeRewriteSpecifier::SchemeRedirect(scheme)) if !scheme.is_empty() => {
            let parsed = scheme.to_ascii_lowercase().parse();
            Some(parsed.map_err(|_| Invalid::new(format!("{scheme:?} is no scheme")).within("scheme_redirect"))?)
        }
        _ => None,
    };
    let port = u16::try_from(wire.port_redirect)
        .map_err(|_| Invalid::new("a port is at most 65535").within("port_redirect"))?;
    let path = match &wire.path_rewrite_specifier {
        Some(PathRewriteSpecifier::PathRedirect(path)) if !path.is_empty() => {
            header_value(path).at("path_redirect")?;
            Some(PathRewrite::Full(path.as_str().into()))
        }
        Some(PathRewriteSpecifier::PrefixRewrite(prefix)) if !prefix.is_empty() => {
            header_value(prefix).at("prefix_rewrite")?;
            Some(PathRewrite::Matched(prefix.as_str().into()))
        }
        Some(PathRewriteSpecifier::RegexRewrite(regex)) => Some(regex_rewrite(regex).at("regex_rewrite")?),
        Some(PathRewriteSpecifier::PathRewrite(_)) => {
            return Err(Invalid::not_obeyed("this field").within("path_rewrite"));
        }
        _ => None,
    };
    header_value(&wire.host_redirect).at("host_redirect")?;
    Ok(Redirect {
        status,
        scheme,
        host: Some(wire.host_redirect.clone()).filter(|host| !host.is_empty()),
        port: Some(port).filter(|port| *port > 0),
        path,
        strip_query: wire.strip_query,
    })
}

pub(super) fn direct_response(wire: &DirectResponseAction, limit: u32) -> Result<DirectResponse> {
    not_obeyed!(wire, body_format);
    let status = super::per_filter::http_status(wire.status).at("status")?;
    let body = match &wire.body {
        None => Vec::new(),
        Some(source) => match value::data_source(source).at("body")? {
            Source::Inline(body) => body,
            Source::File(_) => return Err(Invalid::not_obeyed("a file").within("body.filename")),
        },
    };
    if body.len() > limit as usize {
        let message = format!("{} bytes are more than the {limit} that the route table allows", body.len());
        return Err(Invalid::new(message).within("body"));
    }
    Ok(DirectResponse { status, body: body.into() })
}
