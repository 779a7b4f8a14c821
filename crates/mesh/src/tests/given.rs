//! Addresses that ServiceEntries without any are given, and how a change of them spreads.

use std::net::IpAddr;
use std::sync::Arc;

use mizzen_config::Change;
use mizzen_types::{Hostname, ObjectKey};

use super::{base, changes};
use crate::{Dirty, Mesh, ServiceKey};

fn key(host: &str) -> ServiceKey {
    ServiceKey { host: Hostname::new(host), namespace: "shop".into() }
}

fn entry(name: &str) -> ObjectKey {
    ObjectKey::new("ServiceEntry", "shop", name)
}

/// An entry for `NAME.example.com`; `more` are further fields of `spec`, `top` such beside it.
fn declared(name: &str, more: &str, top: &str) -> String {
    format!(
        "{{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {{name: {name}, namespace: shop, \
         creationTimestamp: '2026-01-01T00:00:00Z'}}, spec: {{hosts: [{name}.example.com], ports: [{{number: 3306, name: \
         tcp, protocol: TCP}}], {more}}}{top}}}"
    )
}

const STATIC: &str = "resolution: STATIC, endpoints: [{address: 192.0.2.1}]";

fn given(mesh: &Mesh, host: &str) -> Vec<IpAddr> {
    mesh.service(&key(host)).map(|service| service.given_addresses.clone()).unwrap_or_default()
}

fn after(mesh: &Mesh, yaml: &str) -> (Arc<Mesh>, Dirty) {
    mesh.apply(&changes(yaml))
}

#[track_caller]
fn check(yaml: &str, host: &str, expected: bool) {
    let (mesh, _) = after(&base(), yaml);
    assert!(mesh.service(&key(host)).is_some(), "{yaml}");
    assert_eq!(given(&mesh, host).len(), if expected { 2 } else { 0 }, "{yaml}");
}

#[test]
fn entries_get_addresses_where_connections_to_them_can_be_led_on() {
    check(&declared("a", STATIC, ""), "a.example.com", true);
    check(&declared("a", "resolution: DNS", ""), "a.example.com", true);
    check(&declared("a", "resolution: DNS_ROUND_ROBIN", ""), "a.example.com", true);
    check(&declared("a", "resolution: NONE", ""), "a.example.com", false);
    check(&declared("a", &format!("{STATIC}, addresses: [192.0.2.7]"), ""), "a.example.com", false);
    check(&declared("a", &format!("{STATIC}, addresses: [192.0.2.0/24]"), ""), "a.example.com", false);
    let of_many =
        declared("a", STATIC, "").replace("[a.example.com]", "['*.example.com', b.example.com, c.example.com]");
    check(&of_many, "*.example.com", false);
    check(&of_many, "b.example.com", true);
    check(&of_many, "c.example.com", true);
    for (value, expected) in [("'false'", false), ("'False'", false), ("'true'", true)] {
        let label = format!("labels: {{networking.istio.io/enable-autoallocate-ip: {value}}}");
        let yaml = declared("a", STATIC, "").replace("namespace: shop,", &format!("namespace: shop, {label},"));
        check(&yaml, "a.example.com", expected);
    }
}

#[test]
fn a_service_of_kubernetes_is_given_none() {
    let yaml = declared("a", STATIC, "").replace("a.example.com", "reviews.shop.svc.cluster.local");
    let (mesh, _) = after(&base(), &yaml);
    assert!(given(&mesh, "reviews.shop.svc.cluster.local").is_empty());
    assert_eq!(mesh.given_addresses(&entry("a")), None);
}

#[test]
fn addresses_do_not_depend_on_the_way_that_led_here() {
    let all: Vec<String> = (0..300).map(|number| declared(&format!("e-{number}"), STATIC, "")).collect();
    let (at_once, _) = after(&base(), &all.join("\n---\n"));
    let mut one_by_one = base();
    for yaml in all.iter().rev() {
        one_by_one = after(&one_by_one, yaml).0;
    }
    // Some were there once and are not any more, or become others on the way.
    let (detour, _) = after(&at_once, &declared("gone", STATIC, ""));
    let (detour, _) = detour.apply(&[Change::Delete(entry("gone"))]);
    let (detour, _) = detour.apply(&[Change::Delete(entry("e-7"))]);
    let (detour, _) = after(&detour, &declared("e-7", "resolution: NONE", ""));
    let (detour, _) = after(&detour, &all[7]);
    let config = "{apiVersion: v1, kind: ConfigMap, metadata: {name: istio, namespace: istio-system}, data: {mesh: '{trustDomain: \
                  own}'}}";
    let (reread, _) = after(&at_once, config);
    for number in 0..300 {
        let host = format!("e-{number}.example.com");
        let expected = given(&at_once, &host);
        assert_eq!(expected.len(), 2, "{host}");
        for other in [&one_by_one, &detour, &reread] {
            assert_eq!(given(other, &host), expected, "{host}");
        }
    }
}

