//! What a rule does with a request: forward, redirect, answer; and what it changes on the way (reference: semantics 31,
//! 38 to 49).

use std::collections::HashMap;

use indexmap::IndexMap;
use mizzen_api::networking::{
    ConsistentHashLb, CorsPolicy, HeaderOperations, HttpFaultInjection, HttpRedirect, HttpRewrite,
    RedirectPortSelection, StringMatch, UnmatchedPreflights,
};
use mizzen_proto::envoy::config::core::v3::{
    DataSource, HeaderValue, HeaderValueOption, data_source::Specifier, header_value_option::HeaderAppendAction,
};
use mizzen_proto::envoy::config::route::v3::redirect_action::{
    PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier,
};
use mizzen_proto::envoy::config::route::v3::route_action::hash_policy::{
    ConnectionProperties, Cookie, CookieAttribute, Header, PolicySpecifier, QueryParameter,
};
use mizzen_proto::envoy::config::route::v3::route_action::{HashPolicy, HostRewriteSpecifier};
use mizzen_proto::envoy::config::route::v3::{DirectResponseAction, RedirectAction, RouteAction};
use mizzen_proto::envoy::extensions::filters::common::fault::v3::{FaultDelay, fault_delay::FaultDelaySecifier};
use mizzen_proto::envoy::extensions::filters::http::cors::v3::CorsPolicy as CorsFilter;
use mizzen_proto::envoy::extensions::filters::http::fault::v3::{FaultAbort, HttpFault, fault_abort::ErrorType};
use mizzen_proto::envoy::r#type::matcher::v3::RegexMatchAndSubstitute;
use mizzen_proto::google::protobuf::Any;
use mizzen_types::Percent;

use super::matching;
use crate::pb;

const FAULT_FILTER: &str = "envoy.filters.http.fault";
const CORS_FILTER: &str = "envoy.filters.http.cors";

/// Operations on headers, and the host if they set one.
#[derive(Default)]
pub(super) struct HeaderChanges {
    pub(super) add: Vec<HeaderValueOption>,
    pub(super) remove: Vec<String>,
    pub(super) authority: Option<String>,
}

impl HeaderChanges {
    /// For requests, where `host` is not a header but the name of the destination (reference: semantics 39).
    pub(super) fn of_request(operations: Option<&HeaderOperations>) -> Self {
        Self::read(operations, true)
    }

    pub(super) fn of_response(operations: Option<&HeaderOperations>) -> Self {
        Self::read(operations, false)
    }

    fn read(operations: Option<&HeaderOperations>, request: bool) -> Self {
        let Some(operations) = operations else { return Self::default() };
        let mut changes = Self { remove: operations.remove.clone(), ..Self::default() };
        changes.take(&operations.set, HeaderAppendAction::OverwriteIfExistsOrAdd, request);
        changes.take(&operations.add, HeaderAppendAction::AppendIfExistsOrAdd, request);
        changes
    }

    fn take(&mut self, headers: &IndexMap<String, String>, action: HeaderAppendAction, request: bool) {
        let mut sorted: Vec<_> = headers.iter().collect();
        sorted.sort();
        for (name, value) in sorted {
            if request && (name.eq_ignore_ascii_case("host") || name == ":authority") {
                self.authority = Some(value.clone());
            } else if !name.starts_with(':') {
                self.add.push(HeaderValueOption {
                    header: Some(HeaderValue {
                        key: name.clone(),
                        value: with_literal_percents(value),
                        ..Default::default()
                    }),
                    append_action: action as i32,
                    ..Default::default()
                });
            }
        }
    }
}

/// A value in which every `%` that does not belong to a command (`%REQ(x)%`) stands for itself. Envoy would refuse the
/// whole table for one that it cannot read.
fn with_literal_percents(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let mut rest = value;
    while let Some(start) = rest.find('%') {
        out.push_str(&rest[..start]);
        rest = &rest[start..];
        let length = if rest.starts_with("%%") { 2 } else { command_length(rest).unwrap_or(0) };
        if length == 0 {
            out.push_str("%%");
            rest = &rest[1..];
        } else {
            out.push_str(&rest[..length]);
            rest = &rest[length..];
        }
    }
    out.push_str(rest);
    out
}

