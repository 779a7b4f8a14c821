use std::sync::Arc;

use mizzen_types::TrustDomain;
use mizzen_xds::server::Observed;
use mizzen_xds::{Mode, ResourceType};

use super::*;
use crate::node::Node as ProxyNode;
use crate::status::{Status as Proxies, StreamId};

fn shared() -> Shared {
    let shared = Shared::new();
    *shared.status() = proxies();
    shared
}

fn proxies() -> Proxies {
    let mut status = Proxies::default();
    for (number, namespace) in [(1, "shop"), (2, "bank")] {
        let id = format!("sidecar~10.0.0.{number}~a.{namespace}~{namespace}.svc.cluster.local");
        let node = ProxyNode::read(Node { id, ..Default::default() }).unwrap();
        let mut proxy = ProxyStatus::new(Arc::new(node), None, Mode::Delta, SystemTime::UNIX_EPOCH);
        let kind = ResourceType::Cluster;
        for event in [
            Observed::Subscribed { kind, wildcard: true, names: 0 },
            Observed::Sent { kind, nonce: 1, version: 1, resources: 1, removed: 0, bytes: 1 },
            Observed::Acked { kind, nonce: 1, took: std::time::Duration::ZERO },
        ] {
            proxy.observe(&event, SystemTime::UNIX_EPOCH);
        }
        status.proxies.insert(StreamId(number), proxy);
    }
    status
}

fn ask(caller: Option<&str>, type_url: &str, names: &[String]) -> Result<DiscoveryResponse, Status> {
    let shared = shared();
    let plane = Plane { shared: &shared, id: "istiod-1" };
    let caller = caller.map(|namespace| SpiffeId::new(TrustDomain::default(), namespace, "default"));
    answer(&plane, caller.as_ref(), Question { type_url, names })
}

fn names(response: &DiscoveryResponse) -> Vec<String> {
    let configs = response.resources.iter().map(|any| ClientConfig::decode(&*any.value).unwrap());
    configs.map(|config| config.node.unwrap().id.split('~').nth(2).unwrap().to_owned()).collect()
}

#[test]
fn the_root_namespace_sees_all_proxies_and_another_its_own() {
    let all = ask(Some("istio-system"), SYNCZ, &[]).unwrap();
    assert_eq!(names(&all), ["a.bank", "a.shop"]);
    let config = ClientConfig::decode(&*all.resources[0].value).unwrap();
    let clusters = &config.generic_xds_configs[0];
    assert_eq!(clusters.type_url, ResourceType::Cluster.type_url());
    assert_eq!(clusters.config_status(), ConfigStatus::Synced);
    assert_eq!(config.generic_xds_configs[1].config_status(), ConfigStatus::Unknown);
    let identifier: serde_json::Value = serde_json::from_str(&all.control_plane.unwrap().identifier).unwrap();
    assert_eq!(identifier["ID"], "istiod-1");

    assert_eq!(names(&ask(Some("shop"), SYNCZ, &[]).unwrap()), ["a.shop"]);
    assert!(names(&ask(Some("else"), SYNCZ, &[]).unwrap()).is_empty());
    let page = ask(Some("shop"), PAGE, &["syncz".to_owned()]).unwrap();
    let page: serde_json::Value = serde_json::from_slice(&page.resources[0].value).unwrap();
    assert_eq!(page.as_array().unwrap().len(), 1);
}

#[test]
fn a_proxy_that_came_back_with_all_that_it_asks_for_is_synced() {
    let mut proxies = proxies();
    let proxy = proxies.proxies.get_mut(&StreamId(1)).unwrap();
    let routes = |proxy: &ProxyStatus| proxy.states().find(|(kind, ..)| *kind == ResourceType::Route).unwrap().1;
    let subscribed = Observed::Subscribed { kind: ResourceType::Route, wildcard: false, names: 1 };
    proxy.observe(&subscribed, SystemTime::UNIX_EPOCH);
    assert_eq!(routes(proxy), Sync::NotSent);
    proxy.settled();
    assert_eq!(routes(proxy), Sync::Synced);
    proxy.observe(&subscribed, SystemTime::UNIX_EPOCH);
    assert_eq!(routes(proxy), Sync::NotSent, "it may have asked for more");
}

