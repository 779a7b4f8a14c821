//! Stock Envoy takes every word of the Envoy dialect: all resources of recorded meshes, and of one with every kind of
//! rule, in one bootstrap file each, given to `envoy --mode validate`.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use mizzen_config::Change;
use mizzen_mesh::Mesh;
use mizzen_proto::json::Json;
use mizzen_translate::{ProxyView, Resource};
use serde_json::{Value, json};

const CASES: [&str; 6] = [
    "bookinfo",
    "destination-rule-all-mtls",
    "egress-rule-google-apis",
    "gateway-tls",
    "traffic-policy",
    "virtual-service-ratings-db",
];

/// Added to the mesh of `bookinfo`.
const EVERY_RULE: &str = include_str!("every_rule.yaml");

fn mesh(text: &str) -> Arc<Mesh> {
    let parsed = mizzen_config::parse("input.yaml", text);
    let changes: Vec<Change> = parsed.objects.into_iter().map(Change::Put).collect();
    Mesh::empty().apply(&changes).0
}

fn view(mesh: &Mesh, pod_prefix: &str, role: &str, more: Value) -> ProxyView {
    let pod = mesh.pods().find(|pod| pod.workload.name.starts_with(pod_prefix)).expect("the pod is in the input");
    let (name, namespace) = (&pod.workload.name, &pod.workload.namespace);
    let address = pod.addresses.first().expect("pods have addresses");
    let id = format!("{role}~{address}~{name}.{namespace}~{namespace}.svc.cluster.local");
    ProxyView::new(&id, &more, mesh).expect("a node of ours")
}

fn decoded(json: &Json, resources: impl IntoIterator<Item = Resource>) -> Vec<Value> {
    let decode = |resource: Resource| {
        let mut value = json.decode_any(resource.type_url, &resource.body).expect("what is sent can be read");
        if let Some(fields) = value.as_object_mut() {
            fields.remove("@type");
        }
        value
    };
    resources.into_iter().map(decode).collect()
}

/// Puts route tables into the listeners that ask for them.
fn inline_tables(value: &mut Value, table: &dyn Fn(&str) -> Option<Value>) {
    match value {
        Value::Object(fields) => {
            let name = fields.get("rds").and_then(|rds| rds["routeConfigName"].as_str()).map(str::to_owned);
            if let Some(name) = name {
                let table =
                    table(&name).unwrap_or_else(|| panic!("a listener asks for the table {name}, which is not made"));
                fields.remove("rds");
                fields.insert("routeConfig".to_owned(), table);
            }
            fields.values_mut().for_each(|inner| inline_tables(inner, table));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| inline_tables(item, table)),
        _ => {}
    }
}

fn bootstrap(mesh: &Mesh, view: &ProxyView) -> Value {
    let json = Json::new();
    let scope = view.scope(mesh);
    let table = |name: &str| {
        let made = mizzen_translate::route_table(mesh, &scope, name)?;
        decoded(&json, [made]).pop()
    };
    let mut listeners = Value::Array(decoded(&json, mizzen_translate::listeners(mesh, view)));
    inline_tables(&mut listeners, &table);
    let mut clusters = decoded(&json, mizzen_translate::clusters(mesh, view));
    for name in ["xds-grpc", "sds-grpc"] {
        clusters.push(json!({
            "name": name,
            "type": "STATIC",
            "typedExtensionProtocolOptions": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicitHttpConfig": {"http2ProtocolOptions": {}},
            }},
            "loadAssignment": {"clusterName": name, "endpoints": [{"lbEndpoints": [{"endpoint": {
                "address": {"socketAddress": {"address": "127.0.0.1", "portValue": 1}},
            }}]}]},
        }));
    }
    json!({
        "node": {"id": view.id, "cluster": "test"},
        "dynamicResources": {"adsConfig": {
            "apiType": "GRPC",
            "transportApiVersion": "V3",
            "grpcServices": [{"envoyGrpc": {"clusterName": "xds-grpc"}}],
        }},
        "staticResources": {"listeners": listeners, "clusters": clusters},
    })
}

fn check(envoy: &Path, folder: &Path, name: &str, mesh: &Mesh) {
    let none =
        json!({"INTERCEPTION_MODE": "NONE", "HTTP_PROXY_PORT": "15002", "MIZZEN_APP": {"9080": "127.0.0.1:4000"}});
    let proxies = [
        ("redirected", view(mesh, "productpage-v1-", "sidecar", json!({}))),
        ("bound", view(mesh, "reviews-v2-", "sidecar", none)),
        ("gateway", view(mesh, "istio-ingressgateway-", "router", json!({"MIZZEN_BIND": "127.0.0.1"}))),
    ];
    for (kind, view) in proxies {
        let file = folder.join(format!("{name}-{kind}.json"));
        fs::write(&file, bootstrap(mesh, &view).to_string()).expect("the folder can be written");
        let output = Command::new(envoy)
            .args(["--mode", "validate", "--log-level", "error", "-c"])
            .arg(&file)
            .output()
            .expect("envoy starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name}, {kind}: {said}\n{}", file.display());
    }
}

#[test]
fn stock_envoy_takes_every_resource() {
    let test = "stock_envoy_takes_every_resource";
    let Some(envoy) = mizzen_testing::envoy() else { return mizzen_testing::skip(test, "there is no stock Envoy") };
    let Some(corpus) = mizzen_testing::shared_or_skip(test, "corpus/istiod-xds") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    // Stock Envoy reads files itself, so those that rules name have to be there.
    let roots = folder.path().join("ca.pem");
    fs::write(&roots, include_str!("ca.pem")).expect("the folder can be written");
    let input = |case: &str| {
        let text = fs::read_to_string(corpus.join(case).join("input.yaml")).expect("every case has its input");
        text.replace("/etc/certs/ca.pem", &roots.display().to_string())
    };
    for case in CASES {
        check(&envoy, folder.path(), case, &mesh(&input(case)));
    }
    let all = format!("{}\n---\n{EVERY_RULE}", input("bookinfo"));
    check(&envoy, folder.path(), "every_rule", &mesh(&all));
}
