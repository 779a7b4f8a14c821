//! Who a workload is, as it tells another: the form in which both of Istio's ways of exchanging it (headers, and the first
//! bytes of a TCP connection) say it. What a certificate cannot say (name, version, labels) goes into the metrics of both
//! sides this way.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, STANDARD};
use base64::engine::{DecodePaddingMode, GeneralPurposeConfig};
use bytes::Bytes;
use http::HeaderValue;
use mizzen_proto::envoy::config::core::v3::Node;
use mizzen_proto::google::protobuf::{Any, Struct, Value, value::Kind};
use mizzen_telemetry::Party;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};

/// Istio's names in both forms.
pub const ID: &str = "x-envoy-peer-metadata-id";
pub const METADATA: &str = "x-envoy-peer-metadata";
/// Begins what is told on TCP.
pub const MAGIC: u32 = 0x3D23_0467;
const STRUCT_URL: &str = "type.googleapis.com/google.protobuf.Struct";
/// Longest description that is looked at.
const MAX_BYTES: usize = 16 * 1024;
/// Descriptions that one thread remembers.
const REMEMBERED: usize = 256;
/// Istio's proxies differ in whether they pad.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What we tell about ourselves.
#[derive(Debug)]
pub struct Own {
    pub id: HeaderValue,
    pub metadata: HeaderValue,
    /// Both, as they begin a TCP connection.
    pub preface: Bytes,
}

/// A workload as it described itself.
#[derive(Debug)]
pub struct Peer {
    pub party: Party,
    /// Equal for equal descriptions.
    pub fingerprint: u64,
}

/// The descriptions that a thread has read lately: a peer says the same with every message.
#[derive(Debug, Default)]
pub struct Known(RefCell<HashMap<u64, (HeaderValue, Arc<Peer>)>>);

impl Own {
    pub fn of(node: &Node) -> Option<Self> {
        let metadata = describe(node.metadata.as_ref()?);
        let mut told = Vec::new();
        entry(&mut told, METADATA, &value(STRUCT, &metadata));
        entry(&mut told, ID, &value(STRING, node.id.as_bytes()));
        let any = Any { type_url: STRUCT_URL.to_owned(), value: told }.encode_to_vec();
        let mut preface = MAGIC.to_be_bytes().to_vec();
        preface.extend(u32::try_from(any.len()).ok()?.to_be_bytes());
        preface.extend(any);
        Some(Self {
            id: HeaderValue::from_str(&node.id).ok()?,
            metadata: HeaderValue::from_str(&STANDARD.encode(metadata)).ok()?,
            preface: preface.into(),
        })
    }
}

/// The parts of a node's metadata that metrics are made of, and nothing else, as an encoded `Struct`. Its entries are in
/// order: equal workloads say equal bytes.
fn describe(node: &Struct) -> Vec<u8> {
    let party = crate::record::party_of_node(&crate::run::struct_json(node));
    let text = |key: &str| match node.fields.get(key).and_then(|value| value.kind.as_ref()) {
        Some(Kind::StringValue(text)) => text.as_str(),
        _ => "",
    };
    let mut labels = Vec::new();
    for (key, label) in [
        ("app", &party.app),
        ("service.istio.io/canonical-name", &party.canonical_service),
        ("service.istio.io/canonical-revision", &party.canonical_revision),
        ("version", &party.version),
    ] {
        if !label.is_empty() {
            entry(&mut labels, key, &value(STRING, label.as_bytes()));
        }
    }
    let mut out = Vec::new();
    for (key, text) in [
        ("CLUSTER_ID", party.cluster.as_str()),
        ("LABELS", ""),
        ("NAME", text("NAME")),
        ("NAMESPACE", &party.namespace),
        ("OWNER", text("OWNER")),
        ("WORKLOAD_NAME", &party.workload),
    ] {
        if key == "LABELS" {
            entry(&mut out, key, &value(STRUCT, &labels));
        } else if !text.is_empty() {
            entry(&mut out, key, &value(STRING, text.as_bytes()));
        }
    }
    out
}

/// Fields of `google.protobuf.Value`.
const STRING: u32 = 3;
const STRUCT: u32 = 5;

/// An encoded `google.protobuf.Value` of one kind.
fn value(kind: u32, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    field(&mut out, kind, content);
    out
}

/// One entry of an encoded `google.protobuf.Struct`.
fn entry(out: &mut Vec<u8>, key: &str, value: &[u8]) {
    let mut inside = Vec::new();
    field(&mut inside, 1, key.as_bytes());
    field(&mut inside, 2, value);
    field(out, 1, &inside);
}

fn field(out: &mut Vec<u8>, number: u32, content: &[u8]) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(content.len() as u64, out);
    out.extend_from_slice(content);
}

impl Peer {
    fn of(metadata: &Struct, fingerprint: u64) -> Arc<Self> {
        let party = crate::record::party_of_node(&crate::run::struct_json(metadata));
        Arc::new(Self { party, fingerprint })
    }
}

impl Known {
    /// What a header says; `None` when it says nothing that can be understood.
    pub fn read(&self, metadata: &HeaderValue) -> Option<Arc<Peer>> {
        let text = metadata.as_bytes();
        if text.len() > MAX_BYTES {
            return None;
        }
        let fingerprint = xxhash_rust::xxh64::xxh64(text, 0);
        let mut known = self.0.borrow_mut();
        if let Some((_, peer)) = known.get(&fingerprint).filter(|(said, _)| said == metadata) {
            return Some(Arc::clone(peer));
        }
        let bytes = LENIENT.decode(text).ok()?;
        let peer = Peer::of(&Struct::decode(bytes.as_slice()).ok()?, fingerprint);
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(fingerprint, (metadata.clone(), Arc::clone(&peer)));
        Some(peer)
    }
}

