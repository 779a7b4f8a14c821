//! Conditions of a rule (reference: semantics 18 to 30).

use mizzen_api::networking::{HttpMatchRequest, StringMatch};
use mizzen_proto::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use mizzen_proto::envoy::config::route::v3::query_parameter_matcher::QueryParameterMatchSpecifier;
use mizzen_proto::envoy::config::route::v3::route_match::PathSpecifier;
use mizzen_proto::envoy::config::route::v3::{HeaderMatcher, QueryParameterMatcher, RouteMatch};
use mizzen_proto::envoy::r#type::matcher::v3::StringMatcher;
use mizzen_proto::envoy::r#type::matcher::v3::string_matcher::MatchPattern;

use crate::pb;

/// Of a rule without conditions.
pub(super) fn everything() -> RouteMatch {
    RouteMatch { path_specifier: Some(PathSpecifier::Prefix("/".to_owned())), ..Default::default() }
}

/// One alternative of a rule. Ports, gateways and clients were looked at before.
pub(super) fn route_match(request: &HttpMatchRequest) -> RouteMatch {
    let mut headers: Vec<HeaderMatcher> =
        request.headers.iter().map(|(name, value)| header(pseudo_header(name), value)).collect();
    headers.extend(request.without_headers.iter().map(|(name, value)| {
        let matcher = header(pseudo_header(name), value);
        let missing_is_empty = !presence(value);
        HeaderMatcher { invert_match: true, treat_missing_header_as_empty: missing_is_empty, ..matcher }
    }));
    headers.sort_by(|a, b| a.name.cmp(&b.name));
    let of_request = [(":method", &request.method), (":authority", &request.authority), (":scheme", &request.scheme)];
    headers.extend(of_request.into_iter().filter_map(|(name, value)| Some(header(name, value.as_ref()?))));
    let path = match &request.uri {
        None | Some(StringMatch::Present) => PathSpecifier::Prefix("/".to_owned()),
        Some(StringMatch::Exact(path)) => PathSpecifier::Path(path.clone()),
        Some(StringMatch::Prefix(prefix)) => PathSpecifier::Prefix(prefix.clone()),
        Some(StringMatch::Regex(regex)) => PathSpecifier::SafeRegex(pb::regex(regex)),
    };
    RouteMatch {
        case_sensitive: pb::bool(!request.ignore_uri_case),
        headers,
        query_parameters: request.query_params.iter().map(|(name, value)| query_parameter(name, value)).collect(),
        path_specifier: Some(path),
        ..Default::default()
    }
}

/// Whether a match leaves nothing for later rules (reference: semantics 20).
pub(super) fn is_catch_all(route_match: &RouteMatch) -> bool {
    let path = match &route_match.path_specifier {
        Some(PathSpecifier::Prefix(prefix)) => prefix == "/" || prefix.is_empty(),
        Some(PathSpecifier::SafeRegex(regex)) => regex.regex == ".*" || regex.regex == "*",
        _ => false,
    };
    path && route_match.headers.is_empty() && route_match.query_parameters.is_empty()
}

/// Names that stand for parts of the request line (reference: semantics 26).
fn pseudo_header(name: &str) -> &str {
    match name {
        "uri" => ":path",
        "scheme" => ":scheme",
        "method" => ":method",
        "authority" => ":authority",
        other => other,
    }
}

fn presence(value: &StringMatch) -> bool {
    match value {
        StringMatch::Present => true,
        StringMatch::Exact(text) | StringMatch::Prefix(text) => text.is_empty(),
        StringMatch::Regex(regex) => regex == "*",
    }
}

fn header(name: &str, value: &StringMatch) -> HeaderMatcher {
    let specifier = if presence(value) {
        HeaderMatchSpecifier::PresentMatch(true)
    } else {
        HeaderMatchSpecifier::StringMatch(string(value))
    };
    HeaderMatcher { name: name.to_owned(), header_match_specifier: Some(specifier), ..Default::default() }
}

fn query_parameter(name: &str, value: &StringMatch) -> QueryParameterMatcher {
    let specifier = if presence(value) {
        QueryParameterMatchSpecifier::PresentMatch(true)
    } else {
        QueryParameterMatchSpecifier::StringMatch(string(value))
    };
    QueryParameterMatcher { name: name.to_owned(), query_parameter_match_specifier: Some(specifier) }
}

pub(super) fn string(value: &StringMatch) -> StringMatcher {
    pb::string(match value {
        StringMatch::Present => MatchPattern::Prefix(String::new()),
        StringMatch::Exact(text) => MatchPattern::Exact(text.clone()),
        StringMatch::Prefix(text) => MatchPattern::Prefix(text.clone()),
        StringMatch::Regex(regex) => MatchPattern::SafeRegex(pb::regex(regex)),
    })
}
