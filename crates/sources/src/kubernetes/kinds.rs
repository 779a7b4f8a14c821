//! Which kinds are watched, and which of their fields are read.

use mizzen_config::Keep;

/// One kind of objects to watch.
#[derive(Debug)]
pub(crate) struct WatchedKind {
    pub(crate) group: &'static str,
    /// The first that the API server serves is taken.
    pub(crate) versions: &'static [&'static str],
    pub(crate) kind: &'static str,
    pub(crate) plural: &'static str,
    pub(crate) from: From,
    /// Restricts what the API server sends.
    pub(crate) field_selector: Option<&'static str>,
    pub(crate) need: Need,
}

impl WatchedKind {
    /// Whether the control plane writes statuses of its objects: of Istio's kinds it does.
    pub(crate) const fn has_status(&self) -> bool {
        matches!(self.need, Need::WhereInstalled)
    }
}

/// Where its objects are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    Everywhere,
    /// The one object that configures the mesh, in the mesh's own namespace.
    MeshConfiguration,
}

/// What happens without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Every API server has it, and the mesh cannot do without.
    Always,
    /// The mesh is poorer when it may not be read.
    WherePermitted,
    /// Its definition may not be installed.
    WhereInstalled,
}

const NETWORKING: &str = "networking.istio.io";
const SECURITY: &str = "security.istio.io";

/// Pods that have ended answer for nothing.
const LIVE_PODS: &str = "status.phase!=Succeeded,status.phase!=Failed";

/// What no gateway uses: above all the releases of Helm, which are many and large, and tokens.
const CERTIFICATES: &str = "type!=helm.sh/release.v1,type!=kubernetes.io/service-account-token,\
    type!=kubernetes.io/dockercfg,type!=kubernetes.io/dockerconfigjson,type!=bootstrap.kubernetes.io/token,\
    type!=istio.io/ca-root";

pub(crate) const KINDS: &[WatchedKind] = &[
    WatchedKind { need: Need::WherePermitted, ..core("Namespace", "namespaces", None) },
    WatchedKind { need: Need::WherePermitted, ..core("Node", "nodes", None) },
    WatchedKind { from: From::MeshConfiguration, ..core("ConfigMap", "configmaps", None) },
    core("Service", "services", None),
    core("Pod", "pods", Some(LIVE_PODS)),
    WatchedKind { group: "discovery.k8s.io", ..core("EndpointSlice", "endpointslices", None) },
    WatchedKind { need: Need::WherePermitted, ..core("Secret", "secrets", Some(CERTIFICATES)) },
    istio(NETWORKING, &["v1", "v1beta1", "v1alpha3"], "VirtualService", "virtualservices"),
    istio(NETWORKING, &["v1", "v1beta1", "v1alpha3"], "DestinationRule", "destinationrules"),
    istio(NETWORKING, &["v1", "v1beta1", "v1alpha3"], "Gateway", "gateways"),
    istio(NETWORKING, &["v1", "v1beta1", "v1alpha3"], "ServiceEntry", "serviceentries"),
    istio(NETWORKING, &["v1", "v1beta1", "v1alpha3"], "WorkloadEntry", "workloadentries"),
    istio(NETWORKING, &["v1", "v1beta1", "v1alpha3"], "WorkloadGroup", "workloadgroups"),
    istio(NETWORKING, &["v1", "v1beta1", "v1alpha3"], "Sidecar", "sidecars"),
    istio(NETWORKING, &["v1alpha3"], "EnvoyFilter", "envoyfilters"),
    istio(NETWORKING, &["v1", "v1beta1"], "ProxyConfig", "proxyconfigs"),
    istio(SECURITY, &["v1", "v1beta1"], "PeerAuthentication", "peerauthentications"),
    istio(SECURITY, &["v1", "v1beta1"], "RequestAuthentication", "requestauthentications"),
    istio(SECURITY, &["v1", "v1beta1"], "AuthorizationPolicy", "authorizationpolicies"),
    istio("telemetry.istio.io", &["v1", "v1alpha1"], "Telemetry", "telemetries"),
];

const fn core(kind: &'static str, plural: &'static str, field_selector: Option<&'static str>) -> WatchedKind {
    WatchedKind {
        group: "",
        versions: &["v1"],
        kind,
        plural,
        from: From::Everywhere,
        field_selector,
        need: Need::Always,
    }
}

