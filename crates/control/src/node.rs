//! Who a stream says it is: the node id and metadata, as Istio's proxies send them.
//!
//! Not here: whether it is true (see `admission`), and what follows for its configuration (`mizzen-translate`).

use std::sync::Arc;

use mizzen_proto::envoy::config::core::v3::Node as ProtoNode;
use mizzen_proto::google::protobuf::value::Kind;
use mizzen_proto::google::protobuf::{Struct, Value};
use serde_json::{Map, Value as Json};

/// A node's own account of itself.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    /// `sidecar~10.0.0.1~productpage-v1-7d.default~default.svc.cluster.local`.
    pub(crate) id: Arc<str>,
    /// `sidecar` or `router`; empty when the id has another form.
    pub(crate) role: String,
    pub(crate) address: String,
    /// `POD.NAMESPACE`: what people know a proxy by.
    pub(crate) name: Arc<str>,
    pub(crate) namespace: Arc<str>,
    pub(crate) service_account: String,
    pub(crate) metadata: Map<String, Json>,
    /// Envoy's own version, or ours.
    pub(crate) version: String,
    /// A person looking, not a proxy: not listed.
    pub(crate) observer: bool,
}

/// Why a node cannot be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadNode {
    #[error("the node id is empty")]
    NoId,
    #[error("the node id is longer than {MAX_ID} bytes")]
    LongId,
    #[error("the node id {0:?} is not ROLE~ADDRESS~NAME.NAMESPACE~DOMAIN and the metadata names no NAMESPACE")]
    NoNamespace(String),
    #[error("the node metadata is nested deeper than {MAX_DEPTH}")]
    Deep,
}

const MAX_ID: usize = 1024;
const MAX_DEPTH: usize = 32;

impl Node {
    pub(crate) fn read(node: ProtoNode) -> Result<Self, BadNode> {
        if node.id.is_empty() {
            return Err(BadNode::NoId);
        }
        if node.id.len() > MAX_ID {
            return Err(BadNode::LongId);
        }
        let metadata = node.metadata.map(|fields| object(fields, MAX_DEPTH)).transpose()?.unwrap_or_default();
        let text = |key: &str| metadata.get(key).and_then(Json::as_str).unwrap_or_default().to_owned();
        let mut parts = node.id.split('~');
        let whole = node.id.split('~').count() == 4;
        let mut part = || if whole { parts.next().unwrap_or_default() } else { "" };
        let (role, address, name) = (part(), part(), part());

        let mut namespace = text("NAMESPACE");
        if namespace.is_empty() {
            name.rsplit_once('.').map_or("", |(_, namespace)| namespace).clone_into(&mut namespace);
        }
        if namespace.is_empty() {
            return Err(BadNode::NoNamespace(node.id.chars().take(100).collect()));
        }
        let version = ["MIZZEN_VERSION", "ISTIO_VERSION"].map(text).into_iter().find(|text| !text.is_empty());
        Ok(Self {
            role: role.to_owned(),
            address: address.to_owned(),
            name: if name.is_empty() { node.id.as_str().into() } else { name.into() },
            namespace: namespace.into(),
            service_account: text("SERVICE_ACCOUNT"),
            version: version.unwrap_or_else(|| user_agent(&node.user_agent_name, &node.user_agent_version_type)),
            observer: matches!(metadata.get("MIZZEN_OBSERVER"), Some(Json::Bool(true)))
                || metadata.get("MIZZEN_OBSERVER").and_then(Json::as_str) == Some("true"),
            metadata,
            id: node.id.into(),
        })
    }

    /// The name without its namespace: the pod.
    pub(crate) fn pod(&self) -> &str {
        self.name.strip_suffix(&format!(".{}", self.namespace)).unwrap_or(&self.name)
    }
}

