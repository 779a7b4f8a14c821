//! `security.istio.io`: the `spec` of each kind (reference: features 1.9 to 1.11).

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::selector::{PolicyTargetReference, WorkloadSelector};
use crate::wire::{self, schema};

/// Says whether workloads demand mutual TLS of those who connect.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PeerAuthentication {
    /// Workloads whose labels match; absent means all of the namespace, or of the mesh in the root namespace.
    pub selector: Option<WorkloadSelector>,
    /// What holds for all ports.
    pub mtls: Option<MutualTls>,
    /// By workload port, written as a string; only obeyed with a selector.
    pub port_level_mtls: BTreeMap<String, MutualTls>,
}

/// Whether mutual TLS is demanded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MutualTls {
    /// Whether mutual TLS is demanded.
    pub mode: MutualTlsMode,
}

/// Whether mutual TLS is demanded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum MutualTlsMode {
    /// Inherited; in the end `PERMISSIVE`.
    #[default]
    Unset,
    Disable,
    Permissive,
    Strict,
}

/// Says which JSON Web Tokens are good; a request with a bad token is refused.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RequestAuthentication {
    /// Workloads whose labels match; absent means all of the namespace, or of the mesh in the root namespace.
    pub selector: Option<WorkloadSelector>,
    /// Deprecated form of `targetRefs` with one entry.
    pub target_ref: Option<PolicyTargetReference>,
    /// Objects that the policy is attached to; not together with `selector`.
    pub target_refs: Vec<PolicyTargetReference>,
    /// Tokens that are accepted.
    pub jwt_rules: Vec<JwtRule>,
}

/// Tokens of one issuer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-also-fields" = { "jwks_uri": "jwksUri" }))]
pub struct JwtRule {
    /// The issuer (`iss`) of the tokens.
    pub issuer: String,
    /// Audiences (`aud`) of which a token must have one; empty means any.
    pub audiences: Vec<String>,
    /// Where the issuer's keys are; empty means that they are discovered from the issuer.
    #[serde(alias = "jwks_uri")]
    pub jwks_uri: String,
    /// The issuer's keys themselves.
    pub jwks: String,
    /// Headers in which tokens are looked for; absent means `Authorization: Bearer`.
    pub from_headers: Vec<JwtHeader>,
    /// Query parameters in which tokens are looked for.
    pub from_params: Vec<String>,
    /// Cookies in which tokens are looked for.
    pub from_cookies: Vec<String>,
    /// Header that gets the payload of a good token, in base64.
    pub output_payload_to_header: String,
    /// Leaves the token in the request.
    pub forward_original_token: bool,
    /// Headers that get claims of a good token.
    pub output_claim_to_headers: Vec<ClaimToHeader>,
    /// How long fetching the keys may take; absent means 5s.
    #[serde(deserialize_with = "wire::opt_duration")]
    #[schemars(with = "schema::Duration")]
    pub timeout: Option<Duration>,
    /// Claims whose text is a list separated by spaces.
    pub space_delimited_claims: Vec<String>,
    /// Whether a token must be there: `OPTIONAL` or `REQUIRED`.
    #[schemars(extend("enum" = ["OPTIONAL", "REQUIRED"]))]
    pub presence: Option<String>,
}

/// A header in which a token is looked for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["name"]))]
pub struct JwtHeader {
    /// Name of the header.
    pub name: String,
    /// What stands before the token, such as `Bearer ` with its space.
    pub prefix: String,
}

/// A header that gets a claim.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["header", "claim"]))]
pub struct ClaimToHeader {
    /// Name of the header.
    pub header: String,
    /// Name of the claim; a dot leads into a nested one.
    pub claim: String,
}

