//! A configuration object: who it is, what it says, and where it stands.

use std::collections::BTreeMap;
use std::sync::Arc;

use mizzen_api::{kubernetes, mesh, networking, security, telemetry};
use mizzen_types::{Labels, ObjectKey, Origin, Position};

use crate::position::Positions;

#[derive(Debug, Clone)]
pub struct Object {
    pub key: ObjectKey,
    pub meta: Meta,
    pub kind: Kind,
    pub positions: Arc<Positions>,
}

impl Object {
    /// Whether both say the same, wherever they stand and whichever version they are.
    pub fn same_content(&self, other: &Self) -> bool {
        self.key == other.key && self.meta.same_content(&other.meta) && self.kind == other.kind
    }

    /// The same, whatever a control plane has written into the status of either.
    pub fn same_but_for_status(&self, other: &Self) -> bool {
        match (&self.kind, &other.kind) {
            (Kind::ServiceEntry(own), Kind::ServiceEntry(others)) if own.given != others.given => {
                let given = own.given.clone();
                let kind = Kind::ServiceEntry(Arc::new(networking::ServiceEntry { given, ..(**others).clone() }));
                self.same_content(&Self { kind, ..other.clone() })
            }
            _ => self.same_content(other),
        }
    }

    /// Points at a field of this object.
    pub fn origin(&self, field: impl Into<String>) -> Origin {
        Origin { object: self.key.clone(), field: field.into() }
    }

    /// Where a field of this object stands.
    pub fn at(&self, field: &str) -> Option<Position> {
        self.positions.at(field)
    }

    /// What Istio orders by: creation, then name, then namespace (reference: semantics 6). The first is the oldest.
    pub fn age(&self) -> (Created, &str, &str) {
        (self.meta.created, &self.key.name, &self.key.namespace)
    }
}

/// What every object has beside its kind's own fields.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Meta {
    pub labels: Labels,
    pub annotations: BTreeMap<String, String>,
    pub created: Created,
    /// `metadata.generateName`: what a controller began the name with.
    pub generate_name: String,
    /// The one of `metadata.ownerReferences` that is marked as controller.
    pub controller: Option<Controller>,
    pub version: Version,
}

impl Meta {
    /// Whether both say the same, whichever version they are.
    fn same_content(&self, other: &Self) -> bool {
        let Self { labels, annotations, created, generate_name, controller, version: _ } = self;
        *labels == other.labels
            && *annotations == other.annotations
            && *created == other.created
            && *generate_name == other.generate_name
            && *controller == other.controller
    }
}

/// Which object this is among those that ever had its name, and which version of it. Empty for objects of files.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Version {
    /// `metadata.uid`.
    pub uid: Box<str>,
    /// `metadata.generation`: counts the changes of `spec`.
    pub generation: i64,
}

/// Who made an object and looks after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Controller {
    pub kind: String,
    pub name: String,
}

/// When an object was made: `metadata.creationTimestamp` in seconds since 1970. Objects of files have none, are all of
/// one age and older than any other, so that their names decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Created(pub i64);

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident($spec:ty)),* $(,)?) => {
        /// What an object says, by its kind.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Kind {
            $($(#[$doc])* $kind(Arc<$spec>),)*
        }

        impl Kind {
            /// The kind as it is written.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$kind(_) => stringify!($kind),)*
                }
            }
        }

        $(impl From<$spec> for Kind {
            fn from(spec: $spec) -> Self {
                Self::$kind(Arc::new(spec))
            }
        })*
    };
}

kinds! {
    VirtualService(networking::VirtualService),
    DestinationRule(networking::DestinationRule),
    Gateway(networking::Gateway),
    ServiceEntry(networking::ServiceEntry),
    WorkloadEntry(networking::WorkloadEntry),
    WorkloadGroup(networking::WorkloadGroup),
    Sidecar(networking::Sidecar),
    EnvoyFilter(networking::EnvoyFilter),
    ProxyConfig(networking::ProxyConfig),
    PeerAuthentication(security::PeerAuthentication),
    RequestAuthentication(security::RequestAuthentication),
    AuthorizationPolicy(security::AuthorizationPolicy),
    Telemetry(telemetry::Telemetry),
    /// Not a Kubernetes kind: the key `mesh` of the ConfigMap `istio` (or `istio-REVISION`), under the name `istio`.
    MeshConfig(mesh::MeshConfig),
    Service(kubernetes::Service),
    EndpointSlice(kubernetes::EndpointSlice),
    IPAddress(kubernetes::IPAddress),
    Pod(kubernetes::Pod),
    Namespace(kubernetes::Namespace),
    ServiceAccount(kubernetes::ServiceAccount),
    Deployment(kubernetes::Deployment),
    Node(kubernetes::Node),
    Secret(kubernetes::Secret),
    ConfigMap(kubernetes::ConfigMap),
}

/// One step from one state of the configuration to the next.
#[derive(Debug, Clone)]
pub enum Change {
    /// The object is new or says something else than before.
    Put(Arc<Object>),
    Delete(ObjectKey),
}

impl Change {
    pub fn key(&self) -> &ObjectKey {
        match self {
            Self::Put(object) => &object.key,
            Self::Delete(key) => key,
        }
    }
}
