//! Who a workload is, and how it proves that.
//!
//! The control plane uses [`ca::Authority`], [`token::Verifier`], [`caller::Authenticator`] and
//! [`service::SigningService`]; a proxy uses [`client::WorkloadIdentity`] to hold a fresh certificate, [`secrets::Secrets`]
//! to keep it with the others it was given, and [`tls`] to turn a snapshot's TLS settings into working configurations
//! that follow every rotation. [`sds`] hands the same certificate to a stock Envoy.
//!
//! Not here: sockets of the data path (`mizzen-proxy`) and who may call whom (authorization policies).

#![forbid(unsafe_code)]

pub mod ca;
pub mod caller;
pub mod certificate;
pub mod client;
pub mod connect;
mod files;
pub mod incoming;
pub mod sds;
pub mod secrets;
pub mod service;
pub mod tls;
pub mod token;

pub use ca::{Authority, AuthorityPem, SharedAuthority};
pub use caller::{Authenticator, Caller, Reviewer};
pub use certificate::{Certificate, CertificateError, Identity, Peer, TrustRoots};
pub use client::WorkloadIdentity;
pub use secrets::Secrets;
