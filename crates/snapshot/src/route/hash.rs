//! The key of a request for consistent hashing (Envoy: `HashPolicyImpl`).

use std::fmt::Write as _;
use std::time::Duration;

use http::header::COOKIE;
use xxhash_rust::xxh64::xxh64;

use super::{Forward, HashOn, RequestView};
use crate::header::HeaderKey;

/// The key, and a cookie to set on the response when the request had none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct HashKey {
    pub(crate) hash: Option<u64>,
    pub(crate) set_cookie: Option<String>,
}

impl Forward {
    /// `cookie_draw` is the value of a cookie that has to be made up.
    pub(crate) fn hash_key(&self, request: &RequestView<'_>, cookie_draw: u64) -> HashKey {
        let mut key = HashKey::default();
        for policy in &self.hash {
            let new = match &policy.on {
                HashOn::Header(name) => header(name, request),
                HashOn::SourceIp => request.client_ip.map(|ip| xxh64(ip.to_string().as_bytes(), 0)),
                HashOn::QueryParameter(name) => request.query_parameter(name).map(|value| xxh64(value.as_bytes(), 0)),
                HashOn::Cookie { name, ttl, path, attributes } => match (cookie(request, name), ttl) {
                    (Some(value), _) => Some(xxh64(value.as_bytes(), 0)),
                    (None, Some(ttl)) => {
                        let value = format!("{cookie_draw:016x}");
                        key.set_cookie = Some(set_cookie(name, &value, *ttl, path.as_deref(), attributes));
                        Some(xxh64(value.as_bytes(), 0))
                    }
                    (None, None) => None,
                },
            };
            if let Some(new) = new {
                // Rotated, so that two equal values do not cancel each other out.
                key.hash = Some(key.hash.map_or(0, |old| old.rotate_left(1)) ^ new);
            }
            if policy.terminal && key.hash.is_some() {
                break;
            }
        }
        key
    }
}

/// Several values are hashed in order of their bytes, each seeded with the one before.
fn header(name: &HeaderKey, request: &RequestView<'_>) -> Option<u64> {
    let HeaderKey::Name(name) = name else {
        return name.value(request).map(|value| xxh64(&value, 0));
    };
    let mut values = request.headers.get_all(name).iter();
    let first = values.next()?.as_bytes();
    let Some(second) = values.next() else { return Some(xxh64(first, 0)) };
    let mut all: Vec<&[u8]> =
        [first, second.as_bytes()].into_iter().chain(values.map(|value| value.as_bytes())).collect();
    all.sort_unstable();
    Some(all.into_iter().fold(0, |seed, value| xxh64(value, seed)))
}

fn cookie<'a>(request: &RequestView<'a>, name: &str) -> Option<&'a str> {
    let lines = request.headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let (_, value) = pairs.find(|(key, _)| *key == name)?;
    let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
    Some(value).filter(|value| !value.is_empty())
}

fn set_cookie(name: &str, value: &str, ttl: Duration, path: Option<&str>, attributes: &[(String, String)]) -> String {
    let mut cookie = format!("{name}=\"{value}\"");
    // Writing to a string cannot fail.
    if !ttl.is_zero() {
        let _ = write!(cookie, "; Max-Age={}", ttl.as_secs());
    }
    if let Some(path) = path.filter(|path| !path.is_empty()) {
        let _ = write!(cookie, "; Path={path}");
    }
    for (key, value) in attributes {
        let _ = if value.is_empty() { write!(cookie, "; {key}") } else { write!(cookie, "; {key}={value}") };
    }
    cookie.push_str("; HttpOnly");
    cookie
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, Method};

    use super::*;
    use crate::route::HashPolicy;

    fn hash(policies: Vec<HashPolicy>, headers: &HeaderMap) -> HashKey {
        let forward = Forward { hash: policies, ..Forward::to_cluster("c") };
        let request = RequestView {
            method: &Method::GET,
            authority: "h",
            scheme: "http",
            path_and_query: "/?user=1",
            headers,
            client_ip: Some("10.0.0.1".parse().unwrap()),
        };
        forward.hash_key(&request, 0xabc)
    }

    fn on(on: HashOn) -> HashPolicy {
        HashPolicy { on, terminal: false }
    }

    #[test]
    fn each_source_is_hashed_with_xxh64() {
        let none = HeaderMap::new();
        assert_eq!(hash(vec![on(HashOn::SourceIp)], &none).hash, Some(xxh64(b"10.0.0.1", 0)));
        assert_eq!(hash(vec![on(HashOn::QueryParameter("user".to_owned()))], &none).hash, Some(xxh64(b"1", 0)));
        assert_eq!(hash(vec![on(HashOn::QueryParameter("other".to_owned()))], &none).hash, None);
        assert_eq!(hash(vec![], &none), HashKey::default());
        // A known value: the function itself is right.
        assert_eq!(xxh64(b"", 0), 0xef46_db37_51d8_e999);
    }

    #[test]
    fn header_values_are_hashed_whatever_their_order() {
        let policy = || vec![on(HashOn::Header(HeaderKey::Name("x".parse().unwrap())))];
        let (mut one, mut two) = (HeaderMap::new(), HeaderMap::new());
        for (a, b) in [("1", "2"), ("2", "1")] {
            one.append("x", HeaderValue::from_static(a));
            two.append("x", HeaderValue::from_static(b));
        }
        assert_eq!(hash(policy(), &one).hash, hash(policy(), &two).hash);
        assert_eq!(hash(policy(), &one).hash, Some(xxh64(b"2", xxh64(b"1", 0))));
        assert_eq!(hash(policy(), &HeaderMap::new()).hash, None);
    }

    #[test]
    fn a_cookie_is_read_or_made() {
        let cookie = |ttl| HashOn::Cookie {
            name: "user".to_owned(),
            ttl,
            path: Some("/p".to_owned()),
            attributes: vec![("SameSite".to_owned(), "Lax".to_owned())],
        };
        let mut headers = HeaderMap::new();
        let made = hash(vec![on(cookie(Some(Duration::from_secs(60))))], &headers);
        assert_eq!(made.hash, Some(xxh64(b"0000000000000abc", 0)));
        assert_eq!(
            made.set_cookie.as_deref(),
            Some(r#"user="0000000000000abc"; Max-Age=60; Path=/p; SameSite=Lax; HttpOnly"#)
        );
        assert_eq!(hash(vec![on(cookie(None))], &headers), HashKey::default());
        headers.insert("cookie", HeaderValue::from_static(r#"a=b; user="jason""#));
        let read = hash(vec![on(cookie(Some(Duration::ZERO)))], &headers);
        assert_eq!(read, HashKey { hash: Some(xxh64(b"jason", 0)), set_cookie: None });
    }

    #[test]
    fn a_terminal_policy_ends_the_list_only_when_it_gave_something() {
        let ip = xxh64(b"10.0.0.1", 0);
        let query = xxh64(b"1", 0);
        let terminal = |on| HashPolicy { on, terminal: true };
        let none = HeaderMap::new();
        let user = || HashOn::QueryParameter("user".to_owned());
        let both = hash(vec![on(HashOn::SourceIp), on(user())], &none);
        assert_eq!(both.hash, Some(ip.rotate_left(1) ^ query));
        assert_eq!(hash(vec![terminal(HashOn::SourceIp), on(user())], &none).hash, Some(ip));
        let absent = terminal(HashOn::QueryParameter("absent".to_owned()));
        assert_eq!(hash(vec![absent, on(user())], &none).hash, Some(query));
    }
}
