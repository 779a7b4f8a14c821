//! The protobuf messages of the mesh: Envoy's and Google's come from `envoy-types`, the few of Istio's that no
//! published crate has are compiled from `proto/`.
//!
//! [`json`] reads and writes them in protobuf's JSON form, which is also what Envoy's YAML files are.

#![forbid(unsafe_code)]

pub mod json;
pub mod type_url;

pub use envoy_types::pb::*;
pub use prost;

/// Istio's certificate signing service (`istio.v1.auth`).
#[allow(clippy::all, missing_docs, unreachable_pub, unused_qualifications)]
pub mod istio_ca {
    tonic::include_proto!("istio.v1.auth");
}

/// Istio's alpn filter (`istio.envoy.config.filter.http.alpn.v2alpha1`).
#[allow(clippy::all, missing_docs, unreachable_pub, unused_qualifications)]
pub mod istio_alpn {
    tonic::include_proto!("istio.envoy.config.filter.http.alpn.v2alpha1");
}

/// Istio's exchange of metadata on TCP (`envoy.tcp.metadataexchange.config`).
#[allow(clippy::all, missing_docs, unreachable_pub, unused_qualifications)]
pub mod istio_metadata_exchange {
    tonic::include_proto!("envoy.tcp.metadataexchange.config");
}

/// What a proxy's name server answers from (`istio.networking.nds.v1`).
#[allow(clippy::all, missing_docs, unreachable_pub, unused_qualifications)]
pub mod istio_nds {
    tonic::include_proto!("istio.networking.nds.v1");
}

/// Istio's exchange of metadata in HTTP headers (`io.istio.http.peer_metadata`).
#[allow(clippy::all, missing_docs, unreachable_pub, unused_qualifications)]
pub mod istio_peer_metadata {
    tonic::include_proto!("io.istio.http.peer_metadata");
}

/// Istio's stats filter (`stats`).
#[allow(clippy::all, missing_docs, unreachable_pub, unused_qualifications)]
pub mod istio_stats {
    tonic::include_proto!("stats");
}

/// `udpa.type.v1`, whose one message has the same fields as `xds.type.v3.TypedStruct`.
#[allow(clippy::all, missing_docs, unreachable_pub, unused_qualifications)]
pub mod typed_struct {
    tonic::include_proto!("udpa.r#type.v1");
}
