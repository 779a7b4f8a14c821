//! The proxy's own configuration for one pod: MeshConfig's `defaultConfig`, the annotation `proxy.istio.io/config`, and
//! the resource ProxyConfig, later ones over earlier ones.

use serde_json::{Map, Value};

use crate::InjectError;
use crate::names::PROXY_CONFIG;
use crate::pod;
use crate::settings::Settings;

/// As it is handed to the agent in the variable `PROXY_CONFIG`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ProxyConfig(Map<String, Value>);

/// What ProxyConfig says of a field that nobody sets; such fields are not worth their bytes in every pod.
fn defaults() -> [(&'static str, Value); 10] {
    [
        ("configPath", "./etc/istio/proxy".into()),
        ("binaryPath", "/usr/local/bin/envoy".into()),
        ("serviceCluster", "istio-proxy".into()),
        ("drainDuration", "45s".into()),
        ("terminationDrainDuration", "5s".into()),
        ("discoveryAddress", "istiod.istio-system.svc:15012".into()),
        ("proxyAdminPort", 15000.into()),
        ("controlPlaneAuthPolicy", "MUTUAL_TLS".into()),
        ("statNameLength", 189.into()),
        ("statusPort", 15020.into()),
    ]
}

impl ProxyConfig {
    pub(crate) fn of(settings: &Settings, pod: &Value, resource: Option<&Value>) -> Result<Self, InjectError> {
        let mut config = settings.mesh.default_config.clone();
        if let Some(text) = pod::annotations(pod).get(PROXY_CONFIG)
            && let Ok(Value::Object(overlay)) = crate::yaml::one(text)
        {
            overlay_maps(&mut config, &overlay);
        }
        if let Some(Value::Object(resource)) = resource {
            overlay_resource(&mut config, resource);
        }
        if !config.contains_key("discoveryAddress") {
            config.insert("discoveryAddress".to_owned(), settings.control_plane().into());
        }
        if !config.contains_key("statusPort") {
            config.insert("statusPort".to_owned(), settings.values.global.proxy.status_port.into());
        }
        let config = Self(config);
        let mode = config.interception_mode();
        if !["REDIRECT", "TPROXY", "NONE"].contains(&mode) {
            return Err(InjectError::InterceptionMode(pod::shortened(mode)));
        }
        Ok(config)
    }

    fn text(&self, key: &str) -> &str {
        self.0.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    pub(crate) fn interception_mode(&self) -> &str {
        match self.text("interceptionMode") {
            "" => "REDIRECT",
            mode => mode,
        }
    }

    pub(crate) fn status_port(&self) -> u16 {
        let port = self.0.get("statusPort").and_then(Value::as_u64);
        port.and_then(|port| u16::try_from(port).ok()).unwrap_or(15020)
    }

    pub(crate) fn holds_application(&self) -> bool {
        self.0.get("holdApplicationUntilProxyStarts").and_then(Value::as_bool).unwrap_or_default()
    }

    pub(crate) fn image_type(&self) -> &str {
        let image = self.0.get("image").and_then(|image| image.get("imageType"));
        image.and_then(Value::as_str).unwrap_or_default()
    }

    /// Variables for the proxy.
    pub(crate) fn metadata(&self) -> impl Iterator<Item = (&str, String)> {
        let map = self.0.get("proxyMetadata").and_then(Value::as_object);
        map.into_iter().flatten().map(|(name, value)| {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            (name.as_str(), text)
        })
    }

    pub(crate) fn set_status_port(&mut self, port: u16) {
        self.0.insert("statusPort".to_owned(), port.into());
    }

    pub(crate) fn get(&self, path: &[&str]) -> Option<&Value> {
        let (first, rest) = path.split_first()?;
        rest.iter().try_fold(self.0.get(*first)?, |value, key| value.get(key))
    }

    /// JSON, without what is said anyway.
    pub(crate) fn json(&self) -> String {
        let defaults = defaults();
        let said: Map<String, Value> = self
            .0
            .iter()
            .filter(|(key, value)| !defaults.iter().any(|(name, default)| name == key && default == *value))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        Value::Object(said).to_string()
    }
}

/// Maps in maps are merged (`proxyMetadata`, most of all); anything else is replaced.
fn overlay_maps(config: &mut Map<String, Value>, overlay: &Map<String, Value>) {
    for (key, value) in overlay {
        match (config.get_mut(key), value) {
            (_, Value::Null) => drop(config.shift_remove(key)),
            (Some(Value::Object(place)), Value::Object(value)) => overlay_maps(place, value),
            _ => drop(config.insert(key.clone(), value.clone())),
        }
    }
}

/// The resource calls the variables `environmentVariables`.
fn overlay_resource(config: &mut Map<String, Value>, resource: &Map<String, Value>) {
    let mut overlay = Map::new();
    for (theirs, ours) in
        [("concurrency", "concurrency"), ("environmentVariables", "proxyMetadata"), ("image", "image")]
    {
        if let Some(value) = resource.get(theirs).filter(|value| !value.is_null()) {
            overlay.insert(ours.to_owned(), value.clone());
        }
    }
    overlay_maps(config, &overlay);
}
