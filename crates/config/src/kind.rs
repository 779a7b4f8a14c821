//! Which kinds are read, in which versions, and how.

use std::sync::Arc;

use mizzen_api::{kubernetes, networking, security, telemetry};
use serde::de::DeserializeOwned;

use crate::check::{Check, Raised};
use crate::code;
use crate::object::Kind;
use crate::reader::{Unknown, read};
use crate::validate::Validate;
use crate::yaml::{Node, Value, shortened};
use mizzen_types::Severity;

/// One kind that is read.
pub(crate) struct Known {
    pub group: &'static str,
    pub versions: &'static [&'static str],
    pub kind: &'static str,
    /// Cluster-wide kinds have no namespace.
    pub namespaced: bool,
    /// Reads and validates a document; `None` when it cannot be read. What is wrong goes into the check.
    pub read: fn(&Node, &mut Check) -> Option<Kind>,
}

const NETWORKING: &str = "networking.istio.io";
const SECURITY: &str = "security.istio.io";
const TELEMETRY: &str = "telemetry.istio.io";
const V1_ALL: &[&str] = &["v1", "v1beta1", "v1alpha3"];
const V1_BETA: &[&str] = &["v1", "v1beta1"];
const V1: &[&str] = &["v1"];

/// Kinds with no `spec` of their own are read from the root of the document.
pub(crate) const KNOWN: &[Known] = &[
    istio::<networking::VirtualService>(NETWORKING, V1_ALL, "VirtualService"),
    istio::<networking::DestinationRule>(NETWORKING, V1_ALL, "DestinationRule"),
    istio::<networking::Gateway>(NETWORKING, V1_ALL, "Gateway"),
    Known { read: read_service_entry, ..istio::<networking::ServiceEntry>(NETWORKING, V1_ALL, "ServiceEntry") },
    istio::<networking::WorkloadEntry>(NETWORKING, V1_ALL, "WorkloadEntry"),
    istio::<networking::WorkloadGroup>(NETWORKING, V1_ALL, "WorkloadGroup"),
    istio::<networking::Sidecar>(NETWORKING, V1_ALL, "Sidecar"),
    istio::<networking::EnvoyFilter>(NETWORKING, &["v1alpha3"], "EnvoyFilter"),
    istio::<networking::ProxyConfig>(NETWORKING, &["v1beta1", "v1"], "ProxyConfig"),
    istio::<security::PeerAuthentication>(SECURITY, V1_BETA, "PeerAuthentication"),
    istio::<security::RequestAuthentication>(SECURITY, V1_BETA, "RequestAuthentication"),
    istio::<security::AuthorizationPolicy>(SECURITY, V1_BETA, "AuthorizationPolicy"),
    istio::<telemetry::Telemetry>(TELEMETRY, &["v1", "v1alpha1"], "Telemetry"),
    kubernetes::<kubernetes::Service>("", V1, "Service", true),
    kubernetes::<kubernetes::EndpointSlice>("discovery.k8s.io", V1, "EndpointSlice", true),
    kubernetes::<kubernetes::IPAddress>("networking.k8s.io", V1, "IPAddress", false),
    kubernetes::<kubernetes::Pod>("", V1, "Pod", true),
    kubernetes::<kubernetes::Namespace>("", V1, "Namespace", false),
    kubernetes::<kubernetes::ServiceAccount>("", V1, "ServiceAccount", true),
    kubernetes::<kubernetes::Deployment>("apps", V1, "Deployment", true),
    kubernetes::<kubernetes::Node>("", V1, "Node", false),
    kubernetes::<kubernetes::Secret>("", V1, "Secret", true),
    kubernetes::<kubernetes::ConfigMap>("", V1, "ConfigMap", true),
];

/// Kinds that steer a mesh but are not obeyed yet: skipping them has to be said louder than skipping a stranger.
const NOT_YET: &[(&str, &str)] = &[
    ("gateway.networking.k8s.io", "*"),
    ("gateway.networking.x-k8s.io", "*"),
    ("inference.networking.k8s.io", "*"),
    ("multicluster.x-k8s.io", "*"),
    ("extensions.istio.io", "*"),
    ("install.istio.io", "IstioOperator"),
    ("networking.k8s.io", "Ingress"),
];

