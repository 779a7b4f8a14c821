//! From bytes to a compiled resource and the names in it.

use std::collections::BTreeSet;

use mizzen_proto::envoy::config::cluster::v3::Cluster as WireCluster;
use mizzen_proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
use mizzen_proto::envoy::config::listener::v3::Listener as WireListener;
use mizzen_proto::envoy::config::route::v3::RouteConfiguration;
use mizzen_proto::envoy::extensions::transport_sockets::tls::v3::Secret as WireSecret;
use mizzen_proto::type_url;
use mizzen_snapshot::cluster::{ClusterPolicy, EndpointSet};
use mizzen_snapshot::http::RouteSource;
use mizzen_snapshot::listener::{Handler, Listener};
use mizzen_snapshot::route::{Action, RouteTable, Target};
use mizzen_snapshot::tls::{CertificateSource, ClientAuth, Roots, Validation};
use mizzen_types::{ClusterName, RouteTableName};
use prost::{Message, Name};

use super::Resource;
use crate::invalid::{Invalid, Result};
use crate::secret::Secret;
use crate::{cluster, endpoint, limits, listener, route, secret};

pub(super) enum Compiled {
    Listener(Box<Listener>, Names),
    Table(Box<RouteTable>, Names),
    Cluster(Box<cluster::Compiled>, Vec<String>),
    Endpoints(Box<EndpointSet>),
    Secret(Secret),
}

/// What a resource names; each name once.
#[derive(Debug, Default)]
pub(super) struct Names {
    pub(super) clusters: Vec<ClusterName>,
    pub(super) tables: Vec<RouteTableName>,
    pub(super) secrets: Vec<String>,
}

/// The resource's name, and what it compiles to; an error has the name as far as it is known.
pub(super) fn decode(
    type_url: &str,
    resource: &Resource,
    fingerprint: u64,
) -> std::result::Result<(String, Compiled), (String, Invalid)> {
    let given = resource.name.as_str();
    let unnamed = |invalid| (given.to_owned(), invalid);
    limits::count("bytes", resource.body.len(), limits::RESOURCE_BYTES).map_err(unnamed)?;
    match type_url {
        type_url::LISTENER => {
            let wire: WireListener = message(resource).map_err(unnamed)?;
            named(given, &wire.name, || {
                let listener = listener::compile(&wire, fingerprint)?;
                let names = listener_names(&listener);
                Ok(Compiled::Listener(Box::new(listener), names))
            })
        }
        type_url::ROUTE => {
            let wire: RouteConfiguration = message(resource).map_err(unnamed)?;
            named(given, &wire.name, || {
                let table = route::compile(&wire)?;
                let mut names = BTreeSet::new();
                table_clusters(&table, &mut names);
                let names = Names { clusters: names.into_iter().collect(), ..Names::default() };
                Ok(Compiled::Table(Box::new(table), names))
            })
        }
        type_url::CLUSTER => {
            let wire: WireCluster = message(resource).map_err(unnamed)?;
            named(given, &wire.name, || {
                let compiled = cluster::compile(&wire, fingerprint)?;
                let secrets = cluster_secrets(&compiled.policy);
                Ok(Compiled::Cluster(Box::new(compiled), secrets))
            })
        }
        type_url::ENDPOINT => {
            let wire: ClusterLoadAssignment = message(resource).map_err(unnamed)?;
            named(given, &wire.cluster_name, || Ok(Compiled::Endpoints(Box::new(endpoint::compile(&wire)?))))
        }
        type_url::SECRET => {
            let wire: WireSecret = message(resource).map_err(unnamed)?;
            named(given, &wire.name, || Ok(Compiled::Secret(secret::compile(&wire)?)))
        }
        other => Err(unnamed(Invalid::new(format!("resources of type {other:?} are not known")))),
    }
}

fn message<M: Message + Name + Default>(resource: &Resource) -> Result<M> {
    M::decode(resource.body.as_ref())
        .map_err(|error| Invalid::new(format!("bytes that are no {}: {error}", M::full_name())))
}

fn named(
    given: &str,
    own: &str,
    compile: impl FnOnce() -> Result<Compiled>,
) -> std::result::Result<(String, Compiled), (String, Invalid)> {
    if own.is_empty() {
        return Err((given.to_owned(), Invalid::new("a name is missing").within("name")));
    }
    if !given.is_empty() && given != own {
        return Err((given.to_owned(), Invalid::new(format!("the message calls itself {own:?}")).within("name")));
    }
    compile().map(|compiled| (own.to_owned(), compiled)).map_err(|invalid| (own.to_owned(), invalid))
}

fn listener_names(listener: &Listener) -> Names {
    let (mut clusters, mut tables, mut secrets) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for chain in listener.chains.iter().chain(&listener.default_chain) {
        match &chain.handler {
            Handler::Tcp(handler) => clusters.extend(handler.clusters.iter().map(|(name, _)| name.clone())),
            Handler::Http(handler) => match &handler.routes {
                RouteSource::Named(name) => {
                    tables.insert(name.clone());
                }
                RouteSource::Inline(table) => table_clusters(table, &mut clusters),
            },
        }
        if let Some(tls) = &chain.tls {
            certificates(&tls.certificates, &mut secrets);
            match &tls.client {
                ClientAuth::None => {}
                ClientAuth::Optional(validation) | ClientAuth::Required(validation) => roots(validation, &mut secrets),
            }
        }
    }
    Names {
        clusters: clusters.into_iter().collect(),
        tables: tables.into_iter().collect(),
        secrets: secrets.into_iter().collect(),
    }
}

fn table_clusters(table: &RouteTable, out: &mut BTreeSet<ClusterName>) {
    for route in table.hosts.iter().flat_map(|host| &host.routes) {
        let Action::Forward(forward) = &route.action else { continue };
        match &forward.target {
            Target::Cluster(name) => {
                out.insert(name.clone());
            }
            Target::Weighted { clusters, .. } => out.extend(clusters.iter().map(|choice| choice.cluster.clone())),
            Target::ClusterHeader(_) => {}
        }
        out.extend(forward.mirrors.iter().map(|mirror| mirror.cluster.clone()));
    }
}

fn cluster_secrets(policy: &ClusterPolicy) -> Vec<String> {
    let mut names = BTreeSet::new();
    let transports = policy.transports.iter().filter_map(|transport| transport.tls.as_ref());
    for tls in transports.chain(&policy.default_transport) {
        certificates(tls.certificate.as_slice(), &mut names);
        roots(&tls.validation, &mut names);
    }
    names.into_iter().collect()
}

fn certificates(sources: &[CertificateSource], out: &mut BTreeSet<String>) {
    for source in sources {
        if let CertificateSource::Secret(name) = source {
            out.insert(name.to_string());
        }
    }
}

fn roots(validation: &Validation, out: &mut BTreeSet<String>) {
    if let Roots::Secret(name) = &validation.roots {
        out.insert(name.to_string());
    }
}
