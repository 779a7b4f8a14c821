//! The decisions of the genuine control plane for recorded meshes, compared with ours, resource by resource and field by
//! field (`../shared/corpus/istiod-xds`; its README says what may differ).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use mizzen_config::Change;
use mizzen_mesh::Mesh;
use mizzen_proto::json::Json;
use mizzen_translate::{ProxyView, Resource};
use serde_json::{Value, json};

/// Cases that show only what is obeyed by now.
const CASES: [&str; 16] = [
    "bookinfo",
    "certmanager-gateway",
    "destination-rule-all",
    "destination-rule-all-mtls",
    "egress-rule-google-apis",
    "fault-injection-details-v1",
    "gateway-tls",
    "helloworld-gateway",
    "system-services",
    "traffic-policy",
    "virtual-service-ratings-db",
    "virtual-service-ratings-mysql",
    "virtual-service-ratings-test-abort",
    "virtual-service-ratings-test-delay",
    "virtual-service-reviews-50-v3",
    "virtual-service-reviews-90-10",
];
const MORE_CASES: [&str; 3] = ["sidecar-scope", "virtual-service-reviews-test-v2", "virtual-service-reviews-v3"];

/// Folder of a proxy, the beginning of its pod's name, its role.
const PROXIES: [(&str, &str, &str); 3] = [
    ("sidecar-productpage", "productpage-v1-", "sidecar"),
    ("sidecar-reviews", "reviews-v2-", "sidecar"),
    ("gateway", "istio-ingressgateway-", "router"),
];

fn mesh(case: &Path) -> Arc<Mesh> {
    let text = fs::read_to_string(case.join("input.yaml")).expect("every case has its input");
    let parsed = mizzen_config::parse("input.yaml", &text);
    let changes: Vec<Change> = parsed.objects.into_iter().map(Change::Put).collect();
    Mesh::empty().apply(&changes).0
}

fn view(mesh: &Mesh, pod_prefix: &str, role: &str) -> ProxyView {
    let pod =
        mesh.pods().find(|pod| pod.workload.name.starts_with(pod_prefix)).expect("the proxy's pod is in the input");
    let (name, namespace) = (&pod.workload.name, &pod.workload.namespace);
    let address = pod.addresses.first().expect("pods have addresses");
    let id = format!("{role}~{address}~{name}.{namespace}~{namespace}.svc.cluster.local");
    let metadata = json!({"ISTIO_VERSION": "1.32.0", "CLUSTER_ID": "Kubernetes", "INTERCEPTION_MODE": "REDIRECT"});
    ProxyView::new(&id, &metadata, mesh).expect("a genuine node")
}

type Named = BTreeMap<String, Value>;

fn recorded(folder: &Path, file: &str) -> Named {
    let text = fs::read_to_string(folder.join(file)).expect("every proxy has four files");
    let resources: Vec<Value> = serde_json::from_str(&text).expect("recorded JSON");
    let named = |resource: Value| {
        let name = resource.get("name").or_else(|| resource.get("clusterName")).and_then(Value::as_str);
        (name.unwrap_or_default().to_owned(), canonical(resource))
    };
    resources.into_iter().map(named).collect()
}

fn ours(json: &Json, resources: impl IntoIterator<Item = Resource>) -> Named {
    let decode = |resource: Resource| {
        let value = json.decode_any(resource.type_url, &resource.body).expect("what is sent can be read");
        (resource.name, canonical(value))
    };
    resources.into_iter().map(decode).collect()
}

/// Drops what only we say, and orders what Envoy does not.
fn canonical(mut value: Value) -> Value {
    match &mut value {
        Value::Object(fields) => {
            fields.remove("mizzen");
            for (key, inner) in fields.iter_mut() {
                *inner = canonical(inner.take());
                let unordered = ["lbEndpoints", "filterChains", "domains", "rules"].contains(&key.as_str());
                if let (true, Value::Array(items)) = (unordered, inner) {
                    items.sort_by_cached_key(Value::to_string);
                }
            }
            fields.sort_keys();
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = canonical(item.take())),
        _ => {}
    }
    value
}

fn differences(path: &str, theirs: &Value, ours: &Value, out: &mut Vec<String>) {
    match (theirs, ours) {
        (Value::Object(a), Value::Object(b)) => {
            for (key, value) in a {
                let path = format!("{path}.{key}");
                match b.get(key) {
                    Some(other) => differences(&path, value, other, out),
                    None => out.push(format!("{path}: missing {value}")),
                }
            }
            for (key, value) in b.iter().filter(|(key, _)| !a.contains_key(*key)) {
                out.push(format!("{path}.{key}: ours alone {value}"));
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (index, (value, other)) in a.iter().zip(b).enumerate() {
                differences(&format!("{path}[{index}]"), value, other, out);
            }
        }
        (a, b) if a == b || (a.is_number() && a.as_f64() == b.as_f64()) => {}
        (a, b) => out.push(format!("{path}: theirs {a}\n      ours {b}")),
    }
}

fn compare(place: &str, theirs: &Named, ours: &Named, out: &mut Vec<String>) {
    for name in theirs.keys().filter(|name| !ours.contains_key(*name)) {
        out.push(format!("{place} {name}: missing"));
    }
    for name in ours.keys().filter(|name| !theirs.contains_key(*name)) {
        out.push(format!("{place} {name}: ours alone"));
    }
    for (name, value) in theirs {
        if let Some(own) = ours.get(name) {
            differences(&format!("{place} {name}"), value, own, out);
        }
    }
}

fn check(root: &Path, case: &str) -> Vec<String> {
    let json = Json::new();
    let mesh = mesh(&root.join(case));
    let mut out = Vec::new();
    for (folder, pod, role) in PROXIES {
        let view = view(&mesh, pod, role);
        let scope = view.scope(&mesh);
        let folder_path = root.join(case).join(folder);
        let place = |file: &str| format!("{case}/{folder}/{file}");
        let clusters = ours(&json, mizzen_translate::clusters(&mesh, &view));
        compare(&place("cds"), &recorded(&folder_path, "cds.json"), &clusters, &mut out);
        let listeners = ours(&json, mizzen_translate::listeners(&mesh, &view));
        compare(&place("lds"), &recorded(&folder_path, "lds.json"), &listeners, &mut out);
        let theirs = recorded(&folder_path, "rds.json");
        let tables = theirs.keys().filter_map(|name| mizzen_translate::route_table(&mesh, &scope, name));
        compare(&place("rds"), &theirs, &ours(&json, tables), &mut out);
        let theirs = recorded(&folder_path, "eds.json");
        let endpoints = theirs.keys().filter_map(|name| mizzen_translate::endpoints(&mesh, &scope, name));
        compare(&place("eds"), &theirs, &ours(&json, endpoints), &mut out);
    }
    out
}

#[test]
fn decisions_are_those_of_the_genuine_control_plane() {
    let test = "decisions_are_those_of_the_genuine_control_plane";
    let Some(root) = mizzen_testing::shared_or_skip(test, "corpus/istiod-xds") else { return };
    let mut all = Vec::new();
    for case in CASES.iter().chain(&MORE_CASES) {
        all.extend(check(&root, case));
    }
    assert!(all.is_empty(), "{} differences:\n{}", all.len(), all.join("\n"));
}
