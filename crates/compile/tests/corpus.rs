//! What the genuine istiod sends is compiled without a refusal, and the decisions are those that it asks for.
//!
//! The corpus is not part of this repository; without it the tests say so and check nothing.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method};
use mizzen_compile::{Config, Refused, Resource, Update};
use mizzen_proto::json::Json;
use mizzen_proto::type_url;
use mizzen_snapshot::Listener;
use mizzen_snapshot::listener::{ConnectionFacts, Handler, Transport};
use mizzen_snapshot::plan::explain::{ForwardStep, Verdict};
use mizzen_snapshot::plan::{Draws, Explanation, Plan, explain, plan};
use mizzen_snapshot::route::RequestView;

/// Refusals that are right: what is not obeyed yet must not be ignored. Case, then the start of the refusal.
const RIGHTLY_REFUSED: &[(&str, &str)] =
    &[("authorization", "LDS \"virtualInbound\""), ("envoy-filter", "LDS \"virtualInbound\"")];

fn corpus() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpus/istiod-xds");
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("SKIPPED: there is no corpus at {}", folder.display());
    None
}

/// One proxy of one case, as Envoy would have asked for it.
struct Proxy {
    config: Config,
    refused: Vec<Refused>,
}

impl Proxy {
    fn read(json: &Json, folder: &Path) -> Self {
        let mut proxy = Self { config: Config::new(), refused: Vec::new() };
        for (file, kind, full) in [
            ("cds.json", type_url::CLUSTER, true),
            ("eds.json", type_url::ENDPOINT, false),
            ("lds.json", type_url::LISTENER, true),
            ("rds.json", type_url::ROUTE, false),
        ] {
            let resources = resources(json, &folder.join(file), kind);
            let update = Update { type_url: kind.to_owned(), resources, removed: Vec::new(), full };
            proxy.refused.extend(proxy.config.apply(update).refused);
        }
        proxy
    }

    fn listener(&self, name: &str) -> &Listener {
        self.config.snapshot().listeners.get(name).unwrap_or_else(|| panic!("no listener {name}"))
    }
}

fn resources(json: &Json, file: &Path, kind: &str) -> Vec<Resource> {
    let text = fs::read_to_string(file).unwrap();
    let values: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    let resource = |value: &serde_json::Value| {
        let (url, body) = json.encode_any(value).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert_eq!(url, kind);
        let name = value.get("name").or(value.get("clusterName")).and_then(|name| name.as_str()).unwrap_or_default();
        Resource { name: name.to_owned(), version: "1".to_owned(), body: Bytes::from(body) }
    };
    values.iter().map(resource).collect()
}

fn cases(corpus: &Path) -> BTreeMap<String, Vec<PathBuf>> {
    let mut cases = BTreeMap::new();
    for case in fs::read_dir(corpus).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()) {
        let proxies = ["sidecar-productpage", "sidecar-reviews", "gateway"].map(|proxy| case.join(proxy));
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        cases.insert(name, proxies.into_iter().filter(|path| path.is_dir()).collect());
    }
    cases
}

