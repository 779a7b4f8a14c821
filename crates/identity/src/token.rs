//! Service-account tokens: signed by the local runner or by a cluster, checked by the control plane.
//!
//! A token is a JWT whose subject is `system:serviceaccount:NAMESPACE:NAME`. The signature algorithm is fixed by the
//! issuer's key, never taken from the token.

use std::path::Path;
use std::time::{Duration, SystemTime};

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use mizzen_types::{SpiffeId, TrustDomain};
use rcgen::KeyPair;
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use x509_parser::prelude::{FromDer, SubjectPublicKeyInfo};
use x509_parser::public_key::PublicKey;

use crate::files::{self, PrivateFileError};

/// Whom a token is meant for, as Istio's agents ask for it.
pub const AUDIENCE: &str = "istio-ca";
/// The issuer that the local runner signs as.
pub const LOCAL_ISSUER: &str = "mizzen-local";
/// A larger token is not looked at.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;
/// How far clocks may differ.
const LEEWAY: Duration = Duration::from_secs(10);

/// Why a key or token cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error(transparent)]
    Private(#[from] PrivateFileError),
    #[error(
        "the issuer's key cannot be used: {0}; it has to be an ECDSA P-256 or RSA key of at least 2048 bits in PEM form"
    )]
    Key(String),
    #[error("the issuer's key cannot be written: {0}")]
    Write(#[from] std::io::Error),
    #[error("the token cannot be signed: {0}")]
    Sign(String),
    #[error("no issuer is trusted; give the control plane its public key")]
    NoIssuer,
    #[error("the token is not accepted: {0}")]
    Refused(String),
    #[error("the token's subject {0:?} is not a service account (system:serviceaccount:NAMESPACE:NAME)")]
    Subject(String),
}

#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: Audience,
    exp: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    iat: Option<u64>,
}

/// One audience or several: JWT allows both forms.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

/// Signs tokens (the local runner's part).
pub struct Issuer {
    name: String,
    key: EncodingKey,
    private_pem: String,
    public_pem: String,
}

impl Issuer {
    /// An issuer with a new key.
    pub fn generate(name: &str) -> Result<Self, TokenError> {
        Self::of(name, KeyPair::generate().map_err(|error| TokenError::Key(error.to_string()))?)
    }

    /// Reads the key from `key_file`, or makes one and writes it there for its owner alone.
    pub fn open(name: &str, key_file: &Path) -> Result<Self, TokenError> {
        if !key_file.exists() {
            let issuer = Self::generate(name)?;
            files::private_dir(key_file.parent().unwrap_or_else(|| Path::new(".")))?;
            files::write_atomic(key_file, issuer.private_pem.as_bytes(), 0o600)?;
            return Ok(issuer);
        }
        let pem = files::read_private(key_file)?;
        let key =
            KeyPair::from_pem(&String::from_utf8_lossy(&pem)).map_err(|error| TokenError::Key(error.to_string()))?;
        Self::of(name, key)
    }

    fn of(name: &str, pair: KeyPair) -> Result<Self, TokenError> {
        if pair.algorithm() != &rcgen::PKCS_ECDSA_P256_SHA256 {
            return Err(TokenError::Key("it is not an ECDSA P-256 key".to_owned()));
        }
        let private_pem = pair.serialize_pem();
        let key =
            EncodingKey::from_ec_pem(private_pem.as_bytes()).map_err(|error| TokenError::Key(error.to_string()))?;
        Ok(Self { name: name.to_owned(), key, private_pem, public_pem: pair.public_key_pem() })
    }

    /// The public key that the control plane is given.
    pub fn public_key_pem(&self) -> &str {
        &self.public_pem
    }

    /// A token for a service account.
    pub fn mint(
        &self,
        namespace: &str,
        service_account: &str,
        ttl: Duration,
        now: SystemTime,
    ) -> Result<String, TokenError> {
        let at = seconds(now);
        let claims = Claims {
            iss: self.name.clone(),
            sub: format!("system:serviceaccount:{namespace}:{service_account}"),
            aud: Audience::Many(vec![AUDIENCE.to_owned()]),
            exp: at + ttl.as_secs(),
            iat: Some(at),
        };
        jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &self.key)
            .map_err(|error| TokenError::Sign(error.to_string()))
    }
}

