//! Route tables of sidecars.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use bytes::Bytes;
use mizzen_translate::{Memo, RoutesOf};
use serde_json::{Value, json};

use super::{TO, host, mesh, redirected, reviews, sidecar, table};

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

/// Remembers everything.
#[derive(Default)]
struct Remembered {
    routes: RefCell<HashMap<RoutesOf, Bytes>>,
    made: Cell<usize>,
}

impl Memo for Remembered {
    fn routes(&self, of: RoutesOf, make: &mut dyn FnMut() -> Bytes) -> Bytes {
        if let Some(known) = self.routes.borrow().get(&of) {
            return known.clone();
        }
        self.made.set(self.made.get() + 1);
        let made = make();
        self.routes.borrow_mut().insert(of, made.clone());
        made
    }
}

#[test]
fn remembered_routes_are_those_that_would_be_made() {
    let memo = Remembered::default();
    let rule = |name: &str, spec: &str| {
        format!(
            "{{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {{name: {name}, namespace: shop}}, spec: \
             {spec}}}"
        )
    };
    let changes = [
        reviews(&format!("[{{timeout: 1s, {TO}}}]")),
        // Another rule, and then others of which only the routes to some hosts, or for some clients, depend.
        reviews(&format!("[{{timeout: 2s, {TO}}}]")),
        rule("r", "{host: reviews, trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: x-user}}}}"),
        rule("r", "{host: reviews, exportTo: ['.'], trafficPolicy: {loadBalancer: {consistentHash: {useSourceIp: true}}}}"),
        rule("r", "{host: reviews, workloadSelector: {matchLabels: {app: front}}, trafficPolicy: {loadBalancer: \
              {consistentHash: {httpQueryParameterName: q}}}}"),
        reviews(&format!("[{{match: [{{sourceNamespace: shop}}], timeout: 3s, {TO}}}, {{timeout: 4s, {TO}}}]")),
        reviews(&format!("[{{match: [{{sourceLabels: {{app: front}}}}], timeout: 3s, {TO}}}, {{timeout: 4s, {TO}}}]")),
        "{apiVersion: v1, kind: Service, metadata: {name: reviews, namespace: shop}, spec: {clusterIP: 10.9.9.9, ports: \
         [{name: http, port: 9080}, {name: http-2, port: 80}]}}"
            .to_owned(),
        "{apiVersion: v1, kind: Service, metadata: {name: reviews, namespace: shop}, spec: {type: ExternalName, externalName: \
         front.shop.svc.cluster.local, ports: [{name: http, port: 9080}]}}"
            .to_owned(),
    ];
    let mut now = mesh("");
    for change in changes {
        let parsed = mizzen_config::parse("test.yaml", &change);
        let put: Vec<_> = parsed.objects.into_iter().map(mizzen_config::Change::Put).collect();
        assert_eq!(put.len(), 1, "{change}");
        now = now.apply(&put).0;
        for id in ["sidecar~10.0.0.1~front-1.shop~x", "sidecar~10.0.0.2~one.shop~x", "sidecar~10.0.0.3~two.other~x"] {
            let view = mizzen_translate::ProxyView::new(id, &redirected(), &now).expect("a node");
            let scope = view.scope(&now);
            for table in ["80", "9080", "http_proxy", "reviews.shop.svc.cluster.local:9080"] {
                let made = mizzen_translate::route_table(&now, &scope, table);
                let remembered = mizzen_translate::route_table_with(&now, &scope, table, &memo);
                assert_eq!(remembered, made, "{id}, {table}, after {change}");
            }
        }
        let before = memo.made.get();
        let view = sidecar(&now, &redirected());
        let _ = mizzen_translate::route_table_with(&now, &view.scope(&now), "9080", &memo);
        assert_eq!(memo.made.get(), before, "nothing is made twice");
    }
}
