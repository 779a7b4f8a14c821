//! Ways of interception, gateways and their secrets, and what is read from a node.

use mizzen_mesh::Mesh;
use mizzen_translate::{Dialect, Interception, ProxyView, Role, ViewError};
use serde_json::{Value, json};

use super::{TO, bound, decode, gateway, host, mesh, named, redirected, reviews, sidecar, table};

#[test]
fn a_bound_sidecar_listens_for_its_service_and_its_application() {
    let mesh = mesh("");
    let view = sidecar(&mesh, &bound());
    let listeners = mizzen_translate::listeners(&mesh, &view);
    let names: Vec<&str> = listeners.iter().map(|listener| listener.name.as_str()).collect();
    assert_eq!(names, ["10.0.0.1_15002", "10.0.0.1_8080"]);
    let inbound = named(&listeners, "10.0.0.1_8080");
    assert_eq!(inbound["address"]["socketAddress"], json!({"address": "10.0.0.1", "portValue": 8080}));
    let chains = inbound["filterChains"].as_array().expect("there are some");
    let transports: Vec<&Value> = chains.iter().map(|chain| &chain["filterChainMatch"]["transportProtocol"]).collect();
    assert_eq!(transports, ["tls", "raw_buffer"]);
    assert!(chains.iter().all(|chain| chain["filterChainMatch"].get("destinationPort").is_none()));
    let clusters = mizzen_translate::clusters(&mesh, &view);
    let own = named(&clusters, "inbound|8080||");
    assert_eq!(
        own.pointer("/loadAssignment/endpoints/0/lbEndpoints/0/endpoint/address/socketAddress"),
        Some(&json!({"address": "127.0.0.1", "portValue": 41234}))
    );
    // Nothing may go where the connection was meant for: that is the proxy itself.
    assert!(clusters.iter().all(|cluster| decode(cluster)["type"] != "ORIGINAL_DST"));
}

#[test]
fn an_http_proxy_knows_all_ports_by_name() {
    let mesh = mesh(&reviews(&format!("[{{match: [{{port: 9080}}], name: mine, {TO}}}]")));
    let table = table(&mesh, &sidecar(&mesh, &bound()), "http_proxy");
    assert_eq!(host(&table, "reviews:9080")["routes"][0]["name"], "mine");
    assert_eq!(host(&table, "reviews.shop.svc.cluster.local:9080")["name"], "reviews.shop.svc.cluster.local:9080");
    assert_eq!(host(&table, "ratings.away:9080")["routes"][0]["name"], "default");
    // Without a port it is port 80.
    for domain in ["front", "front:80", "10.96.0.1", "10.96.0.1:80"] {
        assert_eq!(host(&table, domain)["name"], "front.shop.svc.cluster.local:80");
    }
    assert_eq!(host(&table, "*")["routes"][0]["directResponse"]["status"], 502);
    assert!(table.get("ignorePortInHostMatching").is_none());
}

#[test]
fn inbound_chains_follow_peer_authentication() {
    let chains = |mode: &str| {
        let policy = format!(
            "{{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {{name: p, namespace: shop}}, spec: \
             {{mtls: {{mode: {mode}}}}}}}"
        );
        let mesh = mesh(&policy);
        let listeners = mizzen_translate::listeners(&mesh, &sidecar(&mesh, &bound()));
        let listener = named(&listeners, "10.0.0.1_8080");
        let chains = listener["filterChains"].as_array().cloned().unwrap_or_default();
        chains.iter().map(|chain| chain.get("transportSocket").is_some()).collect::<Vec<_>>()
    };
    assert_eq!(chains("PERMISSIVE"), [true, false]);
    assert_eq!(chains("STRICT"), [true]);
    assert_eq!(chains("DISABLE"), [false]);
}

const GATEWAY: &str = "
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec:
  selector: {istio: ingressgateway}
  servers:
    - {port: {number: 80, name: http, protocol: HTTP}, hosts: [a.example.com, 'away/b.example.com']}
    - {port: {number: 443, name: https, protocol: HTTPS}, hosts: [a.example.com], tls: {mode: SIMPLE, credentialName: cert}}
";

