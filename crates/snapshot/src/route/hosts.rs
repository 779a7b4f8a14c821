//! Which virtual host a request is for.

use std::borrow::Cow;
use std::sync::Arc;

use super::{DomainIndex, RouteTable, VirtualHost};

impl DomainIndex {
    /// Adds the domains of the virtual host with this index. The first host that has a domain keeps it (Istio emits
    /// duplicates only by mistake, Envoy refuses them: `compile` does too).
    pub fn insert(&mut self, domain: &str, host: usize) -> bool {
        let domain = domain.to_ascii_lowercase();
        if domain == "*" {
            let free = self.any.is_none();
            self.any.get_or_insert(host);
            return free;
        }
        let (list, text) = if let Some(suffix) = domain.strip_prefix('*') {
            (&mut self.suffixes, suffix)
        } else if let Some(prefix) = domain.strip_suffix('*') {
            (&mut self.prefixes, prefix)
        } else {
            return match self.exact.entry(domain.into()) {
                std::collections::hash_map::Entry::Occupied(_) => false,
                std::collections::hash_map::Entry::Vacant(place) => {
                    place.insert(host);
                    true
                }
            };
        };
        if list.iter().any(|(have, _)| **have == *text) {
            return false;
        }
        let place = list.partition_point(|(have, _)| have.len() >= text.len());
        list.insert(place, (text.into(), host));
        true
    }

    /// The index for a lower-cased host.
    fn find(&self, host: &str) -> Option<usize> {
        if let Some(index) = self.exact.get(host) {
            return Some(*index);
        }
        // A star stands for at least one character.
        let suffix = self.suffixes.iter().find(|(suffix, _)| host.len() > suffix.len() && host.ends_with(&**suffix));
        let prefix =
            || self.prefixes.iter().find(|(prefix, _)| host.len() > prefix.len() && host.starts_with(&**prefix));
        suffix.or_else(prefix).map(|(_, index)| *index)
    }
}

impl RouteTable {
    /// The virtual host for an authority: exact, then the longest `*.suffix`, then the longest `prefix.*`, then `*`.
    /// Case does not count; nor does the port when the table says so; a name with a trailing dot is also looked for
    /// without it.
    pub fn virtual_host(&self, authority: &str) -> Option<&Arc<VirtualHost>> {
        let host = if self.ignore_port_in_host { without_port(authority) } else { authority };
        let host: Cow<'_, str> = if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
            Cow::Owned(host.to_ascii_lowercase())
        } else {
            Cow::Borrowed(host)
        };
        // Istio names hosts with a trailing dot too; where it does not, the dot means nothing.
        let host =
            if self.domains.exact.contains_key(&*host) { &*host } else { host.strip_suffix('.').unwrap_or(&host) };
        let index = self.domains.find(host).or(self.domains.any)?;
        self.hosts.get(index)
    }
}

/// The host of an authority, with the brackets of an IPv6 address.
pub(crate) fn without_port(authority: &str) -> &str {
    let after_address = authority.rfind(']').map_or(0, |bracket| bracket + 1);
    match authority[after_address..].rfind(':') {
        Some(colon) if authority[after_address + colon + 1..].bytes().all(|byte| byte.is_ascii_digit()) => {
            &authority[..after_address + colon]
        }
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::route::{RouteTable, VirtualHost};

    fn table(ignore_port_in_host: bool, domains: &[&str]) -> RouteTable {
        let host = |domain: &&str| {
            let domain = (*domain).to_owned();
            Arc::new(VirtualHost { name: domain.clone(), domains: vec![domain], ..VirtualHost::default() })
        };
        let table = RouteTable::new("t".into(), domains.iter().map(host).collect());
        RouteTable { ignore_port_in_host, ..table }
    }

    #[track_caller]
    fn check(table: &RouteTable, authority: &str, expect: Option<&str>) {
        assert_eq!(table.virtual_host(authority).map(|host| host.name.as_str()), expect, "{authority}");
    }

    #[test]
    fn the_most_specific_domain_wins() {
        let table = table(false, &["*", "*.com", "*.b.com", "*-x.b.com", "a.b.com", "a.*", "a.b.*", "h:80"]);
        check(&table, "a.b.com", Some("a.b.com"));
        check(&table, "A.B.Com", Some("a.b.com"));
        check(&table, "a.b.com.", Some("a.b.com"));
        check(&table, "c.b.com", Some("*.b.com"));
        check(&table, "c-x.b.com", Some("*-x.b.com"));
        check(&table, "b.com", Some("*.com"));
        check(&table, ".com", Some("*"));
        check(&table, "a.b.org", Some("a.b.*"));
        check(&table, "a.c.org", Some("a.*"));
        check(&table, "h:80", Some("h:80"));
        check(&table, "h:81", Some("*"));
        check(&table, "", Some("*"));
    }

    #[test]
    fn ports_are_ignored_where_the_table_says_so() {
        let table = table(true, &["a", "[::1]", "fqdn."]);
        check(&table, "a:8080", Some("a"));
        check(&table, "a:", Some("a"));
        check(&table, "[::1]:8080", Some("[::1]"));
        check(&table, "[::1]", Some("[::1]"));
        check(&table, "fqdn.:80", Some("fqdn."));
        check(&table, "b:80", None);
        check(&table, "[::2]:80", None);
        check(&table, "a:b", None);
    }
}
