//! `/config_dump`: resources as they came, in Envoy's shape.
//!
//! Whoever takes resources in tells [`Held`]. They are kept packed and shared with whoever else has them; only a dump
//! turns them into JSON, and takes keys out of it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use mizzen_compile::Packed;
use mizzen_identity::Secrets;
use mizzen_proto::json::Json;
use regex::Regex;
use serde_json::{Map, Value, json};

use super::certs::timestamp;
use super::serve::Ask;

/// The resources in force, and those that were refused. Secrets are not among them.
#[derive(Default)]
pub struct Held {
    resources: Mutex<BTreeMap<(Kind, String), Resource>>,
    bootstrap: Mutex<Option<Value>>,
}

/// Where a resource comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The bootstrap.
    Static,
    Discovered,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Cluster,
    Endpoint,
    Listener,
    Route,
}

#[derive(Default)]
struct Resource {
    active: Option<Active>,
    refused: Option<Refused>,
}

struct Active {
    origin: Origin,
    packed: Packed,
    since: SystemTime,
}

struct Refused {
    version: String,
    reason: String,
    at: SystemTime,
}

/// Where resources of a kind stand in a dump.
struct Section {
    message: &'static str,
    /// The lists for resources of the bootstrap and for discovered ones, and the key of a resource in an entry.
    fixed: &'static str,
    discovered: &'static str,
    key: &'static str,
}

const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";

impl Kind {
    const ALL: [Self; 4] = [Self::Cluster, Self::Endpoint, Self::Listener, Self::Route];

    fn of(type_url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.type_url() == type_url)
    }

    fn type_url(self) -> &'static str {
        match self {
            Self::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::Endpoint => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Self::Route => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        }
    }

    fn section(self) -> Section {
        match self {
            Self::Cluster => Section {
                message: "ClustersConfigDump",
                fixed: "static_clusters",
                discovered: "dynamic_active_clusters",
                key: "cluster",
            },
            Self::Endpoint => Section {
                message: "EndpointsConfigDump",
                fixed: "static_endpoint_configs",
                discovered: "dynamic_endpoint_configs",
                key: "endpoint_config",
            },
            Self::Listener => Section {
                message: "ListenersConfigDump",
                fixed: "static_listeners",
                discovered: "dynamic_listeners",
                key: "listener",
            },
            Self::Route => Section {
                message: "RoutesConfigDump",
                fixed: "static_route_configs",
                discovered: "dynamic_route_configs",
                key: "route_config",
            },
        }
    }
}

impl Held {
    /// The bootstrap as it was read, in protobuf's JSON form.
    pub fn set_bootstrap(&self, bootstrap: Value) {
        *lock(&self.bootstrap) = Some(bootstrap);
    }

    /// A resource is in force.
    pub fn put(&self, type_url: &str, name: &str, packed: Packed, origin: Origin) {
        let Some(kind) = Kind::of(type_url) else { return };
        let active = Active { origin, packed, since: SystemTime::now() };
        let new = Resource { active: Some(active), refused: None };
        lock(&self.resources).insert((kind, name.to_owned()), new);
    }

    pub fn remove(&self, type_url: &str, name: &str) {
        if let Some(kind) = Kind::of(type_url) {
            lock(&self.resources).remove(&(kind, name.to_owned()));
        }
    }

    /// A version of a resource was refused; an older one may be in force.
    pub fn refuse(&self, type_url: &str, name: &str, version: &str, reason: &str) {
        let Some(kind) = Kind::of(type_url) else { return };
        let refused = Refused { version: version.to_owned(), reason: reason.to_owned(), at: SystemTime::now() };
        lock(&self.resources).entry((kind, name.to_owned())).or_default().refused = Some(refused);
    }

    /// The names of what is shown, sorted.
    #[cfg(test)]
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = lock(&self.resources).keys().map(|(_, name)| name.clone()).collect();
        names.sort();
        names
    }

    pub(super) fn dump(&self, secrets: &Secrets, query: &Query) -> Result<Value, String> {
        let filter = query.name.as_deref().map(super::name_filter).transpose()?;
        let filter = filter.as_ref();
        let json = Json::new().with_proto_names();
        let mut configs = Vec::new();
        if let Some(bootstrap) = lock(&self.bootstrap).clone() {
            let message = "type.googleapis.com/envoy.admin.v3.BootstrapConfigDump";
            configs.push(json!({"@type": message, "bootstrap": bootstrap}));
        }
        for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Endpoint || query.endpoints) {
            configs.push(self.section(kind, &json, filter));
        }
        configs.push(secrets_section(secrets, filter));
        if let Some(resource) = &query.resource {
            configs = one_list(configs, resource)?;
        }
        let mut dump = json!({ "configs": configs });
        redact(&mut dump);
        Ok(dump)
    }

    fn section(&self, kind: Kind, json: &Json, filter: Option<&Regex>) -> Value {
        let section = kind.section();
        let mut shown = Map::new();
        shown.insert("@type".to_owned(), format!("type.googleapis.com/envoy.admin.v3.{}", section.message).into());
        let resources = lock(&self.resources);
        for ((_, name), resource) in resources.iter().filter(|((of, _), _)| *of == kind) {
            if filter.is_some_and(|filter| !filter.is_match(name)) {
                continue;
            }
            let list = if resource.is_static() { section.fixed } else { section.discovered };
            if let Value::Array(list) = shown.entry(list).or_insert_with(|| json!([])) {
                list.push(entry(kind, name, resource, json));
            }
        }
        shown.into()
    }
}