/// Says who may do what at workloads.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AuthorizationPolicy {
    /// Workloads whose labels match; absent means all of the namespace, or of the mesh in the root namespace.
    pub selector: Option<WorkloadSelector>,
    /// Deprecated form of `targetRefs` with one entry.
    pub target_ref: Option<PolicyTargetReference>,
    /// Objects that the policy is attached to; not together with `selector`.
    pub target_refs: Vec<PolicyTargetReference>,
    /// Alternatives. None at all: an `ALLOW` policy then allows nothing.
    pub rules: Vec<Rule>,
    /// What happens to requests that a rule matches.
    pub action: AuthorizationAction,
    /// Who decides, with `CUSTOM`.
    pub provider: Option<ExtensionProviderRef>,
}

/// What happens to requests that a rule matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum AuthorizationAction {
    #[default]
    Allow,
    Deny,
    Audit,
    Custom,
}

/// Names an extension provider of the mesh's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["name"]))]
pub struct ExtensionProviderRef {
    /// Name of the provider.
    pub name: String,
}

/// All given fields have to match; an empty rule matches every request.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Rule {
    /// Alternatives for who asks.
    pub from: Vec<RuleFrom>,
    /// Alternatives for what is asked.
    pub to: Vec<RuleTo>,
    /// Conditions that all have to hold.
    pub when: Vec<Condition>,
}

/// One alternative for who asks.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RuleFrom {
    /// Who asks.
    pub source: Option<Source>,
}

/// Who asks; all given fields have to match.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Source {
    /// Identities from the client's certificate, `DOMAIN/ns/NAMESPACE/sa/ACCOUNT`; `*` may begin or end them.
    pub principals: Vec<String>,
    /// Identities that do not match.
    pub not_principals: Vec<String>,
    /// Identities from the token, `ISSUER/SUBJECT`.
    pub request_principals: Vec<String>,
    /// Token identities that do not match.
    pub not_request_principals: Vec<String>,
    /// Namespaces from the client's certificate.
    pub namespaces: Vec<String>,
    /// Namespaces that do not match.
    pub not_namespaces: Vec<String>,
    /// Addresses or ranges of the peer of the connection.
    pub ip_blocks: Vec<String>,
    /// Addresses or ranges that do not match.
    pub not_ip_blocks: Vec<String>,
    /// Addresses or ranges of the first client, from `X-Forwarded-For` or the PROXY protocol.
    pub remote_ip_blocks: Vec<String>,
    /// First client's addresses or ranges that do not match.
    pub not_remote_ip_blocks: Vec<String>,
    /// Service accounts, `NAMESPACE/ACCOUNT` or `ACCOUNT`; not together with principals or namespaces.
    pub service_accounts: Vec<String>,
    /// Service accounts that do not match.
    pub not_service_accounts: Vec<String>,
    /// Trust domains from the client's certificate.
    pub trust_domains: Vec<String>,
    /// Trust domains that do not match.
    pub not_trust_domains: Vec<String>,
}

/// One alternative for what is asked.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RuleTo {
    /// What is asked.
    pub operation: Option<Operation>,
}

/// What is asked; all given fields have to match.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Operation {
    /// Hosts, compared without regard to case.
    pub hosts: Vec<String>,
    /// Hosts that do not match.
    pub not_hosts: Vec<String>,
    /// Ports of the workload, as strings.
    pub ports: Vec<String>,
    /// Ports that do not match.
    pub not_ports: Vec<String>,
    /// Methods; of gRPC always `POST`.
    pub methods: Vec<String>,
    /// Methods that do not match.
    pub not_methods: Vec<String>,
    /// Paths without the query: exact, `/begin*`, `*/end`, or with `{*}` and `{**}`.
    pub paths: Vec<String>,
    /// Paths that do not match.
    pub not_paths: Vec<String>,
}

/// One more condition.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["key"]))]
pub struct Condition {
    /// What is looked at, such as `request.headers[x]`, `source.namespace` or `request.auth.claims[group]`.
    pub key: String,
    /// Values of which one has to match.
    pub values: Vec<String>,
    /// Values of which none may match.
    pub not_values: Vec<String>,
}
