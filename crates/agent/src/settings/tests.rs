use std::collections::BTreeMap;

use serde_json::json;

use super::*;

/// A pod as injection makes it.
fn pod() -> Inputs {
    let variables = [
        ("POD_NAME", "reviews-v1-7d4"),
        ("POD_NAMESPACE", "shop"),
        ("INSTANCE_IP", "10.1.2.3"),
        ("SERVICE_ACCOUNT", "bookinfo-reviews"),
        ("CA_ADDR", "istiod.istio-system.svc:15012"),
        ("PILOT_CERT_PROVIDER", "istiod"),
        ("ISTIO_CPU_LIMIT", "2"),
        ("PROXY_CONFIG", "{}"),
        ("ISTIO_META_POD_PORTS", r#"[{"containerPort":9080}]"#),
        ("ISTIO_META_APP_CONTAINERS", "reviews"),
        ("ISTIO_META_CLUSTER_ID", "Kubernetes"),
        ("ISTIO_META_INTERCEPTION_MODE", "REDIRECT"),
        ("ISTIO_META_WORKLOAD_NAME", "reviews-v1"),
        ("ISTIO_META_OWNER", "kubernetes://apis/apps/v1/namespaces/shop/deployments/reviews-v1"),
        ("ISTIO_META_MESH_ID", "cluster.local"),
        ("TRUST_DOMAIN", "cluster.local"),
    ];
    Inputs {
        role: Role::Sidecar,
        domain: Some("shop.svc.cluster.local".to_owned()),
        service_cluster: None,
        concurrency: None,
        variables: variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        labels: Some("app=\"reviews\"\nversion=\"v1\"\ntopology.istio.io/locality=\"eu/eu-1/a\"\n".to_owned()),
        annotations: Some("note=\"a \\\"b\\\"\"\nkubectl.kubernetes.io/last-applied-configuration=\"{}\"\n".to_owned()),
        mesh: None,
        root: "/".into(),
        addresses: vec![[10, 1, 2, 3].into(), "fd00::3".parse().unwrap()],
        hostname: "node-7".to_owned(),
        processors: 8,
        version: "1.2.3".to_owned(),
    }
}

fn with(name: &str, value: &str) -> Inputs {
    let mut inputs = pod();
    inputs.variables.insert(name.to_owned(), value.to_owned());
    inputs
}

#[test]
fn a_pod_s_environment_becomes_its_node() {
    let settings = resolve(&pod()).unwrap();
    let node = &settings.node;
    assert_eq!(node["id"], "sidecar~10.1.2.3~reviews-v1-7d4.shop~shop.svc.cluster.local");
    assert_eq!(node["cluster"], "reviews.shop");
    assert_eq!(node["locality"], json!({"region": "eu", "zone": "eu-1", "sub_zone": "a"}));
    let metadata = &node["metadata"];
    for (key, value) in [
        ("NAME", json!("reviews-v1-7d4")),
        ("NAMESPACE", json!("shop")),
        ("SERVICE_ACCOUNT", json!("bookinfo-reviews")),
        ("INSTANCE_IPS", json!("10.1.2.3,fd00::3")),
        ("CLUSTER_ID", json!("Kubernetes")),
        ("MESH_ID", json!("cluster.local")),
        ("WORKLOAD_NAME", json!("reviews-v1")),
        ("OWNER", json!("kubernetes://apis/apps/v1/namespaces/shop/deployments/reviews-v1")),
        ("INTERCEPTION_MODE", json!("REDIRECT")),
        ("POD_PORTS", json!("[{\"containerPort\":9080}]")),
        ("APP_CONTAINERS", json!("reviews")),
        ("MIZZEN_VERSION", json!("1.2.3")),
        ("ENVOY_STATUS_PORT", json!(15021)),
        ("ENVOY_PROMETHEUS_PORT", json!(15090)),
        ("PILOT_SAN", json!(["istiod.istio-system.svc"])),
        ("ANNOTATIONS", json!({"note": "a \"b\""})),
    ] {
        assert_eq!(metadata[key], value, "{key}");
    }
    assert_eq!(metadata["LABELS"]["version"], "v1");
    assert_eq!(metadata["PROXY_CONFIG"]["discoveryAddress"], "istiod.istio-system.svc:15012");
    assert!(metadata.get("ISTIO_VERSION").is_none(), "we are not Istio's proxy");
    assert_eq!(settings.ports, Ports { admin: 15000, health: 15021, stats: 15090, status: Some(15020) });
    assert_eq!(settings.concurrency, 2);
    assert_eq!(settings.ending, Ending::After(Duration::from_secs(5)));
    assert_eq!(settings.state_dir, Path::new("/etc/istio/proxy/mizzen"));
    assert_eq!(
        settings.identity,
        Some(IdentityFiles {
            ca_address: "istiod.istio-system.svc:15012".to_owned(),
            ca_server_name: "istiod.istio-system.svc".to_owned(),
            ca_roots: "/var/run/secrets/istio/root-cert.pem".into(),
            token: "/var/run/secrets/tokens/istio-token".into(),
        })
    );
    assert_eq!(settings.notes, Vec::<String>::new());
}

/// The bootstrap is one that our proxy obeys, and says what was meant.
#[track_caller]
fn compiled(inputs: &Inputs) -> mizzen_compile::Bootstrap {
    mizzen_compile::bootstrap(&resolve(inputs).unwrap().bootstrap).unwrap()
}

#[test]
fn the_bootstrap_leads_to_the_control_plane() {
    let boot = compiled(&pod());
    assert_eq!(boot.without_effect, Vec::<String>::new());
    assert_eq!(boot.admin, Some(([127, 0, 0, 1], 15000).into()));
    assert!(boot.listeners_by_ads && boot.clusters_by_ads);
    let ads = boot.ads.unwrap();
    assert!(ads.delta);
    assert_eq!(ads.initial_metadata, [("clusterid".to_owned(), "Kubernetes".to_owned())]);
    assert_eq!(format!("{:?}", ads.addresses[0]), r#"Name { host: "istiod.istio-system.svc", port: 15012 }"#);
    let tls = ads.tls.unwrap();
    assert_eq!(tls.sni.as_deref(), Some("istiod.istio-system.svc"));
    assert_eq!(tls.validation.names.len(), 1);
    assert!(!tls.validation.insecure);
}

#[test]
fn addresses_of_the_control_plane_are_of_many_forms() {
    for (address, name) in [
        ("istiod-canary.istio-system.svc:15012", "istiod-canary.istio-system.svc"),
        ("10.0.0.9:15012", "10.0.0.9"),
        ("[fd00::9]:15012", "fd00::9"),
        ("localhost:15012", "istiod.istio-system.svc"),
        ("127.3.0.1:15012", "istiod.istio-system.svc"),
    ] {
        let inputs = with("PROXY_CONFIG", &format!("{{\"discoveryAddress\": {address:?}}}"));
        let ads = compiled(&inputs).ads.unwrap();
        assert_eq!(ads.tls.unwrap().sni.as_deref(), Some(name), "{address}");
    }
    let mut inputs = with("ISTIOD_SAN", "control.example");
    assert_eq!(compiled(&inputs).ads.unwrap().tls.unwrap().sni.as_deref(), Some("control.example"));
    assert_eq!(resolve(&inputs).unwrap().identity.unwrap().ca_server_name, "control.example");
    inputs.variables.insert("CA_ADDR".to_owned(), "[fd00::9]:15012".to_owned());
    assert_eq!(resolve(&inputs).unwrap().identity.unwrap().ca_address, "[fd00::9]:15012");
    for address in ["", "istiod", "istiod:", "istiod:x", "istiod:99999", "fd00::9:15012", ":15012", "http://a:1"] {
        let inputs = with("PROXY_CONFIG", &format!("{{\"discoveryAddress\": {address:?}}}"));
        assert!(matches!(resolve(&inputs), Err(SettingsError::Field { field: "discoveryAddress", .. })), "{address}");
    }
}

#[test]
fn plaintext_discovery_needs_no_certificate() {
    let inputs = with("PROXY_CONFIG", r#"{"controlPlaneAuthPolicy":"NONE","discoveryAddress":"a:15010"}"#);
    assert!(compiled(&inputs).ads.unwrap().tls.is_none());
    assert_eq!(resolve(&inputs).unwrap().identity, None);
}

#[test]
fn layers_of_the_proxy_configuration_lie_on_each_other() {
    let mut inputs =
        with("PROXY_CONFIG", r#"{"statusPort":15920,"drainDuration":"10s","proxyMetadata":{"A":"1","B":"1"}}"#);
    inputs.mesh = Some("defaultConfig:\n  drainDuration: 20s\n  terminationDrainDuration: 7s\n".to_owned());
    inputs.annotations = Some(
        "proxy.istio.io/config=\"concurrency: 3\\nproxyMetadata:\\n  B: \\\"2\\\"\\n  ISTIO_META_X: y\\n\"".to_owned(),
    );
    let settings = resolve(&inputs).unwrap();
    assert_eq!(settings.ports.status, Some(15920));
    assert_eq!(settings.drain, Duration::from_secs(10));
    assert_eq!(settings.ending, Ending::After(Duration::from_secs(7)));
    assert_eq!(settings.concurrency, 3);
    let metadata = &settings.node["metadata"];
    assert_eq!(metadata["X"], "y", "the proxy's metadata is environment too");
    assert_eq!(metadata["PROXY_CONFIG"]["proxyMetadata"], json!({"A": "1", "B": "2", "ISTIO_META_X": "y"}));
}

#[test]
fn threads_follow_flag_then_configuration_then_limit() {
    let threads = |inputs: &Inputs| resolve(inputs).unwrap().concurrency;
    for (limit, expected) in [("1", 1), ("1500m", 2), ("0.1", 1), ("64", 64)] {
        assert_eq!(threads(&with("ISTIO_CPU_LIMIT", limit)), expected, "{limit}");
    }
    assert_eq!(threads(&with("PROXY_CONFIG", r#"{"concurrency":0}"#)), 8, "all processors");
    assert_eq!(threads(&with("PROXY_CONFIG", r#"{"concurrency":4}"#)), 4);
    let mut inputs = with("PROXY_CONFIG", r#"{"concurrency":4}"#);
    inputs.concurrency = Some(1);
    assert_eq!(threads(&inputs), 1);
    assert_eq!(threads(&with("ISTIO_CPU_LIMIT", "")), 2, "without a limit");
    for limit in ["x", "-1", "0", "NaN", "inf"] {
        let error = resolve(&with("ISTIO_CPU_LIMIT", limit)).unwrap_err();
        assert!(matches!(error, SettingsError::Variable { name: "ISTIO_CPU_LIMIT", .. }), "{limit}");
    }
}

#[test]
fn the_end_follows_the_environment() {
    let mut inputs = with("EXIT_ON_ZERO_ACTIVE_CONNECTIONS", "true");
    assert_eq!(resolve(&inputs).unwrap().ending, Ending::WhenIdle(Duration::from_secs(5)));
    inputs.variables.insert("MINIMUM_DRAIN_DURATION".to_owned(), "1m".to_owned());
    assert_eq!(resolve(&inputs).unwrap().ending, Ending::WhenIdle(Duration::from_secs(60)));
    inputs.variables.insert("MINIMUM_DRAIN_DURATION".to_owned(), "soon".to_owned());
    assert!(resolve(&inputs).is_err());
    assert!(resolve(&with("EXIT_ON_ZERO_ACTIVE_CONNECTIONS", "perhaps")).is_err());
}

#[test]
fn the_name_of_the_cluster_follows_its_rules() {
    let cluster = |inputs: &Inputs| resolve(inputs).unwrap().node["cluster"].clone();
    let mut inputs = pod();
    inputs.labels = None;
    assert_eq!(cluster(&inputs), "reviews-v1.shop");
    inputs.variables.remove("ISTIO_META_WORKLOAD_NAME");
    assert_eq!(cluster(&inputs), "istio-proxy.shop");
    assert_eq!(cluster(&with("PROXY_CONFIG", r#"{"tracingServiceName":"CANONICAL_NAME_ONLY"}"#)), "reviews");
    assert_eq!(cluster(&with("PROXY_CONFIG", r#"{"serviceCluster":"mine"}"#)), "mine");
    inputs.service_cluster = Some("flag".to_owned());
    assert_eq!(cluster(&inputs), "flag");
}

#[test]
fn a_virtual_machine_has_less_and_says_more() {
    let variables = [
        ("POD_NAMESPACE", "vms"),
        ("ISTIO_METAJSON_LABELS", r#"{"app":"db","istio-locality":"r.z.s"}"#),
        ("ISTIO_META_NETWORK", "net1"),
        ("SERVICE_ACCOUNT", "db"),
    ];
    let inputs = Inputs {
        role: Role::Router,
        domain: None,
        variables: variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        labels: None,
        annotations: None,
        addresses: vec![[192, 168, 1, 4].into()],
        ..pod()
    };
    let settings = resolve(&inputs).unwrap();
    assert_eq!(settings.node["id"], "router~192.168.1.4~node-7.vms~vms.svc.cluster.local");
    assert_eq!(settings.node["cluster"], "db.vms");
    assert_eq!(settings.node["locality"]["zone"], "z");
    assert_eq!(settings.node["metadata"]["NETWORK"], "net1");
    assert_eq!(settings.node["metadata"]["LABELS"]["app"], "db");
    let nowhere = Inputs { addresses: Vec::new(), ..inputs };
    assert_eq!(resolve(&nowhere).unwrap_err(), SettingsError::NoAddress);
}

#[test]
fn mistakes_are_named() {
    for (name, value, word) in [
        ("PROXY_CONFIG", "{", "PROXY_CONFIG"),
        ("PROXY_CONFIG", "[]", "no object"),
        ("PROXY_CONFIG", r#"{"statusPort":70000}"#, "statusPort"),
        ("PROXY_CONFIG", r#"{"drainDuration":"soon"}"#, "drainDuration"),
        ("PROXY_CONFIG", r#"{"interceptionMode":"MAGIC"}"#, "interceptionMode"),
        ("PROXY_CONFIG", r#"{"proxyMetadata":{"A":[]}}"#, "proxyMetadata"),
        ("PROXY_CONFIG", r#"{"concurrency":-1}"#, "concurrency"),
        ("ENVOY_STATUS_PORT", "x", "ENVOY_STATUS_PORT"),
        ("INSTANCE_IP", "10.1.2.3.4", "INSTANCE_IP"),
        ("ISTIO_METAJSON_A", "{", "ISTIO_METAJSON_A"),
        ("ISTIO_METAJSON_LABELS", "[]", "ISTIO_METAJSON_LABELS"),
    ] {
        let error = resolve(&with(name, value)).unwrap_err().to_string();
        assert!(error.contains(word), "{name}={value}: {error}");
    }
}

#[test]
fn what_is_asked_for_and_not_done_is_said() {
    for (name, value) in [
        ("ISTIO_META_ENABLE_HBONE", "true"),
        ("OUTPUT_CERTS", "/etc/certs"),
        ("CA_PROVIDER", "GoogleCA"),
        ("PROXY_CONFIG", r#"{"caCertificatesPem":["x"]}"#),
    ] {
        let notes = resolve(&with(name, value)).unwrap().notes;
        assert_eq!(notes.len(), 1, "{name}: {notes:?}");
    }
    for (name, value) in [("ISTIO_META_DNS_CAPTURE", "false"), ("ISTIO_META_DNS_AUTO_ALLOCATE", "true")] {
        assert_eq!(resolve(&with(name, value)).unwrap().notes, Vec::<String>::new(), "{name}");
    }
}

#[test]
fn names_are_resolved_where_that_is_asked_for() {
    let addresses = |inputs: &Inputs| -> Vec<String> {
        let dns = resolve(inputs).unwrap().dns;
        dns.map(|dns| dns.addresses.iter().map(ToString::to_string).collect()).unwrap_or_default()
    };
    assert!(addresses(&pod()).is_empty());
    let mut inputs = with("ISTIO_META_DNS_CAPTURE", "true");
    assert_eq!(addresses(&inputs), ["127.0.0.1:15053", "[::1]:15053"]);
    let bootstrap = resolve(&inputs).unwrap().bootstrap;
    assert!(bootstrap.contains("\"DNS_CAPTURE\":\"true\""), "the control plane and the proxy are told: {bootstrap}");
    for (text, wanted) in [("localhost:5353", "127.0.0.1:5353"), ("127.0.0.9:53", "127.0.0.9:53")] {
        inputs.variables.insert("DNS_PROXY_ADDR".to_owned(), text.to_owned());
        assert_eq!(addresses(&inputs)[0], wanted);
    }
    let gateway = Inputs { role: Role::Router, ..inputs.clone() };
    assert!(addresses(&gateway).is_empty());
    inputs.variables.insert("DNS_PROXY_ADDR".to_owned(), "here".to_owned());
    assert!(resolve(&inputs).unwrap_err().to_string().contains("DNS_PROXY_ADDR"));
}

#[test]
fn files_lie_below_the_root() {
    let mut inputs = with("JWT_POLICY", "first-party-jwt");
    inputs.root = "/tmp/pod".into();
    inputs.variables.insert("CA_ROOT_CA".to_owned(), "./certs/ca.pem".to_owned());
    let identity = resolve(&inputs).unwrap().identity.unwrap();
    assert_eq!(identity.token, Path::new("/tmp/pod/var/run/secrets/kubernetes.io/serviceaccount/token"));
    assert_eq!(identity.ca_roots, Path::new("/tmp/pod/certs/ca.pem"));
    let kept: BTreeMap<&str, &str> = BTreeMap::from([("kubernetes", "serviceaccount/ca.crt"), ("custom", "etc/certs")]);
    for (provider, part) in kept {
        let identity = resolve(&with("PILOT_CERT_PROVIDER", provider)).unwrap().identity.unwrap();
        assert!(identity.ca_roots.to_string_lossy().contains(part), "{provider}");
    }
}
