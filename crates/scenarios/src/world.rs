//! The mesh that every scenario starts from: Bookinfo, a few services beside it, and a gateway.
//!
//! | workload | service | port | |
//! |---|---|---|---|
//! | `productpage-v1` | `productpage` | 9080 HTTP | with a sidecar: the caller named `productpage` |
//! | `details-v1` | `details` | 9080 HTTP | |
//! | `reviews-v1`, `-v2`, `-v3` | `reviews` | 9080 HTTP | |
//! | `ratings-v1` | `ratings` | 9080 HTTP | with a sidecar: mutual TLS |
//! | `reviews-other` | `reviews` in `ns2` | 9080 HTTP | a name that stands twice |
//! | `service2-v1` | `service2` in `ns2` | 9080 HTTP | |
//! | `tcp-echo-v1` | `tcp-echo` | 9000 TCP | says its name and sends all bytes back |
//! | `grpc-echo-v1` | `grpc-echo` | 7070 gRPC | with a sidecar; answers with trailers |
//! | `tls-echo-v1` | `tls-echo` | 9443 TLS | has a certificate of its own, for `tls-echo.example.org` |
//! | `outside` | none | 9080 | for ServiceEntries: its address is 127.200.1.20; as a caller it goes straight to an address |
//! | `istio-ingressgateway` | the same, in `istio-system` | 80, 443, 8888 | |
//!
//! Addresses are 127.200.x.y here and in scenario files; runners on the wire put their own number in the place of 200.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

/// The number that stands for a run's own in all files.
const NET: &str = "127.200.";

/// A workload of the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workload {
    pub name: &'static str,
    pub namespace: &'static str,
    /// Label `app`, and the service that selects it; empty for one outside of the mesh.
    pub app: &'static str,
    pub version: &'static str,
    pub service_account: &'static str,
    pub port: u16,
    pub speaks: Speaks,
    pub sidecar: bool,
    host: [u8; 2],
}

/// What a workload understands at its port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    Http,
    Grpc,
    Tcp,
    Tls,
}

impl Speaks {
    /// The name of a Service's port.
    fn port_name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        }
    }
}

const fn bookinfo(
    app: &'static str,
    name: &'static str,
    version: &'static str,
    account: &'static str,
    host: u8,
) -> Workload {
    Workload {
        name,
        namespace: "default",
        app,
        version,
        service_account: account,
        port: 9080,
        speaks: Speaks::Http,
        sidecar: false,
        host: [1, host],
    }
}

/// All workloads but the gateway.
pub const WORKLOADS: [Workload; 12] = [
    Workload { sidecar: true, ..bookinfo("productpage", "productpage-v1", "v1", "bookinfo-productpage", 1) },
    bookinfo("details", "details-v1", "v1", "bookinfo-details", 2),
    bookinfo("reviews", "reviews-v1", "v1", "bookinfo-reviews", 3),
    bookinfo("reviews", "reviews-v2", "v2", "bookinfo-reviews", 4),
    bookinfo("reviews", "reviews-v3", "v3", "bookinfo-reviews", 5),
    Workload { sidecar: true, ..bookinfo("ratings", "ratings-v1", "v1", "bookinfo-ratings", 6) },
    Workload { port: 9000, speaks: Speaks::Tcp, ..bookinfo("tcp-echo", "tcp-echo-v1", "v1", "tcp-echo", 7) },
    Workload {
        port: 7070,
        speaks: Speaks::Grpc,
        sidecar: true,
        ..bookinfo("grpc-echo", "grpc-echo-v1", "v1", "grpc-echo", 10)
    },
    Workload { port: 9443, speaks: Speaks::Tls, ..bookinfo("tls-echo", "tls-echo-v1", "v1", "tls-echo", 11) },
    Workload { namespace: "ns2", ..bookinfo("service2", "service2-v1", "v1", "service2", 8) },
    Workload { namespace: "ns2", ..bookinfo("reviews", "reviews-other", "other", "reviews", 9) },
    bookinfo("", "outside", "", "", 20),
];

/// The workload outside of the mesh, as a caller.
pub const OUTSIDE: &str = "outside";

/// Where the gateway's proxy is.
pub const GATEWAY: &str = "istio-ingressgateway-1";
const GATEWAY_HOST: [u8; 2] = [0, 2];
/// Ports of the gateway's service and where its proxy opens them.
pub const GATEWAY_PORTS: [(u16, u16); 3] = [(80, 8080), (443, 8443), (8888, 8888)];

impl Workload {
    pub fn address(&self, net: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, net, self.host[0], self.host[1])
    }

    pub fn named(name: &str) -> Option<&'static Self> {
        WORKLOADS.iter().find(|workload| workload.name == name)
    }

    /// The workload at an address, of whatever net.
    pub fn at(address: Ipv4Addr) -> Option<&'static Self> {
        let [_, _, third, fourth] = address.octets();
        WORKLOADS.iter().find(|workload| workload.host == [third, fourth])
    }

    pub fn labels(&self) -> Vec<(&'static str, &'static str)> {
        let mut labels = vec![("app", self.app), ("version", self.version)];
        if self.sidecar {
            labels.push(("security.istio.io/tlsMode", "istio"));
        }
        labels
    }
}

pub fn gateway_address(net: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, net, GATEWAY_HOST[0], GATEWAY_HOST[1])
}

pub const GATEWAY_LABELS: [(&str, &str); 2] = [("app", "istio-ingressgateway"), ("istio", "ingressgateway")];

