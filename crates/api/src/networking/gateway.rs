//! Gateway: what the workloads at the edge of the mesh listen for (reference: features 1.3).

use mizzen_types::Labels;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::wire::{self, schema};

/// Says which ports the workloads at the edge of the mesh open, for which hosts, and with which certificates.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Gateway {
    /// The ports that are opened.
    pub servers: Vec<Server>,
    /// Labels of gateway workloads in any namespace; empty selects all of them.
    #[serde(deserialize_with = "wire::labels")]
    #[schemars(with = "schema::StringMap")]
    pub selector: Labels,
}

/// One port that is opened.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["port", "hosts"]))]
pub struct Server {
    /// The port.
    pub port: Port,
    /// Address or unix path; empty means every address.
    pub bind: String,
    /// `dns` or `namespace/dns`.
    pub hosts: Vec<String>,
    /// TLS on this port.
    pub tls: Option<ServerTlsSettings>,
    /// Accepted and read by nobody, as in Istio.
    pub default_endpoint: String,
    /// Name of the server; shows in statistics.
    pub name: String,
}

/// A port and its protocol.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Port {
    /// Zero where it is not given; only a unix socket needs none.
    #[serde(deserialize_with = "wire::int")]
    pub number: u16,
    /// HTTP, HTTPS, GRPC, GRPC-WEB, HTTP2, MONGO, REDIS, MYSQL, TCP or TLS.
    pub protocol: String,
    /// Name of the port.
    pub name: String,
    /// Not used here; validation refuses it.
    #[serde(deserialize_with = "wire::opt_int")]
    pub target_port: Option<u16>,
}

/// TLS as a server.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ServerTlsSettings {
    /// Answers plain HTTP with a redirect to HTTPS.
    pub https_redirect: bool,
    /// Whether TLS ends here, and whether clients must show a certificate.
    pub mode: ServerTlsMode,
    /// File with the certificate.
    pub server_certificate: String,
    /// File with the key.
    pub private_key: String,
    /// File with the roots that clients' certificates are checked against.
    pub ca_certificates: String,
    /// File with revoked client certificates.
    pub ca_crl: String,
    /// Secret with certificate and key, in place of files.
    pub credential_name: String,
    /// Several secrets, for instance one with an RSA and one with an ECDSA certificate.
    pub credential_names: Vec<String>,
    /// Secret or ConfigMap with the roots for clients' certificates.
    pub ca_cert_credential_name: String,
    /// Several certificates in files.
    pub tls_certificates: Vec<ServerTlsCertificate>,
    /// Names of which a client's certificate must have one.
    pub subject_alt_names: Vec<String>,
    /// Hashes of public keys of which a client's certificate must have one.
    pub verify_certificate_spki: Vec<String>,
    /// Hashes of which a client's certificate must have one.
    pub verify_certificate_hash: Vec<String>,
    /// Lowest version of TLS; `TLS_AUTO` means 1.2.
    pub min_protocol_version: TlsProtocol,
    /// Highest version of TLS; `TLS_AUTO` means 1.3.
    pub max_protocol_version: TlsProtocol,
    /// Cipher suites that may be used, up to TLS 1.2.
    pub cipher_suites: Vec<String>,
    /// Curves that may be used.
    pub ecdh_curves: Vec<String>,
    /// With `MUTUAL`, takes any client certificate.
    pub insecure_skip_verify: Option<bool>,
}

/// A certificate in files.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ServerTlsCertificate {
    /// File with the certificate.
    pub server_certificate: String,
    /// File with the key.
    pub private_key: String,
    /// File with the roots for clients' certificates.
    pub ca_certificates: String,
}

/// Whether TLS ends here, and whether clients must show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ServerTlsMode {
    #[default]
    Passthrough,
    Simple,
    Mutual,
    AutoPassthrough,
    IstioMutual,
    OptionalMutual,
}

impl ServerTlsMode {
    /// Whether the gateway ends TLS itself and so needs a certificate.
    pub fn terminates(self) -> bool {
        !matches!(self, Self::Passthrough | Self::AutoPassthrough)
    }
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize, JsonSchema, PartialOrd, Ord)]
pub enum TlsProtocol {
    #[default]
    #[serde(rename = "TLS_AUTO")]
    Auto,
    #[serde(rename = "TLSV1_0")]
    V1_0,
    #[serde(rename = "TLSV1_1")]
    V1_1,
    #[serde(rename = "TLSV1_2")]
    V1_2,
    #[serde(rename = "TLSV1_3")]
    V1_3,
}
