//! MeshConfig out of the ConfigMap `istio`, key `mesh`.

use mizzen_api::mesh::{InboundTrafficPolicyMode, MeshConfig, OutboundTrafficPolicyMode, ProxyConfig};
use mizzen_types::{ObjectKey, Severity};

use crate::check::{Check, Raised};
use crate::code;
use crate::kind::raised_wrong;
use crate::object::{Kind, Object};
use crate::position::Positions;
use crate::reader::read;
use crate::validate::Validate;
use crate::yaml::documents;

/// What a ConfigMap says of the mesh.
pub(super) struct Found {
    pub key: ObjectKey,
    /// Absent when there is an error.
    pub object: Option<Object>,
    pub raised: Vec<Raised>,
}

/// The mesh configuration that this object carries, if it is the ConfigMap for that, and what is wrong with it. With an
/// error there is no object: the mesh keeps the configuration it had.
pub(super) fn of(object: &Object) -> Option<Found> {
    let Kind::ConfigMap(map) = &object.kind else { return None };
    // A cluster has one for each revision of the control plane, each of which reads its own alone.
    let of_revision = object.key.name.starts_with("istio-") && object.positions.file().is_none();
    if &*object.key.name != "istio" && !of_revision {
        return None;
    }
    let text = map.data.get("mesh")?;
    let key = ObjectKey::new("MeshConfig", &object.key.namespace, "istio");
    let (config, raised) = read_config(text)?;
    let Some(config) = config else { return Some(Found { key, object: None, raised }) };
    let position = object.positions.at("data.mesh");
    let positions = Positions::point(position.as_ref());
    let mesh = Object { key: key.clone(), meta: object.meta.clone(), kind: config.into(), positions };
    Some(Found { key, object: Some(mesh), raised })
}

/// The configuration, unless something is wrong with it, and findings; `None` when the text is empty.
fn read_config(text: &str) -> Option<(Option<MeshConfig>, Vec<Raised>)> {
    let mut check = Check::default();
    let document = match documents(text).into_iter().next() {
        Some(Ok(node)) => node,
        None => return None,
        Some(Err(broken)) => {
            let message = format!("{} (line {} of the mesh configuration)", broken.message, broken.mark.line);
            let path = "data.mesh".to_owned();
            let raised = Raised { code: broken.code, severity: Severity::Error, path, message, hint: broken.hint };
            return Some((None, vec![raised]));
        }
    };
    let config: MeshConfig = match read(&document, "data.mesh").0 {
        Ok(config) => config,
        Err(wrong) => return Some((None, vec![raised_wrong(wrong)])),
    };
    check.field("data", |check| check.field("mesh", |check| config.validate(check)));
    if check.has_error() {
        return Some((None, check.found));
    }
    Some((Some(config), check.found))
}

/// Fields of MeshConfig that are the schema's but that this release does not read.
pub(crate) const NOT_READ: &[&str] = &[
    "ca",
    "caCertificates",
    "certificates",
    "configSources",
    "defaultProviders",
    "disableEnvoyListenerLog",
    "discoverySelectors",
    "enableEnvoyAccessLogService",
    "extensionProviders",
    "hboneIdleTimeout",
    "inboundClusterStatName",
    "ingressClass",
    "ingressControllerMode",
    "ingressSelector",
    "ingressService",
    "meshMTLS",
    "outboundClusterStatName",
    "serviceEntryVisibility",
    "serviceScopeConfigs",
    "serviceSettings",
    "tlsDefaults",
    "verifyCertificateAtClient",
    "zoneAwareLbSetting",
];

impl Validate for MeshConfig {
    fn validate(&self, check: &mut Check) {
        for name in self.rest.keys() {
            check.field(name, |check| {
                if NOT_READ.contains(&name.as_str()) {
                    not_obeyed(check, name);
                } else {
                    let hint = crate::nearest(name, NOT_READ.iter().copied());
                    let hint = hint.map_or_else(|| "remove it".to_owned(), |word| format!("did you mean `{word}`?"));
                    check.warn(code::UNKNOWN_FIELD, format!("the mesh configuration has no field `{name}`"), hint);
                }
            });
        }
        if self.default_inbound_http_retry_policy.is_some() {
            check.field("defaultInboundHttpRetryPolicy", |check| not_obeyed(check, "defaultInboundHttpRetryPolicy"));
        }
        if self.inbound_traffic_policy.mode == InboundTrafficPolicyMode::Localhost {
            check.field("inboundTrafficPolicy", |check| not_obeyed(check, "inboundTrafficPolicy: {mode: LOCALHOST}"));
        }
        if self.outbound_traffic_policy.mode == OutboundTrafficPolicyMode::AllowAnyDynamicDns {
            let what = "outboundTrafficPolicy: {mode: ALLOW_ANY_DYNAMIC_DNS}";
            check.field("outboundTrafficPolicy", |check| not_obeyed(check, what));
        }
        // Where the control plane is, proxies are told when they start.
        let proxies = ProxyConfig { discovery_address: String::new(), ..self.default_config.clone() };
        if proxies != ProxyConfig::default() {
            check.field("defaultConfig", |check| not_obeyed(check, "defaultConfig"));
        }
    }
}

fn not_obeyed(check: &mut Check, what: &str) {
    check.info(
        code::NOT_OBEYED,
        format!("`{what}` of the mesh configuration is not obeyed by this release"),
        "nothing has to be done; the rest of it is obeyed",
    );
}
