//! A mesh in a Kubernetes cluster, asked with the user's own kubeconfig: ports of its pods are forwarded through the API
//! server, as `kubectl port-forward` does. Not here: what is asked (the commands' own files).

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::ListParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use mizzen_local::run_file::{ControlAddresses, Instance, RunFile};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

/// Where the cluster is, and where in it the mesh.
#[derive(Debug, Clone, Default)]
pub struct WantedCluster {
    pub kubeconfig: Option<PathBuf>,
    pub context: Option<String>,
    /// Namespace of the control plane.
    pub root_namespace: String,
}

/// Istio's ports.
const XDS: u16 = 15010;
const DEBUG: u16 = 15014;
const ADMIN: u16 = 15000;
const PROXY_CONTAINER: &str = "istio-proxy";

/// A cluster with a control plane in it.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    /// Its proxies, in the form of a run on one machine.
    pub(crate) run: RunFile,
    /// Debug addresses of all replicas of the control plane: each knows only its own proxies.
    pub(crate) controls: Vec<SocketAddr>,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Cluster").field("controls", &self.controls).finish_non_exhaustive()
    }
}

impl Cluster {
    /// Finds the control plane and the proxies. Forwarding goes on for as long as the runtime lives.
    ///
    /// # Errors
    /// No usable kubeconfig, no answer, or no control plane that is ready.
    pub async fn find(wanted: &WantedCluster) -> Result<Self> {
        let config = load(wanted).await?;
        let server = config.cluster_url.to_string();
        let client = Client::try_from(config).context("the kubeconfig cannot be used")?;
        let root = &wanted.root_namespace;
        let discovery = Api::<Pod>::namespaced(client.clone(), root)
            .list(&ListParams::default().labels("app=istiod"))
            .await
            .with_context(|| format!("the API server {server} cannot be asked for the control plane"))?;
        let ready: Vec<String> = discovery.items.iter().filter(|pod| is_ready(pod)).filter_map(name).collect();
        let Some(first) = ready.first() else {
            bail!(
                "no control plane is ready in namespace {root} of {server}; install one (`helm install istio charts/control -n {root}`), or name its namespace: --istio-namespace"
            );
        };
        let mut controls = Vec::new();
        for pod in &ready {
            controls.push(forward(&client, root, pod, DEBUG).await?);
        }
        let xds = forward(&client, root, first, XDS).await?;

        let pods =
            Api::<Pod>::all(client.clone()).list(&ListParams::default()).await.context("pods cannot be listed")?;
        let proxies = pods.items.iter().filter(|pod| is_running(pod)).filter_map(instance);
        let (mut gateways, workloads): (Vec<_>, Vec<_>) =
            proxies.partition(|instance: &Instance| instance.node.starts_with("router~"));
        gateways.sort_by_key(|gateway| gateway.metadata["LABELS"]["istio"] != "ingressgateway");
        let gateway_ports = match gateways.first() {
            Some(gateway) => target_ports(&client, gateway).await.unwrap_or_default(),
            None => BTreeMap::new(),
        };
        let mut others = gateways.into_iter();
        let run = RunFile {
            name: server,
            pid: 0,
            version: String::new(),
            proxy: "mizzen".to_owned(),
            config: Vec::new(),
            control: ControlAddresses {
                xds,
                // Never asked: a person has no certificate of the mesh.
                secure_xds: xds,
                debug: *controls.first().context("a control plane was found")?,
                log: PathBuf::new(),
            },
            gateway: others.next(),
            gateway_ports,
            workloads: others.chain(workloads).collect(),
        };
        Ok(Self { client, run, controls })
    }

    /// The admin port of a proxy.
    pub(crate) async fn admin(&self, instance: &Instance) -> Result<SocketAddr> {
        forward(&self.client, &instance.namespace, &instance.pod, ADMIN).await
    }
}

async fn load(wanted: &WantedCluster) -> Result<Config> {
    let options = KubeConfigOptions { context: wanted.context.clone(), ..Default::default() };
    let file = match &wanted.kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path);
            file.with_context(|| format!("the kubeconfig {} cannot be read", path.display()))?
        }
        None => Kubeconfig::read().context("there is no kubeconfig: neither KUBECONFIG nor ~/.kube/config")?,
    };
    Config::from_custom_kubeconfig(file, &options).await.context("the kubeconfig cannot be used")
}

/// Whether a kubeconfig is where `kubectl` would look for one.
pub fn has_kubeconfig(variable: Option<&std::ffi::OsStr>, home: Option<&Path>) -> bool {
    variable.is_some_and(|paths| !paths.is_empty()) || home.is_some_and(|home| home.join(".kube/config").is_file())
}

/// Opens a port on loopback whose connections end at a port of a pod.
async fn forward(client: &Client, namespace: &str, pod: &str, port: u16) -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("no port can be opened on 127.0.0.1")?;
    let address = listener.local_addr()?;
    let pods = Api::<Pod>::namespaced(client.clone(), namespace);
    let pod = pod.to_owned();
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            let (pods, pod) = (pods.clone(), pod.clone());
            tokio::spawn(async move {
                if let Err(error) = relay(&pods, &pod, port, connection).await {
                    tracing::debug!(pod, port, %error, "the forwarded connection ended");
                }
            });
        }
    });
    Ok(address)
}

