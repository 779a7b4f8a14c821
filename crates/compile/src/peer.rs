//! Istio's exchange of metadata: which peers tell each other who they are. istiod writes it as a struct.

use mizzen_proto::google::protobuf::{Any, Struct, Value, value::Kind};
use mizzen_proto::istio_metadata_exchange::MetadataExchange;
use mizzen_proto::istio_peer_metadata::Config;
use mizzen_proto::istio_peer_metadata::config::{DiscoveryMethod, PropagationMethod, discovery_method};
use mizzen_proto::typed_struct::TypedStruct;
use mizzen_snapshot::http::{PeerExchange, PeerHeaders};
use prost::Message;

use crate::invalid::{Invalid, Result};
use crate::origin;
use crate::value;

/// The ALPN that Istio uses.
const PROTOCOL: &str = "istio-peer-exchange";

/// In HTTP headers. Other ways of discovery (addresses that the control plane explains) are not had here.
pub(crate) fn headers(any: &Any) -> Result<PeerExchange> {
    if let Some(config) = of_struct(any)? {
        let names = |snake: &str, camel: &str| {
            [snake, camel].iter().any(|key| origin::list(&config, key).iter().any(names_headers))
        };
        return Ok(PeerExchange {
            downstream: PeerHeaders {
                discover: names("downstream_discovery", "downstreamDiscovery"),
                propagate: names("downstream_propagation", "downstreamPropagation"),
            },
            upstream: PeerHeaders {
                discover: names("upstream_discovery", "upstreamDiscovery"),
                propagate: names("upstream_propagation", "upstreamPropagation"),
            },
        });
    }
    let config: Config = decode(any)?;
    let discovers = |methods: &[DiscoveryMethod]| {
        let mut specifiers = methods.iter().map(|method| &method.method_specifier);
        specifiers.any(|method| matches!(method, Some(discovery_method::MethodSpecifier::IstioHeaders(_))))
    };
    let propagates = |methods: &[PropagationMethod]| methods.iter().any(|method| method.method_specifier.is_some());
    Ok(PeerExchange {
        downstream: PeerHeaders {
            discover: discovers(&config.downstream_discovery),
            propagate: propagates(&config.downstream_propagation),
        },
        upstream: PeerHeaders {
            discover: discovers(&config.upstream_discovery),
            propagate: propagates(&config.upstream_propagation),
        },
    })
}

fn names_headers(method: &Value) -> bool {
    match &method.kind {
        Some(Kind::StructValue(method)) => {
            ["istio_headers", "istioHeaders"].iter().any(|key| method.fields.contains_key(*key))
        }
        _ => false,
    }
}

/// On TCP: the ALPN by which both ends agree on it.
pub(crate) fn protocol(any: &Any) -> Result<String> {
    let protocol = match of_struct(any)? {
        Some(config) => origin::text(&config, "protocol").unwrap_or_default().to_owned(),
        None => decode::<MetadataExchange>(any)?.protocol,
    };
    Ok(if protocol.is_empty() { PROTOCOL.to_owned() } else { protocol })
}

fn of_struct(any: &Any) -> Result<Option<Struct>> {
    match value::message_name(any) {
        "udpa.type.v1.TypedStruct" | "xds.type.v3.TypedStruct" => {
            // The same message as another type: our own messages are compiled apart from Envoy's.
            let inner = decode::<TypedStruct>(any)?.value.unwrap_or_default().encode_to_vec();
            Ok(Some(Struct::decode(inner.as_slice()).unwrap_or_default()))
        }
        _ => Ok(None),
    }
}

fn decode<M: Message + Default>(any: &Any) -> Result<M> {
    M::decode(any.value.as_slice()).map_err(|error| {
        Invalid::new(format!("bytes that are no {}: {error}", value::message_name(any))).within("typed_config")
    })
}

#[cfg(test)]
mod tests {
    use mizzen_proto::istio_peer_metadata::config::{IstioHeaders, WorkloadDiscovery, propagation_method};

    use super::*;

    fn any(name: &str, message: &impl Message) -> Any {
        Any { type_url: format!("type.googleapis.com/{name}"), value: message.encode_to_vec() }
    }

    fn structure(entries: &[(&str, Value)]) -> Struct {
        Struct { fields: entries.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect() }
    }

    fn method(name: &str) -> Value {
        let inner = Value { kind: Some(Kind::StructValue(Struct::default())) };
        Value { kind: Some(Kind::StructValue(structure(&[(name, inner)]))) }
    }

    fn methods(names: &[&str]) -> Value {
        let values = names.iter().map(|name| method(name)).collect();
        Value { kind: Some(Kind::ListValue(mizzen_proto::google::protobuf::ListValue { values })) }
    }

    #[test]
    fn the_same_in_both_forms() {
        let config = structure(&[
            ("downstream_discovery", methods(&["workload_discovery", "istio_headers"])),
            ("downstreamPropagation", methods(&["istioHeaders"])),
            ("upstream_discovery", methods(&["workload_discovery"])),
        ]);
        let kind = "x/io.istio.http.peer_metadata.Config".to_owned();
        let mut written = TypedStruct { type_url: kind, value: None };
        let mut value = Vec::new();
        prost::encoding::message::encode(2, &config, &mut value);
        written.merge(value.as_slice()).unwrap();
        let expected = PeerExchange {
            downstream: PeerHeaders { discover: true, propagate: true },
            upstream: PeerHeaders::default(),
        };
        assert_eq!(headers(&any("udpa.type.v1.TypedStruct", &written)).unwrap(), expected);
        let discovery = |specifier| DiscoveryMethod { method_specifier: Some(specifier) };
        let native = Config {
            downstream_discovery: vec![discovery(discovery_method::MethodSpecifier::IstioHeaders(
                IstioHeaders::default(),
            ))],
            upstream_discovery: vec![discovery(discovery_method::MethodSpecifier::WorkloadDiscovery(
                WorkloadDiscovery {},
            ))],
            downstream_propagation: vec![PropagationMethod {
                method_specifier: Some(propagation_method::MethodSpecifier::IstioHeaders(IstioHeaders::default())),
            }],
            ..Config::default()
        };
        assert_eq!(headers(&any("io.istio.http.peer_metadata.Config", &native)).unwrap(), expected);
        let broken = Any { type_url: "x/udpa.type.v1.TypedStruct".to_owned(), value: vec![0xff] };
        assert!(headers(&broken).is_err() && protocol(&broken).is_err());
    }
}
