use super::*;
use crate::object::Kind;
use crate::report;

fn virtual_service(spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: x}}\nspec:\n{}",
        indented(spec)
    )
}

fn resource(kind: &str, spec: &str) -> String {
    format!("apiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata: {{name: x}}\nspec:\n{}", indented(spec))
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

/// The text is refused at a field for a reason, and the hint helps.
#[track_caller]
fn refused(text: &str, field: &str, message: &str, hint: &str) {
    let parsed = parse("f.yaml", text);
    let errors: Vec<_> = parsed.findings.iter().filter(|finding| finding.severity == Severity::Error).collect();
    let found = errors.iter().any(|finding| {
        finding.origin.as_ref().is_some_and(|origin| origin.field == field)
            && finding.message.contains(message)
            && finding.hint.as_deref().unwrap_or_default().contains(hint)
            && finding.position.is_some()
    });
    assert!(found, "{text}\nexpected at {field}: {message} ({hint})\n{}", report::lines(&parsed.findings));
    assert!(parsed.objects.is_empty(), "{text}");
}

#[track_caller]
fn accepted(text: &str) -> Parsed {
    let parsed = parse("f.yaml", text);
    let errors = parsed.findings.iter().filter(|finding| finding.severity == Severity::Error).count();
    assert_eq!(errors, 0, "{text}\n{}", report::lines(&parsed.findings));
    parsed
}

const ROUTE: &str = "hosts: [reviews]\nhttp:\n- route:\n  - destination: {host: reviews}\n";

#[test]
fn a_resource_is_read_with_its_places() {
    let text = virtual_service(ROUTE);
    let parsed = accepted(&text);
    let object = &parsed.objects[0];
    assert_eq!(object.key.to_string(), "VirtualService/default/x");
    let Kind::VirtualService(spec) = &object.kind else { panic!("{object:?}") };
    assert_eq!(spec.http[0].route[0].destination.host, "reviews");
    let at = |field: &str| object.at(field).map(|position| (position.line, position.column));
    assert_eq!(at(""), Some((1, 1)));
    assert_eq!(at("metadata.name"), Some((3, 12)));
    assert_eq!(at("spec.http[0].route[0].destination.host"), Some((8, 21)));
    // What is not written is where its parent is.
    assert_eq!(at("spec.http[0].timeout"), at("spec.http[0]"));
    assert_eq!(at("spec.http[7]"), at("spec.http"));
}

#[test]
fn all_versions_are_read_and_others_are_named() {
    for version in ["v1", "v1beta1", "v1alpha3"] {
        accepted(&virtual_service(ROUTE).replace("/v1", &format!("/{version}")));
    }
    refused(&virtual_service(ROUTE).replace("/v1", "/v2"), "apiVersion", "no version `v2`", "networking.istio.io/v1");
}

#[test]
fn a_document_that_is_no_resource_is_named() {
    for (text, part) in [
        ("just text", "not a resource"),
        ("[1, 2]", "not a resource"),
        ("a: 1", "no `kind`"),
        ("kind: Service", "no `apiVersion`"),
        ("{kind: 1, apiVersion: v1}", "have to be strings"),
    ] {
        let parsed = parse("f.yaml", text);
        assert!(parsed.findings[0].message.contains(part), "{text}: {:?}", parsed.findings);
        assert_eq!(parsed.findings[0].code, code::NOT_A_RESOURCE);
    }
}

#[test]
fn unknown_kinds_are_skipped_and_named() {
    let parsed = parse("f", "{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {name: x}}");
    assert_eq!((parsed.objects.len(), parsed.findings.len()), (0, 1));
    assert_eq!(parsed.findings[0].severity, Severity::Info);
    let parsed = parse("f", "{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: x}}");
    assert_eq!(parsed.findings[0].severity, Severity::Warning);
    let parsed = parse("f", "{apiVersion: networking.istio.io/v1, kind: VirtualServise, metadata: {name: x}}");
    assert_eq!(parsed.findings[0].hint.as_deref(), Some("did you mean `VirtualService`?"));
}

#[test]
fn a_list_is_its_items() {
    let item = "{apiVersion: v1, kind: ServiceAccount, metadata: {name: NAME}}";
    let items = format!("[{}, {}]", item.replace("NAME", "a"), item.replace("NAME", "b"));
    let parsed = accepted(&format!("{{apiVersion: v1, kind: List, items: {items}}}"));
    assert_eq!(parsed.objects.len(), 2);
}

#[test]
fn unknown_fields_are_refused_with_a_suggestion() {
    let text = virtual_service("hosts: [reviews]\nhttp:\n- timout: 1s\n  route:\n  - destination: {host: reviews}\n");
    refused(&text, "spec.http[0].timout", "no field `timout`", "did you mean `timeout`?");
    refused(&virtual_service(ROUTE).replace("spec:", "spce:"), "spce", "no field", "did you mean `spec`?");
    // Names are case-sensitive.
    refused(&virtual_service("Hosts: [a]"), "spec.Hosts", "no field", "`hosts`");
}

#[test]
fn one_wrong_object_leaves_the_others() {
    let good = virtual_service(ROUTE);
    let text = format!("{}---\nbroken: [\n---\n{}", good, good.replace("name: x", "name: y"));
    let parsed = parse("f.yaml", &text);
    assert_eq!(parsed.objects.len(), 2, "{:?}", parsed.findings);
    assert_eq!(parsed.findings.len(), 1);
    let wrong = good.replace("host: reviews", "hots: reviews");
    let parsed = parse("f.yaml", &format!("{wrong}---\n{}", good.replace("name: x", "name: y")));
    assert_eq!(parsed.objects.len(), 1);
}

#[test]
fn the_same_object_twice_counts_once() {
    let good = virtual_service(ROUTE);
    let parsed = parse("f.yaml", &format!("{good}---\n{good}"));
    assert_eq!(parsed.objects.len(), 1);
    assert_eq!(parsed.findings[0].code, code::DUPLICATE_OBJECT);
    assert!(parsed.findings[0].message.contains("f.yaml:1:1"), "{:?}", parsed.findings);
}

#[test]
fn a_large_file_is_refused_whole() {
    let parsed = parse("f.yaml", &" ".repeat(2 * 1024 * 1024));
    assert_eq!(parsed.findings[0].code, code::TOO_LARGE);
    assert!(parsed.findings[0].message.contains("2097152 bytes"));
}

#[test]
fn findings_about_one_object_are_limited() {
    let fields: String = (0..5000).map(|index| format!("x{index}: 1\n")).collect();
    let parsed = parse("f.yaml", &virtual_service(&format!("{ROUTE}{fields}")));
    assert_eq!(parsed.findings.len(), MAX_FINDINGS + 1);
    let last = parsed.findings.last().unwrap();
    assert!(last.severity == Severity::Error && last.message.contains("4900 more"), "{last:?}");
}

/// A file of nothing but expressions that are expensive to compile is refused after some of them.
#[test]
fn large_expressions_are_limited() {
    let rules = "- match: [{uri: {regex: '(a{50}){50}'}}]\n  redirect: {uri: /a}\n".repeat(210);
    let spec = format!("hosts: [reviews]\nhttp:\n{rules}");
    refused(&virtual_service(&spec), "spec.http[209].match[0].uri.regex", "more than 200", "smaller repetition");
    let unicode = rules.replace("(a{50}){50}", "/(ä|ö|\\w)+").replace("redirect", "name: x\n  redirect");
    accepted(&virtual_service(&format!("hosts: [reviews]\nhttp:\n{unicode}")));
}

#[test]
fn names_are_checked() {
    refused(&virtual_service(ROUTE).replace("name: x", "name: X_y"), "metadata.name", "no name", "reviews-v2");
    refused(&virtual_service(ROUTE).replace("{name: x}", "{}"), "metadata", "`name` is missing", "name:");
    refused(
        &virtual_service(ROUTE).replace("{name: x}", "{name: x, labels: {v: 1}}"),
        "metadata.labels.v",
        "expected a string",
        "\"1\"",
    );
}

#[test]
fn virtual_services_are_refused_as_istio_refuses_them() {
    let rule = |text: &str| virtual_service(&format!("hosts: [reviews]\nhttp:\n- {}", text.replace('\n', "\n  ")));
    let with = |text: &str| rule(&format!("{text}\nroute: [{{destination: {{host: reviews}}}}]"));
    let at = |field: &str| format!("spec.http[0]{field}");
    refused(&virtual_service("http: []"), "spec", "`hosts` is missing", "hosts:");
    refused(&virtual_service("hosts: [a]"), "spec", "`http` is missing", "http:");
    refused(
        &virtual_service(&ROUTE.replace("[reviews]", "['http://a/']")),
        "spec.hosts[0]",
        "no host name",
        "without scheme",
    );
    refused(&virtual_service(&ROUTE.replace("[reviews]", "['*']")), "spec.hosts[0]", "catch all", "gateways");
    refused(&virtual_service(&ROUTE.replace("[reviews]", "[a, A]")), "spec.hosts[1]", "twice", "remove");
    refused(
        &virtual_service(&format!("{ROUTE}gateways: [a/b/c]")),
        "spec.gateways[0]",
        "names no Gateway",
        "namespace/name",
    );
    refused(&virtual_service(&format!("{ROUTE}exportTo: ['*', a]")), "spec.exportTo[0]", "leaves nothing", "alone");
    refused(&rule("name: a"), &at(""), "nothing to do", "route:");
    refused(&with("redirect: {uri: /x}"), &at(""), "`route` and `redirect` exclude", "remove");
    refused(&with("directResponse: {status: 200}"), &at(""), "exclude each other", "remove");
    refused(&rule("redirect: {uri: /x, prefixRewrite: /y}"), &at(".redirect"), "exclude", "remove");
    refused(&rule("redirect: {prefixRewrite: /y}"), &at(".redirect.prefixRewrite"), "uri.prefix", "match by prefix");
    refused(&rule("redirect: {uri: /x, redirectCode: 200}"), &at(".redirect.redirectCode"), "200 is no status", "301");
    refused(&rule("redirect: {uri: /x}\nrewrite: {uri: /y}"), &at(".rewrite"), "no effect beside `redirect`", "remove");
    refused(&rule("directResponse: {}"), &at(".directResponse.status"), "no status", "200 to 599");
    refused(
        &rule("route:\n- destination: {host: a}\n  weight: -1"),
        &at(".route[0].weight"),
        "negative",
        "zero or more",
    );
    refused(
        &rule("route: [{destination: {host: a}}, {destination: {host: b}}]"),
        &at(".route"),
        "sum up to zero",
        "weight",
    );
    refused(&rule("route: [{destination: {}}]"), &at(".route[0].destination"), "`host` is missing", "host:");
    refused(
        &rule("route: [{destination: {host: 'a:80'}}]"),
        &at(".route[0].destination.host"),
        "no host name",
        "without a port",
    );
    refused(
        &rule("route: [{destination: {host: a, port: {}}}]"),
        &at(".route[0].destination.port"),
        "`number`",
        "9080",
    );
    refused(&with("match: [{uri: {regex: '('}}]"), &at(".match[0].uri.regex"), "no regular expression", "RE2");
    refused(&with("match: [{uri: {regex: '(?=a)'}}]"), &at(".match[0].uri.regex"), "look-around", "no look-ahead");
    refused(&with("match: [{uri: {regex: '(a{999}){999}'}}]"), &at(".match[0].uri.regex"), "too large", "repetition");
    let long = with(&format!("match: [{{uri: {{regex: '{}'}}}}]", "a".repeat(1025)));
    refused(&long, &at(".match[0].uri.regex"), "1025 bytes", "shorter");
    refused(&with("match: [{uri: {exact: a, prefix: b}}]"), &at(".match[0].uri"), "only one of", "");
    refused(&with("match: [{uri: {}}]"), &at(".match[0].uri"), "empty", "exact");
    refused(
        &with("match: [{headers: {'a b': {exact: x}}}]"),
        &at(".match[0].headers[\"a b\"]"),
        "no header name",
        "letters",
    );
    refused(&with("match: [{port: 70000}]"), &at(".match[0].port"), "out of range", "");
    refused(&with("timeout: 10"), &at(".timeout"), "no unit", "");
    refused(&with("timeout: 1us"), &at(".timeout"), "shorter than 1 ms", "1ms");
    refused(&with("retries: {attempts: -1}"), &at(".retries.attempts"), "fewer than none", "0");
    refused(&with("retries: {retryOn: 5xx}"), &at(".retries"), "switches retries off", "attempts");
    refused(
        &with("retries: {attempts: 2, retryOn: 'gateway-eror'}"),
        &at(".retries.retryOn"),
        "nothing that can be",
        "`gateway-error`",
    );
    refused(&with("fault: {}"), &at(".fault"), "does nothing", "delay");
    refused(&with("fault: {abort: {percentage: {value: 1}}}"), &at(".fault.abort"), "`httpStatus` is missing", "503");
    refused(&with("fault: {abort: {httpStatus: 99}}"), &at(".fault.abort.httpStatus"), "no status", "200 to 599");
    refused(&with("fault: {abort: {grpcStatus: UNAVAILABEL}}"), &at(".fault.abort.grpcStatus"), "gRPC", "UNAVAILABLE");
    refused(&with("fault: {abort: {http2Error: x}}"), &at(".fault.abort.http2Error"), "not supported", "httpStatus");
    refused(
        &with("fault: {delay: {exponentialDelay: 1s}}"),
        &at(".fault.delay.exponentialDelay"),
        "not supported",
        "fixedDelay",
    );
    refused(
        &with("fault: {delay: {fixedDelay: 1s, percentage: {value: 200}}}"),
        &at(".fault.delay.percentage"),
        "not between",
        "",
    );
    refused(&with("mirror: {host: a}\nmirrors: [{destination: {host: b}}]"), &at(".mirrors"), "exclude", "mirrors");
    refused(&with("mirrorPercentage: {value: 1}"), &at(".mirrorPercentage"), "no effect", "mirror:");
    refused(&with("corsPolicy: {allowMethods: [GTE]}"), &at(".corsPolicy.allowMethods[0]"), "no HTTP method", "`GET`");
    refused(&with("corsPolicy: {maxAge: 1.5s}"), &at(".corsPolicy.maxAge"), "whole seconds", "24h");
    refused(&with("rewrite: {uri: /a, uriRegexRewrite: {match: a, rewrite: b}}"), &at(".rewrite"), "exclude", "remove");
    refused(&with("rewrite: {}"), &at(".rewrite"), "changes nothing", "uri");
    refused(
        &with("headers: {request: {set: {'a b': c}}}"),
        &at(".headers.request.set[\"a b\"]"),
        "no header name",
        "letters",
    );
    refused(
        &with("headers: {request: {set: {a: \"b\\nc\"}}}"),
        &at(".headers.request.set.a"),
        "line break",
        "one line",
    );
    refused(&rule("delegate: {}"), &at(".delegate"), "`name` is missing", "name");
    refused(&virtual_service("http:\n- delegate: {name: a}"), "spec.http[0].delegate", "delegate further", "here");
    refused(
        &virtual_service("hosts: [a]\ntls:\n- match: [{sniHosts: [b]}]\n  route: [{destination: {host: a}}]"),
        "spec.tls[0].match[0].sniHosts[0]",
        "not among the hosts",
        "`b`",
    );
    refused(
        &virtual_service("hosts: [a]\ntcp:\n- match: [{destinationSubnets: [x]}]\n  route: [{destination: {host: a}}]"),
        "spec.tcp[0].match[0].destinationSubnets[0]",
        "no network",
        "10.0.0.0/8",
    );
}

#[test]
fn virtual_services_that_istio_takes_are_taken() {
    let rule = |text: &str| virtual_service(&format!("hosts: [reviews]\nhttp:\n- {}", text.replace('\n', "\n  ")));
    let with = |text: &str| rule(&format!("{text}\nroute: [{{destination: {{host: reviews}}}}]"));
    accepted(&virtual_service("hosts: ['*']\ngateways: [gw]\nhttp: [{route: [{destination: {host: a}}]}]"));
    accepted(&virtual_service("http: [{route: [{destination: {host: a}}]}]"));
    accepted(&with("timeout: 0s"));
    accepted(&with("match: [null]"));
    accepted(&with("match: [{headers: {x: {}, y: {regex: '*'}}, queryParams: {q: {exact: ''}}}]"));
    accepted(&with("retries: {attempts: 3, retryOn: '5xx, 503,reset', perTryTimeout: 2s, backoff: 25ms}"));
    accepted(&with("retries: {attempts: \"3\"}"));
    accepted(&with("fault: {delay: {fixedDelay: 7s, percent: 50}}"));
    accepted(&with("mirror: {host: a}\nmirror_percent: 10"));
    accepted(&with(
        "corsPolicy: {allowOrigins: [{exact: 'https://a'}], maxAge: 24h, allowCredentials: true, unmatchedPreflights: IGNORE}",
    ));
    accepted(&rule("redirect: {authority: b, derivePort: FROM_REQUEST_PORT}"));
    accepted(&rule("match: [{uri: {prefix: /a}}]\nredirect: {prefixRewrite: /y}"));
    accepted(&rule("directResponse: {status: 418, body: {string: tea}}"));
    accepted(&rule("route: [{destination: {host: a}, weight: 0}]"));
    accepted(&rule("route: [{destination: {host: a}, weight: 3.0}, {destination: {host: b.c.svc.cluster.local}}]"));
}

#[test]
fn destination_rules_are_refused_as_istio_refuses_them() {
    let rule = |text: &str| resource("DestinationRule", &format!("host: reviews\n{text}"));
    let policy = |text: &str| rule(&format!("trafficPolicy: {{{text}}}"));
    refused(&resource("DestinationRule", "{}"), "spec", "`host` is missing", "host:");
    refused(&rule("subsets: [{name: v1}, {name: v1}]"), "spec.subsets[1].name", "defined twice", "another name");
    refused(&rule("subsets: [{labels: {v: a}}]"), "spec.subsets[0]", "`name` is missing", "v1");
    refused(&policy(""), "spec.trafficPolicy", "says nothing", "loadBalancer");
    refused(
        &policy("loadBalancer: {simple: RANDOM, consistentHash: {useSourceIp: true}}"),
        "spec.trafficPolicy.loadBalancer",
        "exclude",
        "remove",
    );
    refused(
        &policy("loadBalancer: {simple: RANDOMM}"),
        "spec.trafficPolicy.loadBalancer.simple",
        "`RANDOMM` is none of",
        "RANDOM",
    );
    refused(
        &policy("loadBalancer: {consistentHash: {}}"),
        "spec.trafficPolicy.loadBalancer.consistentHash",
        "nothing is said",
        "httpHeaderName",
    );
    refused(
        &policy("loadBalancer: {consistentHash: {useSourceIp: true, maglev: {tableSize: 4}}}"),
        "spec.trafficPolicy.loadBalancer.consistentHash.maglev.tableSize",
        "no prime",
        "65537",
    );
    refused(
        &policy("outlierDetection: {maxEjectionPercent: 101}"),
        "spec.trafficPolicy.outlierDetection.maxEjectionPercent",
        "no percentage",
        "0 to 100",
    );
    refused(
        &policy("outlierDetection: {interval: 0s}"),
        "spec.trafficPolicy.outlierDetection.interval",
        "shorter",
        "1ms",
    );
    refused(
        &policy("outlierDetection: {consecutiveLocalOriginFailures: 3}"),
        "spec.trafficPolicy.outlierDetection.consecutiveLocalOriginFailures",
        "needs",
        "splitExternal",
    );
    refused(
        &policy("connectionPool: {tcp: {maxConnections: -1}}"),
        "spec.trafficPolicy.connectionPool.tcp.maxConnections",
        "negative",
        "zero",
    );
    refused(
        &policy("tls: {mode: MUTUAL}"),
        "spec.trafficPolicy.tls",
        "`clientCertificate` is missing",
        "credentialName",
    );
    refused(
        &policy("tls: {mode: ISTIO_MUTUAL, privateKey: x}"),
        "spec.trafficPolicy.tls.privateKey",
        "no effect",
        "remove",
    );
    refused(
        &policy("portLevelSettings: [{tls: {mode: DISABLE}}]"),
        "spec.trafficPolicy.portLevelSettings[0]",
        "`port` is missing",
        "9080",
    );
    let hash = "{useSourceIp: true, httpHeaderName: x}";
    refused(
        &rule(&format!("subsets: [{{name: a, trafficPolicy: {{loadBalancer: {{consistentHash: {hash}}}}}}}]")),
        "spec.subsets[0].trafficPolicy.loadBalancer.consistentHash",
        "exclude",
        "remove",
    );
    accepted(&policy("tls: {}"));
    accepted(&policy(
        "loadBalancer: {simple: LEAST_CONN}, outlierDetection: {consecutive5xxErrors: 7, interval: 5m, baseEjectionTime: 15m}",
    ));
    accepted(&policy("loadBalancer: {consistentHash: {httpCookie: {name: user, ttl: 0s}}}"));
}

#[test]
fn gateways_are_refused_as_istio_refuses_them() {
    let gateway =
        |server: &str| resource("Gateway", &format!("selector: {{istio: ingressgateway}}\nservers: [{{{server}}}]"));
    let http = "port: {number: 80, name: http, protocol: HTTP}";
    let https = "port: {number: 443, name: https, protocol: HTTPS}, hosts: [a.com]";
    refused(&resource("Gateway", "selector: {a: b}"), "spec", "`servers` is missing", "port");
    refused(&gateway(http), "spec.servers[0]", "`hosts` is missing", "*");
    refused(
        &gateway(&format!("{http}, hosts: ['A_/x.com']")),
        "spec.servers[0].hosts[0]",
        "no namespace",
        "namespace/host",
    );
    refused(
        &gateway(&format!("{http}, hosts: ['a:80']")),
        "spec.servers[0].hosts[0]",
        "no host name",
        "without a port",
    );
    refused(
        &gateway("hosts: [a.com], port: {number: 80, name: http, protocol: HTTPP}"),
        "spec.servers[0].port.protocol",
        "no protocol",
        "`HTTP`",
    );
    refused(
        &gateway("hosts: [a.com], port: {number: 80, name: h, protocol: HTTP, targetPort: 8080}"),
        "spec.servers[0].port.targetPort",
        "no `targetPort`",
        "remove",
    );
    refused(
        &gateway("hosts: [a.com], port: {name: http, protocol: HTTP}"),
        "spec.servers[0].port",
        "`number` is missing",
        "80",
    );
    refused(&gateway(https), "spec.servers[0]", "`tls` is missing", "credentialName");
    refused(
        &gateway(&format!("{https}, tls: {{mode: SIMPLE}}")),
        "spec.servers[0].tls",
        "`credentialName` is missing",
        "my-cert",
    );
    refused(
        &gateway(&format!("{https}, tls: {{mode: PASSTHROUGH, credentialName: a}}")),
        "spec.servers[0].tls",
        "no effect",
        "SIMPLE",
    );
    refused(
        &gateway(&format!("{https}, tls: {{httpsRedirect: true}}")),
        "spec.servers[0].tls.httpsRedirect",
        "plain HTTP",
        "remove",
    );
    refused(
        &gateway(&format!("{http}, hosts: [a.com], tls: {{mode: SIMPLE, credentialName: a}}")),
        "spec.servers[0].tls",
        "cannot have TLS",
        "HTTPS",
    );
    accepted(&gateway(&format!("{http}, hosts: ['*'], tls: {{httpsRedirect: true}}")));
    accepted(&gateway(&format!("{http}, hosts: [./a.com, '*/b.com', ns/*.c.com]")));
    accepted(&gateway(&format!("{https}, tls: {{mode: MUTUAL, credentialName: a, minProtocolVersion: TLSV1_2}}")));
    accepted(&gateway("port: {number: 443, name: tls, protocol: TLS}, hosts: [a.com], tls: {mode: PASSTHROUGH}"));
}

#[test]
fn service_entries_are_refused_as_istio_refuses_them() {
    let entry = |text: &str| resource("ServiceEntry", text);
    let ports = "ports: [{number: 443, name: https, protocol: TLS}]";
    refused(&entry(ports), "spec", "`hosts` is missing", "hosts");
    refused(&entry(&format!("hosts: ['*']\n{ports}")), "spec.hosts[0]", "every host", "domain");
    refused(
        &entry("hosts: [a.com]\nports: [{number: 1, name: a}, {number: 1, name: a}]"),
        "spec.ports[1].number",
        "given twice",
        "remove",
    );
    refused(
        &entry(&format!("hosts: [a.com]\nresolution: STATIC\n{ports}")),
        "spec",
        "`endpoints` is missing",
        "10.0.0.1",
    );
    refused(
        &entry(&format!("hosts: [a.com]\nresolution: STATIC\nendpoints: [{{address: b.com}}]\n{ports}")),
        "spec.endpoints[0].address",
        "no address",
        "DNS",
    );
    refused(&entry(&format!("hosts: ['*.a.com']\nresolution: DNS\n{ports}")), "spec.hosts", "wildcard", "NONE");
    refused(
        &entry(&format!("hosts: [a.com]\nendpoints: [{{address: 1.2.3.4}}]\n{ports}")),
        "spec.endpoints",
        "no endpoints",
        "STATIC",
    );
    refused(
        &entry(&format!(
            "hosts: [a.com]\nresolution: DNS\nendpoints: [{{address: b.com, ports: {{htps: 1}}}}]\n{ports}"
        )),
        "spec.endpoints[0].ports.htps",
        "no port named",
        "`https`",
    );
    accepted(&entry(&format!("hosts: [a.com, '*.b.com']\nlocation: MESH_EXTERNAL\n{ports}")));
    accepted(&entry(&format!("hosts: [a.com]\nresolution: DNS\n{ports}")));
}

#[test]
fn the_mesh_configuration_is_an_object_of_its_own() {
    let text = |mesh: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\ndata:\n  mesh: |\n{}",
            indented(&indented(mesh))
        )
    };
    let parsed = accepted(&text("trustDomain: td1\noutboundTrafficPolicy: {mode: REGISTRY_ONLY}\n"));
    let config = parsed.objects.iter().find_map(|object| match &object.kind {
        Kind::MeshConfig(config) => Some(config),
        _ => None,
    });
    assert_eq!(config.unwrap().trust_domain, "td1");
    assert!(config.unwrap().enable_auto_mtls);
    let parsed = parse("f", &text("trustDomain: 5\n"));
    assert_eq!(parsed.objects.len(), 1, "only the ConfigMap itself is there");
    assert_eq!(&*parsed.findings[0].origin.as_ref().unwrap().object.kind, "MeshConfig");
}

