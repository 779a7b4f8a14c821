use mizzen_proto::envoy::config::cluster::v3::Cluster;
use mizzen_proto::envoy::config::listener::v3::Listener;
use mizzen_proto::prost::Message;

use super::*;

const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";

fn all() -> Query {
    Query { resource: None, name: None, endpoints: true }
}

fn held() -> Held {
    let held = Held::default();
    held.set_bootstrap(json!({"node": {"id": "a"}}));
    let cluster = |name: &str| Cluster { name: name.to_owned(), ..Cluster::default() }.encode_to_vec();
    let listener = Listener { name: "l".to_owned(), ..Listener::default() }.encode_to_vec();
    held.put(CLUSTER, "xds-grpc", Packed::alone("", &cluster("xds-grpc")), Origin::Static);
    held.put(CLUSTER, "outbound|80||a", Packed::alone("v1", &cluster("outbound|80||a")), Origin::Discovered);
    held.put(LISTENER, "l", Packed::alone("v2", &listener), Origin::Discovered);
    held.refuse(LISTENER, "l", "v3", "no such filter");
    held.refuse(LISTENER, "bad", "v3", "no address");
    held
}

#[test]
fn a_dump_has_envoys_shape() {
    let dump = held().dump(&Secrets::new(), &all()).unwrap();
    let configs = dump["configs"].as_array().unwrap();
    let section = |message: &str| {
        let wanted = format!("type.googleapis.com/envoy.admin.v3.{message}");
        configs.iter().find(|section| section["@type"] == wanted).unwrap()
    };
    assert_eq!(section("BootstrapConfigDump")["bootstrap"]["node"]["id"], "a");
    let clusters = section("ClustersConfigDump");
    assert_eq!(clusters["static_clusters"][0]["cluster"]["name"], "xds-grpc");
    assert_eq!(clusters["dynamic_active_clusters"][0]["cluster"]["@type"], CLUSTER);
    assert_eq!(clusters["dynamic_active_clusters"][0]["version_info"], "v1");
    let listeners = section("ListenersConfigDump")["dynamic_listeners"].as_array().unwrap();
    assert_eq!((listeners[0]["name"].as_str(), listeners[1]["name"].as_str()), (Some("bad"), Some("l")));
    assert!(listeners[0].get("active_state").is_none());
    assert_eq!(listeners[0]["error_state"]["details"], "no address");
    assert_eq!(listeners[1]["active_state"]["listener"]["name"], "l");
    assert_eq!(listeners[1]["active_state"]["version_info"], "v2");
    assert_eq!(listeners[1]["error_state"]["version_info"], "v3");
    section("RoutesConfigDump");
    section("SecretsConfigDump");
}

#[test]
fn one_list_or_some_names_can_be_asked_for() {
    let held = held();
    let ask = |resource: Option<&str>, name: Option<&str>| {
        let query = Query { resource: resource.map(str::to_owned), name: name.map(str::to_owned), endpoints: false };
        held.dump(&Secrets::new(), &query)
    };
    let list = ask(Some("dynamic_active_clusters"), None).unwrap();
    assert_eq!(list["configs"][0]["cluster"]["name"], "outbound|80||a");
    assert_eq!(list["configs"].as_array().unwrap().len(), 1);
    let named = ask(Some("static_clusters"), Some("^outbound")).unwrap();
    assert_eq!(named["configs"], json!([]));
    assert!(ask(Some("nonsense"), None).unwrap_err().contains("nonsense"));
    assert!(ask(None, Some("(")).is_err());
}

#[test]
fn removed_resources_are_gone() {
    let held = held();
    held.remove(LISTENER, "l");
    held.remove(LISTENER, "bad");
    let dump = held.dump(&Secrets::new(), &all()).unwrap();
    assert!(!dump.to_string().contains("dynamic_listeners"));
}

#[test]
fn bytes_that_are_no_resource_do_not_spoil_the_dump() {
    let held = held();
    held.put(CLUSTER, "broken", Packed::alone("v", b"\xff\xff\xff"), Origin::Discovered);
    let dump = held.dump(&Secrets::new(), &all()).unwrap().to_string();
    assert!(dump.contains("not_shown") && dump.contains("outbound|80||a"));
}

#[test]
fn s35_keys_and_passwords_are_not_shown() {
    let mut dump = json!({
        "tls_certificate": {
            "certificate_chain": {"inline_string": "PUBLIC"},
            "private_key": {"inline_bytes": "U0VDUkVU"},
            "password": {"inline_string": "SECRET"},
        },
        "tlsCertificate": {"privateKey": {"inlineString": "SECRET"}},
        "from_file": {"private_key": {"filename": "/etc/key.pem"}},
        "list": [{"session_ticket_keys": {"keys": [{"inline_bytes": "U0VDUkVU"}]}}],
        "generic_secret": {"secret": {"inline_string": "SECRET"}},
    });
    redact(&mut dump);
    let text = dump.to_string();
    assert!(!text.contains("SECRET") && !text.contains("U0VDUkVU"), "{text}");
    assert!(text.contains("PUBLIC") && text.contains("/etc/key.pem"), "{text}");
    assert_eq!(dump["tls_certificate"]["private_key"]["inline_bytes"], REDACTED_BYTES);
    assert_eq!(dump["tlsCertificate"]["privateKey"]["inlineString"], REDACTED);
}
