//! What the containers of sidecars and gateways have in common: image, arguments, environment, probes, volumes.

use serde_json::{Map, Value, json};

use crate::Job;
use crate::names::*;
use crate::pod;
use crate::settings::first;

/// Which of the proxy's forms: it decides the arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Sidecar,
    Router,
}

/// The image of the proxy: the annotation where it is a whole name, else that of the values.
pub(crate) fn proxy_image(job: &Job<'_>) -> String {
    let global = &job.settings.values.global;
    image(job, first(&global.proxy.image, &global.image))
}

pub(crate) fn init_image(job: &Job<'_>) -> String {
    let global = &job.settings.values.global;
    let init = first(&global.proxy_init.image, &global.proxy.image);
    image(job, first(init, &global.image))
}

fn image(job: &Job<'_>, name: &str) -> String {
    let global = &job.settings.values.global;
    let asked = job.annotations.get(PROXY_IMAGE).unwrap_or(name);
    if asked.contains('/') {
        return asked.to_owned();
    }
    let slash = if global.hub.is_empty() { "" } else { "/" };
    format!("{}{slash}{name}:{}", global.hub, global.tag)
}

/// One annotation about resources is enough for the values' own not to count, as in Istio.
pub(crate) fn resources(job: &Job<'_>) -> Value {
    let part = |cpu: &str, memory: &str| -> Map<String, Value> {
        [("cpu", cpu), ("memory", memory)]
            .into_iter()
            .filter_map(|(key, annotation)| Some((key.to_owned(), job.annotations.get(annotation)?.into())))
            .collect()
    };
    let requests = part(PROXY_CPU, PROXY_MEMORY);
    let limits = part(PROXY_CPU_LIMIT, PROXY_MEMORY_LIMIT);
    if requests.is_empty() && limits.is_empty() {
        return Value::Object(job.settings.values.global.proxy.resources.clone());
    }
    let mut resources = Map::new();
    for (key, part) in [("requests", requests), ("limits", limits)] {
        if !part.is_empty() {
            resources.insert(key.to_owned(), Value::Object(part));
        }
    }
    Value::Object(resources)
}

/// The container `istio-proxy`, without what only one of its forms has.
pub(crate) fn proxy(job: &Job<'_>, role: Role) -> Map<String, Value> {
    let global = &job.settings.values.global;
    let mut container = Map::new();
    let mut set = |key: &str, value: Value| drop(container.insert(key.to_owned(), value));
    set("name", PROXY.into());
    set("image", proxy_image(job).into());
    if !global.image_pull_policy.is_empty() {
        set("imagePullPolicy", global.image_pull_policy.as_str().into());
    }
    set("args", arguments(job, role));
    set("ports", json!([{"containerPort": 15090, "protocol": "TCP", "name": "http-envoy-prom"}]));
    if !global.proxy.lifecycle.is_empty() {
        set("lifecycle", Value::Object(global.proxy.lifecycle.clone()));
    }
    set("env", Value::Array(environment(job)));
    if job.status_port != 0 {
        set("readinessProbe", readiness(job));
        if global.proxy.startup_probe.enabled && role == Role::Sidecar {
            let failures = global.proxy.startup_probe.failure_threshold;
            set("startupProbe", probe(0, 1, failures));
        }
    }
    set("volumeMounts", Value::Array(mounts(job)));
    container
}

fn arguments(job: &Job<'_>, role: Role) -> Value {
    let global = &job.settings.values.global;
    let level = |annotation: &str, value: &str| job.annotations.get(annotation).unwrap_or(value).to_owned();
    let role = match role {
        Role::Sidecar => "sidecar",
        Role::Router => "router",
    };
    let mut arguments = vec![
        "proxy".to_owned(),
        role.to_owned(),
        "--domain".to_owned(),
        format!("$(POD_NAMESPACE).svc.{}", global.proxy.cluster_domain),
        format!("--proxyLogLevel={}", level(LOG_LEVEL, &global.proxy.log_level)),
        format!("--proxyComponentLogLevel={}", level(COMPONENT_LOG_LEVEL, &global.proxy.component_log_level)),
        format!("--log_output_level={}", level(AGENT_LOG_LEVEL, &global.logging.level)),
    ];
    if global.log_as_json {
        arguments.push("--log_as_json".to_owned());
    }
    arguments.into()
}

