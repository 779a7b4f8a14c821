//! What Istio's own tools ask over the discovery port: `istioctl proxy-status`, with and without a pod, and
//! `istioctl x internal-debug PAGE`; and those of the pages of port 15014 that are the same.
//!
//! A caller of the root namespace is told of all proxies, one of another namespace of its own, and nobody else of any.
//!
//! A tool asks the replicas in turn for one proxy. It goes on to the next one only after an answer with certain words
//! ([`Refusal::NotConnected`]), and gives up at an error: so the first of these is an answer here.

use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::Query;
use http::Uri;
use mizzen_proto::envoy::admin::v3::ConfigDump;
use mizzen_proto::envoy::config::core::v3::{ControlPlane, Node};
use mizzen_proto::envoy::service::discovery::v3::DiscoveryResponse;
use mizzen_proto::envoy::service::status::v3::client_config::GenericXdsConfig;
use mizzen_proto::envoy::service::status::v3::{ClientConfig, ConfigStatus};
use mizzen_proto::google::protobuf::value::Kind;
use mizzen_proto::google::protobuf::{Any, Struct, Timestamp, Value};
use mizzen_proto::json::Json;
use mizzen_proto::prost::Message;
use mizzen_types::SpiffeId;
use mizzen_xds::server::Question;
use serde::Deserialize;
use serde_json::json;
use tonic::Status;

use crate::content::Contents;
use crate::dump::config_dump;
use crate::engine::Shared;
use crate::status::{ProxyStatus, Sync};

/// One `ClientConfig` for each proxy.
const SYNCZ: &str = "istio.io/debug/syncz";
/// The sections of a `ConfigDump` of the proxy that is the one name.
const CONFIG_DUMP: &str = "istio.io/debug/config_dump";
/// A debug page by its name, as its bytes.
const PAGE: &str = "istio.io/debug";
const CLIENT_CONFIG: &str = "type.googleapis.com/envoy.service.status.v3.ClientConfig";

/// The pages there are, as `istioctl x internal-debug --list` shows them.
const PAGES: [&str; 3] = ["config_dump", "connections", "syncz"];

/// Who answers, and from what.
#[derive(Debug)]
pub(crate) struct Plane<'a> {
    pub(crate) shared: &'a Shared,
    /// The replica's name: its pod.
    pub(crate) id: &'a str,
}

/// Which proxies somebody is told of.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Sight<'a> {
    All,
    Namespace(&'a str),
}

impl Sight<'_> {
    fn reaches(self, proxy: &ProxyStatus) -> bool {
        match self {
            Self::All => true,
            Self::Namespace(namespace) => *namespace == *proxy.node.namespace,
        }
    }
}

/// Why there is no such page.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("there is no debug page {0:?} here; ask for one of {PAGES:?}")]
    NoPage(String),
    #[error("it is not said of which proxy; ask for config_dump?proxyID=NAME.NAMESPACE")]
    NoProxy,
    /// Begins with the words by which `istioctl` knows that it has to ask another replica.
    #[error(
        "Proxy not connected to this Pilot instance. It may be connected to another instance.\n{0:.300} is not the \
         NAME.NAMESPACE of a proxy that this control plane serves and the caller may see; `istioctl proxy-status` lists \
         all proxies, each with the replica that serves it"
    )]
    NotConnected(String),
    #[error("what there is for {proxy} cannot be shown: {message}")]
    Unshown { proxy: String, message: String },
}

/// Answers a tool.
pub(crate) fn answer(
    plane: &Plane<'_>,
    caller: Option<&SpiffeId>,
    question: Question<'_>,
) -> Result<DiscoveryResponse, Status> {
    let Some(caller) = caller else {
        return Err(Status::unauthenticated("what is known of proxies is told on the secure port only"));
    };
    let world = plane.shared.world.load();
    let sight = if *caller.namespace == *world.mesh.config().root_namespace {
        Sight::All
    } else {
        Sight::Namespace(&caller.namespace)
    };
    let text = |text: String| vec![Any { type_url: PAGE.to_owned(), value: text.into_bytes() }];
    let resources = match (question.type_url, question.names) {
        (SYNCZ, _) => Ok(seen(plane.shared, sight, |proxies| proxies.map(client_config).collect())),
        (CONFIG_DUMP, [proxy]) => dump(plane.shared, sight, proxy, false).map(|dump| dump.configs),
        (CONFIG_DUMP, _) => Err(Refusal::NoProxy),
        (PAGE, [name]) => page(plane.shared, sight, name).map(|page| text(page.to_string())),
        (PAGE, names) => Err(Refusal::NoPage(names.join(", "))),
        (other, _) => return Err(Status::invalid_argument(format!("nothing is known of the type {other:.200}"))),
    };
    let resources = resources.or_else(|refusal| match refusal {
        Refusal::NotConnected(_) => Ok(text(refusal.to_string())),
        Refusal::NoPage(_) | Refusal::NoProxy => Err(Status::invalid_argument(refusal.to_string())),
        Refusal::Unshown { .. } => Err(Status::internal(refusal.to_string())),
    })?;
    Ok(DiscoveryResponse {
        version_info: "1".to_owned(),
        type_url: question.type_url.to_owned(),
        nonce: "1".to_owned(),
        resources,
        control_plane: Some(ControlPlane { identifier: identifier(plane.id) }),
        ..Default::default()
    })
}

