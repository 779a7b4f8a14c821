//! What of the accepted resources becomes visible, and what is let go.

use std::sync::Arc;

use mizzen_snapshot::Snapshot;
use mizzen_snapshot::cluster::{Cluster, Discovery, EndpointSet};
use mizzen_types::ClusterName;

use super::decode::Names;
use super::{Config, HeldCluster, Outcome};
use crate::endpoint;

impl Config {
    /// Makes visible what can be: clusters, then tables, then listeners, then lets go of what nothing names.
    pub(super) fn show(&mut self, outcome: &mut Outcome) {
        let mut snapshot = Snapshot::clone(&self.published);
        let mut changed = false;
        changed |= self.show_clusters(&mut snapshot, outcome);
        changed |= self.show_tables(&mut snapshot);
        changed |= self.show_listeners(&mut snapshot, outcome);
        changed |= self.let_go(&mut snapshot, outcome);
        if changed {
            self.published = Arc::new(snapshot);
        }
        outcome.snapshot = Arc::clone(&self.published);
    }

    fn show_clusters(&mut self, snapshot: &mut Snapshot, outcome: &mut Outcome) -> bool {
        let mut changed = false;
        for name in std::mem::take(&mut self.pending_clusters) {
            let Some(held) = self.clusters.get(&name) else {
                if snapshot.clusters.contains_key(&name) {
                    self.retained_clusters.insert(name);
                }
                continue;
            };
            let Some(endpoints) = self.endpoints_of(&name, &held.value) else {
                self.pending_clusters.insert(name);
                continue;
            };
            let cluster = Cluster { policy: Arc::clone(&held.value.policy), endpoints };
            snapshot.clusters.insert_mut(name.clone(), Arc::new(cluster));
            self.retained_clusters.remove(&name);
            outcome.clusters_changed.push(name);
            changed = true;
        }
        changed
    }

    fn endpoints_of(&self, name: &ClusterName, held: &HeldCluster) -> Option<Arc<EndpointSet>> {
        if let Some(endpoints) = &held.endpoints {
            return Some(Arc::clone(endpoints));
        }
        let Discovery::Eds { service_name } = &held.policy.discovery else { return None };
        let arrived = self.endpoints.get(service_name).map(|held| Arc::clone(&held.value));
        arrived.or_else(|| {
            let none = EndpointSet { localities: Vec::new(), overprovisioning: endpoint::OVERPROVISIONING };
            self.expired.contains(name).then(|| Arc::new(none))
        })
    }

    /// Whether something that names these has to wait: one of the clusters is configured and not visible yet.
    fn has_to_wait(&self, names: &Names, snapshot: &Snapshot) -> bool {
        names.clusters.iter().any(|name| self.clusters.contains_key(name) && !snapshot.clusters.contains_key(name))
    }

    fn show_tables(&mut self, snapshot: &mut Snapshot) -> bool {
        let mut changed = false;
        for name in std::mem::take(&mut self.pending_tables) {
            let Some(held) = self.tables.get(&name) else {
                if snapshot.routes.contains_key(&name) {
                    self.retained_tables.insert(name);
                }
                continue;
            };
            if self.has_to_wait(&held.value.names, snapshot) {
                self.pending_tables.insert(name);
                continue;
            }
            let (table, names) = (Arc::clone(&held.value.table), Arc::clone(&held.value.names));
            snapshot.routes.insert_mut(name.clone(), table);
            self.cluster_users.add(&names.clusters);
            if let Some(old) = self.visible_tables.insert(name, names) {
                self.cluster_users.remove(&old.clusters);
            }
            changed = true;
        }
        changed
    }

    fn show_listeners(&mut self, snapshot: &mut Snapshot, outcome: &mut Outcome) -> bool {
        let mut changed = false;
        for name in std::mem::take(&mut self.pending_listeners) {
            let Some(held) = self.listeners.get(&name) else {
                if snapshot.remove_listener(&name) {
                    let old = self.visible_listeners.remove(&name);
                    self.hide_listener(old, outcome);
                    outcome.listeners_removed.push(name);
                    changed = true;
                }
                continue;
            };
            let tables_missing = held.value.names.tables.iter().any(|table| !snapshot.routes.contains_key(table));
            if tables_missing || self.has_to_wait(&held.value.names, snapshot) {
                self.pending_listeners.insert(name);
                continue;
            }
            let (listener, names) = (Arc::clone(&held.value.listener), Arc::clone(&held.value.names));
            snapshot.insert_listener(listener);
            self.cluster_users.add(&names.clusters);
            self.table_users.add(&names.tables);
            // A visible listener goes on asking for its tables when its next version does not.
            self.wanted_routes.add(&names.tables);
            let old = self.visible_listeners.insert(name.clone(), names);
            self.hide_listener(old, outcome);
            outcome.listeners_changed.push(name);
            changed = true;
        }
        changed
    }

    fn hide_listener(&mut self, old: Option<Arc<Names>>, outcome: &mut Outcome) {
        if let Some(old) = old {
            self.cluster_users.remove(&old.clusters);
            self.table_users.remove(&old.tables);
            self.forget_tables(&old, outcome);
        }
    }

    /// Hides what was removed and is not named any more.
    fn let_go(&mut self, snapshot: &mut Snapshot, outcome: &mut Outcome) -> bool {
        let mut changed = false;
        // Tables that listeners stopped asking for just now.
        for name in std::mem::take(&mut self.pending_tables) {
            if self.tables.contains_key(&name) {
                self.pending_tables.insert(name);
            } else if snapshot.routes.contains_key(&name) {
                self.retained_tables.insert(name);
            }
        }
        for name in std::mem::take(&mut self.retained_tables) {
            if self.table_users.has(&name) {
                self.retained_tables.insert(name);
                continue;
            }
            changed |= snapshot.routes.remove_mut(&name);
            if let Some(old) = self.visible_tables.remove(&name) {
                self.cluster_users.remove(&old.clusters);
            }
        }
        for name in std::mem::take(&mut self.retained_clusters) {
            if self.cluster_users.has(&name) {
                self.retained_clusters.insert(name);
                continue;
            }
            changed |= snapshot.clusters.remove_mut(&name);
            outcome.clusters_removed.push(name);
        }
        changed
    }
}
