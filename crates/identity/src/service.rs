//! The certificate signing service, `istio.v1.auth.IstioCertificateService`.

use std::time::{Duration, SystemTime};

use mizzen_proto::istio_ca::istio_certificate_service_server::{
    IstioCertificateService, IstioCertificateServiceServer,
};
use mizzen_proto::istio_ca::{IstioCertificateRequest, IstioCertificateResponse};
use tonic::{Request, Response, Status};

use crate::ca::{MAX_CSR_BYTES, SharedAuthority, SignError};
use crate::caller::{Authenticator, address};

/// A request is a CSR and little else.
const MAX_MESSAGE_BYTES: usize = MAX_CSR_BYTES + 16 * 1024;

/// Signs for authenticated workloads.
#[derive(Debug, Clone)]
pub struct SigningService {
    authority: SharedAuthority,
    authenticator: Authenticator,
}

impl SigningService {
    pub fn new(authority: impl Into<SharedAuthority>, authenticator: Authenticator) -> Self {
        Self { authority: authority.into(), authenticator }
    }

    /// The service for a tonic server or router, with its limits set.
    pub fn into_server(self) -> IstioCertificateServiceServer<Self> {
        IstioCertificateServiceServer::new(self).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }
}

#[tonic::async_trait]
impl IstioCertificateService for SigningService {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let address = address(request.extensions());
        let caller = self.authenticator.authenticate(request.metadata(), request.extensions()).await;
        let caller = caller.inspect_err(|refusal| {
            tracing::warn!(target: "mizzen::audit", address, reason = refusal.message(), "certificate refused");
        })?;
        let wish = request.into_inner();
        if wish.metadata.as_ref().is_some_and(|fields| fields.fields.contains_key("ImpersonatedIdentity")) {
            return Err(Status::permission_denied("signing for another identity is not supported"));
        }
        // Zero and less mean "no wish", as in Istio.
        let ttl = u64::try_from(wish.validity_duration).ok().filter(|seconds| *seconds > 0).map(Duration::from_secs);
        match self.authority.load().sign(&wish.csr, &caller.id, ttl, SystemTime::now()) {
            Ok(signed) => {
                let valid = signed.expires.duration_since(SystemTime::now()).unwrap_or_default().as_secs();
                tracing::info!(
                    target: "mizzen::audit",
                    identity = %caller.id, proof = caller.by.as_str(), serial = signed.serial, valid_seconds = valid,
                    "certificate signed"
                );
                Ok(Response::new(IstioCertificateResponse { cert_chain: signed.chain }))
            }
            Err(error) => {
                tracing::warn!(
                    target: "mizzen::audit",
                    address, identity = %caller.id, proof = caller.by.as_str(), reason = %error, "certificate refused"
                );
                Err(status(&error))
            }
        }
    }
}

fn status(error: &SignError) -> Status {
    let message = error.to_string();
    match error {
        SignError::TooLarge(_)
        | SignError::Malformed(_)
        | SignError::BadSignature
        | SignError::KeyType(_)
        | SignError::TtlTooLong { .. } => Status::invalid_argument(message),
        SignError::TrustDomain(..) => Status::permission_denied(message),
        SignError::SignerExpired => Status::unavailable(message),
        SignError::Failed(_) => Status::internal(message),
    }
}

#[cfg(test)]
mod tests;