#[test]
fn parts_of_the_mesh_configuration_that_are_not_obeyed_are_named() {
    for (mesh, field) in [
        ("discoverySelectors: []", "discoverySelectors"),
        ("defaultInboundHttpRetryPolicy: {attempts: 1}", "defaultInboundHttpRetryPolicy"),
        ("inboundTrafficPolicy: {mode: LOCALHOST}", "inboundTrafficPolicy"),
        ("outboundTrafficPolicy: {mode: ALLOW_ANY_DYNAMIC_DNS}", "outboundTrafficPolicy"),
        ("defaultConfig: {discoveryAddress: a, concurrency: 2}", "defaultConfig"),
        ("banana: 1", "banana"),
    ] {
        let text = format!("{{apiVersion: v1, kind: ConfigMap, metadata: {{name: istio}}, data: {{mesh: '{mesh}'}}}}");
        let parsed = parse("f", &text);
        let fields: Vec<_> =
            parsed.findings.iter().filter_map(|f| f.origin.as_ref()).map(|o| o.field.as_str()).collect();
        assert_eq!(fields, [format!("data.mesh.{field}")], "{mesh}");
        assert_eq!(parsed.objects.len(), 2);
    }
    let quiet = "{apiVersion: v1, kind: ConfigMap, metadata: {name: istio}, data: {mesh: 'defaultConfig: {discoveryAddress: a}'}}";
    assert_eq!(parse("f", quiet).findings, []);
}

