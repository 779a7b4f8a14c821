//! The label sets of Istio's standard metrics.

use std::sync::Arc;

use super::{Key, Protocol};
use crate::prometheus;

/// What does not change from exchange to exchange between one source and one destination. Empty means unknown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels {
    pub reporter: Reporter,
    pub source: Arc<Party>,
    pub destination: Arc<Party>,
    /// Host of the service that was called: `reviews.default.svc.cluster.local`.
    pub destination_service: Arc<str>,
    /// Its short name: `reviews`.
    pub destination_service_name: Arc<str>,
    pub destination_service_namespace: Arc<str>,
    /// Whether the connection was mutual TLS; `None` at the source, where Istio does not say.
    pub mutual_tls: Option<bool>,
}

/// One end of the traffic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Party {
    pub workload: String,
    pub namespace: String,
    /// SPIFFE identity.
    pub principal: String,
    pub app: String,
    pub version: String,
    pub cluster: String,
    pub canonical_service: String,
    pub canonical_revision: String,
}

/// Which side of the traffic we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reporter {
    #[default]
    Source,
    Destination,
}

impl Reporter {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
        }
    }
}

impl Labels {
    /// The labels of everything beyond the limit.
    pub(super) fn overflow() -> Self {
        let word = || "overflow".to_owned();
        let party = Arc::new(Party {
            workload: word(),
            namespace: word(),
            principal: word(),
            app: word(),
            version: word(),
            cluster: word(),
            canonical_service: word(),
            canonical_revision: word(),
        });
        Self {
            reporter: Reporter::Source,
            source: Arc::clone(&party),
            destination: party,
            destination_service: "overflow".into(),
            destination_service_name: "overflow".into(),
            destination_service_namespace: "overflow".into(),
            mutual_tls: None,
        }
    }

    /// All labels as they stand between the braces of a sample.
    pub(super) fn render(&self, key: Key, flags: &str) -> String {
        let mut out = String::with_capacity(1024);
        let mut put = |name: &str, value: &str| {
            prometheus::label(&mut out, name, if value.is_empty() { "unknown" } else { value });
        };
        put("reporter", self.reporter.as_str());
        for (side, party) in [("source", &self.source), ("destination", &self.destination)] {
            put(&format!("{side}_workload"), &party.workload);
            put(&format!("{side}_canonical_service"), &party.canonical_service);
            put(&format!("{side}_canonical_revision"), &party.canonical_revision);
            put(&format!("{side}_workload_namespace"), &party.namespace);
            put(&format!("{side}_principal"), &party.principal);
            put(&format!("{side}_app"), &party.app);
            put(&format!("{side}_version"), &party.version);
            put(&format!("{side}_cluster"), &party.cluster);
        }
        put("destination_service", &self.destination_service);
        put("destination_service_name", &self.destination_service_name);
        put("destination_service_namespace", &self.destination_service_namespace);
        put(
            "request_protocol",
            match key.protocol {
                Protocol::Http => "http",
                Protocol::Grpc => "grpc",
                Protocol::Tcp => "tcp",
            },
        );
        if key.protocol != Protocol::Tcp {
            put("response_code", &key.status.to_string());
        }
        put("response_flags", flags);
        put(
            "connection_security_policy",
            match self.mutual_tls {
                Some(true) => "mutual_tls",
                Some(false) => "none",
                None => "unknown",
            },
        );
        if key.protocol != Protocol::Tcp {
            let status = key.grpc_status.map(|status| status.to_string()).unwrap_or_default();
            // Empty, not `unknown`, for what is not gRPC.
            prometheus::label(&mut out, "grpc_response_status", &status);
        }
        out
    }
}
