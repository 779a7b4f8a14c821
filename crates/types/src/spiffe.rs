//! Workload identities: `spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT`.

use std::fmt;
use std::sync::Arc;

/// The name before the first slash of a SPIFFE identity; `cluster.local` by default.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for TrustDomain {
    fn default() -> Self {
        Self::new("cluster.local")
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A workload's identity in Istio's form.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    pub trust_domain: TrustDomain,
    pub namespace: Arc<str>,
    pub service_account: Arc<str>,
}

impl SpiffeId {
    pub fn new(trust_domain: TrustDomain, namespace: &str, service_account: &str) -> Self {
        Self { trust_domain, namespace: namespace.into(), service_account: service_account.into() }
    }

    /// Reads `spiffe://td/ns/NS/sa/SA`; anything else, an embedded NUL or an empty part included, is `None`.
    pub fn parse(uri: &str) -> Option<Self> {
        let mut parts = uri.strip_prefix("spiffe://")?.split('/');
        let (td, ns_word, ns, sa_word, sa) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let well_formed = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_graphic());
        let whole = parts.next().is_none() && ns_word == "ns" && sa_word == "sa";
        (whole && [td, ns, sa].into_iter().all(well_formed)).then(|| Self::new(TrustDomain::new(td), ns, sa))
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/ns/{}/sa/{}", self.trust_domain, self.namespace, self.service_account)
    }
}