fn environment(job: &Job<'_>) -> Vec<Value> {
    let settings = job.settings;
    let global = &settings.values.global;
    let mut env = Vec::new();
    let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let text = |name: &str, value: &str| json!({"name": name, "value": value});
    env.push(text("PILOT_CERT_PROVIDER", &global.pilot_cert_provider));
    let control_plane = settings.control_plane();
    env.push(text("CA_ADDR", first(&global.ca_address, &control_plane)));
    env.push(field("POD_NAME", "metadata.name"));
    env.push(field("POD_NAMESPACE", "metadata.namespace"));
    env.push(field("INSTANCE_IP", "status.podIP"));
    env.push(field("SERVICE_ACCOUNT", "spec.serviceAccountName"));
    env.push(field("HOST_IP", "status.hostIP"));
    env.push(json!({"name": "ISTIO_CPU_LIMIT", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}));
    env.push(text("PROXY_CONFIG", &job.proxy_config.json()));
    env.push(text("ISTIO_META_POD_PORTS", &pod_ports(job.pod)));
    env.push(text("ISTIO_META_APP_CONTAINERS", &app_containers(job.pod).join(",")));
    env.push(text("ISTIO_META_CLUSTER_ID", job.cluster()));
    env.push(field("ISTIO_META_NODE_NAME", "spec.nodeName"));
    env.push(text("ISTIO_META_INTERCEPTION_MODE", job.interception_mode()));
    if let Some(network) = job.network() {
        env.push(text("ISTIO_META_NETWORK", network));
    }
    if !job.workload.name.is_empty() {
        env.push(text("ISTIO_META_WORKLOAD_NAME", &job.workload.name));
    }
    if let Some(owner) = job.workload.owner() {
        env.push(text("ISTIO_META_OWNER", &owner));
    }
    env.push(text("ISTIO_META_MESH_ID", first(&global.mesh_id, settings.trust_domain())));
    env.push(text("TRUST_DOMAIN", settings.trust_domain()));
    for (name, value) in job.proxy_config.metadata() {
        env.retain(|one| pod::name(one) != name);
        env.push(text(name, &value));
    }
    // The path of the webhook is the last word, in the order of the names.
    for (name, value) in job.environment {
        env.retain(|one| pod::name(one) != *name);
        env.push(text(name, value));
    }
    env
}

fn pod_ports(pod: &Value) -> String {
    // The proxy comes last, wherever the user wrote it.
    let apps = pod::list(pod, pod::CONTAINERS).iter().filter(|container| pod::name(container) != PROXY);
    let lists = [pod::CONTAINERS, pod::INIT_CONTAINERS].into_iter();
    let proxies = lists.flat_map(|key| pod::list(pod, key)).filter(|container| pod::name(container) == PROXY);
    let ports: Vec<&Value> = apps
        .chain(proxies)
        .filter_map(|container| container.get("ports")?.as_array())
        .flatten()
        .filter(|port| port.is_object())
        .collect();
    // Values of a pod can always be written.
    serde_json::to_string(&ports).unwrap_or_else(|_| "[]".to_owned())
}

/// The application's containers: all but the proxy.
pub(crate) fn app_containers(pod: &Value) -> Vec<&str> {
    pod::list(pod, pod::CONTAINERS).iter().map(pod::name).filter(|name| *name != PROXY).collect()
}

fn readiness(job: &Job<'_>) -> Value {
    let proxy = &job.settings.values.global.proxy;
    // Annotations were checked to be numbers.
    let number = |annotation: &str, value: u32| {
        job.annotations.get(annotation).and_then(|text| text.parse().ok()).unwrap_or(value)
    };
    probe(
        number(READY_DELAY, proxy.readiness_initial_delay_seconds),
        number(READY_PERIOD, proxy.readiness_period_seconds),
        number(READY_FAILURES, proxy.readiness_failure_threshold),
    )
}

fn probe(delay: u32, period: u32, failures: u32) -> Value {
    json!({
        "httpGet": {"path": "/healthz/ready", "port": 15021},
        "initialDelaySeconds": delay,
        "periodSeconds": period,
        "timeoutSeconds": 3,
        "failureThreshold": failures,
    })
}

/// Whether the control plane's root comes from the ConfigMap that it writes into every namespace.
fn mounts_root(job: &Job<'_>) -> bool {
    job.settings.values.global.pilot_cert_provider == "istiod"
}

