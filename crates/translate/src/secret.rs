//! Certificates of gateways, from Kubernetes Secrets, by SDS (reference: semantics 88 and 89).

use mizzen_mesh::Mesh;
use mizzen_proto::envoy::config::core::v3::{DataSource, data_source::Specifier};
use mizzen_proto::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, Secret, TlsCertificate, secret::Type,
};

use crate::view::{ProxyView, Role};
use crate::{Resource, type_url};

/// A secret by the name in a listener or cluster: `kubernetes://NAME` is a certificate with its key, `…-cacert` the roots
/// for its clients. Only gateways get any, and only of their own namespace. `None` until there is such a Secret.
pub fn secret(mesh: &Mesh, view: &ProxyView, name: &str) -> Option<Resource> {
    if view.role != Role::Router {
        return None;
    }
    let (namespace, object) = secret_object(view, name)?;
    let roots_of = object.strip_suffix("-cacert");
    let secret = mesh.secret(&namespace, object);
    let value = |keys: [&str; 2]| secret.and_then(|secret| keys.iter().find_map(|key| secret.value(key)));
    let content = match roots_of {
        Some(base) => {
            let own = value(["ca.crt", "cacert"]);
            let beside = mesh.secret(&namespace, base);
            let beside = || beside.and_then(|secret| ["ca.crt", "cacert"].iter().find_map(|key| secret.value(key)));
            Type::ValidationContext(CertificateValidationContext {
                trusted_ca: Some(bytes(own.or_else(beside)?)),
                ..Default::default()
            })
        }
        None => Type::TlsCertificate(TlsCertificate {
            certificate_chain: Some(bytes(value(["tls.crt", "cert"])?)),
            private_key: Some(bytes(value(["tls.key", "key"])?)),
            ..Default::default()
        }),
    };
    let message = Secret { name: name.to_owned(), r#type: Some(content) };
    Some(Resource::encode(name, type_url::SECRET, &message, &[]))
}

/// The namespaces and names of the Secrets on which a resource depends.
pub fn secret_objects(view: &ProxyView, name: &str) -> Vec<(String, String)> {
    let Some((namespace, object)) = secret_object(view, name) else { return Vec::new() };
    let base = object.strip_suffix("-cacert").map(str::to_owned);
    base.into_iter().chain([object.to_owned()]).map(|object| (namespace.clone(), object)).collect()
}

fn secret_object<'a>(view: &ProxyView, name: &'a str) -> Option<(String, &'a str)> {
    let rest = name.strip_prefix("kubernetes://")?;
    match rest.split_once('/') {
        // Another namespace's secrets are not for this proxy.
        Some((namespace, object)) => (namespace == view.namespace).then(|| (namespace.to_owned(), object)),
        None => Some((view.namespace.clone(), rest)),
    }
}

fn bytes(value: &[u8]) -> DataSource {
    DataSource { specifier: Some(Specifier::InlineBytes(value.to_vec())), ..Default::default() }
}
