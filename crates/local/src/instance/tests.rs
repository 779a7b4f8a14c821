use super::*;
use crate::manifest::Manifests;
use crate::plan::plan;

pub(crate) fn workload() -> Arc<Workload> {
    let mut manifests = Manifests::default();
    manifests.add_text(
        &std::path::Path::new("test.yaml").into(),
        r"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web-v1, namespace: shop}
spec:
  template:
    metadata: {labels: {app: web, version: v1}}
    spec:
      serviceAccountName: shopper
      containers:
        - name: web
          image: docker.io/istio/examples-bookinfo-reviews-v2
          ports: [{containerPort: 9080, name: http}]
          env:
            - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
            - {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
            - {name: APP, valueFrom: {fieldRef: {fieldPath: 'metadata.labels[''app'']'}}}
            - {name: NONE, valueFrom: {fieldRef: {fieldPath: status.moon}}}
          readinessProbe: {httpGet: {path: /health, port: http}}
",
    );
    plan(&manifests, crate::capture::Capture::Explicit).workloads[0].clone()
}

pub(crate) fn instance() -> Instance {
    Instance::sidecar(workload(), 3, Ipv4Addr::new(127, 64, 1, 1), BTreeMap::from([(9080, 41234)]))
}

#[test]
fn names_are_those_of_istio() {
    let instance = instance();
    assert_eq!(instance.node_id(), "sidecar~127.64.1.1~web-v1-3.shop~shop.svc.cluster.local");
    assert_eq!(
        instance.identity(&TrustDomain::new("cluster.local")).to_string(),
        "spiffe://cluster.local/ns/shop/sa/shopper"
    );
    assert_eq!(instance.labels["service.istio.io/canonical-name"], "web");
    assert_eq!(instance.labels["service.istio.io/canonical-revision"], "v1");
    let gateway = Instance::gateway(Ipv4Addr::new(127, 64, 0, 2), Ipv4Addr::LOCALHOST, vec![8080]);
    assert_eq!(
        gateway.node_id(),
        "router~127.64.0.2~istio-ingressgateway-0.istio-system~istio-system.svc.cluster.local"
    );
    assert_eq!(gateway.shown_address(), "127.0.0.1:8080");
}

#[test]
fn fields_of_the_pod_become_variables() {
    let instance = instance();
    let environment = instance.container_environment(&workload());
    let expected = [("POD", "web-v1-3"), ("IP", "127.64.1.1"), ("APP", "web")];
    assert_eq!(environment, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
}

#[test]
fn probes_ask_the_application_not_the_proxy() {
    let instance = instance();
    let probe = workload().readiness.clone().expect("a probe");
    let target = instance.probe_target(&probe.action, Ipv4Addr::LOCALHOST, &[]).expect("a target");
    let Target::Http { address, path, .. } = target else { panic!("{target:?}") };
    assert_eq!((address.to_string().as_str(), path.as_str()), ("127.0.0.1:41234", "/health"));
}
