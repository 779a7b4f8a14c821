use super::*;

fn read_text(text: &str) -> Manifests {
    let mut manifests = Manifests::default();
    manifests.add_text(&Path::new("test.yaml").into(), text);
    manifests
}

#[test]
fn a_bad_document_spoils_only_itself() {
    let manifests = read_text(
        "kind: Namespace\napiVersion: v1\nmetadata: {name: one}\n---\na: [\n--- # comment\nkind: Namespace\napiVersion: v1\nmetadata:\n  name: two\n",
    );
    let names: Vec<&str> = manifests.namespaces.iter().map(|namespace| namespace.name.as_str()).collect();
    assert_eq!(names, ["one", "two"]);
    let [problem] = manifests.problems.as_slice() else { panic!("{:?}", manifests.problems) };
    assert!(problem.message.contains("begins in line 4"), "{}", problem.message);
}

#[test]
fn unknown_kinds_are_named() {
    let manifests = read_text("kind: PersistentVolumeClaim\napiVersion: v1\nmetadata: {name: data}\n---\nfoo: 1\n");
    assert_eq!(manifests.skipped.len(), 1);
    assert_eq!(
        (manifests.skipped[0].kind.as_str(), manifests.skipped[0].name.as_str()),
        ("PersistentVolumeClaim", "data")
    );
    assert!(manifests.problems[0].message.contains("no `kind`"));
}

#[test]
fn a_deployment_is_read() {
    let manifests = read_text(
        r"
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  namespace: shop
  annotations: {mizzen.dev/command: outer}
spec:
  replicas: 2
  template:
    metadata:
      labels: {app: web, version: 7}
      annotations: {mizzen.dev/command: inner, other: x}
    spec:
      serviceAccountName: shopper
      containers:
        - name: web
          image: me/web:1
          ports: [{containerPort: 80, name: http}]
          env:
            - {name: A, value: b}
            - {name: N, value: 3}
            - {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
            - {name: S, valueFrom: {secretKeyRef: {name: s, key: k}}}
          readinessProbe: {httpGet: {path: /ok, port: http}, periodSeconds: 2}
",
    );
    assert_eq!(manifests.problems, []);
    let web = &manifests.deployments[0];
    assert_eq!((web.namespace.as_str(), web.name.as_str(), web.replicas), ("shop", "web", 2));
    assert_eq!(web.annotations["mizzen.dev/command"], "outer");
    assert_eq!(web.annotations["other"], "x");
    assert_eq!(web.labels["version"], "7");
    assert_eq!(web.service_account, "shopper");
    let sources: Vec<&ValueSource> = web.containers[0].env.iter().map(|variable| &variable.value).collect();
    assert_eq!(
        sources,
        [
            &ValueSource::Literal("b".into()),
            &ValueSource::Literal("3".into()),
            &ValueSource::Field("status.podIP".into()),
            &ValueSource::Unsupported("secretKeyRef".into()),
        ]
    );
    assert!(web.readiness.is_some());
}

#[test]
fn what_is_wrong_with_a_deployment_is_said() {
    let manifests = read_text(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: {replicas: many}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {ports: [{port: 0}]}\n",
    );
    let messages: Vec<&str> = manifests.problems.iter().map(|problem| problem.message.as_str()).collect();
    assert!(messages[0].contains("Deployment web") && messages[0].contains("spec.replicas"), "{messages:?}");
    assert!(messages[1].contains("Service s") && messages[1].contains("spec.ports[0].port"), "{messages:?}");
}

#[test]
fn entries_from_outside() {
    let manifests = read_text(
        r#"
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gw}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 8080, name: http, protocol: HTTP}, hosts: ["*/shop.test"]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop, namespace: web}
spec:
  hosts: [shop.test]
  gateways: [mesh, default/gw]
  http: [{match: [{headers: {a: {exact: b}}}, {uri: {prefix: /cart}}]}]
"#,
    );
    let server = &manifests.gateways[0];
    assert_eq!((server.gateway.as_str(), server.port, server.ours), ("default/gw", 8080, true));
    assert_eq!(server.hosts, ["shop.test"]);
    let entry = &manifests.entries[0];
    assert_eq!((entry.host.as_str(), entry.path.as_str()), ("shop.test", "/cart"));
    assert_eq!(entry.gateways, ["default/gw"]);
}