#[test]
fn a_finding_reads_well() {
    let text = virtual_service("hosts: [reviews]\nhttp:\n- timout: 1s\n  route:\n  - destination: {host: reviews}\n");
    let parsed = parse("reviews.yaml", &text);
    assert_eq!(
        report::lines(&parsed.findings),
        "reviews.yaml:7:5: error MZ0005 VirtualService/default/x spec.http[0].timout: there is no field `timout` here\n  \
         hint: did you mean `timeout`?\n1 error, 0 warnings, 0 info\n"
    );
}

proptest::proptest! {
    /// Slips of all kinds in a real resource: something is said, nothing panics.
    #[test]
    fn a_changed_file_is_read_or_refused(at in 0usize..160, with in ".{0,6}", length in 0usize..12) {
        let mut text = virtual_service(&format!("{ROUTE}  retries: {{attempts: 2}}\n  timeout: 5s\n"));
        let start = (0..=at.min(text.len())).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
        let end = (start + length).min(text.len());
        text.replace_range(start..end, &with);
        let parsed = parse("f.yaml", &text);
        let _ = report::lines(&parsed.findings);
    }
}

/// What a file says must not steer the terminal that shows it.
#[test]
fn s29_control_characters_of_a_file_are_not_shown_as_they_are() {
    let kind = "apiVersion: \"networking.\\e[31mistio.io/v1\"\nkind: \"Serv\\e[31miceEntry\"\nmetadata: {name: a}\n";
    let version = "apiVersion: \"networking.istio.io/v1\\e[31m\"\nkind: Gateway\nmetadata: {name: a}\n";
    let not_yet = "apiVersion: gateway.networking.k8s.io/v1\nkind: \"Http\\tRoute\"\nmetadata: {name: a}\n";
    let field =
        "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: a}\nspec: {\"ser\\e[31mvers\\n\": []}\n";
    let value = "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: \"a\\nb\\e\"}\nspec: {}\n";
    for text in [kind, version, not_yet, field, value] {
        let said = report::lines(&parse("f.yaml", text).findings);
        assert!(said.lines().count() > 1, "{text}: {said}");
        assert!(!said.contains(|letter: char| letter.is_control() && letter != '\n'), "{said:?}");
        assert!(!said.contains("\nb") && !said.contains("vers\n"), "{said:?}");
    }
}