/// What the words `apiVersion` and `kind` of a document come to.
pub(crate) enum Lookup {
    Known(&'static Known),
    Skipped(Raised),
}

pub(crate) fn lookup(api_version: &str, kind: &str) -> Lookup {
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    if let Some(known) = KNOWN.iter().find(|known| known.group == group && known.kind == kind) {
        if known.versions.contains(&version) {
            return Lookup::Known(known);
        }
        let prefix = if group.is_empty() { String::new() } else { format!("{group}/") };
        let newest = known.versions.first().copied().unwrap_or("v1");
        return Lookup::Skipped(Raised {
            code: code::UNKNOWN_KIND,
            severity: Severity::Error,
            path: "apiVersion".to_owned(),
            message: format!("{kind} has no version `{}`; the object is skipped", shortened(version)),
            hint: Some(format!("write `apiVersion: {prefix}{newest}`")),
        });
    }
    let not_yet = NOT_YET.iter().any(|(of, name)| *of == group && (*name == "*" || *name == kind));
    let (severity, message, hint) = if not_yet {
        (
            Severity::Warning,
            format!("kind {} of {group} is not obeyed by this release; the object is skipped", shortened(kind)),
            None,
        )
    } else {
        let near = KNOWN.iter().filter(|known| known.group == group).map(|known| known.kind);
        let slip = crate::nearest(kind, near).map(|kind| format!("did you mean `{kind}`?"));
        let elsewhere = KNOWN.iter().find(|known| known.kind == kind).map(|known| {
            let slash = if known.group.is_empty() { "" } else { "/" };
            format!("{kind} is read as `apiVersion: {}{slash}{}`", known.group, known.versions[0])
        });
        let hint = slip.or(elsewhere);
        let severity = if hint.is_some() { Severity::Warning } else { Severity::Info };
        let (kind, api_version) = (shortened(kind), shortened(api_version));
        (severity, format!("kind {kind} of `{api_version}` is not read by the mesh; the object is skipped"), hint)
    };
    Lookup::Skipped(Raised { code: code::UNKNOWN_KIND, severity, path: "kind".to_owned(), message, hint })
}

/// A kind of Istio: everything is in `spec`, and an unknown field is an error.
const fn istio<T>(group: &'static str, versions: &'static [&'static str], kind: &'static str) -> Known
where
    T: DeserializeOwned + Default + Validate + Into<Kind>,
{
    Known { group, versions, kind, namespaced: true, read: read_spec::<T> }
}

/// A kind of Kubernetes: unknown fields are none of our business.
const fn kubernetes<T>(
    group: &'static str,
    versions: &'static [&'static str],
    kind: &'static str,
    namespaced: bool,
) -> Known
where
    T: DeserializeOwned + Validate + Into<Kind>,
{
    Known { group, versions, kind, namespaced, read: read_root::<T> }
}

/// Refuses whatever carries it: by this it is seen from outside whether validation works.
const ALWAYS_REJECT: &str = "internal.istio.io/webhook-always-reject";

fn read_spec<T>(document: &Node, check: &mut Check) -> Option<Kind>
where
    T: DeserializeOwned + Default + Validate + Into<Kind>,
{
    const TOP: &[&str] = &["apiVersion", "kind", "metadata", "spec", "status"];
    if let Value::Mapping(entries) = &document.value {
        for (key, _) in entries.iter().filter(|(key, _)| !TOP.contains(&&*key.name)) {
            let hint = crate::nearest(&key.name, TOP.iter().copied());
            let hint = hint.map_or_else(|| "put it into `spec`".to_owned(), |word| format!("did you mean `{word}`?"));
            check.field(&key.name, |check| {
                check.error(code::UNKNOWN_FIELD, format!("`{}` is no field of a resource", key.name), hint);
            });
        }
    }
    if document.get("metadata").and_then(|it| it.get("annotations")).and_then(|it| it.get(ALWAYS_REJECT)).is_some() {
        check.field("metadata.annotations", |check| {
            let told = format!("the annotation `{ALWAYS_REJECT}` asks for a refusal");
            check.error(code::NOT_ALLOWED, told, "take the annotation away");
        });
    }
    let Some(spec) = document.get("spec") else {
        check.missing("spec", "spec:");
        return None;
    };
    let (value, unknown) = read::<T>(spec, "spec");
    for field in unknown {
        check.found.push(raised_unknown(&field));
    }
    match value {
        Ok(value) => {
            check.field("spec", |check| value.validate(check));
            Some(value.into())
        }
        Err(wrong) => {
            check.found.push(raised_wrong(wrong));
            None
        }
    }
}

/// The only kind whose status counts: addresses that were given once stay.
fn read_service_entry(document: &Node, check: &mut Check) -> Option<Kind> {
    let mut kind = read_spec::<networking::ServiceEntry>(document, check)?;
    let addresses = document.get("status").and_then(|status| status.get("addresses"));
    // What cannot be read there is no fault of the object's author, and is written anew.
    if let (Kind::ServiceEntry(entry), Some(addresses)) = (&mut kind, addresses)
        && let (Ok(given), _) = read(addresses, "status.addresses")
    {
        Arc::make_mut(entry).given = given;
    }
    Some(kind)
}

fn read_root<T>(document: &Node, check: &mut Check) -> Option<Kind>
where
    T: DeserializeOwned + Validate + Into<Kind>,
{
    match read::<T>(document, "").0 {
        Ok(value) => {
            value.validate(check);
            Some(value.into())
        }
        Err(wrong) => {
            check.found.push(raised_wrong(wrong));
            None
        }
    }
}

pub(crate) fn raised_wrong(wrong: crate::reader::Wrong) -> Raised {
    Raised {
        code: code::WRONG_VALUE,
        severity: Severity::Error,
        path: wrong.place.unwrap_or_default(),
        message: wrong.message,
        hint: wrong.hint,
    }
}

fn raised_unknown(field: &Unknown) -> Raised {
    let hint = match field.suggestion {
        Some(word) => format!("did you mean `{word}`?"),
        None if field.known.is_empty() => "remove it".to_owned(),
        None => format!("the fields here are {}", field.known.join(", ")),
    };
    Raised {
        code: code::UNKNOWN_FIELD,
        severity: Severity::Error,
        path: field.path.clone(),
        message: format!("there is no field `{}` here", field.name),
        hint: Some(hint),
    }
}
