//! Istio's kinds: names, versions and columns (reference: features 1).

use mizzen_api::extensions::{TrafficExtension, WasmPlugin};
use mizzen_api::networking::{
    DestinationRule, EnvoyFilter, Gateway, ProxyConfig, ServiceEntry, Sidecar, VirtualService, WorkloadEntry,
    WorkloadGroup,
};
use mizzen_api::security::{AuthorizationPolicy, PeerAuthentication, RequestAuthentication};
use mizzen_api::telemetry::Telemetry;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};

/// One CustomResourceDefinition.
pub(crate) struct Resource {
    pub(crate) group: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) plural: &'static str,
    pub(crate) short_names: &'static [&'static str],
    /// All are served.
    pub(crate) versions: &'static [&'static str],
    pub(crate) storage: &'static str,
    /// Beside the age.
    pub(crate) columns: &'static [Column],
    pub(crate) schema: fn() -> Schema,
    /// How many leaves the reference counts in the `spec`; the tests compare.
    #[cfg_attr(not(test), expect(dead_code, reason = "only the tests compare"))]
    pub(crate) leaves: usize,
}

/// A column of `kubectl get`.
pub(crate) struct Column {
    pub(crate) name: &'static str,
    pub(crate) path: &'static str,
    pub(crate) description: &'static str,
}

const fn column(name: &'static str, path: &'static str, description: &'static str) -> Column {
    Column { name, path, description }
}

const NETWORKING: &str = "networking.istio.io";
const SECURITY: &str = "security.istio.io";
const TELEMETRY: &str = "telemetry.istio.io";
const EXTENSIONS: &str = "extensions.istio.io";

const ALL: &[&str] = &["v1", "v1beta1", "v1alpha3"];
const BETA: &[&str] = &["v1", "v1beta1"];

pub(crate) const KINDS: &[Resource] = &[
    Resource {
        short_names: &["vs"],
        columns: &[
            column("Gateways", ".spec.gateways", "Gateways (and `mesh`, the sidecars) that obey these routes"),
            column("Hosts", ".spec.hosts", "Hosts whose traffic is routed"),
        ],
        ..networking::<VirtualService>("VirtualService", "virtualservices", 119)
    },
    Resource {
        short_names: &["dr"],
        columns: &[column("Host", ".spec.host", "The service that the rule is for")],
        ..networking::<DestinationRule>("DestinationRule", "destinationrules", 293)
    },
    Resource { short_names: &["gw"], ..networking::<Gateway>("Gateway", "gateways", 29) },
    Resource {
        short_names: &["se"],
        columns: &[
            column("Hosts", ".spec.hosts", "Hosts of the service"),
            column("Location", ".spec.location", "Whether the service is part of the mesh"),
            column("Resolution", ".spec.resolution", "How its endpoints are found"),
        ],
        ..networking::<ServiceEntry>("ServiceEntry", "serviceentries", 18)
    },
    Resource {
        short_names: &["we"],
        columns: &[column("Address", ".spec.address", "Address of the workload")],
        ..networking::<WorkloadEntry>("WorkloadEntry", "workloadentries", 7)
    },
    Resource { short_names: &["wg"], ..networking::<WorkloadGroup>("WorkloadGroup", "workloadgroups", 25) },
    networking::<Sidecar>("Sidecar", "sidecars", 73),
    Resource {
        versions: &["v1alpha3"],
        storage: "v1alpha3",
        ..networking::<EnvoyFilter>("EnvoyFilter", "envoyfilters", 41)
    },
    Resource { versions: &["v1beta1"], ..networking::<ProxyConfig>("ProxyConfig", "proxyconfigs", 4) },
    Resource {
        short_names: &["pa"],
        columns: &[column("Mode", ".spec.mtls.mode", "Whether mutual TLS is required")],
        ..security::<PeerAuthentication>("PeerAuthentication", "peerauthentications", 3)
    },
    Resource {
        short_names: &["ra"],
        ..security::<RequestAuthentication>("RequestAuthentication", "requestauthentications", 25)
    },
    Resource {
        short_names: &["ap"],
        columns: &[column("Action", ".spec.action", "What happens to requests that match")],
        ..security::<AuthorizationPolicy>("AuthorizationPolicy", "authorizationpolicies", 36)
    },
    Resource {
        short_names: &["telemetry"],
        ..kind::<Telemetry>(TELEMETRY, "Telemetry", "telemetries", &["v1", "v1alpha1"], "v1alpha1", 34)
    },
    kind::<WasmPlugin>(EXTENSIONS, "WasmPlugin", "wasmplugins", &["v1alpha1"], "v1alpha1", 25),
    kind::<TrafficExtension>(EXTENSIONS, "TrafficExtension", "trafficextensions", &["v1alpha1"], "v1alpha1", 22),
];

const fn networking<T: JsonSchema>(kind: &'static str, plural: &'static str, leaves: usize) -> Resource {
    self::kind::<T>(NETWORKING, kind, plural, ALL, "v1beta1", leaves)
}

const fn security<T: JsonSchema>(kind: &'static str, plural: &'static str, leaves: usize) -> Resource {
    self::kind::<T>(SECURITY, kind, plural, BETA, "v1beta1", leaves)
}

const fn kind<T: JsonSchema>(
    group: &'static str,
    kind: &'static str,
    plural: &'static str,
    versions: &'static [&'static str],
    storage: &'static str,
    leaves: usize,
) -> Resource {
    Resource { group, kind, plural, short_names: &[], versions, storage, columns: &[], schema: schema::<T>, leaves }
}

/// The type's schema with everything in place, as Kubernetes wants it.
fn schema<T: JsonSchema>() -> Schema {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<T>()
}
