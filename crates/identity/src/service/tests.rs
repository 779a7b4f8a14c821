use std::sync::Arc;

use mizzen_types::TrustDomain;

use super::*;
use crate::ca::Authority;
use crate::token::{Issuer, LOCAL_ISSUER, Verifier};

#[tokio::test]
async fn nobody_is_signed_for_in_another_name() {
    let now = SystemTime::now();
    let issuer = Issuer::generate(LOCAL_ISSUER).unwrap();
    let mut verifier = Verifier::new();
    verifier.trust(None, issuer.public_key_pem().as_bytes()).unwrap();
    let authority = Arc::new(Authority::in_memory(TrustDomain::default(), now).unwrap());
    let service = SigningService::new(authority, Authenticator::new(verifier, TrustDomain::default()));

    let token = issuer.mint("default", "ztunnel", Duration::from_secs(60), now).unwrap();
    let mut request = Request::new(IstioCertificateRequest {
        metadata: Some(prost_types::Struct {
            fields: [("ImpersonatedIdentity".to_owned(), prost_types::Value::default())].into(),
        }),
        ..Default::default()
    });
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    assert_eq!(service.create_certificate(request).await.unwrap_err().code(), tonic::Code::PermissionDenied);

    let mut basic = Request::new(IstioCertificateRequest::default());
    basic.metadata_mut().insert("authorization", format!("Basic {token}").parse().unwrap());
    assert_eq!(service.create_certificate(basic).await.unwrap_err().code(), tonic::Code::Unauthenticated);
}
