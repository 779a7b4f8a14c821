//! What is discovered: the resource types with their order, and one encoded resource.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

/// The types served over ADS, in the order in which they are sent: what is pointed at comes before what points at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ResourceType {
    Cluster,
    Endpoint,
    Listener,
    Route,
    Secret,
    /// The names that a proxy's own name server answers; one resource.
    NameTable,
}

impl ResourceType {
    /// All types, in sending order.
    pub const ALL: [Self; 6] =
        [Self::Cluster, Self::Endpoint, Self::Listener, Self::Route, Self::Secret, Self::NameTable];

    pub const fn type_url(self) -> &'static str {
        match self {
            Self::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::Endpoint => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Self::Route => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            Self::Secret => "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
            Self::NameTable => "type.googleapis.com/istio.networking.nds.v1.NameTable",
        }
    }

    pub fn from_type_url(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.type_url() == url)
    }

    /// `cds`, `eds` … as in metric labels.
    pub const fn short_name(self) -> &'static str {
        match self {
            Self::Cluster => "cds",
            Self::Endpoint => "eds",
            Self::Listener => "lds",
            Self::Route => "rds",
            Self::Secret => "sds",
            Self::NameTable => "nds",
        }
    }

    /// Whether a first request without names means everything (semantics of LDS and CDS, and of the table of names).
    pub const fn is_wildcard(self) -> bool {
        matches!(self, Self::Cluster | Self::Listener | Self::NameTable)
    }

    pub(crate) const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for ResourceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.short_name())
    }
}

/// One encoded resource: made once, shared by every stream that is sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    pub name: Arc<str>,
    /// Hash of name and body: equal versions mean equal bytes, also after a restart of the control plane.
    pub version: u64,
    /// The `value` of the `Any`: the encoded Envoy message.
    pub body: Bytes,
}

impl Resource {
    pub fn new(name: impl Into<Arc<str>>, body: impl Into<Bytes>) -> Self {
        let (name, body) = (name.into(), body.into());
        let seed = xxhash_rust::xxh64::xxh64(name.as_bytes(), 0);
        // Zero is kept for "unknown version".
        let version = xxhash_rust::xxh64::xxh64(&body, seed).max(1);
        Self { name, version, body }
    }
}

/// The wire form of a version: 16 hexadecimal digits.
pub fn version_text(version: u64) -> String {
    format!("{version:016x}")
}

/// Reads what [`version_text`] wrote; anything else (another control plane's version) is zero: "unknown".
pub fn parse_version(text: &str) -> u64 {
    if text.len() == 16 { u64::from_str_radix(text, 16).unwrap_or(0) } else { 0 }
}
