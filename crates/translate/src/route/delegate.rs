//! Rules that are written in another VirtualService (reference: semantics 68 to 72).

use std::borrow::Cow;

use mizzen_api::networking::{HttpMatchRequest, HttpRoute, StringMatch};
use mizzen_mesh::{Mesh, VirtualServiceRule};

/// One rule, where it counts and where it is written.
pub(super) struct Rule<'a> {
    pub(super) http: Cow<'a, HttpRoute>,
    /// The VirtualService with the hosts.
    pub(super) root: &'a VirtualServiceRule,
    /// The VirtualService in which the rule stands: the root, or its delegate.
    pub(super) source: &'a VirtualServiceRule,
    /// Place in `spec.http` of the source.
    pub(super) index: usize,
    /// Whether `match` is what the source has, entry by entry.
    pub(super) matches_as_written: bool,
}

/// The rules of a VirtualService with its delegates' in their places. A delegate that is missing, or not shown to the
/// root's namespace, takes only its own rule with it.
pub(super) fn expand<'a>(mesh: &'a Mesh, root: &'a VirtualServiceRule) -> Vec<Rule<'a>> {
    let mut rules = Vec::new();
    for (index, http) in root.spec.http.iter().enumerate() {
        let Some(delegate) = &http.delegate else {
            rules.push(Rule { http: Cow::Borrowed(http), root, source: root, index, matches_as_written: true });
            continue;
        };
        let namespace =
            if delegate.namespace.is_empty() { &*root.order.namespace } else { delegate.namespace.as_str() };
        let Some(source) = mesh.virtual_service(namespace, &delegate.name) else { continue };
        if !source.is_delegate() || !source.visibility.shows_to(&root.order.namespace) {
            continue;
        }
        for (index, inner) in source.spec.http.iter().enumerate().filter(|(_, inner)| inner.delegate.is_none()) {
            let Some(merged) = merge(http, inner) else { continue };
            let matches_as_written = http.r#match.is_empty();
            rules.push(Rule { http: Cow::Owned(merged), root, source, index, matches_as_written });
        }
    }
    rules
}

/// The delegate's rule within the root's; `None` when no request could fit both.
fn merge(root: &HttpRoute, inner: &HttpRoute) -> Option<HttpRoute> {
    let mut merged = inner.clone();
    merged.r#match = match (&root.r#match[..], &inner.r#match[..]) {
        (outer, []) => outer.to_vec(),
        ([], inner) => inner.to_vec(),
        (outer, inner) => {
            let pairs = outer.iter().flat_map(|outer| inner.iter().map(move |inner| (outer, inner)));
            let both: Vec<_> = pairs.filter_map(|(outer, inner)| merge_match(outer, inner)).collect();
            if both.is_empty() {
                return None;
            }
            both
        }
    };
    merged.name = match (root.name.as_str(), inner.name.as_str()) {
        ("", name) | (name, "") => name.to_owned(),
        (outer, inner) => format!("{outer}-{inner}"),
    };
    merged.timeout = inner.timeout.or(root.timeout);
    merged.retries = inner.retries.clone().or_else(|| root.retries.clone());
    merged.fault = inner.fault.clone().or_else(|| root.fault.clone());
    merged.rewrite = inner.rewrite.clone().or_else(|| root.rewrite.clone());
    merged.cors_policy = inner.cors_policy.clone().or_else(|| root.cors_policy.clone());
    merged.headers = inner.headers.clone().or_else(|| root.headers.clone());
    if inner.mirror.is_none() && inner.mirrors.is_empty() {
        merged.mirror = root.mirror.clone();
        merged.mirror_percentage = root.mirror_percentage;
        merged.mirror_percent = root.mirror_percent;
        merged.mirrors = root.mirrors.clone();
    }
    Some(merged)
}

fn merge_match(outer: &HttpMatchRequest, inner: &HttpMatchRequest) -> Option<HttpMatchRequest> {
    let mut merged = inner.clone();
    merged.uri = merge_string(outer.uri.as_ref(), inner.uri.as_ref())?;
    merged.scheme = merge_string(outer.scheme.as_ref(), inner.scheme.as_ref())?;
    merged.method = merge_string(outer.method.as_ref(), inner.method.as_ref())?;
    merged.authority = merge_string(outer.authority.as_ref(), inner.authority.as_ref())?;
    if outer.uri.is_some() && inner.uri.is_some() && outer.ignore_uri_case != inner.ignore_uri_case {
        return None;
    }
    merged.ignore_uri_case = outer.ignore_uri_case || inner.ignore_uri_case;
    let maps = [
        (&outer.headers, &mut merged.headers),
        (&outer.without_headers, &mut merged.without_headers),
        (&outer.query_params, &mut merged.query_params),
    ];
    for (from, into) in maps {
        for (name, value) in from {
            let both = merge_string(Some(value), into.get(name))?;
            into.insert(name.clone(), both.unwrap_or_default());
        }
    }
    merged.port = match (outer.port, inner.port) {
        (0, port) | (port, 0) => port,
        (a, b) if a == b => a,
        _ => return None,
    };
    merged.source_namespace = match (outer.source_namespace.as_str(), inner.source_namespace.as_str()) {
        ("", namespace) | (namespace, "") => namespace.to_owned(),
        (a, b) if a == b => a.to_owned(),
        _ => return None,
    };
    let labels = outer.source_labels.iter().chain(inner.source_labels.iter());
    if outer.source_labels.iter().any(|(key, value)| inner.source_labels.get(key).is_some_and(|own| own != value)) {
        return None;
    }
    merged.source_labels = labels.collect();
    if merged.gateways.is_empty() {
        merged.gateways = outer.gateways.clone();
    }
    if merged.stat_prefix.is_empty() {
        merged.stat_prefix = outer.stat_prefix.clone();
    }
    merged.name = match (outer.name.as_str(), inner.name.as_str()) {
        ("", name) | (name, "") => name.to_owned(),
        (outer, inner) => format!("{outer}-{inner}"),
    };
    Some(merged)
}

/// The narrower of two conditions on one property; `None` when they exclude each other or cannot be compared.
fn merge_string(outer: Option<&StringMatch>, inner: Option<&StringMatch>) -> Option<Option<StringMatch>> {
    use StringMatch::{Exact, Prefix, Present, Regex};
    let (outer, inner) = match (outer, inner) {
        (one, None) | (None, one) => return Some(one.cloned()),
        (Some(outer), Some(inner)) => (outer, inner),
    };
    let fits = match (outer, inner) {
        (Present, _) => true,
        (_, Present) => return Some(Some(outer.clone())),
        (Regex(_), _) | (_, Regex(_)) => false,
        (Exact(outer), Exact(inner)) => outer == inner,
        (Exact(_), Prefix(_)) => false,
        (Prefix(outer), Exact(inner) | Prefix(inner)) => inner.starts_with(outer.as_str()),
    };
    fits.then(|| Some(inner.clone()))
}
