//! The certificates and roots that a proxy holds, by the name under which its configuration asks for them.
//!
//! One writer at a time, any number of readers that never wait. Every change raises the generation, and TLS
//! configurations made from older secrets are rebuilt at their next use ([`crate::tls`]).

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use mizzen_types::SecretName;
use tokio::sync::watch;

use crate::certificate::{Certificate, Identity, TrustRoots};

/// The name of a workload's own certificate.
pub const IDENTITY: &str = "default";
/// The name of the mesh's roots.
pub const ROOTS: &str = "ROOTCA";

/// A shared table of secrets; clones see the same table.
#[derive(Debug, Clone, Default)]
pub struct Secrets {
    table: Arc<ArcSwap<Table>>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Table {
    pub(crate) generation: u64,
    certificates: HashMap<SecretName, Arc<Certificate>>,
    roots: HashMap<SecretName, Arc<TrustRoots>>,
    identity: Option<Arc<Identity>>,
}

impl Secrets {
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a new identity: `default` and `ROOTCA`.
    pub fn set_identity(&self, identity: &Arc<Identity>) {
        self.change(|table| {
            table.certificates.insert(IDENTITY.into(), Arc::clone(&identity.certificate));
            table.roots.insert(ROOTS.into(), Arc::clone(&identity.roots));
            table.identity = Some(Arc::clone(identity));
        });
    }

    pub fn set_certificate(&self, name: SecretName, certificate: &Arc<Certificate>) {
        self.change(|table| {
            table.certificates.insert(name.clone(), Arc::clone(certificate));
        });
    }

    pub fn set_roots(&self, name: SecretName, roots: &Arc<TrustRoots>) {
        self.change(|table| {
            table.roots.insert(name.clone(), Arc::clone(roots));
        });
    }

    pub fn remove(&self, name: &SecretName) {
        self.change(|table| {
            table.certificates.remove(name);
            table.roots.remove(name);
        });
    }

    /// Says that files named by configurations have changed, so that they are read again.
    pub fn touch(&self) {
        self.change(|_| ());
    }

    pub fn certificate(&self, name: &SecretName) -> Option<Arc<Certificate>> {
        self.table.load().certificates.get(name).cloned()
    }

    pub fn roots(&self, name: &SecretName) -> Option<Arc<TrustRoots>> {
        self.table.load().roots.get(name).cloned()
    }

    /// Our own identity, once it has arrived.
    pub fn identity(&self) -> Option<Arc<Identity>> {
        self.table.load().identity.clone()
    }

    /// Raised by every change.
    pub fn generation(&self) -> u64 {
        self.table.load().generation
    }

    /// Names and what stands under them, without any key: for the admin interface.
    pub fn certificates(&self) -> Vec<(SecretName, Arc<Certificate>)> {
        let mut all: Vec<_> =
            self.table.load().certificates.iter().map(|(name, held)| (name.clone(), Arc::clone(held))).collect();
        all.sort_by(|left, right| left.0.cmp(&right.0));
        all
    }

    pub fn all_roots(&self) -> Vec<(SecretName, Arc<TrustRoots>)> {
        let mut all: Vec<_> =
            self.table.load().roots.iter().map(|(name, held)| (name.clone(), Arc::clone(held))).collect();
        all.sort_by(|left, right| left.0.cmp(&right.0));
        all
    }

    /// Keeps `default` and `ROOTCA` as the identity client publishes them; ends with the client.
    pub async fn follow(self, mut identities: watch::Receiver<Option<Arc<Identity>>>) {
        loop {
            let now = identities.borrow_and_update().clone();
            if let Some(identity) = now {
                self.set_identity(&identity);
            }
            if identities.changed().await.is_err() {
                return;
            }
        }
    }

    pub(crate) fn load(&self) -> Arc<Table> {
        self.table.load_full()
    }

    fn change(&self, edit: impl Fn(&mut Table)) {
        self.table.rcu(|table| {
            let mut next = Table::clone(table);
            edit(&mut next);
            next.generation += 1;
            next
        });
    }
}

impl Table {
    pub(crate) fn certificate(&self, name: &SecretName) -> Option<&Arc<Certificate>> {
        self.certificates.get(name)
    }

    pub(crate) fn root_set(&self, name: &SecretName) -> Option<&Arc<TrustRoots>> {
        self.roots.get(name)
    }
}