/// Length of the command with which a text begins: `%NAME%`, `%NAME(ARGUMENTS)%` or either with `:LENGTH`.
fn command_length(text: &str) -> Option<usize> {
    let name_end = text[1..].find(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'))? + 1;
    if name_end == 1 {
        return None;
    }
    let mut at = name_end;
    if text[at..].starts_with('(') {
        at += text[at..].find(')')? + 1;
    }
    if text[at..].starts_with(':') {
        let digits = text[at + 1..].bytes().take_while(u8::is_ascii_digit).count();
        at += 1 + digits;
    }
    text[at..].starts_with('%').then_some(at + 1)
}

pub(super) fn redirect(redirect: &HttpRedirect, port: u16) -> Option<RedirectAction> {
    let code = match redirect.code() {
        301 => RedirectResponseCode::MovedPermanently,
        302 => RedirectResponseCode::Found,
        303 => RedirectResponseCode::SeeOther,
        307 => RedirectResponseCode::TemporaryRedirect,
        308 => RedirectResponseCode::PermanentRedirect,
        _ => return None,
    };
    let path = match (redirect.uri.as_str(), redirect.prefix_rewrite.as_str()) {
        ("", "") => None,
        ("", prefix) => Some(PathRewriteSpecifier::PrefixRewrite(prefix.to_owned())),
        (uri, _) => Some(PathRewriteSpecifier::PathRedirect(uri.to_owned())),
    };
    let written = redirect.port.filter(|port| *port != 0);
    let number = match redirect.derive_port {
        Some(RedirectPortSelection::FromRequestPort) => port,
        Some(RedirectPortSelection::FromProtocolDefault) => 0,
        None => written.unwrap_or(0),
    };
    // The port that a scheme has anyway is not written (reference: semantics 44).
    let shown = match (redirect.scheme.as_str(), number) {
        ("http", 80) | ("https", 443) => 0,
        (_, number) => number,
    };
    Some(RedirectAction {
        host_redirect: redirect.authority.clone(),
        port_redirect: shown.into(),
        response_code: code as i32,
        scheme_rewrite_specifier: (!redirect.scheme.is_empty())
            .then(|| SchemeRewriteSpecifier::SchemeRedirect(redirect.scheme.clone())),
        path_rewrite_specifier: path,
        ..Default::default()
    })
}

pub(super) fn direct_response(status: u16, body: Option<&[u8]>) -> DirectResponseAction {
    let specifier = body.map(|body| match std::str::from_utf8(body) {
        Ok(text) => Specifier::InlineString(text.to_owned()),
        Err(_) => Specifier::InlineBytes(body.to_vec()),
    });
    DirectResponseAction {
        status: status.into(),
        body: specifier.map(|specifier| DataSource { specifier: Some(specifier), ..Default::default() }),
        ..Default::default()
    }
}

/// The path: a pattern with its substitution, else the matched prefix or the whole path (reference: semantics 41).
pub(super) fn rewrite(action: &mut RouteAction, rewrite: &HttpRewrite) {
    match &rewrite.uri_regex_rewrite {
        Some(regex) => {
            action.regex_rewrite = Some(RegexMatchAndSubstitute {
                pattern: Some(pb::regex(&regex.r#match)),
                substitution: regex.rewrite.clone(),
            });
        }
        None => action.prefix_rewrite = rewrite.uri.clone(),
    }
    if !rewrite.authority.is_empty() {
        action.host_rewrite_specifier = Some(HostRewriteSpecifier::HostRewriteLiteral(rewrite.authority.clone()));
    }
}

/// Settings of the filters that come before the router.
pub(super) fn filter_settings(fault: Option<&HttpFaultInjection>, cors: Option<&CorsPolicy>) -> HashMap<String, Any> {
    let mut settings = HashMap::new();
    if let Some(fault) = fault {
        settings.insert(FAULT_FILTER.to_owned(), pb::any(&http_fault(fault)));
    }
    if let Some(cors) = cors {
        settings.insert(CORS_FILTER.to_owned(), pb::any(&cors_filter(cors)));
    }
    settings
}

fn http_fault(fault: &HttpFaultInjection) -> HttpFault {
    let delay = fault.delay.as_ref().map(|delay| FaultDelay {
        percentage: Some(pb::fraction(delay.share())),
        fault_delay_secifier: delay.fixed_delay.and_then(pb::duration).map(FaultDelaySecifier::FixedDelay),
    });
    let abort = fault.abort.as_ref().map(|abort| {
        let status = abort.http_status.map(|status| ErrorType::HttpStatus(status.into()));
        let grpc = || abort.grpc_status.as_deref().and_then(grpc_code).map(ErrorType::GrpcStatus);
        FaultAbort {
            percentage: Some(pb::fraction(abort.share())),
            error_type: status.or_else(grpc),
            ..Default::default()
        }
    });
    HttpFault { delay, abort, ..Default::default() }
}

/// Number of a gRPC status by its name.
fn grpc_code(name: &str) -> Option<u32> {
    const NAMES: [&str; 17] = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
    let found = NAMES.iter().position(|known| known.eq_ignore_ascii_case(name));
    found.and_then(|code| u32::try_from(code).ok())
}

fn cors_filter(cors: &CorsPolicy) -> CorsFilter {
    let exact = cors.allow_origin.iter().map(|origin| match origin.as_str() {
        "*" => matching::string(&StringMatch::Regex(".*".to_owned())),
        origin => matching::string(&StringMatch::Exact(origin.to_owned())),
    });
    CorsFilter {
        allow_origin_string_match: cors.allow_origins.iter().map(matching::string).chain(exact).collect(),
        allow_methods: cors.allow_methods.join(","),
        allow_headers: cors.allow_headers.join(","),
        expose_headers: cors.expose_headers.join(","),
        max_age: cors.max_age.map(|age| age.as_secs().to_string()).unwrap_or_default(),
        allow_credentials: cors.allow_credentials.and_then(pb::bool),
        filter_enabled: pb::runtime_fraction(Percent::ALWAYS),
        forward_not_matching_preflights: pb::bool(cors.unmatched_preflights == UnmatchedPreflights::Forward),
        ..Default::default()
    }
}

/// What of a request decides which endpoint it goes to.
pub(super) fn hash_policy(hash: &ConsistentHashLb) -> Option<HashPolicy> {
    let specifier = if let Some(name) = &hash.http_header_name {
        PolicySpecifier::Header(Header { header_name: name.clone(), ..Default::default() })
    } else if let Some(cookie) = &hash.http_cookie {
        PolicySpecifier::Cookie(Cookie {
            name: cookie.name.clone(),
            ttl: cookie.ttl.and_then(pb::duration),
            path: cookie.path.clone(),
            attributes: cookie
                .attributes
                .iter()
                .map(|attribute| CookieAttribute { name: attribute.name.clone(), value: attribute.value.clone() })
                .collect(),
        })
    } else if hash.use_source_ip == Some(true) {
        PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip: true })
    } else {
        let name = hash.http_query_parameter_name.clone()?;
        PolicySpecifier::QueryParameter(QueryParameter { name })
    };
    Some(HashPolicy { policy_specifier: Some(specifier), ..Default::default() })
}

#[cfg(test)]
mod tests {
    use super::with_literal_percents;

    #[track_caller]
    fn check(value: &str, expected: &str) {
        assert_eq!(with_literal_percents(value), expected, "{value}");
    }

    #[test]
    fn percents_outside_of_commands_stand_for_themselves() {
        check("plain", "plain");
        check("100%", "100%%");
        check("100%%", "100%%");
        check("%REQ(x-a)%", "%REQ(x-a)%");
        check("a %START_TIME(%s.%3f)% b", "a %START_TIME(%s.%3f)% b");
        check("%REQ(X?Y):10%-%PROTOCOL%", "%REQ(X?Y):10%-%PROTOCOL%");
        check("50% of %PROTOCOL%", "50%% of %PROTOCOL%");
        check("%lower%", "%%lower%%");
        check("%REQ(open", "%%REQ(open");
        check("%é%", "%%é%%");
    }
}
