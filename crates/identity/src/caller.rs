//! Who calls the control plane: a workload with a service-account token, or with a certificate of this mesh.

use std::sync::Arc;

use mizzen_types::{SpiffeId, TrustDomain};
use tonic::Status;
use tonic::metadata::MetadataMap;

use crate::certificate::Peer;
use crate::token::Verifier;

/// An authenticated caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub id: SpiffeId,
    pub by: Proof,
}

/// What an identity was proved with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    Token,
    Certificate,
}

impl Proof {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Certificate => "certificate",
        }
    }
}

/// Answers "who is this?" for a call on the control plane's secure port.
#[derive(Debug, Clone)]
pub struct Authenticator {
    verifier: Arc<Verifier>,
    trust_domain: TrustDomain,
}

/// The verified client certificate of a connection; put into each request's extensions by
/// [`crate::incoming::TlsConnection`].
#[derive(Debug, Clone, Default)]
pub struct VerifiedPeer(pub Option<Arc<Peer>>);

impl Authenticator {
    pub fn new(verifier: Verifier, trust_domain: TrustDomain) -> Self {
        Self { verifier: Arc::new(verifier), trust_domain }
    }

    /// A bearer token decides when there is one; otherwise the connection's client certificate does. A bad token is
    /// never made good by a certificate.
    pub fn authenticate(&self, metadata: &MetadataMap, extensions: &tonic::Extensions) -> Result<Caller, Status> {
        if let Some(header) = metadata.get("authorization") {
            let token = header
                .to_str()
                .ok()
                .and_then(|value| value.split_once(' '))
                .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
                .map(|(_, token)| token.trim())
                .ok_or_else(|| Status::unauthenticated("the authorization header is not \"Bearer TOKEN\""))?;
            let account = self.verifier.verify(token).map_err(|error| Status::unauthenticated(error.to_string()))?;
            return Ok(Caller { id: account.identity(&self.trust_domain), by: Proof::Token });
        }
        let peer = extensions.get::<VerifiedPeer>().and_then(|peer| peer.0.as_ref());
        match peer.and_then(|peer| peer.id.as_ref()) {
            Some(id) if id.trust_domain == self.trust_domain => Ok(Caller { id: id.clone(), by: Proof::Certificate }),
            Some(id) => {
                Err(Status::unauthenticated(format!("{id} is not in this mesh's trust domain {}", self.trust_domain)))
            }
            None => Err(Status::unauthenticated(
                "neither a bearer token nor a client certificate of this mesh was presented",
            )),
        }
    }
}
