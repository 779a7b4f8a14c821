//! Names that users write and read: containers, volumes, annotations and labels, as Istio has them.

pub(crate) const PROXY: &str = "istio-proxy";
pub(crate) const INIT: &str = "istio-init";
pub(crate) const VALIDATION: &str = "istio-validation";

/// The annotation in which an injected pod says what was added to it.
pub const STATUS: &str = "sidecar.istio.io/status";
pub(crate) const OVERRIDES: &str = "proxy.istio.io/overrides";
pub(crate) const PROXY_CONFIG: &str = "proxy.istio.io/config";
pub(crate) const TEMPLATES: &str = "inject.istio.io/templates";
/// The label (and, of old, annotation) that switches injection on and off for one pod.
pub const INJECT: &str = "sidecar.istio.io/inject";
/// The revision that injects: on namespaces and pods.
pub const REVISION: &str = "istio.io/rev";
/// The namespace label that switches injection on and off.
pub const INJECTION: &str = "istio-injection";

pub(crate) const NATIVE: &str = "sidecar.istio.io/nativeSidecar";
pub(crate) const INTERCEPTION: &str = "sidecar.istio.io/interceptionMode";
pub(crate) const PROXY_IMAGE: &str = "sidecar.istio.io/proxyImage";
pub(crate) const PROXY_IMAGE_TYPE: &str = "sidecar.istio.io/proxyImageType";
pub(crate) const PROXY_CPU: &str = "sidecar.istio.io/proxyCPU";
pub(crate) const PROXY_CPU_LIMIT: &str = "sidecar.istio.io/proxyCPULimit";
pub(crate) const PROXY_MEMORY: &str = "sidecar.istio.io/proxyMemory";
pub(crate) const PROXY_MEMORY_LIMIT: &str = "sidecar.istio.io/proxyMemoryLimit";
pub(crate) const LOG_LEVEL: &str = "sidecar.istio.io/logLevel";
pub(crate) const COMPONENT_LOG_LEVEL: &str = "sidecar.istio.io/componentLogLevel";
pub(crate) const AGENT_LOG_LEVEL: &str = "sidecar.istio.io/agentLogLevel";
pub(crate) const USER_VOLUME: &str = "sidecar.istio.io/userVolume";
pub(crate) const USER_VOLUME_MOUNT: &str = "sidecar.istio.io/userVolumeMount";
pub(crate) const REWRITE_PROBES: &str = "sidecar.istio.io/rewriteAppHTTPProbers";
pub(crate) const BIND_SERVICE: &str = "sidecar.istio.io/capNetBindService";
pub(crate) const BEFORE_PROXY: &str = "sidecar.istio.io/init-containers-before-proxy";

pub(crate) const STATUS_PORT: &str = "status.sidecar.istio.io/port";
pub(crate) const READY_DELAY: &str = "readiness.status.sidecar.istio.io/initialDelaySeconds";
pub(crate) const READY_PERIOD: &str = "readiness.status.sidecar.istio.io/periodSeconds";
pub(crate) const READY_FAILURES: &str = "readiness.status.sidecar.istio.io/failureThreshold";

pub(crate) const INCLUDE_INBOUND: &str = "traffic.sidecar.istio.io/includeInboundPorts";
pub(crate) const EXCLUDE_INBOUND: &str = "traffic.sidecar.istio.io/excludeInboundPorts";
pub(crate) const INCLUDE_OUTBOUND: &str = "traffic.sidecar.istio.io/includeOutboundPorts";
pub(crate) const EXCLUDE_OUTBOUND: &str = "traffic.sidecar.istio.io/excludeOutboundPorts";
pub(crate) const INCLUDE_RANGES: &str = "traffic.sidecar.istio.io/includeOutboundIPRanges";
pub(crate) const EXCLUDE_RANGES: &str = "traffic.sidecar.istio.io/excludeOutboundIPRanges";
pub(crate) const EXCLUDE_INTERFACES: &str = "traffic.sidecar.istio.io/excludeInterfaces";
pub(crate) const KUBEVIRT_INTERFACES: &str = "traffic.sidecar.istio.io/kubevirtInterfaces";
pub(crate) const REROUTE_INTERFACES: &str = "istio.io/reroute-virtual-interfaces";

pub(crate) const MERGE_METRICS: &str = "prometheus.istio.io/merge-metrics";

pub(crate) const TLS_MODE: &str = "security.istio.io/tlsMode";
pub(crate) const CANONICAL_NAME: &str = "service.istio.io/canonical-name";
pub(crate) const CANONICAL_REVISION: &str = "service.istio.io/canonical-revision";
pub(crate) const NETWORK: &str = "topology.istio.io/network";

pub(crate) const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";
pub(crate) const DEFAULT_LOGS_CONTAINER: &str = "kubectl.kubernetes.io/default-logs-container";

/// Variable with the application's own probes, for the agent that answers in their place.
pub(crate) const APP_PROBERS: &str = "ISTIO_KUBE_APP_PROBERS";
/// Variable with where the application's own metrics are.
pub(crate) const PROMETHEUS_ANNOTATIONS: &str = "ISTIO_PROMETHEUS_ANNOTATIONS";
