//! What rules become, case by case: a small mesh, one rule, and the part of a resource that it decides.

use std::sync::Arc;

use mizzen_config::Change;
use mizzen_mesh::Mesh;
use mizzen_proto::json::Json;
use mizzen_translate::{Dialect, Interception, ProxyView, Resource, Role, ViewError};
use serde_json::{Value, json};

const BASE: &str = include_str!("rules.yaml");

fn mesh(yaml: &str) -> Arc<Mesh> {
    let parsed = mizzen_config::parse("test.yaml", &format!("{BASE}\n---\n{yaml}"));
    let wrong: Vec<_> =
        parsed.findings.iter().filter(|finding| finding.severity == mizzen_types::Severity::Error).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    let changes: Vec<Change> = parsed.objects.into_iter().map(Change::Put).collect();
    Mesh::empty().apply(&changes).0
}

fn sidecar(mesh: &Mesh, more: &Value) -> ProxyView {
    let id = "sidecar~10.0.0.1~front-1.shop~shop.svc.cluster.local";
    ProxyView::new(id, more, mesh).expect("a node")
}

fn gateway(mesh: &Mesh, more: &Value) -> ProxyView {
    let id = "router~10.0.0.9~gateway-1.istio-system~istio-system.svc.cluster.local";
    ProxyView::new(id, more, mesh).expect("a node")
}

fn redirected() -> Value {
    json!({"MIZZEN_VERSION": "0.1.0"})
}

fn bound() -> Value {
    json!({
        "MIZZEN_VERSION": "0.1.0",
        "INTERCEPTION_MODE": "NONE",
        "HTTP_PROXY_PORT": "15002",
        "MIZZEN_APP": {"8080": "127.0.0.1:41234"},
    })
}

fn decode(resource: &Resource) -> Value {
    Json::new().decode_any(resource.type_url, &resource.body).expect("what is sent can be read")
}

fn table(mesh: &Mesh, view: &ProxyView, name: &str) -> Value {
    let made = mizzen_translate::route_table(mesh, &view.scope(mesh), name);
    decode(&made.unwrap_or_else(|| panic!("there is no table {name}")))
}

fn named(all: &[Resource], name: &str) -> Value {
    let names: Vec<&str> = all.iter().map(|resource| resource.name.as_str()).collect();
    decode(all.iter().find(|resource| resource.name == name).unwrap_or_else(|| panic!("no {name} in {names:?}")))
}

/// The virtual host that has a domain.
fn host<'a>(table: &'a Value, domain: &str) -> &'a Value {
    let hosts = table["virtualHosts"].as_array().expect("there are some");
    let has = |host: &&Value| host["domains"].as_array().is_some_and(|all| all.iter().any(|d| d == domain));
    hosts.iter().find(has).unwrap_or_else(|| panic!("no host for {domain} in {table}"))
}

/// A VirtualService of `reviews` with these rules.
fn reviews(http: &str) -> String {
    format!(
        "{{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {{name: reviews, namespace: shop}}, spec: \
         {{hosts: [reviews], http: {http}}}}}"
    )
}

/// All routes to `reviews` at the sidecar, as rules make them.
fn routes(http: &str) -> Vec<Value> {
    let mesh = mesh(&reviews(http));
    let table = table(&mesh, &sidecar(&mesh, &redirected()), "9080");
    host(&table, "reviews")["routes"].as_array().cloned().unwrap_or_default()
}

/// A part of the only route.
#[track_caller]
fn check(http: &str, pointer: &str, expected: Value) {
    let routes = routes(http);
    let [route] = &routes[..] else { panic!("{http}: {} routes", routes.len()) };
    assert_eq!(route.pointer(pointer).cloned().unwrap_or(Value::Null), expected, "{http}: {pointer}\n{route}");
}

const TO: &str = "route: [{destination: {host: reviews}}]";

