//! Sidecar injection as a pure function: a pod in, a JSON patch out, or the reason why there is none.
//!
//! The control plane's webhook `/inject` and `mizzen kube-inject` ask the same function, so both give the same pod. Pods
//! are JSON values all the way: fields that this release has never heard of come out as they went in. The steps are
//! Istio's: decide, undo an earlier injection, lay the templates over the pod, lay the user's own words over the
//! templates, take over metrics and probes, note what was added, put the containers in order.
//!
//! Not here: HTTP, files, and which namespaces the API server asks about (only the selectors for it).

#![forbid(unsafe_code)]

mod again;
mod annotation;
mod container;
mod decide;
mod gateway;
mod merge;
mod names;
pub mod offline;
mod order;
mod pod;
mod probes;
mod prometheus;
mod proxy_config;
mod resource;
mod selector;
mod settings;
mod sidecar;
mod template;
mod values;
mod workload;
pub mod yaml;

use serde_json::Value;

pub use decide::{SYSTEM_NAMESPACES, Skip};
pub use names::{INJECT, INJECTION, REVISION, STATUS};
pub use resource::{Resource, resource};
pub use selector::{Entry, LabelSelector, Labels, Operator, Requirement, asked_by, entries};
pub use settings::{Settings, SettingsError, Sources};
pub use workload::Workload;

use names::*;
use proxy_config::ProxyConfig;

/// One pod, and what is known of it from elsewhere.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    pub pod: &'a Value,
    /// The namespace that the pod goes to, where the pod does not say.
    pub namespace: &'a str,
    /// What the pod is made from, where the pod has no owner yet.
    pub workload: Option<&'a Workload>,
    /// Variables from the webhook's path, sorted by name: [`environment`].
    pub environment: &'a [(String, String)],
    /// The `spec` of the ProxyConfig resources that hold for this pod: [`resource()`].
    pub proxy_config: Option<&'a Value>,
}

impl<'a> Request<'a> {
    pub fn new(pod: &'a Value, namespace: &'a str) -> Self {
        Self { pod, namespace, workload: None, environment: &[], proxy_config: None }
    }
}

/// What becomes of a pod.
#[derive(Debug, Clone)]
pub enum Decision {
    Injected(Injected),
    Skipped { why: Skip, warnings: Vec<String> },
}

#[derive(Debug, Clone)]
pub struct Injected {
    /// The pod as it will be.
    pub pod: Value,
    /// What the user should know.
    pub warnings: Vec<String>,
}

impl Injected {
    /// The way from the pod that was asked about to this one, as a JSON patch.
    pub fn patch(&self, from: &Value) -> json_patch::Patch {
        json_patch::diff(from, &self.pod)
    }
}

/// Why a pod that should be injected cannot be. Such a pod is refused: without its proxy it would bypass the mesh.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InjectError {
    #[error("`{field}` is {found}, so this is no pod; write what `kubectl explain pod` says")]
    Shape { field: &'static str, found: &'static str },
    #[error("annotation {name} is `{value}`: {reason}")]
    Annotation { name: &'static str, value: String, reason: String },
    #[error("interceptionMode `{0}` of the proxy configuration has no meaning; write REDIRECT, TPROXY or NONE")]
    InterceptionMode(String),
    #[error("there is no injection template `{name}`; there are {known}")]
    UnknownTemplate { name: String, known: String },
    #[error("the injection template `{0}` of Istio is not obeyed by this release; use `sidecar` or `gateway`")]
    TemplateNotObeyed(String),
    #[error("the injection template `{0}` is a Go template, which is not interpreted; write it as plain YAML")]
    GoTemplate(String),
    #[error("{0}")]
    BrokenTemplate(String),
}

/// Everything that the templates read about one pod.
pub(crate) struct Job<'s> {
    pub settings: &'s Settings,
    pub pod: &'s Value,
    pub labels: Labels<'s>,
    pub annotations: Labels<'s>,
    pub namespace: &'s str,
    pub workload: Workload,
    pub proxy_config: ProxyConfig,
    pub native: bool,
    /// The agent's port; 0 switches it off.
    pub status_port: u16,
    pub environment: &'s [(String, String)],
}

