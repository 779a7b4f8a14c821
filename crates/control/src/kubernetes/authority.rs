//! The certificate authority as Secrets of the root namespace hold it.
//!
//! `cacerts` is an authority that somebody has plugged in, and goes first. Without it, `istio-ca-secret` holds one that the
//! control plane has made. Both are followed: a new one is taken over while the process runs, a broken one is reported and
//! the last good one stays in force.

use std::path::PathBuf;
use std::pin::pin;
use std::time::{Duration, SystemTime};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::runtime::watcher;
use mizzen_identity::ca::{AuthorityError, ROOT_TTL};
use mizzen_identity::{Authority, AuthorityPem};
use mizzen_types::TrustDomain;
use tokio::time::MissedTickBehavior;
use tokio_stream::StreamExt;

use super::Place;
use super::leader::Leading;
use super::objects::{Patience, WriteError, follow, in_time};
use crate::engine::Shared;

/// The authority that somebody has plugged in.
const PLUG_IN: &str = "cacerts";
/// The authority that the control plane has made.
const SELF_SIGNED: &str = "istio-ca-secret";
/// The type of the latter, as Istio marks it.
const SELF_SIGNED_TYPE: &str = "istio.io/ca-root";
/// How long after a failure the Secrets are read again.
const RETRY: Duration = Duration::from_secs(5);

/// When the authority of our own making is renewed.
#[derive(Debug, Clone, Copy)]
pub struct Rotation {
    /// For how long a new root is good.
    pub ttl: Duration,
    /// How often it is looked.
    pub check: Duration,
    /// A root is renewed when this share of its time is left, in percent.
    pub grace_percent: u8,
}

impl Default for Rotation {
    /// Istio's: ten years, looked at hourly, renewed two years before the end.
    fn default() -> Self {
        Self { ttl: ROOT_TTL, check: Duration::from_secs(3600), grace_percent: 20 }
    }
}

impl Rotation {
    fn is_due(&self, pem: &AuthorityPem, now: SystemTime) -> bool {
        let Some((begin, end)) = pem.self_signed_validity() else { return false };
        let whole = end.duration_since(begin).unwrap_or_default();
        let left = end.duration_since(now).unwrap_or_default();
        left <= whole.mul_f64(f64::from(self.grace_percent.min(100)) / 100.0)
    }
}

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    #[error("the Secret {0} cannot be read or made: {1}")]
    Api(String, WriteError),
    #[error("the Secret {secret} has no {key}; put it in, or delete the Secret")]
    Missing { secret: String, key: &'static str },
    #[error("Secret {0}")]
    Authority(#[from] AuthorityError),
}

/// An authority as it was read.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) authority: Authority,
    pub(crate) held: Held,
}

/// What stands in the Secret in force.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Held {
    secret: &'static str,
    pem: AuthorityPem,
}

/// The Secrets with the authority.
#[derive(Debug, Clone)]
pub(crate) struct CaSecrets {
    api: Api<Secret>,
    namespace: String,
    trust_domain: TrustDomain,
    rotation: Rotation,
}

impl CaSecrets {
    pub(crate) fn new(place: &Place, trust_domain: TrustDomain, rotation: Rotation) -> Self {
        let api = Api::namespaced(place.client.clone(), &place.namespace);
        Self { api, namespace: place.namespace.clone(), trust_domain, rotation }
    }

    /// Reads the authority; makes one when there is none. Of several replicas that make one at once, the first one's
    /// counts and the others take it.
    pub(crate) async fn open(&self) -> Result<Loaded, CaError> {
        if let Some(held) = self.read().await? {
            return self.load(held);
        }
        let pem = AuthorityPem::self_signed_for(&self.trust_domain, SystemTime::now(), self.rotation.ttl)?;
        match in_time(self.api.create(&PostParams::default(), &self_signed(&pem))).await {
            Ok(_) => {
                tracing::info!(secret = self.path(SELF_SIGNED), "a certificate authority is made");
                self.load(Held { secret: SELF_SIGNED, pem })
            }
            Err(WriteError::Api(_, 409)) => match self.read().await? {
                Some(held) => self.load(held),
                None => Err(CaError::Missing { secret: self.path(SELF_SIGNED), key: "ca-cert.pem" }),
            },
            Err(error) => Err(CaError::Api(self.path(SELF_SIGNED), error)),
        }
    }

    /// Opens it as soon as the API server answers.
    pub(crate) async fn open_patiently(&self, shared: &Shared) -> Result<Loaded, CaError> {
        let mut patience = Patience::new(shared, "the certificate authority cannot be opened".to_owned());
        loop {
            match self.open().await {
                Err(error @ CaError::Api(..)) => patience.wait(&error).await,
                other => {
                    patience.over();
                    return other;
                }
            }
        }
    }

    async fn get(&self, name: &'static str) -> Result<Option<Secret>, CaError> {
        in_time(self.api.get_opt(name)).await.map_err(|error| CaError::Api(self.path(name), error))
    }

    async fn read(&self) -> Result<Option<Held>, CaError> {
        for name in [PLUG_IN, SELF_SIGNED] {
            if let Some(secret) = self.get(name).await? {
                let pem = read(&secret).map_err(|key| CaError::Missing { secret: self.path(name), key })?;
                return Ok(Some(Held { secret: name, pem }));
            }
        }
        Ok(None)
    }

