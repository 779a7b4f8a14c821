//! `istioctl proxy-status POD` lays what a proxy shows of its configuration, in JSON, beside what it should have, as bytes:
//! nothing may get lost on the way there and back.

use mizzen_proto::json::Json;

use super::*;

const EVERY_RULE: &str = include_str!("../every_rule.yaml");

#[test]
fn nothing_of_a_resource_is_lost_in_a_dump() {
    let mesh = mesh(&EVERY_RULE.replace("namespace: default", "namespace: shop"));
    let istio = json!({"ISTIO_VERSION": "1.32.0", "INTERCEPTION_MODE": "REDIRECT"});
    let views = [
        sidecar(&mesh, &redirected()),
        sidecar(&mesh, &bound()),
        sidecar(&mesh, &istio),
        gateway(&mesh, &redirected()),
        gateway(&mesh, &istio),
    ];
    for view in views {
        let scope = view.scope(&mesh);
        let tables = ["80", "9080", "http.8080", "15002"];
        let tables = tables.into_iter().filter_map(|name| mizzen_translate::route_table(&mesh, &scope, name));
        let clusters = mizzen_translate::clusters(&mesh, &view);
        let all = clusters.into_iter().chain(mizzen_translate::listeners(&mesh, &view)).chain(tables);
        for resource in all {
            let shown =
                Json::new().with_proto_names().decode_any(resource.type_url, &resource.body).expect("it is shown");
            let (url, again) = Json::new().encode_any(&shown).expect("it is read");
            assert_eq!(url, resource.type_url);
            // Entries of a map may come in another order, so lengths are compared: what is lost is missing there.
            assert_eq!(again.len(), resource.body.len(), "{} of {}: {shown:#}", resource.name, view.id);
            let shown_again = Json::new().with_proto_names().decode_any(&url, &again).expect("it is shown again");
            assert_eq!(shown_again, shown, "{} of {}", resource.name, view.id);
        }
    }
}
