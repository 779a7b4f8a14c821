//! What one proxy should have now: from its view of the world to resources, through the shared cache.

use std::sync::Arc;

use mizzen_mesh::Service;
use mizzen_translate::{Imported, ProxyView, names};
use mizzen_types::Hostname;
use mizzen_xds::server::Wanted;
use mizzen_xds::{Resource, ResourceType};
use serde_json::Value;
use tonic::Status;

use crate::cache::{Cache, Key, Made, OneScope, Terms};
use crate::node::Node;
use crate::world::World;

/// The resources of one proxy.
#[derive(Debug)]
pub(crate) struct Contents {
    node_id: Arc<str>,
    metadata: Value,
    world: Arc<World>,
    view: ProxyView,
    /// Whether the proxy may be given Secrets.
    secrets: bool,
    scope: OneScope,
    cache: Arc<Cache>,
    /// Resources of this proxy alone, with the revision they were made from.
    inbound: Option<(u64, Made)>,
    listeners: Option<(u64, Made)>,
}

impl Contents {
    pub(crate) fn new(node: &Node, secrets: bool, world: Arc<World>, cache: Arc<Cache>) -> Result<Self, Status> {
        let metadata = Value::Object(node.metadata.clone());
        let view = ProxyView::new(&node.id, &metadata, &world.mesh)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        if *view.namespace != *node.namespace {
            return Err(Status::invalid_argument(format!(
                "node {} is in namespace {:?} by its id and in {:?} by its metadata",
                node.name, view.namespace, node.namespace
            )));
        }
        let scope = cache.scope(view.scope(&world.mesh));
        let node_id = node.id.clone();
        Ok(Self { node_id, metadata, world, view, secrets, scope, cache, inbound: None, listeners: None })
    }

    /// Moves on to a newer world.
    pub(crate) fn advance(&mut self, world: Arc<World>) {
        if world.revision == self.world.revision {
            return;
        }
        self.world = world;
        // What could be read at the start can be read now: the node's own words have not changed.
        if let Ok(view) = ProxyView::new(&self.node_id, &self.metadata, &self.world.mesh)
            && view != self.view
        {
            self.view = view;
            self.inbound = None;
            self.listeners = None;
        }
        let scope = self.view.scope(&self.world.mesh);
        if scope != *self.scope {
            self.scope = self.cache.scope(scope);
        }
    }

    /// The revision of the world that resources are made from.
    pub(crate) fn revision(&self) -> u64 {
        self.world.revision
    }

    pub(crate) fn resources(&mut self, kind: ResourceType, wanted: Wanted<'_>) -> Vec<Arc<Resource>> {
        match (kind, wanted) {
            (ResourceType::Cluster, wanted) => select(self.clusters(), wanted),
            (ResourceType::Listener, wanted) => select(self.listeners().to_vec(), wanted),
            (ResourceType::NameTable, wanted) => select(self.names().to_vec(), wanted),
            // These are asked for by name only.
            (_, Wanted::All) => Vec::new(),
            (ResourceType::Endpoint, Wanted::Names(names)) => {
                names.iter().filter_map(|name| self.endpoints(name)).collect()
            }
            (ResourceType::Route, Wanted::Names(names)) => {
                names.iter().filter_map(|name| self.route_table(name)).collect()
            }
            (ResourceType::Secret, Wanted::Names(names)) => names.iter().filter_map(|name| self.secret(name)).collect(),
        }
    }

    fn names(&self) -> Made {
        let world = &self.world;
        // Endpoints of headless services count for clusters as well.
        let since = world.clusters_since().max(world.listeners_since());
        self.cache.get(Key::Names(self.scope.clone()), since, world.revision, || {
            shared([mizzen_translate::name_table(&world.mesh, &self.scope)])
        })
    }