impl Resource {
    fn is_static(&self) -> bool {
        self.active.as_ref().is_some_and(|active| active.origin == Origin::Static)
    }
}

fn entry(kind: Kind, name: &str, resource: &Resource, json: &Json) -> Value {
    let mut entry = Map::new();
    if let Some(active) = &resource.active {
        let body = json.decode_any(kind.type_url(), &active.packed.unpack()).unwrap_or_else(|error| {
            // Some part of it is of a type that is not known here; obeying it did not need that part.
            json!({"@type": kind.type_url(), "name": name, "not_shown": error.to_string()})
        });
        let version = active.packed.version();
        if !version.is_empty() {
            entry.insert("version_info".to_owned(), version.into());
        }
        entry.insert(kind.section().key.to_owned(), body);
        entry.insert("last_updated".to_owned(), timestamp(active.since).into());
    }
    if kind == Kind::Listener && !resource.is_static() {
        // Envoy keeps versions of a listener apart.
        let active = std::mem::take(&mut entry);
        entry.insert("name".to_owned(), name.into());
        if !active.is_empty() {
            entry.insert("active_state".to_owned(), active.into());
        }
    } else if resource.active.is_none() {
        entry.insert("name".to_owned(), name.into());
    }
    if let Some(refused) = &resource.refused {
        let state = json!({
            "details": refused.reason,
            "version_info": refused.version,
            "last_update_attempt": timestamp(refused.at),
        });
        entry.insert("error_state".to_owned(), state);
    }
    entry.into()
}

/// What a dump shall hold.
pub(super) struct Query {
    resource: Option<String>,
    name: Option<String>,
    endpoints: bool,
}

impl Query {
    pub(super) fn of(ask: &Ask) -> Self {
        Self {
            resource: ask.parameter("resource").filter(|resource| !resource.is_empty()),
            name: ask.parameter("name_regex").filter(|name| !name.is_empty()),
            endpoints: ask.parameter("include_eds").is_some(),
        }
    }
}

/// Certificates and roots that are held now; keys are not even read.
fn secrets_section(secrets: &Secrets, filter: Option<&Regex>) -> Value {
    let wanted = |name: &str| filter.is_none_or(|filter| filter.is_match(name));
    let entry = |name: &str, kind: &str, value: Value| json!({"name": name, "secret": {"@type": SECRET, "name": name, kind: value}});
    let inline = |pem: String| json!({"inline_bytes": BASE64.encode(pem)});
    let chains = secrets.certificates();
    let roots = secrets.all_roots();
    let chains = chains.iter().filter(|(name, _)| wanted(name.as_str())).map(|(name, certificate)| {
        let chain = inline(certificate.chain_pem());
        let held = json!({"certificate_chain": chain, "private_key": {"inline_bytes": REDACTED_BYTES}});
        entry(name.as_str(), "tls_certificate", held)
    });
    let roots = roots
        .iter()
        .filter(|(name, _)| wanted(name.as_str()))
        .map(|(name, roots)| entry(name.as_str(), "validation_context", json!({"trusted_ca": inline(roots.pem())})));
    json!({
        "@type": "type.googleapis.com/envoy.admin.v3.SecretsConfigDump",
        "dynamic_active_secrets": chains.chain(roots).collect::<Vec<_>>(),
    })
}

/// `?resource=dynamic_listeners`: the entries of that list, each with the type of its section's entries.
fn one_list(configs: Vec<Value>, resource: &str) -> Result<Vec<Value>, String> {
    if resource == "bootstrap" {
        return Ok(configs.into_iter().filter(|section| section.get("bootstrap").is_some()).collect());
    }
    let known = resource == "dynamic_active_secrets"
        || Kind::ALL.into_iter().any(|kind| [kind.section().fixed, kind.section().discovered].contains(&resource));
    if !known {
        return Err(format!("there is no list {resource:?} in a dump"));
    }
    let lists = configs.into_iter().filter_map(|mut section| section.get_mut(resource).map(Value::take));
    Ok(lists.flat_map(|list| if let Value::Array(entries) = list { entries } else { Vec::new() }).collect())
}

/// Fields whose values nobody may see, in both spellings.
const SECRET_FIELDS: [&str; 12] = [
    "private_key",
    "privateKey",
    "password",
    "session_ticket_keys",
    "sessionTicketKeys",
    "generic_secret",
    "genericSecret",
    "private_key_provider",
    "privateKeyProvider",
    "pkcs12",
    "token_secret",
    "hmac_secret",
];

/// What an `inline_string` or `inline_bytes` of a secret is replaced with; the latter in base64.
const REDACTED: &str = "[redacted]";
const REDACTED_BYTES: &str = "W3JlZGFjdGVkXQ==";

/// Takes keys and passwords out of a dump. File names stay.
fn redact(value: &mut Value) {
    match value {
        Value::Object(object) => {
            for (key, value) in object.iter_mut() {
                if SECRET_FIELDS.contains(&key.as_str()) {
                    blot(value);
                } else {
                    redact(value);
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(redact),
        _ => {}
    }
}

/// Replaces every value inside, but for names of files, environment variables and SDS secrets.
fn blot(value: &mut Value) {
    match value {
        Value::Object(object) => {
            for (key, value) in object.iter_mut() {
                match key.as_str() {
                    "filename"
                    | "environment_variable"
                    | "environmentVariable"
                    | "name"
                    | "@type"
                    | "provider_name" => {}
                    "inline_bytes" | "inlineBytes" => *value = REDACTED_BYTES.into(),
                    _ => blot(value),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(blot),
        Value::Null | Value::Bool(_) => {}
        other => *other = REDACTED.into(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere cannot leave a map half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