impl std::fmt::Debug for Issuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issuer").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A service account that a valid token named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceAccount {
    pub namespace: String,
    pub name: String,
}

impl ServiceAccount {
    /// Reads the user name that Kubernetes gives to service accounts, `system:serviceaccount:NAMESPACE:NAME`.
    pub fn of_user(name: &str) -> Option<Self> {
        let (namespace, name) = name.strip_prefix("system:serviceaccount:")?.split_once(':')?;
        let named = is_name(namespace) && is_name(name);
        named.then(|| Self { namespace: namespace.to_owned(), name: name.to_owned() })
    }

    pub fn identity(&self, trust_domain: &TrustDomain) -> SpiffeId {
        SpiffeId::new(trust_domain.clone(), &self.namespace, &self.name)
    }
}

/// Checks tokens against the issuers that are trusted.
#[derive(Default)]
pub struct Verifier {
    issuers: Vec<TrustedIssuer>,
}

struct TrustedIssuer {
    /// `None`: any issuer name, as long as the key is right.
    name: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

impl Verifier {
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusts an issuer by its public key; with a name, only tokens that carry it.
    pub fn trust(&mut self, name: Option<&str>, public_key_pem: &[u8]) -> Result<(), TokenError> {
        let bad = |error: &dyn std::fmt::Display| TokenError::Key(error.to_string());
        let der = SubjectPublicKeyInfoDer::from_pem_slice(public_key_pem).map_err(|error| bad(&error))?;
        let (_, info) = SubjectPublicKeyInfo::from_der(&der).map_err(|error| bad(&error))?;
        let (algorithm, key) = match info.parsed().map_err(|error| bad(&error))? {
            PublicKey::EC(point) if point.key_size() == 256 => {
                (Algorithm::ES256, DecodingKey::from_ec_pem(public_key_pem))
            }
            PublicKey::RSA(rsa) if rsa.key_size() >= 2048 => {
                (Algorithm::RS256, DecodingKey::from_rsa_pem(public_key_pem))
            }
            _ => return Err(TokenError::Key("it is of another type or too small".to_owned())),
        };
        let key = key.map_err(|error| bad(&error))?;
        self.issuers.push(TrustedIssuer { name: name.map(str::to_owned), algorithm, key });
        Ok(())
    }

    pub fn is_empty(&self) -> bool {
        self.issuers.is_empty()
    }

    /// The service account that `token` proves. Signature, issuer, audience and expiry have to be right.
    pub fn verify(&self, token: &str) -> Result<ServiceAccount, TokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::Refused(format!("it is longer than {MAX_TOKEN_BYTES} bytes")));
        }
        let mut refusal = TokenError::NoIssuer;
        for issuer in &self.issuers {
            match issuer.verify(token) {
                Ok(account) => return Ok(account),
                Err(error) => refusal = error,
            }
        }
        Err(refusal)
    }
}

impl TrustedIssuer {
    fn verify(&self, token: &str) -> Result<ServiceAccount, TokenError> {
        let mut rules = Validation::new(self.algorithm);
        rules.leeway = LEEWAY.as_secs();
        rules.validate_nbf = true;
        rules.set_audience(&[AUDIENCE]);
        rules.set_required_spec_claims(&["exp", "aud", "sub", "iss"]);
        if let Some(name) = &self.name {
            rules.set_issuer(&[name]);
        }
        let claims = jsonwebtoken::decode::<Claims>(token, &self.key, &rules)
            .map_err(|error| TokenError::Refused(error.to_string()))?
            .claims;
        ServiceAccount::of_user(&claims.sub).ok_or(TokenError::Subject(claims.sub))
    }
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier").field("issuers", &self.issuers.len()).finish()
    }
}

/// A name as Kubernetes allows it for namespaces and service accounts: no slash, no second colon, nothing that could
/// shift the parts of a SPIFFE identity.
fn is_name(name: &str) -> bool {
    (1..=253).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.'))
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests;