fn mounts(job: &Job<'_>) -> Vec<Value> {
    let mut mounts = Vec::new();
    if mounts_root(job) {
        mounts.push(json!({"name": "istiod-ca-cert", "mountPath": "/var/run/secrets/istio"}));
    }
    mounts.push(json!({"name": "istio-data", "mountPath": "/var/lib/istio/data"}));
    mounts.push(json!({"name": "istio-envoy", "mountPath": "/etc/istio/proxy"}));
    mounts.push(json!({"name": "istio-token", "mountPath": "/var/run/secrets/tokens"}));
    mounts.push(json!({"name": "istio-podinfo", "mountPath": "/etc/istio/pod"}));
    mounts.extend(of_annotation(job, USER_VOLUME_MOUNT));
    mounts
}

pub(crate) fn volumes(job: &Job<'_>) -> Vec<Value> {
    let mut volumes = vec![
        json!({"name": "istio-envoy", "emptyDir": {"medium": "Memory"}}),
        json!({"name": "istio-data", "emptyDir": {}}),
        json!({"name": "istio-podinfo", "downwardAPI": {"items": [
            {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
            {"path": "annotations", "fieldRef": {"fieldPath": "metadata.annotations"}},
        ]}}),
        json!({"name": "istio-token", "projected": {"sources": [{"serviceAccountToken": {
            "path": "istio-token",
            "expirationSeconds": 43200,
            "audience": job.settings.values.global.sds.token.aud,
        }}]}}),
    ];
    if mounts_root(job) {
        volumes.push(json!({"name": "istiod-ca-cert", "configMap": {"name": "istio-ca-root-cert"}}));
    }
    volumes.extend(of_annotation(job, USER_VOLUME));
    volumes
}

/// `{"NAME": {…}}` as a list of items with names. The annotation was checked to have that form.
fn of_annotation(job: &Job<'_>, annotation: &str) -> Vec<Value> {
    let parsed = job.annotations.get(annotation).and_then(|text| serde_json::from_str(text).ok());
    let Some(Value::Object(map)) = parsed else { return Vec::new() };
    map.into_iter()
        .map(|(name, value)| {
            let mut item = Map::new();
            item.insert("name".to_owned(), name.into());
            if let Value::Object(fields) = value {
                item.extend(fields);
            }
            Value::Object(item)
        })
        .collect()
}

/// What stands beside the containers in the spec.
pub(crate) fn rest_of_spec(job: &Job<'_>, spec: &mut Map<String, Value>) {
    let global = &job.settings.values.global;
    spec.insert("volumes".to_owned(), volumes(job).into());
    if !global.image_pull_secrets.is_empty() {
        let secrets: Vec<Value> =
            global.image_pull_secrets.iter().map(|secret| json!({"name": secret.name()})).collect();
        spec.insert("imagePullSecrets".to_owned(), secrets.into());
    }
    if !global.pod_dns_search_namespaces.is_empty() {
        let searches = global.pod_dns_search_namespaces.as_slice();
        spec.insert("dnsConfig".to_owned(), json!({"searches": searches}));
    }
}

/// Labels by which telemetry knows the workload; its own win.
pub(crate) fn canonical_labels(job: &Job<'_>, labels: &mut Map<String, Value>) {
    let any = |names: &[&str]| names.iter().find_map(|name| job.labels.get(name).filter(|value| !value.is_empty()));
    let name = any(&[CANONICAL_NAME, "app.kubernetes.io/name", "app"]).unwrap_or(&job.workload.name);
    // A label has at most 63 characters, and ends with a letter or a digit.
    let name: String = name.chars().take(63).collect();
    let name = name.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
    if !name.is_empty() {
        labels.insert(CANONICAL_NAME.to_owned(), name.into());
    }
    let revision = any(&[CANONICAL_REVISION, "app.kubernetes.io/version", "version"]).unwrap_or("latest");
    labels.insert(CANONICAL_REVISION.to_owned(), revision.into());
}

/// `kubectl logs` and `kubectl exec` mean the application, not the proxy.
pub(crate) fn default_container(job: &Job<'_>, annotations: &mut Map<String, Value>) {
    let Some(first) = app_containers(job.pod).first().copied().filter(|name| !name.is_empty()) else { return };
    for name in [DEFAULT_LOGS_CONTAINER, DEFAULT_CONTAINER] {
        if job.annotations.get(name).is_none() {
            annotations.insert(name.to_owned(), first.into());
        }
    }
}
