use std::sync::Arc;

use mizzen_types::TrustDomain;
use mizzen_xds::server::Observed;
use mizzen_xds::{Mode, ResourceType};

use super::*;
use crate::node::Node as ProxyNode;
use crate::status::{Status as Proxies, StreamId};

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
    let proxies = proxies();
    let plane = Plane { status: &proxies, id: "istiod-1", root_namespace: "istio-system" };
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
    for (kind, names) in [("istio.io/else", vec![]), (PAGE, vec!["configz".to_owned()]), (PAGE, vec![])] {
        assert_eq!(ask(Some("istio-system"), kind, &names).unwrap_err().code(), tonic::Code::InvalidArgument, "{kind}");
    }
}