#[test]
fn nothing_is_refused_but_what_would_be_unsafe_to_ignore() {
    let Some(corpus) = corpus() else { return };
    let json = Json::new();
    let cases = cases(&corpus);
    assert!(cases.len() >= 23, "{} cases", cases.len());
    let mut wrong = Vec::new();
    let mut unseen: Vec<_> = RIGHTLY_REFUSED.to_vec();
    for (case, proxies) in &cases {
        for folder in proxies {
            let proxy = Proxy::read(&json, folder);
            let place = folder.strip_prefix(&corpus).unwrap().display().to_string();
            for refused in &proxy.refused {
                let text = refused.to_string();
                let listed = |(of, start): &(&str, &str)| of == case && text.starts_with(start);
                unseen.retain(|entry| !listed(entry));
                if !RIGHTLY_REFUSED.iter().any(listed) {
                    wrong.push(format!("{place}: {text}"));
                }
            }
            // Everything else is visible: nothing waits.
            let snapshot = proxy.config.snapshot();
            for kind in [type_url::CLUSTER, type_url::LISTENER, type_url::ROUTE] {
                let accepted = proxy.config.accepted(kind).len();
                let visible = match kind {
                    type_url::CLUSTER => snapshot.clusters.size(),
                    type_url::LISTENER => snapshot.listeners.size(),
                    _ => snapshot.routes.size(),
                };
                if accepted != visible {
                    wrong.push(format!("{place}: {accepted} {} accepted, {visible} visible", type_url::short(kind)));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(unseen.is_empty(), "obeyed by now, so no longer to be listed: {unseen:?}");
}

/// JSON → bytes → JSON gives the same: the descriptions know every field that istiod sends.
#[test]
fn recorded_resources_survive_the_way_there_and_back() {
    let Some(corpus) = corpus() else { return };
    let json = Json::new();
    for folder in cases(&corpus).values().flatten() {
        for file in ["cds.json", "eds.json", "lds.json", "rds.json"] {
            let text = fs::read_to_string(folder.join(file)).unwrap();
            let values: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
            for value in values {
                let (url, body) = json.encode_any(&value).unwrap();
                assert_eq!(json.decode_any(&url, &body).unwrap(), value, "{}/{file}", folder.display());
            }
        }
    }
}

struct Call<'a> {
    case: &'a str,
    proxy: &'a str,
    listener: &'a str,
    destination: &'a str,
    authority: &'a str,
    path: &'a str,
    headers: &'a [(&'static str, &'static str)],
}

fn explained(call: &Call<'_>) -> Option<Explanation> {
    let corpus = corpus()?;
    let proxy = Proxy::read(&Json::new(), &corpus.join(call.case).join(call.proxy));
    let mut headers = HeaderMap::new();
    for (name, value) in call.headers {
        headers.insert(*name, HeaderValue::from_static(value));
    }
    let request = RequestView {
        method: &Method::GET,
        authority: call.authority,
        scheme: "http",
        path_and_query: call.path,
        headers: &headers,
        client_ip: Some("10.128.0.99".parse().unwrap()),
    };
    let facts = ConnectionFacts {
        destination: call.destination.parse().unwrap(),
        source: "10.128.0.99:40000".parse().unwrap(),
        direct_source: "10.128.0.99".parse().unwrap(),
        transport: Transport::RawBuffer,
        server_name: None,
        application_protocols: &["http/1.1"],
    };
    Some(explain(proxy.config.snapshot(), proxy.listener(call.listener), &facts, &request, Draws::default()))
}

fn outbound<'a>(case: &'a str, proxy: &'a str, authority: &'a str, path: &'a str) -> Call<'a> {
    Call { case, proxy, listener: "0.0.0.0_9080", destination: "10.96.0.14:9080", authority, path, headers: &[] }
}

#[track_caller]
fn forwarded(explanation: &Explanation) -> &ForwardStep {
    match &explanation.verdict {
        Verdict::Forward(step) => step,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn goes_to(call: &Call<'_>, clusters: &[(&str, u32)]) {
    let Some(explanation) = explained(call) else { return };
    let step = forwarded(&explanation);
    let found: Vec<_> = step.choices.iter().map(|choice| (choice.cluster.name.as_str(), choice.weight)).collect();
    assert_eq!(found, clusters);
    for choice in &step.choices {
        assert!(choice.cluster.exists && !choice.cluster.endpoints.is_empty(), "{:?}", choice.cluster);
        for endpoint in &choice.cluster.endpoints {
            assert_eq!(endpoint.security, "mTLS", "{endpoint:?}");
        }
    }
}

const REVIEWS: &str = "reviews:9080";
const V1: &str = "outbound|9080|v1|reviews.default.svc.cluster.local";
const V2: &str = "outbound|9080|v2|reviews.default.svc.cluster.local";
const V3: &str = "outbound|9080|v3|reviews.default.svc.cluster.local";

#[test]
fn a_header_chooses_the_subset() {
    let case = "virtual-service-reviews-test-v2";
    let call = outbound(case, "sidecar-productpage", REVIEWS, "/reviews/0");
    goes_to(&call, &[(V1, 1)]);
    goes_to(&Call { headers: &[("end-user", "jason")], ..call }, &[(V2, 1)]);
    let Some(explanation) = explained(&outbound(case, "sidecar-productpage", REVIEWS, "/")) else { return };
    assert_eq!(
        explanation.routes[0].reason.as_deref(),
        Some(r#"header end-user: wanted exact "jason", request has none"#)
    );
    let because = explanation.routes[1].because.as_ref().unwrap();
    assert_eq!((because.kind.as_str(), because.name.as_str()), ("VirtualService", "reviews"));
}

#[test]
fn weights_choose_between_subsets() {
    let call = |case| outbound(case, "sidecar-productpage", "reviews.default.svc.cluster.local:9080", "/");
    goes_to(&call("virtual-service-reviews-90-10"), &[(V1, 90), (V2, 10)]);
    goes_to(&call("virtual-service-reviews-50-v3"), &[(V1, 50), (V3, 50)]);
    goes_to(&call("virtual-service-reviews-v3"), &[(V3, 1)]);
}

#[test]
fn a_virtual_service_for_all_traffic_and_none() {
    goes_to(
        &outbound("bookinfo", "sidecar-productpage", REVIEWS, "/"),
        &[("outbound|9080||reviews.default.svc.cluster.local", 1)],
    );
    let Some(explanation) = explained(&outbound("bookinfo", "sidecar-productpage", REVIEWS, "/")) else { return };
    let step = forwarded(&explanation);
    assert_eq!(step.choices[0].cluster.endpoints.len(), 3);
    assert_eq!(step.timeout, None);
    let retries = step.retries.as_ref().unwrap();
    assert_eq!(retries.attempts, 2);
    assert!(retries.on.iter().any(|on| on == "connect-failure"), "{:?}", retries.on);
}

#[test]
fn faults_are_where_the_samples_ask_for_them() {
    let ratings = |case| outbound(case, "sidecar-reviews", "ratings:9080", "/ratings/0");
    for (case, expect) in [
        ("virtual-service-ratings-test-abort", "100% are answered with HTTP 500"),
        ("virtual-service-ratings-test-delay", "100% wait 7s"),
    ] {
        let Some(explanation) = explained(&Call { headers: &[("end-user", "jason")], ..ratings(case) }) else { return };
        assert_eq!(forwarded(&explanation).faults, [expect]);
        let Some(explanation) = explained(&ratings(case)) else { return };
        assert_eq!(forwarded(&explanation).faults, Vec::<String>::new());
    }
    let details = outbound("fault-injection-details-v1", "sidecar-productpage", "details:9080", "/details/0");
    let Some(explanation) = explained(&details) else { return };
    assert_eq!(forwarded(&explanation).faults, ["100% are answered with HTTP 555"]);
}

fn gateway<'a>(case: &'a str, listener: &'a str, authority: &'a str, path: &'a str) -> Call<'a> {
    let destination = "10.128.0.1:8080";
    Call { case, proxy: "gateway", listener, destination, authority, path, headers: &[] }
}

#[test]
fn the_gateway_routes_the_paths_of_bookinfo_and_nothing_else() {
    let call = |path| gateway("virtual-service-reviews-v3", "0.0.0.0_8080", "any.example.com", path);
    let productpage = "outbound|9080||productpage.default.svc.cluster.local";
    for path in ["/productpage", "/static/x.css", "/login", "/logout", "/api/v1/products/0"] {
        goes_to(&call(path), &[(productpage, 1)]);
    }
    let Some(explanation) = explained(&call("/other")) else { return };
    assert!(matches!(explanation.verdict, Verdict::Refuse { status: Some(404), .. }), "{:?}", explanation.verdict);
}

#[test]
fn redirects_to_https_where_the_gateway_says_so() {
    let Some(explanation) = explained(&gateway("gateway-tls", "0.0.0.0_8080", "shop.example.com", "/a?b")) else {
        return;
    };
    let Verdict::Redirect { status, location, .. } = &explanation.verdict else { panic!("{:?}", explanation.verdict) };
    assert_eq!((*status, location.as_str()), (301, "https://shop.example.com/a?b"));
}

#[test]
fn unknown_hosts_pass_through_or_are_blocked() {
    let Some(explanation) = explained(&outbound("bookinfo", "sidecar-productpage", "example.com:9080", "/")) else {
        return;
    };
    assert_eq!(forwarded(&explanation).choices[0].cluster.name, "PassthroughCluster");
    let corpus = corpus().unwrap();
    let proxy = Proxy::read(&Json::new(), &corpus.join("sidecar-scope/sidecar-productpage"));
    let blocked = proxy
        .config
        .snapshot()
        .routes
        .iter()
        .any(|(_, table)| table.virtual_host("example.com").is_some_and(|host| host.name == "block_all"));
    assert!(blocked, "the Sidecar resource of this case blocks unknown hosts");
}

/// The chains of `virtualInbound`, asked as the wire would.
#[test]
fn inbound_connections_find_their_chain() {
    let Some(corpus) = corpus() else { return };
    let proxy = Proxy::read(&Json::new(), &corpus.join("destination-rule-all/sidecar-productpage"));
    let listener = proxy.listener("virtualInbound");
    assert!(listener.use_original_dst || listener.inspect.original_dst);
    assert!(!listener.inspect.http_on(9080) && listener.inspect.tls_on(9080) && !listener.inspect.tls_on(15006));
    let choose = |port: u16, transport, protocols: &[&str]| {
        let facts = ConnectionFacts {
            destination: ([10, 128, 0, 7], port).into(),
            source: "10.128.0.99:40000".parse().unwrap(),
            direct_source: "10.128.0.99".parse().unwrap(),
            transport,
            server_name: None,
            application_protocols: protocols,
        };
        listener.choose(&facts).map(|chain| (chain.name.clone(), chain.tls.is_some()))
    };
    let named = |name: &str, tls| Some((name.to_owned(), tls));
    assert_eq!(choose(15006, Transport::RawBuffer, &[]), named("virtualInbound-blackhole", false));
    assert_eq!(choose(9080, Transport::RawBuffer, &["http/1.1"]), named("0.0.0.0_9080", false));
    let mesh = ["istio-http/1.1", "istio", "http/1.1"];
    assert_eq!(choose(9080, Transport::Tls, &mesh), named("0.0.0.0_9080", true));
    assert_eq!(choose(1234, Transport::Tls, &mesh), named("virtualInbound-catchall-http", true));
    assert_eq!(choose(1234, Transport::RawBuffer, &["h2c"]), named("virtualInbound-catchall-http", false));
    assert_eq!(choose(1234, Transport::RawBuffer, &[]), named("virtualInbound", false));
}

/// The plan of the proxy and its explanation are one decision.
#[test]
fn plan_and_explanation_agree_on_all_hosts_of_all_cases() {
    let Some(corpus) = corpus() else { return };
    let json = Json::new();
    let headers = HeaderMap::new();
    let mut asked = 0;
    for folder in cases(&corpus).values().flatten() {
        let proxy = Proxy::read(&json, folder);
        let snapshot = proxy.config.snapshot();
        for listener in snapshot.listeners.values() {
            for chain in &listener.chains {
                let Handler::Http(handler) = &chain.handler else { continue };
                let Some(table) = snapshot.route_table(&handler.routes) else { panic!("{}", listener.name) };
                for domain in table.hosts.iter().flat_map(|host| &host.domains) {
                    let authority = domain.replace('*', "x");
                    let request = RequestView {
                        method: &Method::GET,
                        authority: &authority,
                        scheme: "http",
                        path_and_query: "/productpage",
                        headers: &headers,
                        client_ip: None,
                    };
                    let host = table.virtual_host(&authority).unwrap();
                    assert!(host.domains.contains(domain), "{authority} found {}", host.name);
                    match plan(snapshot, handler, &request, Draws::default()) {
                        Plan::Refuse(no) => {
                            let text = format!("{no:?}");
                            assert!(!text.contains("NoRouteTable") && !text.contains("NoVirtualHost"), "{text}");
                        }
                        Plan::Forward(plan) => {
                            let found = snapshot.cluster(&plan.cluster.policy.name).unwrap();
                            assert!(std::sync::Arc::ptr_eq(found, &plan.cluster));
                        }
                        _ => {}
                    }
                    asked += 1;
                }
            }
        }
    }
    assert!(asked > 1000, "{asked}");
}

/// Damaged resources are refused or obeyed, and never more than that.
#[test]
fn damaged_bytes_do_no_harm() {
    let Some(corpus) = corpus() else { return };
    let json = Json::new();
    let folder = corpus.join("gateway-tls/gateway");
    for (file, kind) in
        [("cds.json", type_url::CLUSTER), ("lds.json", type_url::LISTENER), ("rds.json", type_url::ROUTE)]
    {
        for resource in resources(&json, &folder.join(file), kind).into_iter().take(3) {
            for place in (0..resource.body.len()).step_by(29) {
                let mut body = resource.body.to_vec();
                body[place] ^= 1 << (place % 8);
                let damaged = Resource { body: Bytes::from(body), ..resource.clone() };
                let cut = Resource { body: resource.body.slice(..place), ..resource.clone() };
                for resource in [damaged, cut] {
                    let update = Update { type_url: kind.to_owned(), resources: vec![resource], ..Update::default() };
                    let outcome = Config::new().apply(update);
                    assert!(outcome.refused.len() <= 1);
                }
            }
        }
    }
}