/// What a page may be asked for.
#[derive(Debug, Default, Deserialize)]
struct Asked {
    #[serde(rename = "proxyID", default)]
    proxy: String,
    /// Its being there counts.
    include_eds: Option<String>,
}

/// A debug page by what stands behind `/debug/`: `syncz`, `config_dump?proxyID=NAME.NAMESPACE`.
pub(crate) fn page(shared: &Shared, sight: Sight<'_>, name: &str) -> Result<serde_json::Value, Refusal> {
    let no_page = || Refusal::NoPage(name.chars().take(200).collect());
    let uri: Uri = format!("/{name}").parse().map_err(|_| no_page())?;
    let Query(asked): Query<Asked> = Query::try_from_uri(&uri).map_err(|_| no_page())?;
    match uri.path() {
        "/syncz" => Ok(seen(shared, sight, |proxies| proxies.map(ProxyStatus::json).collect())),
        "/connections" => Ok(seen(shared, sight, |proxies| crate::status::connections(proxies))),
        "/config_dump" if asked.proxy.is_empty() => Err(Refusal::NoProxy),
        "/config_dump" => {
            let dump = dump(shared, sight, &asked.proxy, asked.include_eds.is_some())?;
            let json = Json::new().with_proto_names().decode("envoy.admin.v3.ConfigDump", &dump.encode_to_vec());
            json.map_err(|error| Refusal::Unshown { proxy: asked.proxy, message: error.to_string() })
        }
        "/list" => Ok(json!(PAGES)),
        _ => Err(no_page()),
    }
}

fn seen<T>(shared: &Shared, sight: Sight<'_>, show: impl FnOnce(&mut dyn Iterator<Item = &ProxyStatus>) -> T) -> T {
    let status = shared.status();
    show(&mut status.listed().into_iter().filter(|proxy| sight.reaches(proxy)))
}

/// The control plane's own idea of the proxy `NAME.NAMESPACE`, or of the node with this id.
fn dump(shared: &Shared, sight: Sight<'_>, proxy: &str, endpoints: bool) -> Result<ConfigDump, Refusal> {
    let found = seen(shared, sight, |proxies| {
        let named = proxies.filter(|it| *it.node.name == *proxy || *it.node.id == *proxy);
        // A proxy that has just come back may have its old stream still.
        named.max_by_key(|it| it.connected_at).map(|it| (Arc::clone(&it.node), it.secrets))
    });
    // The list is not locked from here on: the engine writes it.
    let (node, secrets) = found.ok_or_else(|| Refusal::NotConnected(proxy.to_owned()))?;
    let contents = Contents::new(&node, secrets, shared.world.load_full(), shared.cache.clone());
    let mut contents = contents
        .map_err(|status| Refusal::Unshown { proxy: proxy.to_owned(), message: status.message().to_owned() })?;
    Ok(config_dump(&mut contents, endpoints))
}

/// Istio's tools read who answered from this.
fn identifier(id: &str) -> String {
    json!({"Component": "istiod", "ID": id, "Info": version()}).to_string()
}

/// The fields of `istioctl version`.
pub(crate) fn version() -> serde_json::Value {
    let version = env!("CARGO_PKG_VERSION");
    json!({"version": version, "revision": "", "golang_version": "", "status": "mizzen", "tag": version})
}

fn client_config(proxy: &ProxyStatus) -> Any {
    let text = |key: &str| proxy.node.metadata.get(key).and_then(serde_json::Value::as_str).unwrap_or_default();
    let cluster = Some(text("CLUSTER_ID")).filter(|text| !text.is_empty()).unwrap_or("Kubernetes");
    let version = Some(text("ISTIO_VERSION")).filter(|text| !text.is_empty()).unwrap_or(&proxy.node.version);
    let fields = [("CLUSTER_ID", cluster), ("NAMESPACE", &*proxy.node.namespace), ("ISTIO_VERSION", version)];
    let field = |(key, text): (&str, &str)| (key.to_owned(), Value { kind: Some(Kind::StringValue(text.to_owned())) });
    let config = ClientConfig {
        node: Some(Node {
            id: proxy.node.id.to_string(),
            metadata: Some(Struct { fields: fields.into_iter().map(field).collect() }),
            ..Default::default()
        }),
        generic_xds_configs: proxy
            .states()
            .map(|(kind, sync, at)| GenericXdsConfig {
                type_url: kind.type_url().to_owned(),
                config_status: match sync {
                    Sync::Ignored => ConfigStatus::Unknown,
                    Sync::NotSent => ConfigStatus::NotSent,
                    Sync::Synced => ConfigStatus::Synced,
                    Sync::Stale => ConfigStatus::Stale,
                    Sync::Refused => ConfigStatus::Error,
                }
                .into(),
                last_updated: at.map(timestamp),
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    };
    Any { type_url: CLIENT_CONFIG.to_owned(), value: config.encode_to_vec() }
}

fn timestamp(at: SystemTime) -> Timestamp {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(since.subsec_nanos()).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests;