impl Job<'_> {
    pub(crate) fn interception_mode(&self) -> &str {
        self.annotations.get(INTERCEPTION).unwrap_or_else(|| self.proxy_config.interception_mode())
    }

    fn of_path(&self, name: &str) -> Option<&str> {
        self.environment.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn cluster(&self) -> &str {
        self.of_path("ISTIO_META_CLUSTER_ID").unwrap_or(&self.settings.values.global.multi_cluster.cluster_name)
    }

    /// The pod's label, the webhook's path, the values: the first that says something.
    pub(crate) fn network(&self) -> Option<&str> {
        let values = Some(self.settings.values.global.network.as_str());
        let all = [self.labels.get(NETWORK), self.of_path("ISTIO_META_NETWORK"), values];
        all.into_iter().flatten().find(|network| !network.is_empty())
    }
}

/// Decides about a pod, and injects it.
pub fn inject(settings: &Settings, request: &Request<'_>) -> Result<Decision, InjectError> {
    let mut warnings = Vec::new();
    let named = request.pod.pointer("/metadata/namespace").and_then(Value::as_str);
    let namespace = named.filter(|name| !name.is_empty()).unwrap_or(request.namespace);
    if let Some(why) = decide::skip(settings, request.pod, namespace, &mut warnings) {
        return Ok(Decision::Skipped { why, warnings });
    }
    let mut original = request.pod.clone();
    pod::shape(&mut original)?;
    again::undo(&mut original);
    let annotations = pod::annotations(&original);
    annotation::check(annotations, &mut warnings)?;
    let mut proxy_config = ProxyConfig::of(settings, &original, request.proxy_config)?;
    if let Some(port) = annotations.get(STATUS_PORT).and_then(|text| text.trim().parse().ok()) {
        proxy_config.set_status_port(port);
    }
    warn_of_image_type(&proxy_config, annotations, &mut warnings);
    let job = Job {
        settings,
        pod: &original,
        labels: pod::labels(&original),
        annotations,
        namespace,
        workload: request.workload.cloned().unwrap_or_else(|| Workload::of(&original, namespace)),
        native: annotations.get(NATIVE).and_then(annotation::boolean).unwrap_or(settings.native),
        status_port: proxy_config.status_port(),
        proxy_config,
        environment: request.environment,
    };
    warn_of_dns(&original, &mut warnings);
    let mut added = Value::Null;
    let mut pod = original.clone();
    for name in template::chosen(&job) {
        for overlay in template::overlays(&job, name)? {
            move_proxy(&mut pod, &overlay);
            merge::merge(&mut pod, &overlay);
            if added.is_null() {
                added = overlay;
            } else {
                merge::merge(&mut added, &overlay);
            }
        }
    }
    // What templates of users laid over it need not be a pod any more.
    pod::shape(&mut pod)?;
    let overrides = reapply(&mut pod, &job, &added);
    prometheus::merge(&mut pod, &job);
    probes::rewrite(&mut pod, &job, &mut warnings);
    if let Some(network) = job.network() {
        pod::label(&mut pod, NETWORK, network);
    }
    again::note(&mut pod, &original, &added, overrides, settings.revision());
    for (name, value) in &settings.injected_annotations {
        pod::annotate(&mut pod, name, value);
    }
    order::order(&mut pod, &job);
    for list in [pod::CONTAINERS, pod::INIT_CONTAINERS, pod::VOLUMES] {
        pod::drop_empty(&mut pod, list);
    }
    Ok(Decision::Injected(Injected { pod, warnings }))
}

/// A user writes `istio-proxy` under `containers`, whatever form the sidecar has: it goes where the template has it.
fn move_proxy(pod: &mut Value, overlay: &Value) {
    let lists = [pod::CONTAINERS, pod::INIT_CONTAINERS];
    for (from, to) in [lists, [lists[1], lists[0]]].map(|[from, to]| (from, to)) {
        if pod::position(overlay, to, PROXY).is_none() {
            continue;
        }
        let Some(index) = pod::position(pod, from, PROXY) else { continue };
        let Some(container) = pod::list_mut(pod, from).map(|items| items.remove(index)) else { continue };
        if let Some(items) = pod::list_mut(pod, to) {
            items.push(container);
        }
    }
}

/// The image that a user writes who means "the one that injection has".
const AUTO: &str = "auto";