    fn clusters(&mut self) -> Vec<Arc<Resource>> {
        let world = &self.world;
        let mesh = &world.mesh;
        let key = Key::Clusters(self.scope.clone());
        let outbound = self.cache.get(key, world.clusters_since(), world.revision, || {
            let mut clusters = shared(mizzen_translate::fixed_clusters(mesh, &self.scope.client));
            for Imported { service, .. } in mizzen_translate::services(mesh, &self.scope) {
                clusters.extend(self.clusters_of(&service).iter().cloned());
            }
            clusters
        });
        let since = world.clusters_since().max(world.listeners_since());
        let inbound = match &self.inbound {
            Some((made_at, made)) if since <= *made_at => made.clone(),
            _ => shared(mizzen_translate::inbound_clusters(mesh, &self.view)).into(),
        };
        self.inbound = Some((world.revision, inbound.clone()));
        inbound.iter().chain(outbound.iter()).cloned().collect()
    }

    fn clusters_of(&self, service: &Arc<Service>) -> Made {
        let (world, mesh, client) = (&self.world, &self.world.mesh, &self.scope.client);
        let since = world.clusters_of_since(&service.key.host);
        let key = Key::ClustersOf(self.scope.clone(), service.key.host.clone());
        self.cache.get_through(key, since, world.revision, || {
            let policy = mizzen_translate::policy(mesh, &self.scope, service);
            let make = || shared(mizzen_translate::service_clusters(mesh, client, service, policy.as_ref()));
            let terms = Terms::new(&service.key, policy.as_ref());
            // A Sidecar resource may import some of the ports only.
            match mesh.service(&service.key).filter(|whole| Arc::ptr_eq(whole, service)) {
                Some(_) => self.cache.get(Key::ClustersUnder(client.clone(), terms), since, world.revision, make),
                None => self.cache.make(make),
            }
        })
    }

    fn endpoints(&self, name: &Arc<str>) -> Option<Arc<Resource>> {
        let (world, mesh, client) = (&self.world, &self.world.mesh, &self.scope.client);
        let (_, _, host) = names::parse_outbound(name)?;
        let since = world.endpoints_of_since(&Hostname::new(host));
        let key = Key::Endpoints(self.scope.clone(), name.clone());
        let made = self.cache.get_through(key, since, world.revision, || {
            let Some(called) = mizzen_translate::called(mesh, &self.scope, name) else { return Made::default() };
            let key = Key::EndpointsUnder(client.clone(), Terms::of(&called), name.clone());
            self.cache
                .get(key, since, world.revision, || shared(mizzen_translate::endpoints_of(mesh, client, &called, name)))
        });
        made.first().cloned()
    }

    fn listeners(&mut self) -> Made {
        let world = &self.world;
        let made = match &self.listeners {
            Some((made_at, made)) if world.listeners_since() <= *made_at => made.clone(),
            _ => shared(mizzen_translate::listeners(&world.mesh, &self.view)).into(),
        };
        self.listeners = Some((world.revision, made.clone()));
        made
    }

    fn route_table(&self, name: &Arc<str>) -> Option<Arc<Resource>> {
        let key = Key::Routes(self.scope.clone(), name.clone());
        let made = self.cache.get(key, self.world.routes_since(), self.world.revision, || {
            shared(mizzen_translate::route_table_with(&self.world.mesh, &self.scope, name, &*self.cache))
        });
        made.first().cloned()
    }

    /// From now on the proxy may be given Secrets, or not any more.
    pub(crate) fn allow_secrets(&mut self, allowed: bool) {
        self.secrets = allowed;
    }

    pub(crate) const fn gives_secrets(&self) -> bool {
        self.secrets
    }

    /// Secrets are for those alone who may read them. Not cached: they are few, and nobody shares them.
    fn secret(&self, name: &str) -> Option<Arc<Resource>> {
        if !self.secrets {
            return None;
        }
        shared(mizzen_translate::secret(&self.world.mesh, &self.view, name)).pop()
    }
}

/// Those of all that are wanted.
fn select(all: Vec<Arc<Resource>>, wanted: Wanted<'_>) -> Vec<Arc<Resource>> {
    match wanted {
        Wanted::All => all,
        Wanted::Names(names) => {
            let names: std::collections::HashSet<&Arc<str>> = names.iter().collect();
            all.into_iter().filter(|resource| names.contains(&resource.name)).collect()
        }
    }
}

/// Encoded resources as streams share them.
fn shared(resources: impl IntoIterator<Item = mizzen_translate::Resource>) -> Vec<Arc<Resource>> {
    resources.into_iter().map(|it| Arc::new(Resource::new(it.name, it.body))).collect()
}
