//! Who calls the control plane: a workload with a service-account token, or with a certificate of this mesh.
//!
//! A token is checked with the issuers' keys that are known here, and else by a [`Reviewer`]: in a cluster, by its API
//! server.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use mizzen_types::{SpiffeId, TrustDomain};
use tonic::Status;
use tonic::metadata::MetadataMap;

use crate::certificate::Peer;
use crate::token::{MAX_TOKEN_BYTES, ServiceAccount, Verifier};

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

/// Someone else who can tell whose token it is.
pub trait Reviewer: fmt::Debug + Send + Sync {
    fn review<'a>(&'a self, token: &'a str) -> Review<'a>;
}

/// The answer of a [`Reviewer`], when it has come.
pub type Review<'a> = Pin<Box<dyn Future<Output = Result<ServiceAccount, ReviewError>> + Send + 'a>>;

/// Why a token proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReviewError {
    #[error("the token is not accepted: {0}")]
    Refused(String),
    /// Nothing is known of the token: the caller may come again with the same one.
    #[error("the token cannot be checked at the moment: {0}")]
    Unavailable(String),
}

impl From<ReviewError> for Status {
    fn from(error: ReviewError) -> Self {
        match error {
            ReviewError::Refused(_) => Self::unauthenticated(error.to_string()),
            ReviewError::Unavailable(_) => Self::unavailable(error.to_string()),
        }
    }
}

/// Answers "who is this?" for a call on the control plane's secure port.
#[derive(Debug, Clone)]
pub struct Authenticator {
    verifier: Arc<Verifier>,
    reviewer: Option<Arc<dyn Reviewer>>,
    trust_domain: TrustDomain,
}

/// Whose connection it is; put into each request's extensions by [`crate::incoming::TlsConnection`].
#[derive(Debug, Clone)]
pub struct VerifiedPeer {
    /// The verified client certificate, if it showed one.
    pub peer: Option<Arc<Peer>>,
    pub address: SocketAddr,
}

/// Where a call on the secure port comes from, for logs of what is refused; empty on other ports.
pub fn address(extensions: &tonic::Extensions) -> String {
    extensions.get::<VerifiedPeer>().map(|peer| peer.address.to_string()).unwrap_or_default()
}

impl Authenticator {
    pub fn new(verifier: Verifier, trust_domain: TrustDomain) -> Self {
        Self { verifier: Arc::new(verifier), reviewer: None, trust_domain }
    }

    /// Asks `reviewer` about tokens that no known key proves.
    pub fn with_reviewer(mut self, reviewer: Arc<dyn Reviewer>) -> Self {
        self.reviewer = Some(reviewer);
        self
    }

    /// A bearer token decides when there is one; otherwise the connection's client certificate does. A bad token is
    /// never made good by a certificate.
    pub async fn authenticate(&self, metadata: &MetadataMap, extensions: &tonic::Extensions) -> Result<Caller, Status> {
        if let Some(header) = metadata.get("authorization") {
            let token = header
                .to_str()
                .ok()
                .and_then(|value| value.split_once(' '))
                .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
                .map(|(_, token)| token.trim())
                .ok_or_else(|| Status::unauthenticated("the authorization header is not \"Bearer TOKEN\""))?;
            let account = self.account(token).await?;
            return Ok(Caller { id: account.identity(&self.trust_domain), by: Proof::Token });
        }
        let peer = extensions.get::<VerifiedPeer>().and_then(|peer| peer.peer.as_ref());
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

    async fn account(&self, token: &str) -> Result<ServiceAccount, Status> {
        match (self.verifier.verify(token), &self.reviewer) {
            (Ok(account), _) => Ok(account),
            (Err(_), Some(reviewer)) if token.len() <= MAX_TOKEN_BYTES => Ok(reviewer.review(token).await?),
            (Err(error), _) => Err(Status::unauthenticated(error.to_string())),
        }
    }
}
