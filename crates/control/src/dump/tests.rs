use std::time::Instant;

use mizzen_config::Change;
use mizzen_mesh::Mesh;
use mizzen_proto::envoy::config::core::v3::Node as ProtoNode;
use mizzen_proto::google::protobuf::value::Kind;
use mizzen_proto::google::protobuf::{Struct, Value};

use super::*;
use crate::cache::Cache;
use crate::metrics::Metrics;
use crate::node::Node;
use crate::world::World;

const CONFIG: &str = "
{apiVersion: v1, kind: Service, metadata: {name: a, namespace: shop},
 spec: {clusterIP: 10.0.0.10, ports: [{name: http, port: 80}]}}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: g, namespace: shop}
spec:
  selector: {app: gateway}
  servers:
    - {port: {number: 443, name: https, protocol: HTTPS}, hosts: ['*'], tls: {mode: SIMPLE, credentialName: cert}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: v, namespace: shop}
spec: {hosts: ['*'], gateways: [g], http: [{route: [{destination: {host: a}}]}]}
---
{apiVersion: v1, kind: Secret, metadata: {name: cert, namespace: shop}, type: kubernetes.io/tls,
 data: {tls.crt: UFVCTElDLUNIQUlO, tls.key: VE9QLVNFQ1JFVA==}}
---
apiVersion: v1
kind: Pod
metadata: {name: gw, namespace: shop, labels: {app: gateway}}
spec: {containers: [{name: istio-proxy, image: x}]}
status: {podIP: 10.1.0.2, phase: Running, conditions: [{type: Ready, status: 'True'}]}
";

fn dump_of(role: &str, secrets: bool, endpoints: bool) -> ConfigDump {
    let parsed = mizzen_config::parse("a.yaml", CONFIG);
    assert!(parsed.findings.is_empty(), "{:?}", parsed.findings);
    let changes: Vec<Change> = parsed.objects.into_iter().map(Change::Put).collect();
    let world = Arc::new(World::first(Mesh::empty().apply(&changes).0, Instant::now()));
    let text = |text: &str| Value { kind: Some(Kind::StringValue(text.to_owned())) };
    let labels = Struct { fields: [("app".to_owned(), text("gateway"))].into() };
    let fields = [("LABELS".to_owned(), Value { kind: Some(Kind::StructValue(labels)) })];
    let node = Node::read(ProtoNode {
        id: format!("{role}~10.1.0.2~gw.shop~shop.svc.cluster.local"),
        metadata: Some(Struct { fields: fields.into() }),
        ..Default::default()
    });
    let cache = Arc::new(Cache::new(Arc::new(Metrics::default())));
    config_dump(&mut Contents::new(&node.unwrap(), secrets, world, cache).unwrap(), endpoints)
}

/// The section of this type.
fn read<M: Message + Name + Default>(dump: &ConfigDump) -> M {
    let any = dump.configs.iter().find(|any| any.type_url.ends_with(&M::full_name())).unwrap();
    M::decode(&*any.value).unwrap()
}

#[test]
fn a_sidecar_has_its_clusters_listeners_and_the_route_tables_that_these_name() {
    let dump = dump_of("sidecar", false, true);
    let clusters: ClustersConfigDump = read(&dump);
    let cluster = clusters.dynamic_active_clusters.iter().filter_map(|it| it.cluster.as_ref());
    assert!(cluster.clone().all(|any| any.type_url == ResourceType::Cluster.type_url()));
    let outbound = b"outbound|80||a.shop.svc.cluster.local";
    assert!(cluster.into_iter().any(|any| any.value.windows(outbound.len()).any(|part| part == outbound)));
    let listeners: ListenersConfigDump = read(&dump);
    assert!(listeners.dynamic_listeners.iter().any(|it| it.name == "virtualOutbound"));
    assert!(listeners.dynamic_listeners.iter().all(|it| it.active_state.is_some()));
    let routes: RoutesConfigDump = read(&dump);
    let names = routes.dynamic_route_configs.iter().map(|it| {
        use mizzen_proto::envoy::config::route::v3::RouteConfiguration;
        RouteConfiguration::decode(&*it.route_config.as_ref().unwrap().value).unwrap().name
    });
    assert_eq!(names.collect::<Vec<_>>(), ["80"]);
    let endpoints: EndpointsConfigDump = read(&dump);
    assert_eq!(endpoints.dynamic_endpoint_configs.len(), 1);
    assert!(read::<SecretsConfigDump>(&dump).dynamic_active_secrets.is_empty());
}

#[test]
fn s33_a_certificate_is_shown_without_its_key_and_only_of_who_has_it() {
    let contains = |dump: &ConfigDump, text: &[u8]| dump.encode_to_vec().windows(text.len()).any(|part| part == text);
    let dump = dump_of("router", true, false);
    assert!(contains(&dump, b"PUBLIC-CHAIN"));
    assert!(!contains(&dump, b"TOP-SECRET"));
    let secrets: SecretsConfigDump = read(&dump);
    assert_eq!(secrets.dynamic_active_secrets[0].name, "kubernetes://cert");
    // What a gateway may not read, it does not have.
    assert!(read::<SecretsConfigDump>(&dump_of("router", false, false)).dynamic_active_secrets.is_empty());
}

#[test]
fn s33_secrets_that_are_all_secret_are_not_shown() {
    use mizzen_proto::envoy::extensions::transport_sockets::tls::v3::{GenericSecret, TlsSessionTicketKeys};
    let source =
        || DataSource { specifier: Some(Specifier::InlineString("TOP-SECRET".to_owned())), ..Default::default() };
    let generic = GenericSecret { secret: Some(source()), ..Default::default() };
    let tickets = TlsSessionTicketKeys { keys: vec![source()] };
    for hidden in [Type::GenericSecret(generic), Type::SessionTicketKeys(tickets)] {
        let secret = Secret { name: "s".to_owned(), r#type: Some(hidden) };
        assert_eq!(redacted(&Resource::new("s", secret.encode_to_vec())), None);
    }
    let certificate = TlsCertificate { password: Some(source()), private_key: Some(source()), ..Default::default() };
    let secret = Secret { name: "s".to_owned(), r#type: Some(Type::TlsCertificate(certificate)) };
    let shown = redacted(&Resource::new("s", secret.encode_to_vec())).unwrap();
    assert!(!String::from_utf8_lossy(&shown.value).contains("TOP-SECRET"));
}
