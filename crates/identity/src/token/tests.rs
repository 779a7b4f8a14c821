use std::os::unix::fs::PermissionsExt;

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn trusting(issuer: &Issuer) -> Verifier {
    let mut verifier = Verifier::new();
    verifier.trust(Some(LOCAL_ISSUER), issuer.public_key_pem().as_bytes()).unwrap();
    verifier
}

#[track_caller]
fn refused(verifier: &Verifier, token: &str, reason: &str) {
    let error = verifier.verify(token).expect_err("accepted").to_string();
    assert!(error.contains(reason), "{error:?} does not say {reason:?}");
}

fn token_with(issuer: &Issuer, edit: impl FnOnce(&mut Claims)) -> String {
    let now = seconds(SystemTime::now());
    let mut claims = Claims {
        iss: LOCAL_ISSUER.to_owned(),
        sub: "system:serviceaccount:default:bookinfo".to_owned(),
        aud: Audience::One(AUDIENCE.to_owned()),
        exp: now + 60,
        iat: None,
    };
    edit(&mut claims);
    jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &issuer.key).unwrap()
}

#[test]
fn a_minted_token_proves_its_service_account() {
    let issuer = Issuer::generate(LOCAL_ISSUER).unwrap();
    let token = issuer.mint("default", "bookinfo-reviews", HOUR, SystemTime::now()).unwrap();
    let account = trusting(&issuer).verify(&token).unwrap();
    assert_eq!(
        account.identity(&TrustDomain::default()).to_string(),
        "spiffe://cluster.local/ns/default/sa/bookinfo-reviews"
    );
}

#[test]
fn wrong_tokens_are_refused_with_the_reason() {
    let issuer = Issuer::generate(LOCAL_ISSUER).unwrap();
    let verifier = trusting(&issuer);
    verifier.verify(&token_with(&issuer, |_| ())).unwrap();

    let stranger = Issuer::generate(LOCAL_ISSUER).unwrap();
    refused(&verifier, &token_with(&stranger, |_| ()), "InvalidSignature");
    refused(&verifier, &token_with(&issuer, |claims| claims.exp = 1000), "ExpiredSignature");
    refused(&verifier, &token_with(&issuer, |claims| claims.iss = "other".to_owned()), "InvalidIssuer");
    refused(&verifier, &token_with(&issuer, |claims| claims.aud = Audience::One("api".to_owned())), "InvalidAudience");
    for subject in [
        "bookinfo",
        "system:serviceaccount:default",
        "system:serviceaccount::x",
        "system:serviceaccount:default:a/b",
        "system:serviceaccount:default:a:b",
        "system:serviceaccount:de fault:a",
        "system:serviceaccount:default:a\0",
    ] {
        refused(&verifier, &token_with(&issuer, |claims| claims.sub = subject.to_owned()), "not a service account");
    }
    for garbage in ["", "a.b.c", "....", &"a".repeat(MAX_TOKEN_BYTES + 1)] {
        verifier.verify(garbage).unwrap_err();
    }
    refused(&Verifier::new(), &token_with(&issuer, |_| ()), "no issuer");
}

/// The key says which algorithm: a token may not choose another, least of all one that takes the public key for a
/// shared secret.
#[test]
fn the_algorithm_is_that_of_the_key() {
    let issuer = Issuer::generate(LOCAL_ISSUER).unwrap();
    let claims = serde_json_claims();
    let forged = jsonwebtoken::encode(
        &Header::new(Algorithm::HS256),
        &claims,
        &EncodingKey::from_secret(issuer.public_key_pem().as_bytes()),
    )
    .unwrap();
    refused(&trusting(&issuer), &forged, "InvalidAlgorithm");
}

fn serde_json_claims() -> Claims {
    Claims {
        iss: LOCAL_ISSUER.to_owned(),
        sub: "system:serviceaccount:default:bookinfo".to_owned(),
        aud: Audience::One(AUDIENCE.to_owned()),
        exp: seconds(SystemTime::now()) + 60,
        iat: None,
    }
}

#[test]
fn a_token_without_expiry_is_refused() {
    #[derive(Serialize)]
    struct Endless {
        iss: &'static str,
        sub: &'static str,
        aud: &'static str,
    }
    let issuer = Issuer::generate(LOCAL_ISSUER).unwrap();
    let claims = Endless { iss: LOCAL_ISSUER, sub: "system:serviceaccount:a:b", aud: AUDIENCE };
    let token = jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &issuer.key).unwrap();
    refused(&trusting(&issuer), &token, "exp");
}

#[test]
fn an_rsa_issuer_is_trusted_with_rs256() {
    let pair = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap();
    let mut verifier = Verifier::new();
    verifier.trust(None, pair.public_key_pem().as_bytes()).unwrap();
    let key = EncodingKey::from_rsa_pem(pair.serialize_pem().as_bytes()).unwrap();
    let token = jsonwebtoken::encode(&Header::new(Algorithm::RS256), &serde_json_claims(), &key).unwrap();
    assert_eq!(verifier.verify(&token).unwrap().name, "bookinfo");
}

#[test]
fn the_issuers_key_is_kept_for_its_owner_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys").join("issuer.key");
    let first = Issuer::open(LOCAL_ISSUER, &path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(Issuer::open(LOCAL_ISSUER, &path).unwrap().public_key_pem(), first.public_key_pem());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let error = Issuer::open(LOCAL_ISSUER, &path).unwrap_err().to_string();
    assert!(error.contains("0644") && error.contains("chmod 600"), "{error}");
}
