//! The protobuf messages of the mesh: Envoy's and Google's come from `envoy-types`, the few of Istio's that no
//! published crate has are compiled from `proto/`.

pub use envoy_types::pb::*;
pub use prost;

/// Istio's certificate signing service (`istio.v1.auth`).
#[allow(clippy::all, missing_docs, unreachable_pub, unused_qualifications)]
pub mod istio_ca {
    tonic::include_proto!("istio.v1.auth");
}