#[test]
fn a_gateway_serves_the_hosts_that_both_sides_name() {
    let rule = |namespace: &str, host: &str| {
        format!(
            "{{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {{name: v, namespace: {namespace}}}, \
             spec: {{hosts: ['{host}'], gateways: [shop/edge], http: [{{route: [{{destination: {{host: \
             ratings.away.svc.cluster.local}}}}]}}]}}}}"
        )
    };
    let domains = |rules: &[String]| {
        let mesh = mesh(&format!("{GATEWAY}\n---\n{}", rules.join("\n---\n")));
        let table = table(&mesh, &gateway(&mesh, &redirected()), "http.8080");
        let hosts = table["virtualHosts"].as_array().cloned().unwrap_or_default();
        hosts.iter().map(|host| host["domains"].to_string()).collect::<Vec<_>>()
    };
    assert_eq!(domains(&[rule("shop", "a.example.com")]), [r#"["a.example.com"]"#]);
    assert_eq!(domains(&[rule("shop", "*.example.com")]), [r#"["a.example.com"]"#]);
    // The other host is for the rules of one namespace.
    assert_eq!(domains(&[rule("shop", "b.example.com")]), [r#"["*"]"#]);
    assert_eq!(domains(&[rule("away", "b.example.com")]), [r#"["b.example.com"]"#]);
    assert_eq!(domains(&[rule("shop", "c.example.com")]), [r#"["*"]"#]);
}

#[test]
fn a_gateway_listens_where_its_service_leads() {
    let mesh = mesh(GATEWAY);
    let view = gateway(&mesh, &json!({"MIZZEN_VERSION": "0.1.0", "MIZZEN_BIND": "127.0.0.1"}));
    let listeners = mizzen_translate::listeners(&mesh, &view);
    // Port 80 leads to 8080; 443 is none of the service's, so it is meant literally.
    let http = named(&listeners, "0.0.0.0_8080");
    assert_eq!(http["address"]["socketAddress"], json!({"address": "127.0.0.1", "portValue": 8080}));
    named(&listeners, "0.0.0.0_443");
    let unprivileged = gateway(&mesh, &json!({"UNPRIVILEGED_POD": "true"}));
    let names: Vec<String> = mizzen_translate::listeners(&mesh, &unprivileged).into_iter().map(|l| l.name).collect();
    assert_eq!(names, ["0.0.0.0_8080"]);
}

#[test]
fn secrets_are_for_gateways_of_their_own_namespace() {
    let secret = |namespace: &str| {
        format!(
            "{{apiVersion: v1, kind: Secret, metadata: {{name: cert, namespace: {namespace}}}, type: kubernetes.io/tls, \
             stringData: {{tls.crt: CERT, tls.key: KEY, ca.crt: ROOTS}}}}"
        )
    };
    let ours = mesh(&secret("istio-system"));
    let view = gateway(&ours, &redirected());
    let made =
        |mesh: &Mesh, view: &ProxyView, name: &str| mizzen_translate::secret(mesh, view, name).map(|r| decode(&r));
    let own = made(&ours, &view, "kubernetes://cert").expect("there is one");
    assert_eq!(own["tlsCertificate"]["privateKey"]["inlineBytes"], "S0VZ");
    let roots = made(&ours, &view, "kubernetes://cert-cacert").expect("they are in the same object");
    assert_eq!(roots["validationContext"]["trustedCa"]["inlineBytes"], "Uk9PVFM=");
    for name in ["kubernetes://other", "cert", "default", "kubernetes://shop/cert"] {
        assert!(made(&ours, &view, name).is_none(), "{name}");
    }
    assert!(made(&ours, &sidecar(&ours, &redirected()), "kubernetes://cert").is_none(), "sidecars get none");
    let elsewhere = mesh(&secret("shop"));
    assert!(made(&elsewhere, &gateway(&elsewhere, &redirected()), "kubernetes://cert").is_none());
}

#[test]
fn two_translations_are_the_same_bytes() {
    let yaml = format!(
        "{GATEWAY}\n---\n{}",
        include_str!("../every_rule.yaml").replace("namespace: default", "namespace: shop")
    );
    let all = || {
        let mesh = mesh(&yaml);
        let mut all = Vec::new();
        for view in [sidecar(&mesh, &redirected()), sidecar(&mesh, &bound()), gateway(&mesh, &redirected())] {
            all.extend(mizzen_translate::clusters(&mesh, &view));
            all.extend(mizzen_translate::listeners(&mesh, &view));
            let scope = view.scope(&mesh);
            for table in ["80", "9080", "http_proxy", "http.8080"] {
                all.extend(mizzen_translate::route_table(&mesh, &scope, table));
            }
        }
        all
    };
    let first = all();
    for _ in 0..10 {
        assert!(all() == first, "bytes differ from one translation to the next");
    }
}

#[test]
fn nodes_are_read_or_refused_with_a_reason() {
    let mesh = mesh("");
    let view = |id: &str, metadata: Value| ProxyView::new(id, &metadata, &mesh);
    let good = view("sidecar~10.0.0.1~front-1.shop~shop.svc.cluster.local", bound()).expect("a node");
    assert_eq!((good.role, good.dialect, good.interception), (Role::Sidecar, Dialect::Istio, Interception::None));
    assert_eq!((good.http_proxy_port, good.service_account.as_str()), (Some(15002), "front"));
    let stock = view("router~10.0.0.9~g.istio-system~x", json!({})).expect("a node");
    assert_eq!((stock.role, stock.dialect), (Role::Router, Dialect::Envoy));
    assert!(matches!(view("nonsense", json!({})), Err(ViewError::NodeId(_))));
    assert!(matches!(view("sidecar~10.0.0.1~noname~x", json!({})), Err(ViewError::NodeId(_))));
    assert!(matches!(view("waypoint~10.0.0.1~a.b~x", json!({})), Err(ViewError::Role { .. })));
    assert!(matches!(view("sidecar~host~a.b~x", json!({})), Err(ViewError::Address { .. })));
    for wrong in [json!({"MIZZEN_APP": {"80": "nowhere"}}), json!({"MIZZEN_APP": [1]}), json!({"HTTP_PROXY_PORT": 1.5})]
    {
        assert!(matches!(view("sidecar~10.0.0.1~a.b~x", wrong.clone()), Err(ViewError::Metadata { .. })), "{wrong}");
    }
}

#[test]
fn scopes_differ_only_where_resources_do() {
    let plain = mesh("");
    let other_pod = "sidecar~10.0.0.7~back-1.shop~shop.svc.cluster.local";
    let scopes = |mesh: &Mesh| {
        let labels = json!({"MIZZEN_VERSION": "1", "LABELS": {"app": "back"}});
        let other = ProxyView::new(other_pod, &labels, mesh).expect("a node");
        (sidecar(mesh, &redirected()).scope(mesh), other.scope(mesh))
    };
    let (one, two) = scopes(&plain);
    assert_eq!(one, two, "two workloads of a namespace share everything outbound");
    let selecting = mesh(&reviews(&format!("[{{match: [{{sourceLabels: {{app: front}}}}], {TO}}}]")));
    let (one, two) = scopes(&selecting);
    assert_ne!(one, two, "a rule looks at the labels of clients");
}
