//! What Istio's own tools ask over the discovery port: `istioctl proxy-status` and `istioctl x internal-debug`.
//!
//! A caller of the root namespace is told of all proxies, one of another namespace of its own, and nobody else of any. Not
//! here: `istio.io/debug/config_dump`, the control plane's own idea of a proxy's resources.

use std::time::SystemTime;

use mizzen_proto::envoy::config::core::v3::{ControlPlane, Node};
use mizzen_proto::envoy::service::discovery::v3::DiscoveryResponse;
use mizzen_proto::envoy::service::status::v3::client_config::GenericXdsConfig;
use mizzen_proto::envoy::service::status::v3::{ClientConfig, ConfigStatus};
use mizzen_proto::google::protobuf::value::Kind;
use mizzen_proto::google::protobuf::{Any, Struct, Timestamp, Value};
use mizzen_proto::prost::Message;
use mizzen_types::SpiffeId;
use mizzen_xds::server::Question;
use serde_json::json;
use tonic::Status;

use crate::status::{ProxyStatus, Sync};

/// One `ClientConfig` for each proxy.
const SYNCZ: &str = "istio.io/debug/syncz";
/// A debug page by its name, as its bytes.
const PAGE: &str = "istio.io/debug";
const CLIENT_CONFIG: &str = "type.googleapis.com/envoy.service.status.v3.ClientConfig";

/// Who answers, and from what.
#[derive(Debug)]
pub(crate) struct Plane<'a> {
    pub(crate) status: &'a crate::status::Status,
    /// The replica's name: its pod.
    pub(crate) id: &'a str,
    pub(crate) root_namespace: &'a str,
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
    let seen =
        |proxy: &ProxyStatus| *caller.namespace == *plane.root_namespace || *caller.namespace == *proxy.node.namespace;
    let proxies = plane.status.listed().into_iter().filter(|proxy| seen(proxy));
    let resources = match (question.type_url, question.names) {
        (SYNCZ, _) => proxies.map(client_config).collect(),
        (PAGE, [name]) if name == "syncz" => {
            let page: serde_json::Value = proxies.map(ProxyStatus::json).collect();
            vec![Any { type_url: PAGE.to_owned(), value: page.to_string().into_bytes() }]
        }
        (PAGE, names) => {
            return Err(Status::invalid_argument(format!(
                "the debug page that can be asked for here is syncz, not {:.200}",
                names.join(", ")
            )));
        }
        (other, _) => return Err(Status::invalid_argument(format!("nothing is known of the type {other:.200}"))),
    };
    Ok(DiscoveryResponse {
        version_info: "1".to_owned(),
        type_url: question.type_url.to_owned(),
        nonce: "1".to_owned(),
        resources,
        control_plane: Some(ControlPlane { identifier: identifier(plane.id) }),
        ..Default::default()
    })
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
