//! Several sources at once: an object of the same name counts where it comes from the upper one.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use mizzen_config::{Change, Object};
use mizzen_types::{Finding, ObjectKey};

use crate::state::Batch;

/// A source, by who wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    /// What somebody has written down for this very control plane.
    Files,
    /// What holds for all of the cluster.
    Kubernetes,
}

/// All sources as one.
#[derive(Debug, Default)]
pub struct Layers {
    upper: HashSet<ObjectKey>,
    /// Objects of the lower source that one of the upper hides.
    hidden: HashMap<ObjectKey, Arc<Object>>,
    /// Objects of the lower source that are in force, kept only while there is an upper one.
    lower: Option<HashMap<ObjectKey, Arc<Object>>>,
    findings: [Vec<Finding>; 2],
}

impl Layers {
    /// For a control plane that has both sources. With one alone, nothing needs to be remembered.
    pub fn both() -> Self {
        Self { lower: Some(HashMap::new()), ..Self::default() }
    }

    /// What a batch of one source means for all of them together. `findings` are those of all sources.
    pub fn take(&mut self, layer: Layer, batch: Batch) -> Batch {
        let Batch { changes, moved, findings } = batch;
        let findings = findings.map(|findings| {
            self.findings[layer as usize] = findings;
            self.findings.concat()
        });
        let changes = changes.into_iter().filter_map(|change| self.change(layer, change)).collect();
        let moved = moved.into_iter().filter(|object| self.moved(layer, object)).collect();
        Batch { changes, moved, findings }
    }

    fn change(&mut self, layer: Layer, change: Change) -> Option<Change> {
        let Some(lower) = &mut self.lower else { return Some(change) };
        let key = change.key().clone();
        match (layer, change) {
            (Layer::Files, Change::Put(object)) => {
                self.upper.insert(key.clone());
                if let Some(below) = lower.remove(&key) {
                    self.hidden.insert(key, below);
                }
                Some(Change::Put(object))
            }
            (Layer::Files, Change::Delete(_)) => {
                self.upper.remove(&key);
                Some(match self.hidden.remove(&key) {
                    Some(below) => {
                        lower.insert(key, below.clone());
                        Change::Put(below)
                    }
                    None => Change::Delete(key),
                })
            }
            (Layer::Kubernetes, change) => {
                let hidden = self.upper.contains(&key);
                let place = if hidden { &mut self.hidden } else { lower };
                match &change {
                    Change::Put(object) => place.insert(key, object.clone()),
                    Change::Delete(key) => place.remove(key),
                };
                (!hidden).then_some(change)
            }
        }
    }

    fn moved(&mut self, layer: Layer, object: &Arc<Object>) -> bool {
        let Some(lower) = &mut self.lower else { return true };
        if layer == Layer::Files {
            return true;
        }
        let hidden = self.upper.contains(&object.key);
        let place = if hidden { &mut self.hidden } else { lower };
        place.insert(object.key.clone(), object.clone());
        !hidden
    }
}

#[cfg(test)]
mod tests {
    use mizzen_config::parse;

    use super::*;

    fn service(port: u16) -> Arc<Object> {
        let text = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: a, namespace: x}}\nspec: {{ports: [{{port: {port}}}]}}"
        );
        parse("a.yaml", &text).objects.remove(0)
    }

    #[track_caller]
    fn check(layers: &mut Layers, layer: Layer, change: Change, expected: Option<&Arc<Object>>, told: bool) {
        let batch = layers.take(layer, Batch { changes: vec![change], ..Batch::default() });
        match (batch.changes.as_slice(), told) {
            ([], false) => {}
            ([Change::Put(object)], true) => assert!(expected.is_some_and(|expected| expected.same_content(object))),
            ([Change::Delete(_)], true) => assert!(expected.is_none()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn files_win_and_give_back_what_they_hid() {
        let (file, cluster, newer) = (service(1), service(2), service(3));
        let key = file.key.clone();
        let put = |object: &Arc<Object>| Change::Put(object.clone());
        let mut layers = Layers::both();
        check(&mut layers, Layer::Kubernetes, put(&cluster), Some(&cluster), true);
        check(&mut layers, Layer::Files, put(&file), Some(&file), true);
        check(&mut layers, Layer::Kubernetes, put(&newer), None, false);
        check(&mut layers, Layer::Files, Change::Delete(key.clone()), Some(&newer), true);
        check(&mut layers, Layer::Files, put(&file), Some(&file), true);
        check(&mut layers, Layer::Kubernetes, Change::Delete(key.clone()), None, false);
        check(&mut layers, Layer::Files, Change::Delete(key), None, true);
    }

    #[test]
    fn findings_are_those_of_all_sources() {
        let finding = |code| Finding {
            code,
            severity: mizzen_types::Severity::Info,
            origin: None,
            position: None,
            message: String::new(),
            hint: None,
        };
        let mut layers = Layers::both();
        let mut take = |layer, findings| {
            let batch = layers.take(layer, Batch { findings, ..Batch::default() });
            batch.findings.map(|all| all.iter().map(|finding| finding.code).collect::<Vec<_>>())
        };
        assert_eq!(take(Layer::Kubernetes, Some(vec![finding("K")])), Some(vec!["K"]));
        assert_eq!(take(Layer::Files, Some(vec![finding("F")])), Some(vec!["F", "K"]));
        assert_eq!(take(Layer::Files, None), None);
        assert_eq!(take(Layer::Kubernetes, Some(Vec::new())), Some(vec!["F"]));
    }
}
