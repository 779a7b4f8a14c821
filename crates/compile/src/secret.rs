//! Secrets that come by SDS. Keys stay in memory and are not shown.

use std::fmt;

use mizzen_proto::envoy::extensions::transport_sockets::tls::v3::{Secret as Wire, secret::Type};
use mizzen_snapshot::tls::{CertificateSource, Validation};

use crate::invalid::{At, Invalid, Result};
use crate::tls;

/// A secret by its kind.
#[derive(Clone)]
pub enum Secret {
    Certificate(CertificateSource),
    Validation(Validation),
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate(_) => f.write_str("Certificate(…)"),
            Self::Validation(validation) => f.debug_tuple("Validation").field(validation).finish(),
        }
    }
}

pub(crate) fn compile(wire: &Wire) -> Result<Secret> {
    match &wire.r#type {
        Some(Type::TlsCertificate(certificate)) => {
            tls::certificate(certificate).at("tls_certificate").map(Secret::Certificate)
        }
        Some(Type::ValidationContext(context)) => {
            tls::validation_context(context).at("validation_context").map(Secret::Validation)
        }
        Some(Type::SessionTicketKeys(_)) => Err(Invalid::not_obeyed("session_ticket_keys")),
        Some(Type::GenericSecret(_)) => Err(Invalid::not_obeyed("generic_secret")),
        None => Err(Invalid::new("the secret is empty")),
    }
}
