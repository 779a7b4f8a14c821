//! The template `sidecar`: the init container that redirects the pod's traffic, and the proxy.

use serde_json::{Map, Value, json};

use crate::Job;
use crate::container::{self, Role};
use crate::names::*;
use crate::pod;

/// The partial pod that is laid over the user's.
pub(crate) fn overlay(job: &Job<'_>) -> Value {
    let mut labels = Map::new();
    labels.insert(TLS_MODE.to_owned(), job.labels.get(TLS_MODE).unwrap_or("istio").into());
    container::canonical_labels(job, &mut labels);
    let mut annotations = Map::new();
    annotations.insert(REVISION.to_owned(), job.settings.revision.as_str().into());
    container::default_container(job, &mut annotations);

    let mut init_containers = Vec::new();
    if job.interception_mode() != "NONE" {
        init_containers.push(init(job));
    }
    let proxy = proxy(job);
    let mut spec = Map::new();
    if job.native {
        init_containers.push(proxy);
    } else {
        spec.insert(pod::CONTAINERS.to_owned(), json!([proxy]));
    }
    if !init_containers.is_empty() {
        spec.insert(pod::INIT_CONTAINERS.to_owned(), init_containers.into());
    }
    container::rest_of_spec(job, &mut spec);
    json!({"metadata": {"labels": labels, "annotations": annotations}, "spec": spec})
}

fn proxy(job: &Job<'_>) -> Value {
    let values = &job.settings.values.global.proxy;
    let mut container = container::proxy(job, Role::Sidecar);
    if job.native {
        container.insert("restartPolicy".to_owned(), "Always".into());
        // It outlives the application. From the pod's end on it tells clients to leave, so that none is left when it ends.
        if values.lifecycle.is_empty() && job.status_port != 0 {
            let port = job.status_port.to_string();
            let command = [BINARY, "proxy", "request", "--debug-port", &port, "POST", "drain"];
            container.insert("lifecycle".to_owned(), json!({"preStop": {"exec": {"command": command}}}));
        }
    }
    // A native sidecar is ready before the application starts, without a hook.
    let holds = !job.native && (job.proxy_config.holds_application() || values.hold_application_until_proxy_starts);
    if holds && values.lifecycle.is_empty() {
        let command = [BINARY, "proxy", "wait"];
        container.insert("lifecycle".to_owned(), json!({"postStart": {"exec": {"command": command}}}));
    }
    container.insert("resources".to_owned(), container::resources(job));
    container.insert("securityContext".to_owned(), security(job));
    Value::Object(container)
}

/// The program in the image.
const BINARY: &str = "/usr/local/bin/mizzen";

fn security(job: &Job<'_>) -> Value {
    let values = &job.settings.values.global.proxy;
    let mut capabilities = Map::new();
    let mut add = Vec::new();
    if job.interception_mode() == "TPROXY" {
        add.push("NET_ADMIN");
    }
    if job.annotations.get(BIND_SERVICE) == Some("true") {
        add.push("NET_BIND_SERVICE");
    }
    // What is added to a user other than root has no effect without the program's own capabilities.
    let as_root = !add.is_empty();
    if !add.is_empty() {
        capabilities.insert("add".to_owned(), json!(add));
    }
    capabilities.insert("drop".to_owned(), json!(["ALL"]));
    let mut context = Map::new();
    context.insert("allowPrivilegeEscalation".to_owned(), values.privileged.into());
    context.insert("capabilities".to_owned(), Value::Object(capabilities));
    context.insert("privileged".to_owned(), values.privileged.into());
    context.insert("readOnlyRootFilesystem".to_owned(), true.into());
    context.insert("runAsGroup".to_owned(), PROXY_USER.into());
    context.insert("runAsNonRoot".to_owned(), (!as_root).into());
    context.insert("runAsUser".to_owned(), if as_root { 0 } else { PROXY_USER }.into());
    seccomp(job, &mut context);
    Value::Object(context)
}

/// The user and group whose traffic is not redirected.
pub(crate) const PROXY_USER: u32 = 1337;

fn seccomp(job: &Job<'_>, context: &mut Map<String, Value>) {
    let profile = &job.settings.values.global.proxy.seccomp_profile;
    if !profile.is_empty() {
        context.insert("seccompProfile".to_owned(), Value::Object(profile.clone()));
    }
}