    fn load(&self, held: Held) -> Result<Loaded, CaError> {
        let place = PathBuf::from(self.path(held.secret));
        let authority = Authority::from_pem(&held.pem, &place, self.trust_domain.clone(), SystemTime::now())?;
        Ok(Loaded { authority, held })
    }

    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.namespace)
    }

    /// Hands over every new authority, for ever.
    pub(crate) async fn follow(&self, mut held: Held, leading: &Leading, take: impl Fn(Authority)) {
        let one = |name: &str| {
            let events = follow(self.api.clone(), watcher::Config::default().fields(&format!("metadata.name={name}")));
            events.map(drop)
        };
        let mut events = pin!(one(PLUG_IN).merge(one(SELF_SIGNED)));
        let mut check = tokio::time::interval(self.rotation.check.max(Duration::from_secs(1)));
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = events.next() => if event.is_none() {
                    return;
                },
                _ = check.tick() => {
                    if leading.now()
                        && let Err(error) = self.rotate(&held).await
                    {
                        tracing::error!(%error, "the certificate authority's root is not renewed; trying again");
                    }
                    continue;
                }
            }
            while let Err(error) = self.refresh(&mut held, leading, &take).await {
                tracing::error!(%error, "the certificate authority is not replaced; the last good one stays in force");
                // What is wrong with the Secret itself ends by a change, which is an event.
                if !matches!(error, CaError::Api(..)) {
                    break;
                }
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    /// Renews the root of our own making when its end is near. The Secret comes back as an event, here and in all replicas.
    async fn rotate(&self, held: &Held) -> Result<(), CaError> {
        let now = SystemTime::now();
        if held.secret != SELF_SIGNED || !self.rotation.is_due(&held.pem, now) {
            return Ok(());
        }
        // What stands there may be newer than what is held.
        let Some(mut secret) = self.get(SELF_SIGNED).await? else { return Ok(()) };
        let pem = read(&secret).map_err(|key| CaError::Missing { secret: self.path(SELF_SIGNED), key })?;
        if !self.rotation.is_due(&pem, now) {
            return Ok(());
        }
        let renewed = pem.renewed(now, self.rotation.ttl)?;
        secret.data.get_or_insert_default().extend(entries(&renewed));
        // Fails when somebody else was faster.
        match in_time(self.api.replace(SELF_SIGNED, &PostParams::default(), &secret)).await {
            Ok(_) => {
                tracing::warn!(
                    secret = self.path(SELF_SIGNED),
                    "the root of the certificate authority was near its end and is renewed; old and new are trusted"
                );
                Ok(())
            }
            Err(WriteError::Api(_, 409)) => Ok(()),
            Err(error) => Err(CaError::Api(self.path(SELF_SIGNED), error)),
        }
    }

    /// Looks at the Secrets as they are now.
    async fn refresh(&self, held: &mut Held, leading: &Leading, take: &impl Fn(Authority)) -> Result<(), CaError> {
        match self.read().await? {
            Some(now) if now == *held => {}
            Some(now) if held.secret == PLUG_IN && now.secret == SELF_SIGNED => {
                // Workloads would stop trusting each other at once. A restart is the moment for it.
                tracing::warn!(
                    "Secret {} is gone; its authority stays in force until the control plane is restarted",
                    self.path(PLUG_IN)
                );
            }
            Some(now) => {
                let loaded = self.load(now)?;
                tracing::info!(secret = self.path(loaded.held.secret), "the certificate authority is replaced");
                take(loaded.authority);
                *held = loaded.held;
            }
            // It would be lost with the last process that has it.
            None if held.secret == SELF_SIGNED && leading.now() => {
                match in_time(self.api.create(&PostParams::default(), &self_signed(&held.pem))).await {
                    Ok(_) => tracing::warn!("Secret {} was gone; it is written again", self.path(SELF_SIGNED)),
                    // The other's Secret comes as an event.
                    Err(WriteError::Api(_, 409)) => {}
                    Err(error) => return Err(CaError::Api(self.path(SELF_SIGNED), error)),
                }
            }
            None => {
                tracing::warn!(
                    "Secret {} is gone; its authority stays in force until the control plane is restarted",
                    self.path(held.secret)
                );
            }
        }
        Ok(())
    }
}

/// The authority in a Secret: under Istio's names, or under those of a TLS Secret. The name of what is missing else.
fn read(secret: &Secret) -> Result<AuthorityPem, &'static str> {
    let of = |name: &str| {
        let value = secret.data.as_ref().and_then(|data| data.get(name)).map(|ByteString(value)| value.clone());
        value.filter(|value| !value.trim_ascii().is_empty())
    };
    if let (Some(certificate), Some(key), Some(roots)) = (of("tls.crt"), of("tls.key"), of("ca.crt")) {
        // The first file holds the signer and, after it, the others of its chain.
        return Ok(AuthorityPem { chain: Some(certificate.clone()), certificate, key, roots });
    }
    let certificate = of("ca-cert.pem").ok_or("ca-cert.pem")?;
    let key = of("ca-key.pem").ok_or("ca-key.pem")?;
    // Istio's own Secret leaves these empty: there the signer is the root.
    let roots = of("root-cert.pem").unwrap_or_else(|| certificate.clone());
    Ok(AuthorityPem { chain: of("cert-chain.pem"), certificate, key, roots })
}

/// An authority of our own making, as its Secret holds it.
fn entries(pem: &AuthorityPem) -> [(String, ByteString); 3] {
    [("ca-cert.pem", &pem.certificate), ("ca-key.pem", &pem.key), ("root-cert.pem", &pem.roots)]
        .map(|(name, value)| (name.to_owned(), ByteString(value.clone())))
}

/// The Secret that holds one.
fn self_signed(pem: &AuthorityPem) -> Secret {
    Secret {
        metadata: ObjectMeta { name: Some(SELF_SIGNED.to_owned()), ..ObjectMeta::default() },
        type_: Some(SELF_SIGNED_TYPE.to_owned()),
        data: Some(entries(pem).into()),
        ..Secret::default()
    }
}

#[cfg(test)]
mod tests;