#[test]
fn strangers_and_unknown_types_are_refused() {
    assert_eq!(ask(None, SYNCZ, &[]).unwrap_err().code(), tonic::Code::Unauthenticated);
    let questions = [
        ("istio.io/else", vec![]),
        (PAGE, vec!["configz"]),
        (PAGE, vec!["config_dump"]),
        (PAGE, vec!["not a page"]),
        (PAGE, vec![]),
        (CONFIG_DUMP, vec![]),
        (CONFIG_DUMP, vec!["a.shop", "a.bank"]),
    ];
    for (kind, names) in questions {
        let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
        let refused = ask(Some("istio-system"), kind, &names).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{kind} {names:?}");
    }
    let dump = ask(None, CONFIG_DUMP, &["a.shop".to_owned()]).unwrap_err();
    assert_eq!(dump.code(), tonic::Code::Unauthenticated);
}

#[test]
fn s33_a_proxy_is_dumped_for_those_alone_who_may_see_it() {
    let sections = |caller, proxy: &str| {
        let answer = ask(Some(caller), CONFIG_DUMP, &[proxy.to_owned()]).unwrap();
        answer.resources.into_iter().map(|any| any.type_url).collect::<Vec<_>>()
    };
    let whole = ["Clusters", "Listeners", "Routes", "Secrets"]
        .map(|kind| format!("type.googleapis.com/envoy.admin.v3.{kind}ConfigDump"));
    assert_eq!(sections("istio-system", "a.shop"), whole);
    assert_eq!(sections("istio-system", "sidecar~10.0.0.2~a.bank~bank.svc.cluster.local"), whole);
    assert_eq!(sections("shop", "a.shop"), whole);
    // One of another namespace is as one that is not there.
    for (caller, proxy) in [("bank", "a.shop"), ("shop", "a.bank"), ("istio-system", "b.shop"), ("istio-system", "a")] {
        for question in [(CONFIG_DUMP, proxy.to_owned()), (PAGE, format!("config_dump?proxyID={proxy}"))] {
            let answer = ask(Some(caller), question.0, &[question.1]).unwrap();
            let [text] = &answer.resources[..] else { panic!("{caller} is shown {proxy}") };
            let text = String::from_utf8(text.value.clone()).unwrap();
            // Word by word what istioctl looks for.
            let words = "Proxy not connected to this Pilot instance. It may be connected to another instance.";
            assert!(text.starts_with(words) && text.contains(proxy), "{text}");
        }
    }
}

#[test]
fn pages_are_json() {
    let page = |caller, name: &str| -> serde_json::Value {
        let answer = ask(Some(caller), PAGE, &[name.to_owned()]).unwrap();
        serde_json::from_slice(&answer.resources[0].value).unwrap()
    };
    assert_eq!(page("shop", "list"), json!(PAGES));
    let kinds = |dump: serde_json::Value| dump["configs"].as_array().unwrap().len();
    assert_eq!(kinds(page("shop", "config_dump?proxyID=a.shop")), 4);
    let dump = page("shop", "config_dump?proxyID=a.shop&include_eds");
    assert_eq!(dump["configs"][1]["@type"], "type.googleapis.com/envoy.admin.v3.EndpointsConfigDump");
    let clients = page("bank", "connections");
    let client = json!({
        "connectionId": "sidecar~10.0.0.2~a.bank~bank.svc.cluster.local",
        "connectedAt": "1970-01-01T00:00:00Z",
        "address": "10.0.0.2",
    });
    assert_eq!(clients, json!({"totalClients": 1, "clients": [client]}));
}
