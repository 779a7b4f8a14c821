//! What the files say now, compared with what they said before.
//!
//! The last good version of an object stays in force while its file is unreadable, is no YAML, or says something wrong
//! of that object; the findings tell. An object that stands in two files counts where it stands first, in the order of the file
//! names.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mizzen_config::code::{DUPLICATE_OBJECT, LAST_GOOD, UNREADABLE};
use mizzen_config::{Change, Object, Parsed};
use mizzen_types::{Finding, ObjectKey, Severity};

/// A step of the configuration.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// What became different; empty when only lines moved or findings changed.
    pub changes: Vec<Change>,
    /// Objects that say what they said before, at other places or in another version.
    pub moved: Vec<Arc<Object>>,
    /// Everything that a person should know about this source as it is now; `None` when that is what it was.
    pub findings: Option<Vec<Finding>>,
}

/// What reading a file came to.
#[derive(Debug, Clone)]
pub enum Reading {
    Text(Parsed),
    /// Why it could not be read.
    Unreadable(String),
    Gone,
}

/// All files and the objects in force.
#[derive(Debug, Default)]
pub struct State {
    files: BTreeMap<PathBuf, File>,
    in_force: HashMap<ObjectKey, Arc<Object>>,
}

/// What one file, or one object of an API server, has put into force.
#[derive(Debug, Default)]
pub(crate) struct File {
    pub(crate) objects: Vec<Arc<Object>>,
    pub(crate) findings: Vec<Finding>,
}

impl State {
    /// Takes new readings and says what they change.
    pub fn update(&mut self, readings: Vec<(PathBuf, Reading)>) -> Batch {
        for (path, reading) in readings {
            match reading {
                Reading::Gone => {
                    self.files.remove(&path);
                }
                Reading::Unreadable(why) => {
                    let file = self.files.entry(path.clone()).or_default();
                    file.findings = vec![unreadable(&path, &why, file.objects.len())];
                }
                Reading::Text(parsed) => {
                    let before = self.files.remove(&path).unwrap_or_default();
                    let hint = "correct the error in its file, or delete the file to take the object away";
                    self.files.insert(path, merged(before, parsed, hint));
                }
            }
        }
        self.step()
    }

    fn step(&mut self) -> Batch {
        let mut batch = Batch::default();
        let mut findings = Vec::new();
        let mut now: HashMap<ObjectKey, Arc<Object>> = HashMap::new();
        for file in self.files.values() {
            findings.extend(file.findings.iter().cloned());
            for object in &file.objects {
                match now.get(&object.key) {
                    Some(first) => findings.push(defined_twice(object, first)),
                    None => {
                        now.insert(object.key.clone(), Arc::clone(object));
                        match self.in_force.get(&object.key) {
                            Some(before) if Arc::ptr_eq(before, object) => {}
                            Some(before) if before.same_content(object) => batch.moved.push(Arc::clone(object)),
                            _ => batch.changes.push(Change::Put(Arc::clone(object))),
                        }
                    }
                }
            }
        }
        let mut gone: Vec<ObjectKey> = self.in_force.keys().filter(|key| !now.contains_key(*key)).cloned().collect();
        gone.sort();
        batch.changes.extend(gone.into_iter().map(Change::Delete));
        self.in_force = now;
        batch.findings = Some(findings);
        batch
    }

    /// Everything in force, with positions as they are now.
    pub fn objects(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.in_force.values()
    }
}

/// The new objects of a file, together with the last good versions of those that are wrong now; `hint` says how to go on.
pub(crate) fn merged(before: File, parsed: Parsed, hint: &str) -> File {
    let Parsed { mut objects, mut findings } = parsed;
    let errors = || findings.iter().filter(|finding| finding.severity == Severity::Error);
    let wrong: HashSet<&ObjectKey> =
        errors().filter_map(|finding| finding.origin.as_ref().map(|origin| &origin.object)).collect();
    // A document that is no YAML does not say which object it was.
    let unknown = errors().any(|finding| finding.origin.is_none());
    let present: HashSet<&ObjectKey> = objects.iter().map(|object| &object.key).collect();
    let kept: Vec<Arc<Object>> = before
        .objects
        .into_iter()
        .filter(|object| !present.contains(&object.key) && (unknown || wrong.contains(&object.key)))
        .collect();
    findings.extend(kept.iter().map(|object| Finding {
        code: LAST_GOOD,
        severity: Severity::Warning,
        origin: Some(object.origin("")),
        position: None,
        message: format!("the last good version of {} stays in force", object.key),
        hint: Some(hint.to_owned()),
    }));
    objects.extend(kept);
    File { objects, findings }
}

fn unreadable(path: &Path, why: &str, objects: usize) -> Finding {
    Finding {
        code: UNREADABLE,
        severity: Severity::Error,
        origin: None,
        position: None,
        message: format!("cannot read {}: {why}; {objects} objects that it held stay in force", path.display()),
        hint: Some("make the file readable again, or delete it to take its objects away".to_owned()),
    }
}

fn defined_twice(object: &Object, first: &Object) -> Finding {
    let place = first.at("").map_or_else(|| "an earlier file".to_owned(), |position| position.to_string());
    Finding {
        code: DUPLICATE_OBJECT,
        severity: Severity::Error,
        origin: Some(object.origin("")),
        position: object.at(""),
        message: format!("{} is defined at {place} already; this one is not in force", object.key),
        hint: Some("rename one of them or delete it".to_owned()),
    }
}

#[cfg(test)]
mod tests;