#[test]
fn conditions() {
    let check = |condition: &str, pointer: &str, expected: Value| {
        check(&format!("[{{match: [{{{condition}}}], {TO}}}]"), pointer, expected);
    };
    check("uri: {exact: /a}", "/match/path", json!("/a"));
    check("uri: {prefix: /a}, ignoreUriCase: true", "/match", json!({"prefix": "/a", "caseSensitive": false}));
    check("uri: {regex: '/a.*'}", "/match/safeRegex/regex", json!("/a.*"));
    check("method: {exact: GET}", "/match/headers", json!([{"name": ":method", "stringMatch": {"exact": "GET"}}]));
    check("authority: {prefix: a}", "/match/headers/0", json!({"name": ":authority", "stringMatch": {"prefix": "a"}}));
    check("scheme: {exact: https}", "/match/headers/0", json!({"name": ":scheme", "stringMatch": {"exact": "https"}}));
    check("headers: {x: {}}", "/match/headers", json!([{"name": "x", "presentMatch": true}]));
    check("headers: {x: {exact: ''}}", "/match/headers/0/presentMatch", json!(true));
    check("headers: {x: {regex: '*'}}", "/match/headers/0/presentMatch", json!(true));
    check(
        "withoutHeaders: {x: {}}",
        "/match/headers/0",
        json!({"name": "x", "presentMatch": true, "invertMatch": true}),
    );
    check(
        "withoutHeaders: {x: {exact: a}}",
        "/match/headers/0",
        json!({"name": "x", "stringMatch": {"exact": "a"}, "invertMatch": true, "treatMissingHeaderAsEmpty": true}),
    );
    check("queryParams: {q: {}}", "/match/queryParameters", json!([{"name": "q", "presentMatch": true}]));
    check("queryParams: {q: {exact: a}}", "/match/queryParameters/0/stringMatch", json!({"exact": "a"}));
}

/// How many routes rules become.
#[track_caller]
fn check_count(http: &str, expected: usize) {
    let routes = routes(http);
    let routes: Vec<_> = routes.iter().filter(|route| route["name"] != "default").collect();
    assert_eq!(routes.len(), expected, "{http}");
}

#[test]
fn rules_that_cannot_be_reached_or_do_not_apply_are_left_out() {
    check_count(&format!("[{{match: [{{uri: {{exact: /a}}}}, {{uri: {{exact: /b}}}}], {TO}}}, {{{TO}}}]"), 3);
    // Nothing is left after a rule for everything.
    check_count(&format!("[{{{TO}}}, {{match: [{{uri: {{exact: /a}}}}], {TO}}}]"), 1);
    check_count(&format!("[{{match: [{{uri: {{prefix: /}}}}, {{uri: {{exact: /b}}}}], {TO}}}, {{{TO}}}]"), 1);
    check_count(&format!("[{{match: [{{uri: {{regex: '.*'}}}}], {TO}}}, {{{TO}}}]"), 1);
    check_count(&format!("[{{match: [{{uri: {{prefix: /}}, method: {{exact: GET}}}}], {TO}}}, {{{TO}}}]"), 2);
    // Ports, gateways and clients are looked at when the table is made.
    check_count(&format!("[{{match: [{{port: 9080}}], {TO}}}]"), 1);
    check_count(&format!("[{{match: [{{port: 80}}], {TO}}}]"), 0);
    check_count(&format!("[{{match: [{{gateways: [mesh]}}], {TO}}}]"), 1);
    check_count(&format!("[{{match: [{{gateways: [front]}}], {TO}}}]"), 0);
    check_count(&format!("[{{match: [{{sourceLabels: {{app: front}}}}], {TO}}}]"), 1);
    check_count(&format!("[{{match: [{{sourceLabels: {{app: back}}}}], {TO}}}]"), 0);
    check_count(&format!("[{{match: [{{sourceNamespace: shop}}], {TO}}}]"), 1);
    check_count(&format!("[{{match: [{{sourceNamespace: other}}], {TO}}}]"), 0);
    // Where gateways are named, clients are not looked at.
    check_count(&format!("[{{match: [{{gateways: [mesh], sourceNamespace: other}}], {TO}}}]"), 1);
}