/// Lays the user's own containers over what the templates made of them, and returns them.
fn reapply(pod: &mut Value, job: &Job<'_>, added: &Value) -> (Vec<Value>, Vec<Value>) {
    let mut kept = (Vec::new(), Vec::new());
    for (list, kept) in [(pod::CONTAINERS, &mut kept.0), (pod::INIT_CONTAINERS, &mut kept.1)] {
        for container in pod::list(added, list) {
            let name = pod::name(container);
            let own = [list, pod::CONTAINERS, pod::INIT_CONTAINERS]
                .into_iter()
                .find_map(|list| pod::list(job.pod, list).iter().find(|one| pod::name(one) == name));
            let (Some(own), Some(index)) = (own, pod::position(pod, list, name)) else { continue };
            kept.push(own.clone());
            let mut own = own.clone();
            if own.get("image").and_then(Value::as_str) == Some(AUTO)
                && let Some(own) = own.as_object_mut()
            {
                own.shift_remove("image");
                // The API server says so of every image without a tag, before it is known which image it will be.
                if own.get("imagePullPolicy").and_then(Value::as_str) == Some("Always") {
                    own.shift_remove("imagePullPolicy");
                }
            }
            // The templates' variables stand first, so that the user's may refer to them.
            let mut whole = container.clone();
            merge::merge(&mut whole, &own);
            if let Some(place) = pod::list_mut(pod, list).and_then(|items| items.get_mut(index)) {
                *place = whole;
            }
        }
    }
    adjust_init_user(pod, job);
    kept
}

/// A user who runs the proxy as somebody else needs that user's traffic left alone.
fn adjust_init_user(pod: &mut Value, job: &Job<'_>) {
    let Some(proxy) = pod::proxy_mut(pod) else { return };
    let Some(context) = proxy.get_mut("securityContext").and_then(Value::as_object_mut) else { return };
    if job.interception_mode() == "TPROXY" {
        // Marking packets takes root.
        if context.contains_key("runAsUser") {
            context.insert("runAsUser".to_owned(), 0.into());
        }
        return;
    }
    let user = context.get("runAsUser").and_then(Value::as_u64);
    let Some(user) = user.filter(|user| *user != 0) else { return };
    let Some(index) = pod::position(pod, pod::INIT_CONTAINERS, INIT) else { return };
    let init = pod::list_mut(pod, pod::INIT_CONTAINERS).and_then(|items| items.get_mut(index));
    let Some(arguments) = init.and_then(|init| init.get_mut("args")).and_then(Value::as_array_mut) else { return };
    let flag = arguments.iter().position(|argument| argument == "-u");
    if let Some(place) = flag.and_then(|flag| arguments.get_mut(flag + 1)) {
        *place = user.to_string().into();
    }
}

fn warn_of_dns(pod: &Value, warnings: &mut Vec<String>) {
    match pod.pointer("/spec/dnsPolicy").and_then(Value::as_str) {
        None | Some("" | "ClusterFirst") => {}
        Some(policy) => warnings.push(format!(
            "dnsPolicy is {}: the proxy may not find the control plane; it is sure to with ClusterFirst",
            pod::shortened(policy)
        )),
    }
}

fn warn_of_image_type(config: &ProxyConfig, annotations: Labels<'_>, warnings: &mut Vec<String>) {
    let asked = annotations.get(PROXY_IMAGE_TYPE).unwrap_or(config.image_type());
    if !["", "default", "distroless"].contains(&asked) {
        let asked = pod::shortened(asked);
        warnings.push(format!("image type `{asked}` is not obeyed: there is one image, with no shell in it"));
    }
}

/// The variables that a webhook's path stands for: `/inject/cluster/C/net/N/KEY/VALUE`, sorted by name.
pub fn environment(path: &str) -> Vec<(String, String)> {
    let rest = path.trim_start_matches('/').trim_start_matches("inject").trim_matches('/');
    let mut parts = rest.split('/');
    let mut found = Vec::new();
    while let (Some(key), Some(value)) = (parts.next(), parts.next()) {
        let name = match key {
            "" => continue,
            "cluster" => "ISTIO_META_CLUSTER_ID".to_owned(),
            "net" => "ISTIO_META_NETWORK".to_owned(),
            other => other.to_uppercase(),
        };
        found.push((name, value.replace("--slash--", "/")));
    }
    found.sort();
    found.dedup_by(|later, earlier| later.0 == earlier.0);
    found
}
