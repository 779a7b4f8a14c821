//! What a control plane sends: it is obeyed or refused by name, and what is obeyed can be asked about any request.
#![no_main]

use bytes::Bytes;
use http::{HeaderMap, Method};
use libfuzzer_sys::fuzz_target;
use mizzen_compile::{Config, Resource, Update};
use mizzen_snapshot::route::{Action, RequestView};

const TYPES: [&str; 5] = [
    "type.googleapis.com/envoy.config.cluster.v3.Cluster",
    "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
    "type.googleapis.com/envoy.config.listener.v3.Listener",
    "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
];

fuzz_target!(|input: (Vec<(u8, &[u8])>, &str)| {
    let (messages, path) = input;
    let mut config = Config::new();
    for (kind, body) in messages.into_iter().take(8) {
        let resource = Resource { body: Bytes::copy_from_slice(body), ..Resource::default() };
        let type_url = TYPES[usize::from(kind) % TYPES.len()].to_owned();
        for refused in config.apply(Update { type_url, resources: vec![resource], ..Update::default() }).refused {
            assert!(!refused.message.is_empty());
        }
    }
    let headers = HeaderMap::new();
    let request = RequestView {
        method: &Method::GET,
        authority: "a.example:80",
        scheme: "http",
        path_and_query: path,
        headers: &headers,
        client_ip: None,
    };
    for table in config.snapshot().routes.values() {
        let Some(host) = table.virtual_host(request.authority) else { continue };
        for route in host.routes.iter().filter(|route| route.matches.matches(&request, 0)) {
            match &route.action {
                Action::Redirect(redirect) => drop(redirect.location(&route.matches.path, &request)),
                Action::Forward(forward) => {
                    drop(forward.rewrite_path.as_ref().map(|rewrite| rewrite.apply(&route.matches.path, path)));
                }
                Action::Respond(_) => {}
            }
        }
    }
});