#[test]
fn forwarding() {
    let v1 = "outbound|9080|v1|reviews.shop.svc.cluster.local";
    let to = |more: &str| format!("[{{{TO}, {more}}}]");
    let cluster = "/route/cluster";
    check("[{route: [{destination: {host: reviews, subset: v1}}]}]", cluster, json!(v1));
    check("[{route: [{destination: {host: reviews, subset: v1}, weight: 0}]}]", cluster, json!(v1));
    check("[{route: [{destination: {host: other.ns, port: {number: 81}}}]}]", cluster, json!("outbound|81||other.ns"));
    check(
        "[{route: [{destination: {host: ratings.away}}]}]",
        cluster,
        json!("outbound|9080||ratings.away.svc.cluster.local"),
    );
    // No word of a port: that of the table.
    check("[{route: [{destination: {host: front}}]}]", cluster, json!("outbound|9080||front.shop.svc.cluster.local"));
    check(
        "[{route: [{destination: {host: reviews, subset: a}, weight: 1}, {destination: {host: reviews}, weight: 0}, \
         {destination: {host: reviews, subset: b}, weight: 5}]}]",
        "/route/weightedClusters/clusters",
        json!([
            {"name": "outbound|9080|a|reviews.shop.svc.cluster.local", "weight": 1},
            {"name": "outbound|9080|b|reviews.shop.svc.cluster.local", "weight": 5},
        ]),
    );
    check(&to("timeout: 1.5s"), "/route/timeout", json!("1.500s"));
    check(&to("timeout: 1.5s"), "/route/maxGrpcTimeout", json!("1.500s"));
    check(&to("rewrite: {uri: /b}"), "/route/prefixRewrite", json!("/b"));
    check(&to("rewrite: {authority: b.example.com}"), "/route/hostRewriteLiteral", json!("b.example.com"));
    check(&to("headers: {request: {set: {Host: b.example.com}}}"), "/route/hostRewriteLiteral", json!("b.example.com"));
    check(
        &to("headers: {request: {set: {Host: b.example.com}}}, rewrite: {authority: c.example.com}"),
        "/route/hostRewriteLiteral",
        json!("c.example.com"),
    );
    check(
        &to("rewrite: {uriRegexRewrite: {match: ^/a, rewrite: /b}}"),
        "/route/regexRewrite",
        json!({"pattern": {"regex": "^/a"}, "substitution": "/b"}),
    );
    check(
        "[{route: [{destination: {host: reviews}, headers: {response: {remove: [b]}}}], headers: {response: {remove: \
         [a]}}}]",
        "/responseHeadersToRemove",
        json!(["a", "b"]),
    );
}

#[test]
fn retries() {
    let to = |more: &str| format!("[{{{TO}, retries: {{{more}}}}}]");
    let policy = "/route/retryPolicy";
    let default = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes";
    check(&format!("[{{{TO}}}]"), "/route/retryPolicy/retryOn", json!(default));
    check(&format!("[{{{TO}}}]"), "/route/retryPolicy/numRetries", json!(2));
    check(&to("attempts: 0"), policy, Value::Null);
    check(&to("attempts: 3"), "/route/retryPolicy/retryOn", json!(default));
    check(&to("attempts: 3, perTryTimeout: 1s"), "/route/retryPolicy/perTryTimeout", json!("1s"));
    check(&to("attempts: 3, retryOn: '503,5xx'"), "/route/retryPolicy/retriableStatusCodes", json!([503]));
    check(&to("attempts: 3, backoff: 20ms"), "/route/retryPolicy/retryBackOff/maxInterval", json!("0.200s"));
    check(&to("attempts: 3, retryIgnorePreviousHosts: false"), "/route/retryPolicy/retryHostPredicate", Value::Null);
}

#[test]
fn other_answers() {
    check("[{redirect: {uri: /b}}]", "/redirect", json!({"pathRedirect": "/b"}));
    check("[{redirect: {scheme: https, port: 443}}]", "/redirect", json!({"schemeRedirect": "https"}));
    check("[{redirect: {authority: b, derivePort: FROM_REQUEST_PORT}}]", "/redirect/portRedirect", json!(9080));
    check("[{redirect: {authority: b, redirectCode: 307}}]", "/redirect/responseCode", json!("TEMPORARY_REDIRECT"));
    check(
        "[{directResponse: {status: 503, body: {string: away}}}]",
        "/directResponse",
        json!({"status": 503, "body": {"inlineString": "away"}}),
    );
}

