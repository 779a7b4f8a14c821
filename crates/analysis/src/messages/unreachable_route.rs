//! # MZ0111 unreachable-route
//!
//! ## What it does
//!
//! Finds rules of a VirtualService that no request reaches, because an earlier rule takes all of theirs. Rules are tried
//! in the order of the list; the first that matches wins, not the most specific.
//!
//! ## Why is this bad
//!
//! The rule has no effect.
//!
//! ## Example
//!
//! ```yaml
//! apiVersion: networking.istio.io/v1
//! kind: VirtualService
//! metadata: {name: reviews}
//! spec:
//!   hosts: [reviews]
//!   http:
//!     - route: [{destination: {host: reviews}}]
//!     - match: [{headers: {end-user: {exact: jason}}}]
//!       route: [{destination: {host: ratings}}]
//! ```
//!
//! ## Fix
//!
//! Put the rule that matches less first.
//!
//! ```yaml
//! apiVersion: networking.istio.io/v1
//! kind: VirtualService
//! metadata: {name: reviews}
//! spec:
//!   hosts: [reviews]
//!   http:
//!     - match: [{headers: {end-user: {exact: jason}}}]
//!       route: [{destination: {host: ratings}}]
//!     - route: [{destination: {host: reviews}}]
//! ```

use mizzen_api::networking::{HttpMatchRequest, HttpRoute, StringMatch};

use crate::Found;
use crate::view::View;

/// Rules are compared in pairs; beyond this many only catch-all rules are looked for.
const MOST_RULES: usize = 500;

pub(super) fn check(view: &View<'_>, found: &mut Found<'_>) {
    for rule in &view.virtual_services {
        let http = &rule.spec.http;
        for (index, later) in http.iter().enumerate() {
            let candidates = if http.len() <= MOST_RULES { index } else { index.min(1) };
            let cover = http[..candidates].iter().position(|earlier| covers_rule(earlier, later));
            if let Some(earlier) = cover {
                let all = http[earlier].r#match.iter().any(is_catch_all) || http[earlier].r#match.is_empty();
                let what = if all { "every request" } else { "all of its requests" };
                found.at(
                    rule.object,
                    format!("spec.http[{index}]"),
                    format!("no request reaches this rule: {what} matches `spec.http[{earlier}]` before"),
                    format!("move it before `spec.http[{earlier}]`, or remove it"),
                );
            }
        }
    }
}

fn covers_rule(earlier: &HttpRoute, later: &HttpRoute) -> bool {
    if earlier.r#match.is_empty() {
        return true;
    }
    let anything = [HttpMatchRequest::default()];
    let later = if later.r#match.is_empty() { &anything[..] } else { &later.r#match };
    later.iter().all(|narrow| earlier.r#match.iter().any(|wide| covers(wide, narrow)))
}

fn is_catch_all(value: &HttpMatchRequest) -> bool {
    covers(value, &HttpMatchRequest::default())
}

/// Whether whatever matches `narrow` also matches `wide`; when in doubt, not.
fn covers(wide: &HttpMatchRequest, narrow: &HttpMatchRequest) -> bool {
    let gateways = wide.gateways.is_empty()
        || (!narrow.gateways.is_empty() && narrow.gateways.iter().all(|name| wide.gateways.contains(name)));
    // With `gateways`, the source conditions of that entry do not count (reference: semantics 23).
    let source = !wide.gateways.is_empty()
        || (wide.source_labels.selects(&narrow.source_labels)
            && (wide.source_namespace.is_empty() || wide.source_namespace == narrow.source_namespace));
    let by_name = |wide: &indexmap::IndexMap<String, StringMatch>, narrow: &indexmap::IndexMap<String, StringMatch>| {
        wide.iter().all(|(name, value)| narrow.get(name) == Some(value))
    };
    uri_covers(wide, narrow)
        && (wide.scheme.is_none() || wide.scheme == narrow.scheme)
        && (wide.method.is_none() || wide.method == narrow.method)
        && (wide.authority.is_none() || wide.authority == narrow.authority)
        && by_name(&wide.headers, &narrow.headers)
        && by_name(&wide.without_headers, &narrow.without_headers)
        && by_name(&wide.query_params, &narrow.query_params)
        && (wide.port == 0 || wide.port == narrow.port)
        && source
        && gateways
}

fn uri_covers(wide: &HttpMatchRequest, narrow: &HttpMatchRequest) -> bool {
    let Some(wide_uri) = &wide.uri else { return true };
    match (wide_uri, &narrow.uri) {
        (StringMatch::Prefix(prefix), _) if prefix == "/" => true,
        (StringMatch::Regex(regex), _) if regex == ".*" => true,
        (_, None) => false,
        // One that ignores case takes more than one that does not, but never less when the text is the same.
        (wide_uri, Some(narrow_uri)) if wide_uri == narrow_uri => wide.ignore_uri_case || !narrow.ignore_uri_case,
        (StringMatch::Prefix(prefix), Some(StringMatch::Exact(text) | StringMatch::Prefix(text))) => {
            text.starts_with(prefix.as_str()) && !narrow.ignore_uri_case
        }
        _ => false,
    }
}
