//! Names and their addresses. Pure.

use std::collections::HashMap;
use std::net::IpAddr;

/// What is known: names in lower case without the last dot, and the zones whose names are all known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    names: HashMap<String, Vec<IpAddr>>,
    zones: Vec<String>,
}

/// What a table says to a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found<'a> {
    /// Of both families; perhaps none at the moment.
    Addresses(&'a [IpAddr]),
    /// It lies in one of the zones and is not there.
    NoSuchName,
    /// Others have to be asked.
    Elsewhere,
}

impl Table {
    /// `zones` are the domains in which a name that is not in the table does not exist.
    pub fn new(
        names: impl IntoIterator<Item = (String, Vec<IpAddr>)>,
        zones: impl IntoIterator<Item = String>,
    ) -> Self {
        let plain = |name: String| name.trim_end_matches('.').to_ascii_lowercase();
        Self {
            names: names.into_iter().map(|(name, addresses)| (plain(name), addresses)).collect(),
            zones: zones.into_iter().map(plain).collect(),
        }
    }

    /// Looks for the name itself, then for the nearest name with a star in the place of its first labels.
    pub fn find(&self, name: &str) -> Found<'_> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        if let Some(addresses) = self.names.get(&name) {
            return Found::Addresses(addresses);
        }
        let mut rest = name.as_str();
        while let Some((_, parent)) = rest.split_once('.') {
            if let Some(addresses) = self.names.get(&format!("*.{parent}")) {
                return Found::Addresses(addresses);
            }
            rest = parent;
        }
        let within =
            |zone: &String| name.strip_suffix(zone.as_str()).is_some_and(|head| head.ends_with('.') || head.is_empty());
        if self.zones.iter().any(within) { Found::NoSuchName } else { Found::Elsewhere }
    }

    /// How many names are known.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_whatever_their_spelling() {
        let one: Vec<IpAddr> = vec![[10, 0, 0, 1].into()];
        let table = Table::new(
            [("reviews.default.svc.cluster.local.".to_owned(), one.clone()), ("*.wiki.example".to_owned(), vec![])],
            ["cluster.local".to_owned()],
        );
        for (name, found) in [
            ("Reviews.default.svc.Cluster.local", Found::Addresses(&one)),
            ("reviews.default.svc.cluster.local.", Found::Addresses(&one)),
            ("en.wiki.example", Found::Addresses(&[])),
            ("a.en.wiki.example.", Found::Addresses(&[])),
            ("wiki.example", Found::Elsewhere),
            ("gone.default.svc.cluster.local", Found::NoSuchName),
            ("cluster.local", Found::NoSuchName),
            ("othercluster.local", Found::Elsewhere),
            ("example.com", Found::Elsewhere),
            ("", Found::Elsewhere),
        ] {
            assert_eq!(table.find(name), found, "{name}");
        }
    }
}