fn user_agent(
    name: &str,
    version: &Option<mizzen_proto::envoy::config::core::v3::node::UserAgentVersionType>,
) -> String {
    use mizzen_proto::envoy::config::core::v3::node::UserAgentVersionType as Version;
    match version {
        Some(Version::UserAgentVersion(version)) => format!("{name} {version}"),
        Some(Version::UserAgentBuildVersion(build)) => match &build.version {
            Some(number) => {
                format!("{name} {}.{}.{}", number.major_number, number.minor_number, number.patch)
            }
            None => name.to_owned(),
        },
        None => name.to_owned(),
    }
}

fn object(fields: Struct, depth: usize) -> Result<Map<String, Json>, BadNode> {
    let depth = depth.checked_sub(1).ok_or(BadNode::Deep)?;
    fields.fields.into_iter().map(|(key, value)| Ok((key, json(value, depth)?))).collect()
}

fn json(value: Value, depth: usize) -> Result<Json, BadNode> {
    Ok(match value.kind {
        None | Some(Kind::NullValue(_)) => Json::Null,
        Some(Kind::BoolValue(value)) => value.into(),
        // Protobuf has one kind of number; whole ones are written without a fraction.
        Some(Kind::NumberValue(value)) if value.fract() == 0.0 && value.abs() < 9e15 => (value as i64).into(),
        Some(Kind::NumberValue(value)) => value.into(),
        Some(Kind::StringValue(value)) => value.into(),
        Some(Kind::StructValue(fields)) => Json::Object(object(fields, depth)?),
        Some(Kind::ListValue(list)) => {
            let depth = depth.checked_sub(1).ok_or(BadNode::Deep)?;
            Json::Array(list.values.into_iter().map(|value| json(value, depth)).collect::<Result<_, _>>()?)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: &str, metadata: &[(&str, &str)]) -> ProtoNode {
        let value = |text: &str| Value { kind: Some(Kind::StringValue(text.to_owned())) };
        let fields = metadata.iter().map(|(key, text)| ((*key).to_owned(), value(text))).collect();
        ProtoNode { id: id.to_owned(), metadata: Some(Struct { fields }), ..Default::default() }
    }

    #[test]
    fn istio_node_ids_are_read() {
        let id = "sidecar~10.1.2.3~reviews-v1-x.shop~shop.svc.cluster.local";
        let read = Node::read(node(id, &[("SERVICE_ACCOUNT", "reviews"), ("ISTIO_VERSION", "1.31")])).unwrap();
        assert_eq!(
            (&*read.role, &*read.address, &*read.name, &*read.namespace),
            ("sidecar", "10.1.2.3", "reviews-v1-x.shop", "shop")
        );
        assert_eq!(
            (read.pod(), read.service_account.as_str(), read.version.as_str()),
            ("reviews-v1-x", "reviews", "1.31")
        );
        assert!(!read.observer);
    }

    #[test]
    fn metadata_decides_the_namespace() {
        let read = Node::read(node("router~1~gw.a~a.svc.cluster.local", &[("NAMESPACE", "b")])).unwrap();
        assert_eq!(&*read.namespace, "b");
        let read = Node::read(node("test-id", &[("NAMESPACE", "b")])).unwrap();
        assert_eq!((&*read.name, &*read.namespace, read.role.as_str()), ("test-id", "b", ""));
    }

    #[test]
    fn nodes_that_cannot_be_placed_are_refused() {
        assert_eq!(Node::read(node("", &[])), Err(BadNode::NoId));
        assert_eq!(Node::read(node(&"x".repeat(MAX_ID + 1), &[])), Err(BadNode::LongId));
        assert!(matches!(Node::read(node("envoy-1", &[])), Err(BadNode::NoNamespace(_))));
        let mut value = Value { kind: Some(Kind::NullValue(0)) };
        for _ in 0..MAX_DEPTH * 2 {
            let fields = Struct { fields: [("x".to_owned(), value)].into() };
            value = Value { kind: Some(Kind::StructValue(fields)) };
        }
        let mut deep = node("a~b~c.d~d.svc", &[]);
        deep.metadata = Some(Struct { fields: [("x".to_owned(), value)].into() });
        assert_eq!(Node::read(deep), Err(BadNode::Deep));
    }
}