#[test]
fn filters_before_the_router() {
    let fault = "/typedPerFilterConfig/envoy.filters.http.fault";
    check(
        &format!("[{{{TO}, fault: {{abort: {{httpStatus: 500, percentage: {{value: 0.1}}}}}}}}]"),
        &format!("{fault}/abort"),
        json!({"httpStatus": 500, "percentage": {"numerator": 1000, "denominator": "MILLION"}}),
    );
    check(
        &format!("[{{{TO}, fault: {{abort: {{httpStatus: 500}}}}}}]"),
        &format!("{fault}/abort/percentage"),
        json!({"denominator": "MILLION"}),
    );
    check(
        &format!("[{{{TO}, fault: {{abort: {{grpcStatus: UNAVAILABLE, percentage: {{value: 100}}}}}}}}]"),
        &format!("{fault}/abort/grpcStatus"),
        json!(14),
    );
    let cors = "/typedPerFilterConfig/envoy.filters.http.cors";
    let with = |more: &str| format!("[{{{TO}, corsPolicy: {{allowOrigins: [{{exact: 'https://a'}}], {more}}}}}]");
    check(&with("maxAge: 90s"), &format!("{cors}/maxAge"), json!("90"));
    check(&with("allowMethods: [GET, PUT]"), &format!("{cors}/allowMethods"), json!("GET,PUT"));
    check(&with(""), &format!("{cors}/forwardNotMatchingPreflights"), json!(true));
    check(&with("unmatchedPreflights: IGNORE"), &format!("{cors}/forwardNotMatchingPreflights"), json!(false));
}

#[test]
fn mirrors() {
    let mirrored = |share: &str| format!("[{{{TO}, mirror: {{host: ratings.away}}, {share}}}]");
    let policies = "/route/requestMirrorPolicies";
    let numerator = "/route/requestMirrorPolicies/0/runtimeFraction/defaultValue/numerator";
    check(&mirrored(""), numerator, json!(1_000_000));
    check(&mirrored("mirrorPercentage: {value: 5}"), numerator, json!(50_000));
    check(&mirrored("mirrorPercentage: {value: 0}"), policies, Value::Null);
    check(
        &mirrored(""),
        "/route/requestMirrorPolicies/0/cluster",
        json!("outbound|9080||ratings.away.svc.cluster.local"),
    );
}

#[test]
fn a_route_says_where_it_was_written() {
    let mizzen = "/metadata/filterMetadata/mizzen";
    check(&format!("[{{{TO}}}]"), mizzen, json!({"field": "spec.http[0]"}));
    let two = routes(&format!("[{{match: [{{uri: {{exact: /a}}}}, {{uri: {{exact: /b}}}}], {TO}}}]"));
    assert_eq!(
        two[1].pointer(mizzen),
        Some(&json!({"field": "spec.http[0]", "match": "spec.http[0].match[1]"})),
        "the second condition"
    );
}

#[test]
fn a_delegate_is_put_in_its_place() {
    let delegate = "{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: inner, namespace: away}, \
                    spec: {http: [{match: [{uri: {prefix: /a/b}}], name: inner, route: [{destination: {host: \
                    ratings}}]}, {match: [{uri: {prefix: /other}}], route: [{destination: {host: ratings}}]}]}}";
    let root = reviews(&format!(
        "[{{match: [{{uri: {{prefix: /a}}}}], name: outer, timeout: 3s, delegate: {{name: inner, namespace: away}}}}, \
         {{match: [{{uri: {{prefix: /gone}}}}], delegate: {{name: missing}}}}, {{{TO}}}]"
    ));
    let mesh = mesh(&format!("{delegate}\n---\n{root}"));
    let table = table(&mesh, &sidecar(&mesh, &redirected()), "9080");
    let routes = host(&table, "reviews")["routes"].as_array().expect("there are some");
    // Of the delegate's rules only one fits within the root's; the one that is missing takes no other with it.
    assert_eq!(routes.len(), 2, "{routes:?}");
    assert_eq!(routes[0]["match"]["prefix"], "/a/b");
    assert_eq!(routes[0]["name"], "outer-inner");
    assert_eq!(routes[0]["route"]["timeout"], "3s");
    // Names in it are names of its own namespace.
    assert_eq!(routes[0]["route"]["cluster"], "outbound|9080||ratings.away.svc.cluster.local");
    let origin = &routes[0]["metadata"]["filterMetadata"]["mizzen"];
    assert_eq!(origin, &json!({"field": "spec.http[0]", "object": "away/inner"}));
}