/// A text of a scenario or of the world with the addresses of this run.
pub fn renumbered(text: &str, net: u8) -> String {
    text.replace(NET, &format!("127.{net}."))
}

/// The objects of the world as YAML, as a cluster would have them.
pub fn yaml(net: u8) -> String {
    let mut text = String::new();
    // Writing into a String cannot fail.
    let _ = write_world(&mut text);
    renumbered(&text, net)
}

fn write_world(text: &mut String) -> std::fmt::Result {
    for namespace in ["default", "ns2", "istio-system"] {
        writeln!(text, "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}}}\n---")?;
    }
    for workload in WORKLOADS.iter().filter(|workload| !workload.app.is_empty()) {
        write_pod(
            text,
            workload.name,
            workload.namespace,
            &workload.labels(),
            workload.service_account,
            workload.host,
            &[workload.port],
        )?;
    }
    let ports: Vec<u16> = GATEWAY_PORTS.iter().map(|(_, target)| *target).collect();
    write_pod(
        text,
        GATEWAY,
        "istio-system",
        &GATEWAY_LABELS,
        "istio-ingressgateway-service-account",
        GATEWAY_HOST,
        &ports,
    )?;

    let mut services: Vec<(&str, &str)> = Vec::new();
    for workload in WORKLOADS.iter().filter(|workload| !workload.app.is_empty()) {
        if services.contains(&(workload.namespace, workload.app)) {
            continue;
        }
        services.push((workload.namespace, workload.app));
        let name = workload.speaks.port_name();
        let of_service: Vec<_> = WORKLOADS
            .iter()
            .filter(|other| (other.namespace, other.app) == (workload.namespace, workload.app))
            .map(|other| (other.name, other.host))
            .collect();
        write_service(
            text,
            workload.app,
            workload.namespace,
            &format!("{{app: {}}}", workload.app),
            &[(name, workload.port, workload.port)],
            &of_service,
        )?;
    }
    let ports = GATEWAY_PORTS.map(|(port, target)| {
        (["http2", "https", "http-more"][usize::from(port == 443) + 2 * usize::from(port == 8888)], port, target)
    });
    write_service(
        text,
        "istio-ingressgateway",
        "istio-system",
        "{app: istio-ingressgateway, istio: ingressgateway}",
        &ports,
        &[(GATEWAY, GATEWAY_HOST)],
    )
}

fn write_pod(
    text: &mut String,
    name: &str,
    namespace: &str,
    labels: &[(&str, &str)],
    service_account: &str,
    host: [u8; 2],
    ports: &[u16],
) -> std::fmt::Result {
    let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}: {value:?}")).collect();
    let ports: Vec<String> = ports.iter().map(|port| format!("{{containerPort: {port}}}")).collect();
    let ip = format!("{NET}{}.{}", host[0], host[1]);
    writeln!(
        text,
        r#"apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {namespace}, labels: {{{labels}}}}}
spec:
  serviceAccountName: {service_account}
  containers: [{{name: app, image: app, ports: [{ports}]}}]
status:
  phase: Running
  podIP: {ip}
  podIPs: [{{ip: {ip}}}]
  conditions: [{{type: Ready, status: "True"}}]
---"#,
        labels = labels.join(", "),
        ports = ports.join(", "),
    )
}

fn write_service(
    text: &mut String,
    name: &str,
    namespace: &str,
    selector: &str,
    ports: &[(&str, u16, u16)],
    pods: &[(&str, [u8; 2])],
) -> std::fmt::Result {
    let of_service: Vec<String> = ports
        .iter()
        .map(|(name, port, target)| format!("{{name: {name}, port: {port}, targetPort: {target}, protocol: TCP}}"))
        .collect();
    let of_slice: Vec<String> =
        ports.iter().map(|(name, _, target)| format!("{{name: {name}, port: {target}, protocol: TCP}}")).collect();
    writeln!(
        text,
        r#"apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  selector: {selector}
  ports: [{}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: {name}-1
  namespace: {namespace}
  labels: {{kubernetes.io/service-name: {name}}}
addressType: IPv4
ports: [{}]
endpoints:"#,
        of_service.join(", "),
        of_slice.join(", "),
    )?;
    for (pod, host) in pods {
        writeln!(
            text,
            "- {{addresses: [{NET}{}.{}], conditions: {{ready: true, serving: true, terminating: false}}, targetRef: {{kind: Pod, name: {pod}, namespace: {namespace}}}}}",
            host[0], host[1],
        )?;
    }
    writeln!(text, "---")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_world_is_right_in_itself() {
        let parsed = mizzen_config::parse("world.yaml", &yaml(77));
        let bad: Vec<_> =
            parsed.findings.iter().filter(|finding| finding.severity > mizzen_types::Severity::Info).collect();
        assert!(bad.is_empty(), "{bad:#?}");
        let of_kind = |kind: &str| parsed.objects.iter().filter(|object| &*object.key.kind == kind).count();
        assert_eq!((of_kind("Pod"), of_kind("Service"), of_kind("EndpointSlice")), (12, 10, 10));
    }

    #[test]
    fn addresses_lead_back_to_workloads() {
        for workload in &WORKLOADS {
            assert_eq!(Workload::at(workload.address(99)), Some(workload));
        }
        assert_eq!(renumbered("x: 127.200.1.20", 64), "x: 127.64.1.20");
    }
}
