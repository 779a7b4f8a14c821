//! What a step has applied, and takes away when it ends.

use std::sync::{Mutex, PoisonError};
use std::thread::ThreadId;

use anyhow::{Context, bail};
use serde_json::Value;

use crate::kube::{apply, delete, name, text};

/// Which thread, which is a step, has applied which object. A step takes away what it applied, so of two steps side by side that
/// apply the same object one would lose it under its feet.
static HELD: Mutex<Vec<(ThreadId, String)>> = Mutex::new(Vec::new());

/// Objects of a step: deleted when this is dropped, so that the next steps find the mesh as it was.
#[derive(Debug)]
pub struct Applied {
    manifest: String,
    /// Given back after the objects are deleted.
    _claim: Claim,
}

impl Applied {
    /// # Errors
    ///
    /// What `kubectl apply` said; an object that a step beside this one has applied.
    pub fn new(manifest: impl Into<String>) -> anyhow::Result<Self> {
        // First the guard: what is refused may have come in part.
        let manifest = manifest.into();
        let applied = Self { _claim: Claim::new(&manifest)?, manifest };
        apply(&applied.manifest)?;
        Ok(applied)
    }
}

impl Drop for Applied {
    fn drop(&mut self) {
        if let Err(error) = delete(&self.manifest) {
            println!("left behind: {error:#}");
        }
    }
}

/// A step's word that some objects are its own.
#[derive(Debug)]
struct Claim(Vec<String>);

impl Claim {
    fn new(manifest: &str) -> anyhow::Result<Self> {
        let objects: Vec<Value> = serde_saphyr::from_multiple(manifest).context("a step's manifest")?;
        let lists = objects.iter().flat_map(|object| match object.get("items") {
            Some(Value::Array(items)) => items.iter().collect(),
            _ => vec![object],
        });
        let keys: Vec<String> = lists
            .filter(|object| !object.is_null())
            .map(|object| format!("{} {}/{}", text(object, "/kind"), text(object, "/metadata/namespace"), name(object)))
            .collect();
        let this = std::thread::current().id();
        let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, key)) = held.iter().find(|(thread, key)| *thread != this && keys.contains(key)) {
            bail!("{key} is another step's, which runs side by side with this one: give each an object of its own");
        }
        held.extend(keys.iter().map(|key| (this, key.clone())));
        Ok(Self(keys))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let this = std::thread::current().id();
        let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
        for key in &self.0 {
            if let Some(place) = held.iter().position(|(thread, other)| *thread == this && other == key) {
                held.swap_remove(place);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Claim;

    #[test]
    fn an_object_is_one_steps_at_a_time() {
        const MANIFEST: &str = "kind: ConfigMap\nmetadata: {name: a, namespace: b}\n---\nkind: List\nitems: [{kind: Service, metadata: {name: c, namespace: b}}]\n";
        let (first, again) = (Claim::new(MANIFEST).expect("nobody has it"), Claim::new(MANIFEST).expect("it is ours"));
        drop(again);
        std::thread::scope(|scope| {
            let beside = scope.spawn(|| {
                assert!(Claim::new("kind: ConfigMap\nmetadata: {name: a, namespace: other}\n").is_ok());
                Claim::new("kind: Service\nmetadata: {name: c, namespace: b}\n")
                    .expect_err("another step has it")
                    .to_string()
            });
            let said = beside.join().expect("no panic");
            assert!(said.contains("Service b/c"), "{said}");
        });
        drop(first);
        std::thread::scope(|scope| {
            scope.spawn(|| assert!(Claim::new(MANIFEST).is_ok()));
        });
    }
}