/// The init container: the flags are `istio-iptables`'.
fn init(job: &Job<'_>) -> Value {
    let global = &job.settings.values.global;
    let values = &global.proxy;
    let mut container = Map::new();
    container.insert("name".to_owned(), INIT.into());
    container.insert("image".to_owned(), container::init_image(job).into());
    if !global.image_pull_policy.is_empty() {
        container.insert("imagePullPolicy".to_owned(), global.image_pull_policy.as_str().into());
    }
    container.insert("args".to_owned(), init_arguments(job).into());
    let env: Vec<Value> =
        job.proxy_config.metadata().map(|(name, value)| json!({"name": name, "value": value})).collect();
    if !env.is_empty() {
        container.insert("env".to_owned(), env.into());
    }
    let resources = match &global.proxy_init.resources {
        own if own.is_empty() => container::resources(job),
        own => Value::Object(own.clone()),
    };
    container.insert("resources".to_owned(), resources);
    let mut context = Map::new();
    context.insert("allowPrivilegeEscalation".to_owned(), values.privileged.into());
    context.insert("capabilities".to_owned(), json!({"add": ["NET_ADMIN", "NET_RAW"], "drop": ["ALL"]}));
    context.insert("privileged".to_owned(), values.privileged.into());
    context.insert("readOnlyRootFilesystem".to_owned(), true.into());
    context.insert("runAsGroup".to_owned(), 0.into());
    context.insert("runAsNonRoot".to_owned(), false.into());
    context.insert("runAsUser".to_owned(), 0.into());
    seccomp(job, &mut context);
    container.insert("securityContext".to_owned(), Value::Object(context));
    Value::Object(container)
}

fn init_arguments(job: &Job<'_>) -> Vec<String> {
    let global = &job.settings.values.global;
    let (values, mesh) = (&global.proxy, &job.settings.mesh);
    let asked = |annotation: &str, value: &str| job.annotations.get(annotation).unwrap_or(value).trim().to_owned();
    let mut arguments = vec!["init".to_owned()];
    let mut flag = |flag: &str, value: String| arguments.extend([flag.to_owned(), value]);
    flag("-p", mesh.proxy_listen_port.to_string());
    flag("-z", mesh.proxy_inbound_listen_port.to_string());
    flag("-u", PROXY_USER.to_string());
    flag("-m", job.interception_mode().to_owned());
    flag("-i", asked(INCLUDE_RANGES, &values.include_ip_ranges));
    flag("-x", asked(EXCLUDE_RANGES, &values.exclude_ip_ranges));
    flag("-b", asked(INCLUDE_INBOUND, &values.include_inbound_ports));
    flag("-d", excluded_inbound(job));
    let include = asked(INCLUDE_OUTBOUND, &values.include_outbound_ports);
    if !include.is_empty() {
        flag("-q", include);
    }
    let exclude = asked(EXCLUDE_OUTBOUND, &values.exclude_outbound_ports);
    if !exclude.is_empty() {
        flag("-o", exclude);
    }
    let virtual_interfaces = asked(REROUTE_INTERFACES, job.annotations.get(KUBEVIRT_INTERFACES).unwrap_or_default());
    if !virtual_interfaces.is_empty() {
        flag("-k", virtual_interfaces);
    }
    let interfaces = asked(EXCLUDE_INTERFACES, "");
    if !interfaces.is_empty() {
        flag("-c", interfaces);
    }
    if global.proxy_init.force_apply_iptables {
        arguments.push("--force-apply".to_owned());
    }
    if global.native_nftables {
        arguments.push("--native-nftables".to_owned());
    }
    arguments
}

/// The proxy's own ports are never redirected to it.
fn excluded_inbound(job: &Job<'_>) -> String {
    let values = &job.settings.values.global.proxy;
    let asked = job.annotations.get(EXCLUDE_INBOUND).unwrap_or(&values.exclude_inbound_ports);
    let mut ports = vec!["15090".to_owned(), "15021".to_owned()];
    ports.extend(crate::annotation::items(asked).map(str::to_owned));
    if job.status_port != 0 {
        ports.push(job.status_port.to_string());
    }
    let mut seen = std::collections::HashSet::new();
    ports.retain(|port| seen.insert(port.clone()));
    ports.join(",")
}
