//! One rule of a VirtualService's `http`.

use std::time::Duration;

use indexmap::IndexMap;
use mizzen_api::networking::{
    CorsPolicy, Destination, HeaderOperations, Headers, HttpDirectResponse, HttpFaultInjection, HttpMatchRequest,
    HttpRedirect, HttpRetry, HttpRewrite, HttpRoute, StringMatch,
};

use super::string_match::{regex, string_match};
use super::{duration, duration_or_zero, names};
use crate::check::Check;
use crate::code;
use crate::yaml::shortened;

/// What one answer from the proxy itself may hold.
const MAX_BODY_BYTES: usize = 1024 * 1024;

pub(super) fn http_route(check: &mut Check, rule: &HttpRoute, in_delegate: bool) {
    action(check, rule, in_delegate);
    check.each("match", &rule.r#match, matching);
    destinations(check, rule);
    check.optional("redirect", rule.redirect.as_ref(), |check, value| redirect(check, value, &rule.r#match));
    check.optional("directResponse", rule.direct_response.as_ref(), direct_response);
    check.optional("rewrite", rule.rewrite.as_ref(), rewrite);
    check.optional("timeout", rule.timeout.as_ref(), |check, value| duration_or_zero(check, *value));
    check.optional("retries", rule.retries.as_ref(), retries);
    check.optional("fault", rule.fault.as_ref(), fault);
    check.optional("corsPolicy", rule.cors_policy.as_ref(), cors);
    check.optional("headers", rule.headers.as_ref(), headers);
    mirrors(check, rule);
    if let Some(delegate) = &rule.delegate {
        check.field("delegate", |check| {
            if delegate.name.is_empty() {
                check.missing("name", "name: …");
            }
            if in_delegate {
                check.conflict("a delegate cannot delegate further", "write the routes here");
            }
        });
    }
}

/// Exactly one of the ways to answer, and nothing beside it that could not take effect.
fn action(check: &mut Check, rule: &HttpRoute, in_delegate: bool) {
    let given: Vec<&str> = [
        ("route", !rule.route.is_empty()),
        ("redirect", rule.redirect.is_some()),
        ("directResponse", rule.direct_response.is_some()),
        ("delegate", rule.delegate.is_some()),
    ]
    .into_iter()
    .filter_map(|(name, given)| given.then_some(name))
    .collect();
    match given.as_slice() {
        [] if in_delegate => check.missing("route", "route: [{destination: {host: …}}]"),
        [] => check.error(
            code::MISSING,
            "the rule says nothing to do: it has no `route`, `redirect`, `directResponse` or `delegate`",
            "write `route: [{destination: {host: …}}]`",
        ),
        [_] => {}
        [first, second, ..] => check.conflict(
            format!("`{first}` and `{second}` exclude each other"),
            format!("remove one of the two, or put `{second}` into a rule of its own"),
        ),
    }
    let answered = if rule.redirect.is_some() {
        Some("redirect")
    } else if rule.direct_response.is_some() {
        Some("directResponse")
    } else {
        None
    };
    if let Some(answered) = answered {
        let beside = [("fault", rule.fault.is_some() && answered == "redirect"), ("rewrite", rule.rewrite.is_some())];
        for (name, _) in beside.into_iter().filter(|(_, given)| *given) {
            check.field(name, |check| {
                check.conflict(format!("`{name}` has no effect beside `{answered}`"), format!("remove `{name}`"));
            });
        }
    }
}

fn matching(check: &mut Check, value: &HttpMatchRequest) {
    let fields =
        [("uri", &value.uri), ("scheme", &value.scheme), ("method", &value.method), ("authority", &value.authority)];
    for (name, field) in fields {
        check.optional(name, field.as_ref(), |check, field| {
            string_match(check, field);
            if *field == StringMatch::Present {
                check.error(code::MISSING, "the match is empty", "write `exact:`, `prefix:` or `regex:`");
            }
        });
    }
    for (name, map) in [("headers", &value.headers), ("withoutHeaders", &value.without_headers)] {
        by_name(check, name, map, |check, key| {
            // Claims of a JWT are written as if they were headers.
            if !key.starts_with("@request.auth.claims") {
                names::header_name(check, key);
            }
        });
    }
    by_name(check, "queryParams", &value.query_params, |check, key| {
        if key.is_empty() {
            check.not_allowed("a query parameter has to have a name", "write its name");
        }
    });
    if !value.source_namespace.is_empty() {
        check.field("sourceNamespace", |check| names::label(check, &value.source_namespace));
    }
}

fn by_name(check: &mut Check, field: &str, map: &IndexMap<String, StringMatch>, name: impl Fn(&mut Check, &str)) {
    check.field(field, |check| {
        for (key, value) in map {
            check.field(key, |check| {
                name(check, key);
                string_match(check, value);
            });
        }
    });
}

fn destinations(check: &mut Check, rule: &HttpRoute) {
    check.each("route", &rule.route, |check, to| {
        check.field("destination", |check| destination(check, &to.destination));
        weight(check, to.weight);
        check.optional("headers", to.headers.as_ref(), headers);
    });
    total_weight(check, rule.route.iter().map(|to| to.weight));
}

pub(super) fn weight(check: &mut Check, weight: i32) {
    if weight < 0 {
        check.field("weight", |check| {
            check.not_allowed(format!("the weight {weight} is negative"), "write zero or more");
        });
    }
}

/// With several destinations some traffic has to go somewhere (reference: semantics 38).
pub(super) fn total_weight(check: &mut Check, weights: impl Iterator<Item = i32> + Clone) {
    let sum: i64 = weights.clone().map(|weight| i64::from(weight.max(0))).sum();
    if weights.count() > 1 && sum == 0 {
        check.field("route", |check| {
            check.not_allowed(
                "the weights of the destinations sum up to zero",
                "give at least one destination a `weight`, for instance 100",
            );
        });
    } else if sum > i64::from(u32::MAX) {
        check.field("route", |check| {
            check
                .not_allowed("the weights of the destinations sum up to more than 4294967295", "write smaller weights");
        });
    }
}

pub(super) fn destination(check: &mut Check, value: &Destination) {
    if value.host.is_empty() {
        check.missing("host", "host: reviews");
    } else {
        check.field("host", |check| names::destination_host(check, &value.host));
    }
    if !value.subset.is_empty() {
        check.field("subset", |check| subset_name(check, &value.subset));
    }
    check.optional("port", value.port.as_ref(), |check, port| {
        if port.number == 0 {
            check.missing("number", "number: 9080");
        }
    });
}

/// A subset's name; Istio is lenient about case here.
pub(super) fn subset_name(check: &mut Check, name: &str) {
    names::label(check, &name.to_ascii_lowercase());
}

fn redirect(check: &mut Check, value: &HttpRedirect, matches: &[HttpMatchRequest]) {
    let empty = value.uri.is_empty()
        && value.prefix_rewrite.is_empty()
        && value.authority.is_empty()
        && value.scheme.is_empty()
        && value.port.is_none()
        && value.redirect_code == 0
        && value.derive_port.is_none();
    if empty {
        check.error(code::MISSING, "the redirect changes nothing", "write `uri:`, `authority:`, `scheme:` or `port:`");
    }
    if !value.uri.is_empty() && !value.prefix_rewrite.is_empty() {
        check.conflict("`uri` and `prefixRewrite` exclude each other", "remove one of the two");
    }
    if value.port.is_some() && value.derive_port.is_some() {
        check.conflict("`port` and `derivePort` exclude each other", "remove one of the two");
    }
    let by_prefix = |m: &HttpMatchRequest| matches!(m.uri, Some(StringMatch::Prefix(_)));
    if !value.prefix_rewrite.is_empty() && (matches.is_empty() || !matches.iter().all(by_prefix)) {
        check.field("prefixRewrite", |check| {
            check.conflict(
                "`prefixRewrite` needs every match of the rule to be on `uri.prefix`",
                "use `uri`, or match by prefix",
            );
        });
    }
    if !matches!(value.redirect_code, 0 | 301 | 302 | 303 | 307 | 308) {
        check.field("redirectCode", |check| {
            check.not_allowed(
                format!("{} is no status of a redirect", value.redirect_code),
                "write 301, 302, 303, 307 or 308",
            );
        });
    }
    if !matches!(value.scheme.as_str(), "" | "http" | "https") {
        check.field("scheme", |check| {
            check.not_allowed(
                format!("`{}` is no scheme to redirect to", shortened(&value.scheme)),
                "write `http` or `https`",
            );
        });
    }
    for (name, text) in [("uri", &value.uri), ("authority", &value.authority), ("prefixRewrite", &value.prefix_rewrite)]
    {
        check.field(name, |check| names::header_value(check, text));
    }
}

fn direct_response(check: &mut Check, value: &HttpDirectResponse) {
    check.field("status", |check| {
        if !(200..=599).contains(&value.status) {
            check.not_allowed(
                format!("{} is no status of a final answer", value.status),
                "write a status from 200 to 599",
            );
        }
    });
    check.optional("body", value.body.as_ref(), |check, body| {
        if body.string.is_some() && body.bytes.is_some() {
            check.conflict("`string` and `bytes` exclude each other", "remove one of the two");
        }
        if body.as_bytes().len() > MAX_BODY_BYTES {
            check.not_allowed(
                format!("the body has {} bytes; at most {MAX_BODY_BYTES} are taken", body.as_bytes().len()),
                "serve it from a service",
            );
        }
    });
}

fn rewrite(check: &mut Check, value: &HttpRewrite) {
    if value.uri.is_empty() && value.authority.is_empty() && value.uri_regex_rewrite.is_none() {
        check.error(code::MISSING, "the rewrite changes nothing", "write `uri:`, `authority:` or `uriRegexRewrite:`");
    }
    if !value.uri.is_empty() && value.uri_regex_rewrite.is_some() {
        check.conflict("`uri` and `uriRegexRewrite` exclude each other", "remove one of the two");
    }
    check.field("uri", |check| names::header_value(check, &value.uri));
    check.field("authority", |check| names::header_value(check, &value.authority));
    check.optional("uriRegexRewrite", value.uri_regex_rewrite.as_ref(), |check, rewrite| {
        if rewrite.r#match.is_empty() {
            check.missing("match", "match: ^/old/(.*)");
        } else {
            check.field("match", |check| regex(check, &rewrite.r#match));
        }
        if rewrite.rewrite.is_empty() {
            check.missing("rewrite", "rewrite: /new/\\1");
        }
        check.field("rewrite", |check| names::header_value(check, &rewrite.rewrite));
    });
}

/// Envoy's and gRPC's retry conditions, as `retryOn` names them.
const RETRY_ON: &[&str] = &[
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "envoy-ratelimited",
    "retriable-4xx",
    "refused-stream",
    "retriable-status-codes",
    "retriable-headers",
    "http3-post-connect-failure",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
];

fn retries(check: &mut Check, value: &HttpRetry) {
    if value.attempts < 0 {
        check.field("attempts", |check| {
            check.not_allowed(
                format!("{} attempts are fewer than none", value.attempts),
                "write 0 to switch retries off",
            );
        });
    }
    if value.attempts == 0 && (!value.retry_on.is_empty() || value.per_try_timeout.is_some()) {
        check.conflict(
            "`attempts` is missing or 0, which switches retries off, so the other fields have no effect",
            "write `attempts: 2`",
        );
    }
    check.optional("perTryTimeout", value.per_try_timeout.as_ref(), |check, value| duration_or_zero(check, *value));
    check.optional("backoff", value.backoff.as_ref(), |check, value| duration(check, *value));
    check.field("retryOn", |check| {
        for word in value.retry_on.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            let status = word.parse::<u16>().is_ok_and(|status| (100..=599).contains(&status));
            if !status && !RETRY_ON.contains(&word) {
                let near = crate::nearest(word, RETRY_ON.iter().copied());
                let hint = near.map_or_else(
                    || format!("write a status or some of {}", RETRY_ON.join(", ")),
                    |near| format!("did you mean `{near}`?"),
                );
                check.not_allowed(format!("`{}` is nothing that can be retried on", shortened(word)), hint);
            }
        }
    });
}

/// Names of gRPC statuses, as `grpcStatus` writes them.
const GRPC_STATUSES: &[&str] = &[
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

fn fault(check: &mut Check, value: &HttpFaultInjection) {
    if value.delay.is_none() && value.abort.is_none() {
        check.error(code::MISSING, "the fault does nothing", "write `delay:` or `abort:`");
    }
    check.optional("delay", value.delay.as_ref(), |check, delay| {
        if delay.exponential_delay.is_some() {
            check.field("exponentialDelay", |check| {
                check.not_allowed("`exponentialDelay` is not supported, here and in Istio", "write `fixedDelay`");
            });
        } else {
            match delay.fixed_delay {
                Some(value) => check.field("fixedDelay", |check| duration(check, value)),
                None => check.missing("fixedDelay", "fixedDelay: 5s"),
            }
        }
        if delay.percentage.is_none() && delay.percent.is_none() {
            never(check, "delay");
        }
    });
    check.optional("abort", value.abort.as_ref(), |check, abort| {
        let given = usize::from(abort.http_status.is_some())
            + usize::from(abort.grpc_status.is_some())
            + usize::from(abort.http2_error.is_some());
        if abort.http2_error.is_some() {
            check.field("http2Error", |check| {
                check.not_allowed(
                    "`http2Error` is not supported, here and in Istio",
                    "write `httpStatus` or `grpcStatus`",
                );
            });
        } else if given == 0 {
            check.missing("httpStatus", "httpStatus: 503");
        } else if given > 1 {
            check.conflict("`httpStatus` and `grpcStatus` exclude each other", "remove one of the two");
        }
        check.optional("httpStatus", abort.http_status.as_ref(), |check, status| {
            if !(200..=599).contains(status) {
                check.not_allowed(format!("{status} is no status of an answer"), "write a status from 200 to 599");
            }
        });
        check.optional("grpcStatus", abort.grpc_status.as_ref(), |check, status| {
            let number = status.parse::<usize>().is_ok_and(|number| number < GRPC_STATUSES.len());
            if !number && !GRPC_STATUSES.contains(&status.as_str()) {
                let near = crate::nearest(status, GRPC_STATUSES.iter().copied()).unwrap_or("UNAVAILABLE");
                check.not_allowed(
                    format!("`{}` is no status of gRPC", shortened(status)),
                    format!("write for instance {near}"),
                );
            }
        });
        if abort.percentage.is_none() {
            never(check, "abort");
        }
    });
}

/// Reference: semantics 45.
fn never(check: &mut Check, what: &str) {
    check.warn(
        code::DUBIOUS,
        format!("without `percentage` the {what} applies to no request"),
        "write `percentage: {value: 100}`",
    );
}

fn mirrors(check: &mut Check, rule: &HttpRoute) {
    if rule.mirror.is_some() && !rule.mirrors.is_empty() {
        check.field("mirrors", |check| {
            check.conflict("`mirror` and `mirrors` exclude each other", "put all of them into `mirrors`");
        });
    }
    check.optional("mirror", rule.mirror.as_ref(), destination);
    check.each("mirrors", &rule.mirrors, |check, mirror| match &mirror.destination {
        Some(to) => check.field("destination", |check| destination(check, to)),
        None => check.missing("destination", "destination: {host: …}"),
    });
    if rule.mirror.is_none() && (rule.mirror_percentage.is_some() || rule.mirror_percent.is_some()) {
        check.field("mirrorPercentage", |check| {
            check.conflict("a percentage without `mirror` has no effect", "write `mirror: {host: …}`");
        });
    }
}

fn cors(check: &mut Check, value: &CorsPolicy) {
    check.each("allowOrigins", &value.allow_origins, string_match);
    check.each("allowMethods", &value.allow_methods, |check, method| {
        const METHODS: &[&str] = &["*", "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE"];
        if !METHODS.contains(&method.as_str()) {
            let near = crate::nearest(method, METHODS.iter().copied()).unwrap_or("GET");
            check.not_allowed(
                format!("`{}` is no HTTP method", shortened(method)),
                format!("write for instance `{near}`"),
            );
        }
    });
    for (name, list) in [("allowHeaders", &value.allow_headers), ("exposeHeaders", &value.expose_headers)] {
        check.each(name, list, |check, header| names::header_name(check, header));
    }
    check.optional("maxAge", value.max_age.as_ref(), |check, age: &Duration| {
        if age.subsec_nanos() != 0 {
            check.not_allowed("`maxAge` is sent in whole seconds", "write whole seconds, for instance `24h`");
        }
    });
}

fn headers(check: &mut Check, value: &Headers) {
    check.optional("request", value.request.as_ref(), operations);
    check.optional("response", value.response.as_ref(), operations);
}

fn operations(check: &mut Check, value: &HeaderOperations) {
    for (name, map) in [("set", &value.set), ("add", &value.add)] {
        check.field(name, |check| {
            for (header, text) in map {
                check.field(header, |check| {
                    names::header_name(check, header);
                    names::header_value(check, text);
                });
            }
        });
    }
    check.each("remove", &value.remove, |check, header| names::header_name(check, header));
}
