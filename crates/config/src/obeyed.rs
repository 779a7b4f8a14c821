//! What is read but not obeyed by this release, and why: one table, nothing is dropped in silence.
//!
//! An entry goes when the release obeys the field. A test walks the table and proves for each that a user is told.

use mizzen_types::ObjectKey;

use crate::check::Check;
use crate::code;
use crate::yaml::{Node, Value};

/// A field, or a whole kind, that is not obeyed.
#[derive(Debug, Clone, Copy)]
pub struct NotObeyed {
    pub kind: &'static str,
    /// Path from the document's root; `[]` stands for any element and `*` for any key. Empty for the whole kind.
    pub field: &'static str,
    /// Only these values are not obeyed; none given means whatever it says.
    pub values: &'static [&'static str],
    /// What happens instead.
    pub instead: &'static str,
}

const fn kind(kind: &'static str, instead: &'static str) -> NotObeyed {
    NotObeyed { kind, field: "", values: &[], instead }
}

const fn field(kind: &'static str, field: &'static str, instead: &'static str) -> NotObeyed {
    NotObeyed { kind, field, values: &[], instead }
}

const fn value(
    kind: &'static str,
    field: &'static str,
    values: &'static [&'static str],
    instead: &'static str,
) -> NotObeyed {
    NotObeyed { kind, field, values, instead }
}

const VS: &str = "VirtualService";
const DR: &str = "DestinationRule";
const GW: &str = "Gateway";
const SC: &str = "Sidecar";
const SE: &str = "ServiceEntry";

/// Where a DestinationRule has a traffic policy of its own.
const POLICIES: &[&str] = &[
    "spec.trafficPolicy",
    "spec.trafficPolicy.portLevelSettings[]",
    "spec.subsets[].trafficPolicy",
    "spec.subsets[].trafficPolicy.portLevelSettings[]",
];

const TABLE: &[NotObeyed] = &[
    kind("EnvoyFilter", "nothing is patched"),
    kind("Telemetry", "logs and metrics are as the mesh configuration says"),
    kind("AuthorizationPolicy", "nothing is denied by it"),
    kind("RequestAuthentication", "tokens are not looked at"),
    kind("WorkloadGroup", "nothing registers by it"),
    value("ProxyConfig", "spec.image.imageType", &["debug"], "there is one image, with no shell in it"),
    field(VS, "spec.http[].match[].statPrefix", "the route has no statistics of its own"),
    field(VS, "spec.tcp[].match[].sourceSubnet", "Istio ignores it too"),
    field(GW, "spec.servers[].defaultEndpoint", "Istio ignores it too"),
    field(GW, "spec.servers[].tls.caCrl", "revoked certificates are accepted"),
    value(GW, "spec.servers[].tls.mode", &["AUTO_PASSTHROUGH"], "the server has no routes"),
    value(SC, "spec.egress[].captureMode", &["IPTABLES", "NONE"], "traffic is caught as everywhere in the pod"),
    value(SC, "spec.ingress[].captureMode", &["IPTABLES", "NONE"], "traffic is caught as everywhere in the pod"),
    field(SC, "spec.ingress[].tls", "the port takes mesh TLS and plaintext as PeerAuthentication says"),
    field(SC, "spec.outboundTrafficPolicy.egressProxy", "unknown hosts are called directly"),
    value(SE, "spec.resolution", &["DYNAMIC_DNS"], "the hosts get no endpoints"),
    field(SE, "spec.endpoints[].network", "all networks count as one"),
    field("WorkloadEntry", "spec.network", "all networks count as one"),
];

/// Fields of a traffic policy, below each of [`POLICIES`].
const POLICY_TABLE: &[NotObeyed] = &[
    field(DR, "loadBalancer.localityLbSetting.failoverPriority", "localities are ranked by region, zone and subzone"),
    field(DR, "loadBalancer.zoneAwareLbSetting", "all zones count alike"),
    field(DR, "loadBalancer.backendUtilization", "endpoints' reports are not read"),
    field(DR, "connectionPool.http.http2KeepAlive", "no PING frames are sent"),
    field(DR, "tls.caCrl", "revoked certificates are accepted"),
    field(DR, "tunnel", "connections go straight to the destination"),
];