async fn relay(pods: &Api<Pod>, pod: &str, port: u16, mut connection: TcpStream) -> Result<()> {
    let mut forwarder = pods.portforward(pod, &[port]).await?;
    let mut stream = forwarder.take_stream(port).context("the API server opened no stream")?;
    tokio::io::copy_bidirectional(&mut connection, &mut stream).await?;
    drop(stream);
    forwarder.join().await?;
    Ok(())
}

fn name(pod: &Pod) -> Option<String> {
    pod.metadata.name.clone()
}

fn is_running(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    phase == Some("Running") && pod.metadata.deletion_timestamp.is_none()
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    is_running(pod)
        && conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// The proxy in a pod, where there is one: with the node that it has by what the pod says.
fn instance(pod: &Pod) -> Option<Instance> {
    let spec = pod.spec.as_ref()?;
    let mut containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let proxy = containers.find(|container| container.name == PROXY_CONTAINER)?;
    let name = pod.metadata.name.clone()?;
    let namespace = pod.metadata.namespace.clone()?;
    let address = pod.status.as_ref()?.pod_ip.clone()?;
    let router = proxy.args.iter().flatten().any(|argument| argument == "router");
    let role = if router { "router" } else { "sidecar" };
    let variable = |wanted: &str| {
        let found = proxy.env.iter().flatten().find(|variable| variable.name == wanted);
        found.and_then(|variable| variable.value.clone())
    };
    let service_account = spec.service_account_name.clone().unwrap_or_else(|| "default".to_owned());
    let trust_domain = variable("TRUST_DOMAIN").unwrap_or_else(|| "cluster.local".to_owned());
    let mut metadata = json!({
        "NAME": name,
        "NAMESPACE": namespace,
        "SERVICE_ACCOUNT": service_account,
        "LABELS": pod.metadata.labels,
        "INTERCEPTION_MODE": variable("ISTIO_META_INTERCEPTION_MODE").unwrap_or_else(|| "REDIRECT".to_owned()),
        "CLUSTER_ID": variable("ISTIO_META_CLUSTER_ID").unwrap_or_else(|| "Kubernetes".to_owned()),
        "MIZZEN_VERSION": env!("CARGO_PKG_VERSION"),
    });
    let workload = variable("ISTIO_META_WORKLOAD_NAME").unwrap_or_else(|| name.clone());
    metadata["WORKLOAD_NAME"] = Value::String(workload.clone());
    let unknown = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    Some(Instance {
        workload,
        node: format!("{role}~{address}~{name}.{namespace}~{namespace}.svc.cluster.local"),
        identity: format!("spiffe://{trust_domain}/ns/{namespace}/sa/{service_account}"),
        pod: name,
        namespace,
        metadata,
        address,
        // Of a pod these are reached by forwarding.
        admin: unknown,
        health: unknown,
        stats: unknown,
        state: String::new(),
        bootstrap: PathBuf::new(),
        logs: PathBuf::new(),
        sandbox: None,
    })
}

/// Ports of the services in front of a gateway, and where its pods listen for them.
async fn target_ports(client: &Client, gateway: &Instance) -> Result<BTreeMap<u16, u16>> {
    let services =
        Api::<Service>::namespaced(client.clone(), &gateway.namespace).list(&ListParams::default()).await?.items;
    let labels = &gateway.metadata["LABELS"];
    let mut ports = BTreeMap::new();
    for spec in services.into_iter().filter_map(|service| service.spec) {
        let selector = spec.selector.unwrap_or_default();
        if selector.is_empty() || selector.iter().any(|(key, value)| labels[key] != **value) {
            continue;
        }
        for port in spec.ports.unwrap_or_default() {
            let target = match port.target_port {
                Some(IntOrString::Int(target)) => target,
                _ => port.port,
            };
            if let (Ok(port), Ok(target)) = (u16::try_from(port.port), u16::try_from(target)) {
                ports.insert(port, target);
            }
        }
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::instance;

    #[test]
    fn a_pod_with_a_proxy_is_an_instance() {
        let pod = |container: &str, args: &[&str]| {
            let pod = serde_json::json!({
                "metadata": {"name": "reviews-v1-abc", "namespace": "shop", "labels": {"app": "reviews"}},
                "spec": {
                    "serviceAccountName": "bookinfo-reviews",
                    "containers": [{"name": "app"}],
                    "initContainers": [{
                        "name": container, "args": args,
                        "env": [{"name": "ISTIO_META_WORKLOAD_NAME", "value": "reviews-v1"}],
                    }],
                },
                "status": {"podIP": "10.0.0.7"},
            });
            instance(&serde_json::from_value(pod).unwrap())
        };
        let sidecar = pod("istio-proxy", &["proxy", "sidecar"]).unwrap();
        assert_eq!(sidecar.node, "sidecar~10.0.0.7~reviews-v1-abc.shop~shop.svc.cluster.local");
        assert_eq!(sidecar.workload, "reviews-v1");
        assert_eq!(sidecar.identity, "spiffe://cluster.local/ns/shop/sa/bookinfo-reviews");
        assert!(pod("istio-proxy", &["proxy", "router"]).unwrap().node.starts_with("router~"));
        assert!(pod("other", &[]).is_none());
    }
}
