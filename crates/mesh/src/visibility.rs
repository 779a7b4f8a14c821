//! `exportTo`: which namespaces may see an object (reference: semantics 73 to 75).

use std::collections::BTreeSet;
use std::sync::Arc;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Visibility {
    Public,
    /// These namespaces; none at all hides the object from everybody.
    Namespaces(BTreeSet<Arc<str>>),
}

impl Visibility {
    /// Reads an `exportTo` list of an object in `namespace`; an empty list means `default`.
    pub fn read<S: AsRef<str>>(export_to: &[S], default: &[String], namespace: &str) -> Self {
        if export_to.is_empty() { Self::read_list(default, namespace) } else { Self::read_list(export_to, namespace) }
    }

    fn read_list<S: AsRef<str>>(list: &[S], namespace: &str) -> Self {
        if list.is_empty() || list.iter().any(|entry| entry.as_ref() == "*") {
            return Self::Public;
        }
        let named = list.iter().map(AsRef::as_ref).filter(|entry| *entry != "~");
        Self::Namespaces(named.map(|entry| if entry == "." { namespace.into() } else { entry.into() }).collect())
    }

    pub fn shows_to(&self, namespace: &str) -> bool {
        match self {
            Self::Public => true,
            Self::Namespaces(namespaces) => namespaces.contains(namespace),
        }
    }

    /// Whether only the object's own namespace sees it.
    pub fn is_private_to(&self, namespace: &str) -> bool {
        matches!(self, Self::Namespaces(namespaces) if namespaces.len() == 1 && namespaces.contains(namespace))
    }
}

#[cfg(test)]
mod tests {
    use super::Visibility;

    #[track_caller]
    fn check(export_to: &[&str], default: &[&str], seen_by: &[&str], hidden_from: &[&str]) {
        let default: Vec<String> = default.iter().map(|entry| (*entry).to_owned()).collect();
        let visibility = Visibility::read(export_to, &default, "home");
        for namespace in seen_by {
            assert!(visibility.shows_to(namespace), "{export_to:?} shows to {namespace}");
        }
        for namespace in hidden_from {
            assert!(!visibility.shows_to(namespace), "{export_to:?} hides from {namespace}");
        }
    }

    #[test]
    fn export_to_is_read_as_istio_reads_it() {
        check(&[], &["*"], &["home", "away"], &[]);
        check(&[], &["."], &["home"], &["away"]);
        check(&["."], &["*"], &["home"], &["away"]);
        check(&["away", "."], &["*"], &["home", "away"], &["other"]);
        check(&["away", "*"], &["."], &["home", "other"], &[]);
        check(&["~"], &["*"], &[], &["home", "away"]);
    }
}