#[test]
fn the_most_specific_host_has_a_service() {
    let rule = |name: &str, host: &str, status: u16| {
        format!(
            "{{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {{name: {name}, namespace: shop}}, spec: \
             {{hosts: ['{host}'], http: [{{directResponse: {{status: {status}}}}}]}}}}"
        )
    };
    let yaml = [
        rule("a", "*.local", 201),
        rule("b", "*.shop.svc.cluster.local", 202),
        rule("c", "reviews", 203),
        rule("d", "reviews", 204),
        rule("e", "elsewhere.example.com", 205),
    ];
    let mesh = mesh(&yaml.join("\n---\n"));
    let view = sidecar(&mesh, &redirected());
    let table_9080 = table(&mesh, &view, "9080");
    let status = |table: &Value, domain: &str| host(table, domain)["routes"][0]["directResponse"]["status"].clone();
    assert_eq!(status(&table_9080, "reviews"), 203);
    assert_eq!(status(&table_9080, "ratings.away"), 201);
    assert_eq!(status(&table(&mesh, &view, "80"), "front"), 202);
    // A host that is no service is answered for at port 80.
    assert_eq!(status(&table(&mesh, &view, "80"), "elsewhere.example.com"), 205);
    assert!(!table_9080.to_string().contains("elsewhere.example.com"));
}

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

#[test]
fn endpoints_say_who_takes_mesh_tls() {
    let marks = |yaml: &str| {
        let mesh = mesh(yaml);
        let scope = sidecar(&mesh, &redirected()).scope(&mesh);
        let made = mizzen_translate::endpoints(&mesh, &scope, "outbound|80||front.shop.svc.cluster.local");
        let assignment = decode(&made.expect("the service is known"));
        let metadata = assignment.pointer("/endpoints/0/lbEndpoints/0/metadata/filterMetadata").cloned();
        metadata.and_then(|metadata| metadata.get("envoy.transport_socket_match").cloned())
    };
    assert_eq!(marks(""), Some(json!({"tlsMode": "istio"})));
    let rule = |mode: &str| {
        format!(
            "{{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {{name: front, namespace: shop}}, spec: \
             {{host: front, trafficPolicy: {{tls: {{mode: {mode}}}}}}}}}"
        )
    };
    assert_eq!(marks(&rule("ISTIO_MUTUAL")), Some(json!({"tlsMode": "istio"})));
    assert_eq!(marks(&rule("SIMPLE")), None);
    assert_eq!(marks(&rule("DISABLE")), None);
    assert_eq!(
        marks(
            "{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: p, namespace: shop}, spec: \
             {mtls: {mode: DISABLE}}}"
        ),
        None
    );
}

#[test]
fn clusters_that_do_not_exist_have_no_endpoints() {
    let mesh = mesh("");
    let scope = sidecar(&mesh, &redirected()).scope(&mesh);
    let made = |name: &str| mizzen_translate::endpoints(&mesh, &scope, name).is_some();
    assert!(made("outbound|9080||reviews.shop.svc.cluster.local"), "without endpoints, but known");
    assert!(!made("outbound|9081||reviews.shop.svc.cluster.local"));
    assert!(!made("outbound|9080|v9|reviews.shop.svc.cluster.local"));
    assert!(!made("outbound|9080||nobody.shop.svc.cluster.local"));
    assert!(!made("inbound|8080||"));
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
    let yaml =
        format!("{GATEWAY}\n---\n{}", include_str!("every_rule.yaml").replace("namespace: default", "namespace: shop"));
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
