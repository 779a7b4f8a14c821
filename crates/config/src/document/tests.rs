use mizzen_types::Severity;

use super::{Document, Keep};
use crate::{Change, Kind, code, parse, read_object};

fn document(json: &str) -> Document {
    serde_json::from_str(json).unwrap()
}

const SERVICE: &str = r#"{"metadata": {"name": "a", "namespace": "shop", "uid": "u-1", "generation": 7,
  "creationTimestamp": "2026-11-22T16:00:00Z", "resourceVersion": "12"},
  "spec": {"ports": [{"name": "http", "port": 80, "targetPort": "web"}], "selector": {"app": "a"}, "clusterIP": "10.0.0.1"}}"#;

#[test]
fn an_object_of_an_api_server_is_read_as_that_of_a_file() {
    let of_server = read_object("v1", "Service", &document(SERVICE));
    let of_file = parse("a.yaml", &SERVICE.replacen('{', r#"{"apiVersion": "v1", "kind": "Service", "#, 1));
    assert_eq!(of_server.findings, []);
    let (server, file) = (&of_server.objects[0], &of_file.objects[0]);
    assert!(server.same_content(file), "{server:?}\n{file:?}");
    assert_eq!((&*server.meta.version.uid, server.meta.version.generation), ("u-1", 7));
    assert_eq!((server.at("spec.ports[0]"), file.at("").is_some()), (None, true));
}

#[test]
fn a_new_version_that_says_the_same_is_the_same() {
    let read = |text: &str| read_object("v1", "Service", &document(text)).objects.remove(0);
    let (old, new) = (read(SERVICE), read(&SERVICE.replace("\"generation\": 7", "\"generation\": 8")));
    assert!(old.same_content(&new) && old.meta.version != new.meta.version);
    assert!(!old.same_content(&read(&SERVICE.replace("\"port\": 80", "\"port\": 81"))));
}

#[test]
fn findings_name_object_and_field_and_no_place() {
    let text = r#"{"metadata": {"name": "r", "namespace": "shop"}, "spec": {"hosts": ["r"], "http": [{"rout": []}]}}"#;
    let parsed = read_object("networking.istio.io/v1", "VirtualService", &document(text));
    assert!(parsed.objects.is_empty());
    let finding = parsed.findings.iter().find(|finding| finding.severity == Severity::Error).unwrap();
    assert_eq!(finding.origin.as_ref().unwrap().to_string(), "VirtualService/shop/r spec.http[0].rout");
    assert_eq!(finding.position, None);
}

#[test]
fn what_is_too_deep_or_too_large_rejects_itself_alone() {
    let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    let object = |spec: &str| format!(r#"{{"metadata": {{"name": "e", "namespace": "shop"}}, "spec": {spec}}}"#);
    let many = format!("[{}1]", "1,".repeat(crate::MAX_NODES));
    // Far beyond what a recursive reader could take.
    for spec in [nested(100), nested(100_000), many] {
        let documents: Vec<Document> = serde_json::from_str(&format!("[{}, {SERVICE}]", object(&spec))).unwrap();
        let parsed = read_object("networking.istio.io/v1alpha3", "EnvoyFilter", &documents[0]);
        assert!(parsed.objects.is_empty());
        assert_eq!(parsed.findings[0].code, code::TOO_LARGE);
        assert_eq!(parsed.findings[0].origin.as_ref().unwrap().object.to_string(), "EnvoyFilter/shop/e");
        assert_eq!(read_object("v1", "Service", &documents[1]).objects.len(), 1);
    }
}

#[test]
fn only_what_is_kept_is_held() {
    const KEEP: Keep = Keep::Only(&[
        ("metadata", Keep::But(&[("managedFields", None), ("annotations", Some(Keep::Keys(|key| key == "b")))])),
        ("list", Keep::Only(&[("x", Keep::All)])),
    ]);
    let text = r#"{"metadata": {"name": "n", "managedFields": [{"f": 1}], "annotations": {"a": "1", "b": "2"}},
                  "list": [{"x": [1, {"y": 2}], "z": 3}], "other": {}}"#;
    let read = |text: &str, keep| Document::deserialize(&mut serde_json::Deserializer::from_str(text), keep).unwrap();
    let kept = r#"{"metadata": {"name": "n", "annotations": {"b": "2"}}, "list": [{"x": [1, {"y": 2}]}]}"#;
    let kept = read(kept, Keep::All);
    assert_eq!(read(text, KEEP).root, kept.root);
    assert_eq!((kept.metadata("name"), kept.has("list"), kept.has("other")), (Some("n"), true, false));
}

#[test]
fn the_mesh_configuration_of_a_cluster_is_found() {
    let text = r#"{"metadata": {"name": "istio", "namespace": "istio-system"}, "data": {"mesh": "trustDomain: td\n"}}"#;
    let parsed = read_object("v1", "ConfigMap", &document(text));
    let kinds: Vec<_> = parsed.objects.iter().map(|object| object.kind.name()).collect();
    assert_eq!(kinds, ["MeshConfig", "ConfigMap"]);
    let Kind::MeshConfig(config) = &parsed.objects[0].kind else { panic!() };
    assert_eq!(config.trust_domain, "td");
    let change = Change::Put(parsed.objects[0].clone());
    assert_eq!(change.key().to_string(), "MeshConfig/istio-system/istio");
    let of_revision = read_object("v1", "ConfigMap", &document(&text.replace("\"istio\"", "\"istio-canary\"")));
    assert_eq!(of_revision.objects[0].key, parsed.objects[0].key);
}

#[test]
fn a_part_is_written_as_it_came() {
    let text = r#"{"status":{"a":[1,-2,1.5,true,null,"x \"y\""],"b":{}},"spec":{}}"#;
    let document: Document = serde_json::from_str(text).unwrap();
    let part = serde_json::to_string(&document.part("status").unwrap()).unwrap();
    assert_eq!(part, r#"{"a":[1,-2,1.5,true,null,"x \"y\""],"b":{}}"#);
    assert!(document.part("other").is_none());
}