#[test]
fn a_change_of_one_entry_touches_no_other() {
    let (mesh, _) = after(&base(), &[declared("a", STATIC, ""), declared("b", STATIC, "")].join("\n---\n"));
    let (_, dirty) = after(&mesh, &declared("c", STATIC, ""));
    assert_eq!(dirty.services, [key("c.example.com")].into());
    let (next, dirty) = after(&mesh, &declared("b", &STATIC.replace("192.0.2.1", "192.0.2.2"), ""));
    assert_eq!(dirty.services, [key("b.example.com")].into());
    assert_eq!(given(&next, "b.example.com"), given(&mesh, "b.example.com"));
    // Whoever takes an address from another, touches it.
    let taken = given(&mesh, "a.example.com")[0];
    let (next, dirty) = after(&mesh, &declared("d", &format!("{STATIC}, addresses: ['{taken}']"), ""));
    assert_eq!(dirty.services, [key("a.example.com"), key("d.example.com")].into());
    assert!(!given(&next, "a.example.com").contains(&taken) && given(&next, "a.example.com").len() == 2);
}

fn status(addresses: &[(&str, &str)]) -> String {
    let all: Vec<String> =
        addresses.iter().map(|(host, value)| format!("{{value: '{value}', host: {host}}}")).collect();
    format!(", status: {{addresses: [{}]}}", all.join(", "))
}

/// Whether the status of the entry `a` is to say something else.
fn anew(mesh: &Mesh) -> bool {
    mesh.given_anew().any(|key| *key == entry("a"))
}

#[test]
fn what_the_status_says_counts() {
    let said =
        status(&[("a.example.com", "240.240.9.9"), ("a.example.com", "2001:2::99"), ("b.example.com", "240.240.9.8")]);
    let (mesh, _) = after(&base(), &declared("a", STATIC, &said));
    let expected: Vec<IpAddr> = ["240.240.9.9", "2001:2::99"].map(|text| text.parse().unwrap()).into();
    assert_eq!(given(&mesh, "a.example.com"), expected);
    assert!(!anew(&mesh));
    let told = mesh.given_addresses(&entry("a")).unwrap();
    assert_eq!(told, expected.iter().map(|ip| ("a.example.com".to_owned(), *ip)).collect::<Vec<_>>());
    // What is no list of addresses is as good as nothing.
    for wrong in
        [", status: {addresses: {}}", ", status: {addresses: [{value: x, host: a.example.com}]}", ", status: x"]
    {
        let (mesh, _) = after(&base(), &declared("a", STATIC, wrong));
        assert_eq!(
            given(&mesh, "a.example.com"),
            given(&after(&base(), &declared("a", STATIC, "")).0, "a.example.com")
        );
        assert!(anew(&mesh));
    }
    // Where no addresses are to be given, it does not count.
    let (mesh, _) = after(&base(), &declared("a", "resolution: NONE", &said));
    assert!(given(&mesh, "a.example.com").is_empty() && mesh.given_addresses(&entry("a")).is_none());
}

#[test]
fn writing_down_what_is_given_concerns_nobody() {
    let (mesh, _) = after(&base(), &declared("a", STATIC, ""));
    let told = mesh.given_addresses(&entry("a")).unwrap();
    let told: Vec<(&str, String)> = told.iter().map(|(host, ip)| (host.as_str(), ip.to_string())).collect();
    let told: Vec<(&str, &str)> = told.iter().map(|(host, ip)| (*host, ip.as_str())).collect();
    let (next, dirty) = after(&mesh, &declared("a", STATIC, &status(&told)));
    assert_eq!(dirty, Dirty::default());
    assert!(anew(&mesh) && !anew(&next));
    // From then on it is this entry's, whoever else comes.
    assert_eq!(given(&next, "a.example.com"), given(&mesh, "a.example.com"));
    // Another control plane has given other ones.
    let (next, dirty) = after(&next, &declared("a", STATIC, &status(&[("a.example.com", "240.240.9.9")])));
    assert_eq!(dirty.services, [key("a.example.com")].into());
    assert!(dirty.endpoints.is_empty());
    assert_eq!(given(&next, "a.example.com"), ["240.240.9.9".parse::<IpAddr>().unwrap()]);
}