/// What stood at the beginning of a TCP connection, without the magic number and the length.
pub fn of_preface(told: &[u8]) -> Option<Arc<Peer>> {
    let any = Any::decode(told).ok().filter(|any| any.type_url == STRUCT_URL)?;
    let fields = Struct::decode(any.value.as_slice()).ok()?.fields;
    match fields.get(METADATA) {
        Some(Value { kind: Some(Kind::StructValue(metadata)) }) => {
            Some(Peer::of(metadata, xxhash_rust::xxh64::xxh64(told, 0)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value { kind: Some(Kind::StringValue(text.to_owned())) }
    }

    fn structure<const N: usize>(entries: [(&str, Value); N]) -> Struct {
        Struct { fields: entries.map(|(key, value)| (key.to_owned(), value)).into() }
    }

    fn node() -> Node {
        let labels = structure([("app", text("reviews")), ("version", text("v2")), ("secret", text("x"))]);
        let metadata = structure([
            ("NAME", text("reviews-v2-0")),
            ("NAMESPACE", text("default")),
            ("WORKLOAD_NAME", text("reviews-v2")),
            ("CLUSTER_ID", text("Kubernetes")),
            ("OWNER", text("kubernetes://apis/apps/v1/namespaces/default/deployments/reviews-v2")),
            ("LABELS", Value { kind: Some(Kind::StructValue(labels)) }),
            ("SECRET", text("x")),
        ]);
        Node { id: "sidecar~1".to_owned(), metadata: Some(metadata), ..Node::default() }
    }

    #[test]
    fn what_one_tells_the_other_understands() {
        let own = Own::of(&node()).unwrap();
        let known = Known::default();
        let peer = known.read(&own.metadata).unwrap();
        let expected = Party {
            workload: "reviews-v2".to_owned(),
            namespace: "default".to_owned(),
            principal: String::new(),
            app: "reviews".to_owned(),
            version: "v2".to_owned(),
            cluster: "Kubernetes".to_owned(),
            canonical_service: "reviews".to_owned(),
            canonical_revision: "v2".to_owned(),
        };
        assert_eq!(peer.party, expected);
        assert!(Arc::ptr_eq(&peer, &known.read(&own.metadata).unwrap()), "remembered");
        let on_tcp = of_preface(&own.preface[8..]).unwrap();
        assert_eq!(on_tcp.party, expected);
    }

    #[test]
    fn the_words_are_istios_and_nothing_more() {
        let own = Own::of(&node()).unwrap();
        let told = Struct::decode(STANDARD.decode(&own.metadata).unwrap().as_slice()).unwrap();
        let mut keys: Vec<&str> = told.fields.keys().map(String::as_str).collect();
        keys.sort_unstable();
        assert_eq!(keys, ["CLUSTER_ID", "LABELS", "NAME", "NAMESPACE", "OWNER", "WORKLOAD_NAME"]);
        let Some(Kind::StructValue(labels)) = &told.fields["LABELS"].kind else { panic!("no struct") };
        let mut keys: Vec<&str> = labels.fields.keys().map(String::as_str).collect();
        keys.sort_unstable();
        let canonical = ["service.istio.io/canonical-name", "service.istio.io/canonical-revision"];
        assert_eq!(keys, ["app", canonical[0], canonical[1], "version"]);
        assert_eq!(own.preface[..4], [0x3d, 0x23, 0x04, 0x67]);
        assert_eq!(own.preface[4..8], u32::try_from(own.preface.len() - 8).unwrap().to_be_bytes());
        for _ in 0..20 {
            assert_eq!(Own::of(&node()).unwrap().metadata, own.metadata, "one workload, one text");
        }
    }

    #[test]
    fn genuine_metadata_is_understood() {
        // As Istio's own filter tells it: the same fields, base64 with padding or without.
        let labels = structure([
            ("app", text("ratings")),
            ("service.istio.io/canonical-name", text("ratings")),
            ("service.istio.io/canonical-revision", text("v1")),
            ("version", text("v1")),
        ]);
        let metadata = structure([
            ("NAME", text("ratings-v1-5d8f9c7b6-abcde")),
            ("NAMESPACE", text("default")),
            ("WORKLOAD_NAME", text("ratings-v1")),
            ("LABELS", Value { kind: Some(Kind::StructValue(labels)) }),
        ]);
        let padded = STANDARD.encode(metadata.encode_to_vec());
        for said in [padded.as_str(), padded.trim_end_matches('=')] {
            let peer = Known::default().read(&HeaderValue::from_str(said).unwrap()).unwrap();
            assert_eq!((&*peer.party.workload, &*peer.party.canonical_revision), ("ratings-v1", "v1"));
        }
    }

    #[test]
    fn nonsense_says_nothing() {
        let known = Known::default();
        for nonsense in ["!", "////", &"A".repeat(MAX_BYTES + 1)] {
            assert!(known.read(&HeaderValue::from_str(nonsense).unwrap()).is_none());
        }
        assert!(of_preface(b"\xff").is_none() && of_preface(b"").is_none());
        for number in 0..(REMEMBERED as u32 * 2) {
            let said = STANDARD.encode(structure([("NAME", text(&number.to_string()))]).encode_to_vec());
            assert!(known.read(&HeaderValue::from_str(&said).unwrap()).is_some());
        }
        assert!(known.0.borrow().len() <= REMEMBERED);
    }
}