/// All entries with their full paths: for the documents and for tests.
pub fn entries() -> impl Iterator<Item = (NotObeyed, String)> {
    let plain = TABLE.iter().map(|entry| (*entry, entry.field.to_owned()));
    let policies = POLICIES.iter().flat_map(|place| {
        let per_port = place.ends_with("portLevelSettings[]");
        // This exists for all ports together only (reference: semantics 112).
        let never_per_port = |field: &str| field == "tunnel";
        POLICY_TABLE
            .iter()
            .filter(move |entry| !(per_port && never_per_port(entry.field)))
            .map(move |entry| (*entry, format!("{place}.{}", entry.field)))
    });
    plain.chain(policies)
}

/// Says which parts of a document are not obeyed.
pub(crate) fn check(key: &ObjectKey, document: &Node, check: &mut Check) {
    for (entry, path) in entries().filter(|(entry, _)| entry.kind == &*key.kind) {
        if path.is_empty() {
            check.warn(
                code::NOT_OBEYED,
                format!("{} is not obeyed by this release: {}", entry.kind, entry.instead),
                "keep it for when it is, or remove it",
            );
            continue;
        }
        let pattern: Vec<&str> =
            path.split_inclusive("[]").flat_map(|part| part.split('.')).filter(|part| !part.is_empty()).collect();
        walk(document, &pattern, check, &mut |check, node| {
            let said = if entry.values.is_empty() {
                !is_default(node)
            } else {
                node.as_str().is_some_and(|text| entry.values.contains(&text))
            };
            if said {
                let last = path.rsplit(['.', ']']).find(|word| !word.is_empty()).unwrap_or_default();
                let what = match node.as_str().filter(|_| !entry.values.is_empty()) {
                    Some(text) => format!("`{last}: {text}`"),
                    None => format!("`{}`", last.trim_end_matches("[]").trim_end_matches('[')),
                };
                check.warn(
                    code::NOT_OBEYED,
                    format!("{what} is not obeyed by this release: {}", entry.instead),
                    "keep it for when it is, or remove it",
                );
            }
        });
    }
    jwt_claims(key, document, check);
}

/// Headers named `@request.auth.claims…` are claims of a token, and tokens are not looked at yet.
fn jwt_claims(key: &ObjectKey, document: &Node, check: &mut Check) {
    if &*key.kind != VS {
        return;
    }
    for field in ["headers", "withoutHeaders"] {
        walk(document, &["spec", "http[]", "match[]", field], check, &mut |check, node| {
            let Value::Mapping(entries) = &node.value else { return };
            for (name, _) in entries.iter().filter(|(name, _)| name.name.starts_with("@request.auth.claims")) {
                check.field(&name.name, |check| {
                    check.warn(
                        code::NOT_OBEYED,
                        "matching on claims of a token is not obeyed by this release: the match never holds",
                        "match on a header that the client sends",
                    );
                });
            }
        });
    }
}

/// Calls `found` for each value that the pattern names.
fn walk(node: &Node, pattern: &[&str], check: &mut Check, found: &mut impl FnMut(&mut Check, &Node)) {
    let Some((first, rest)) = pattern.split_first() else { return found(check, node) };
    let name = first.strip_suffix("[]");
    let Some(value) = node.get(name.unwrap_or(first)) else { return };
    match (name, &value.value) {
        (Some(name), Value::Sequence(items)) => {
            for (index, item) in items.iter().enumerate() {
                check.element(name, index, |check| walk(item, rest, check, found));
            }
        }
        (Some(_), _) => {}
        (None, _) => check.field(first, |check| walk(value, rest, check, found)),
    }
}

/// Whether a value says no more than its absence would.
fn is_default(node: &Node) -> bool {
    match &node.value {
        Value::Null | Value::Bool(false, _) | Value::Int(0, _) => true,
        Value::String(text) => text.is_empty(),
        Value::Sequence(items) => items.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