const fn istio(
    group: &'static str,
    versions: &'static [&'static str],
    kind: &'static str,
    plural: &'static str,
) -> WatchedKind {
    let need = Need::WhereInstalled;
    WatchedKind { group, versions, kind, plural, from: From::Everywhere, field_selector: None, need }
}

/// The fields that are read of any kind. Those of pods that are many and large are told apart by their names, which no
/// other kind has.
pub(crate) const FIELDS: Keep = Keep::But(&[
    ("metadata", Some(METADATA)),
    ("spec", Some(SPEC)),
    ("status", Some(STATUS)),
    ("data", Some(Keep::Keys(known_data))),
    ("stringData", None),
    ("binaryData", None),
]);

const METADATA: Keep = Keep::Only(&[
    ("name", Keep::All),
    ("namespace", Keep::All),
    ("generateName", Keep::All),
    ("uid", Keep::All),
    ("resourceVersion", Keep::All),
    ("generation", Keep::All),
    ("creationTimestamp", Keep::All),
    ("labels", Keep::All),
    ("annotations", Keep::Keys(known_annotation)),
    ("ownerReferences", Keep::Only(&[("kind", Keep::All), ("name", Keep::All), ("controller", Keep::All)])),
]);

const SPEC: Keep = Keep::But(&[
    ("affinity", None),
    ("containers", Some(Keep::Only(&[("name", Keep::All), ("ports", Keep::All)]))),
    ("dnsConfig", None),
    ("ephemeralContainers", None),
    ("hostAliases", None),
    ("imagePullSecrets", None),
    ("initContainers", None),
    ("nodeSelector", None),
    ("overhead", None),
    ("readinessGates", None),
    ("resourceClaims", None),
    ("schedulingGates", None),
    ("securityContext", None),
    ("taints", None),
    ("tolerations", None),
    ("topologySpreadConstraints", None),
    ("volumes", None),
]);

const STATUS: Keep = Keep::Only(&[
    ("loadBalancer", Keep::All),
    ("phase", Keep::All),
    ("podIP", Keep::All),
    ("podIPs", Keep::All),
    ("conditions", Keep::All),
    // Of Istio's kinds: what the control plane has written there.
    ("observedGeneration", Keep::All),
    ("validationMessages", Keep::All),
    ("addresses", Keep::All),
]);

/// Keys of the mesh's ConfigMap, and of the Secrets that gateways and TLS to upstreams use.
fn known_data(key: &str) -> bool {
    matches!(key, "mesh" | "meshNetworks") || is_certificate(key)
}

fn is_certificate(key: &str) -> bool {
    matches!(key, "tls.crt" | "tls.key" | "cert" | "key" | "ca.crt" | "cacert")
}

/// Most annotations are other controllers' notes, and some change all the time.
fn known_annotation(key: &str) -> bool {
    key.split_once('/').is_some_and(|(owner, _)| {
        owner == "istio.io"
            || owner.ends_with(".istio.io")
            || owner == "prometheus.io"
            || owner == "service.kubernetes.io"
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_the_istio_groups_that_is_read_is_watched() {
        for kind in KINDS {
            for version in kind.versions {
                let api_version =
                    if kind.group.is_empty() { (*version).to_owned() } else { format!("{}/{version}", kind.group) };
                let text = format!("apiVersion: {api_version}\nkind: {}\nmetadata: {{name: a}}\nspec: {{}}", kind.kind);
                let parsed = mizzen_config::parse("a.yaml", &text);
                let unknown = parsed.findings.iter().find(|finding| finding.code == mizzen_config::code::UNKNOWN_KIND);
                assert_eq!(unknown, None, "{api_version} {}", kind.kind);
            }
        }
    }

    #[test]
    fn private_keys_of_authorities_are_not_read() {
        for key in ["ca-key.pem", "ca-cert.pem", "token", "password"] {
            assert!(!known_data(key), "{key}");
        }
        assert!(known_data("tls.key") && known_data("mesh"));
    }

    #[test]
    fn only_annotations_of_the_mesh_are_read() {
        for (key, expected) in [
            ("networking.istio.io/exportTo", true),
            ("istio.io/rev", true),
            ("prometheus.io/scrape", true),
            ("kubectl.kubernetes.io/last-applied-configuration", false),
            ("endpoints.kubernetes.io/last-change-trigger-time", false),
            ("notistio.io/x", false),
        ] {
            assert_eq!(known_annotation(key), expected, "{key}");
        }
    }
}
