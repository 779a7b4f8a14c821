//! Whether a route is for a request, and if not, why.
//!
//! `plan` and `explain` ask the same function; it allocates nothing, and words are made from its answer only when a
//! person wants them.

use std::fmt;

use http::{Method, header::CONTENT_TYPE};

use super::{PathMatch, QueryMatch, RequestView, RouteMatch};
use crate::matcher::{starts_with, unanchored};

/// The first condition that does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mismatch {
    Path,
    /// Index into the route's header conditions.
    Header(usize),
    /// Index into the route's query conditions.
    Query(usize),
    NotGrpc,
    /// The random draw fell outside of the route's share.
    Share,
}

impl RouteMatch {
    pub fn matches(&self, request: &RequestView<'_>, draw: u32) -> bool {
        self.mismatch(request, draw).is_none()
    }

    /// The first condition that does not hold; `None` when the route is for this request. `draw` is from
    /// `0..1_000_000` and the same for all routes of one request.
    pub fn mismatch(&self, request: &RequestView<'_>, draw: u32) -> Option<Mismatch> {
        if !self.path.matches(request) {
            return Some(Mismatch::Path);
        }
        if let Some(index) = self.headers.iter().position(|condition| !condition.matches(request)) {
            return Some(Mismatch::Header(index));
        }
        if let Some(index) = self.query.iter().position(|condition| !condition.matches(request)) {
            return Some(Mismatch::Query(index));
        }
        if self.grpc && !is_grpc(request) {
            return Some(Mismatch::NotGrpc);
        }
        if self.share.is_some_and(|share| !share.hit(draw)) {
            return Some(Mismatch::Share);
        }
        None
    }

    /// A mismatch in words, for instance `header end-user: wanted exact "jason", request has none`.
    pub fn describe(&self, mismatch: Mismatch, request: &RequestView<'_>) -> String {
        match mismatch {
            Mismatch::Path => format!("path: wanted {}, request has {:?}", self.path, request.path()),
            Mismatch::Header(index) => match self.headers.get(index) {
                Some(condition) => {
                    let has = match condition.name.value(request) {
                        Some(value) => format!("{:?}", String::from_utf8_lossy(&value)),
                        None => "none".to_owned(),
                    };
                    format!("header {}: wanted {condition}, request has {has}", condition.name)
                }
                None => "header".to_owned(),
            },
            Mismatch::Query(index) => match self.query.get(index) {
                Some(condition) => {
                    let has = match request.query_parameter(&condition.name) {
                        Some(value) => format!("{value:?}"),
                        None => "none".to_owned(),
                    };
                    format!("query parameter {}: wanted {condition}, request has {has}", condition.name)
                }
                None => "query parameter".to_owned(),
            },
            Mismatch::NotGrpc => "content-type: wanted application/grpc".to_owned(),
            Mismatch::Share => match self.share {
                Some(share) => format!("share: the route takes only {share} of requests, and not this one"),
                None => "share".to_owned(),
            },
        }
    }
}

impl PathMatch {
    pub fn matches(&self, request: &RequestView<'_>) -> bool {
        let path = request.path().as_bytes();
        match self {
            Self::Exact { path: wanted, ignore_case } => {
                wanted.len() == path.len() && starts_with(path, wanted.as_bytes(), *ignore_case)
            }
            // A CONNECT without a path is only for routes that say so.
            Self::Prefix { prefix, ignore_case } => {
                !path.is_empty() && starts_with(path, prefix.as_bytes(), *ignore_case)
            }
            Self::SegmentPrefix { prefix, ignore_case } => {
                starts_with(path, prefix.as_bytes(), *ignore_case)
                    && matches!(path.get(prefix.len()), None | Some(b'/'))
            }
            Self::Regex(regex) => regex.is_match(path),
            Self::Connect => request.method == Method::CONNECT,
        }
    }
}

impl fmt::Display for PathMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fold = match self {
            Self::Exact { path, ignore_case } => {
                write!(f, "exact {path:?}")?;
                *ignore_case
            }
            Self::Prefix { prefix, ignore_case } => {
                write!(f, "prefix {prefix:?}")?;
                *ignore_case
            }
            Self::SegmentPrefix { prefix, ignore_case } => {
                write!(f, "prefix {prefix:?} of whole segments")?;
                *ignore_case
            }
            Self::Regex(regex) => {
                write!(f, "regex {:?}", unanchored(regex.as_str()))?;
                false
            }
            Self::Connect => {
                f.write_str("a CONNECT request")?;
                false
            }
        };
        f.write_str(if fold { " in any case" } else { "" })
    }
}

impl QueryMatch {
    pub fn matches(&self, request: &RequestView<'_>) -> bool {
        match (request.query_parameter(&self.name), &self.value) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(value), Some(matcher)) => matcher.matches(value),
        }
    }
}

impl fmt::Display for QueryMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(matcher) => matcher.fmt(f),
            None => f.write_str("it present"),
        }
    }
}

fn is_grpc(request: &RequestView<'_>) -> bool {
    let rest = request.headers.get(CONTENT_TYPE).and_then(|value| value.as_bytes().strip_prefix(b"application/grpc"));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"+"))
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method};
    use mizzen_types::Percent;

    use super::*;
    use crate::header::{HeaderCondition, HeaderKey, HeaderMatch};
    use crate::matcher::StringMatch;

    fn request<'a>(path_and_query: &'a str, headers: &'a HeaderMap) -> RequestView<'a> {
        RequestView { method: &Method::GET, authority: "h", scheme: "http", path_and_query, headers, client_ip: None }
    }

    fn any_path() -> RouteMatch {
        RouteMatch {
            path: PathMatch::Prefix { prefix: "/".into(), ignore_case: false },
            headers: Vec::new(),
            query: Vec::new(),
            grpc: false,
            share: None,
        }
    }

    #[track_caller]
    fn path(matcher: PathMatch, yes: &[&str], no: &[&str]) {
        let headers = HeaderMap::new();
        for path in yes {
            assert!(matcher.matches(&request(path, &headers)), "{matcher} should match {path}");
        }
        for path in no {
            assert!(!matcher.matches(&request(path, &headers)), "{matcher} should not match {path}");
        }
    }

    #[test]
    fn paths() {
        let exact = |ignore_case| PathMatch::Exact { path: "/a".into(), ignore_case };
        path(exact(false), &["/a", "/a?b=c", "/a#f"], &["/A", "/a/", "/ab", ""]);
        path(exact(true), &["/A?x"], &["/b"]);
        path(PathMatch::Prefix { prefix: "/a".into(), ignore_case: false }, &["/a", "/ab", "/a/b?c"], &["/", "/b"]);
        path(PathMatch::SegmentPrefix { prefix: "/a".into(), ignore_case: false }, &["/a", "/a/b", "/a?b"], &["/ab"]);
        path(PathMatch::SegmentPrefix { prefix: "/a".into(), ignore_case: true }, &["/A/b"], &["/AB"]);
        path(
            PathMatch::Regex(regex::bytes::Regex::new(r"\A(?:/v\d+)\z").unwrap()),
            &["/v1", "/v22?x=/"],
            &["/v", "/v1/"],
        );
        path(PathMatch::Connect, &[], &["/"]);
    }

    #[test]
    fn the_reason_is_told_in_words() {
        let headers = HeaderMap::new();
        let mut route = any_path();
        route.headers.push(HeaderMatch {
            name: HeaderKey::Name("end-user".parse().unwrap()),
            condition: HeaderCondition::Matches(StringMatch::exact("jason")),
            invert: false,
            missing_as_empty: false,
        });
        let request = request("/x?a=1&b", &headers);
        let mismatch = route.mismatch(&request, 0).unwrap();
        assert_eq!(route.describe(mismatch, &request), r#"header end-user: wanted exact "jason", request has none"#);
        route.headers.clear();
        route.query.push(QueryMatch { name: "a".to_owned(), value: Some(StringMatch::exact("2")) });
        let mismatch = route.mismatch(&request, 0).unwrap();
        assert_eq!(route.describe(mismatch, &request), r#"query parameter a: wanted exact "2", request has "1""#);
        route.query[0] = QueryMatch { name: "b".to_owned(), value: None };
        assert!(route.matches(&request, 0));
        route.grpc = true;
        assert_eq!(route.mismatch(&request, 0), Some(Mismatch::NotGrpc));
    }

    #[test]
    fn a_share_takes_its_part_of_the_draws() {
        let headers = HeaderMap::new();
        let mut route = any_path();
        route.share = Percent::from_percent(10.0);
        let request = request("/", &headers);
        assert!(route.matches(&request, 99_999));
        assert_eq!(route.mismatch(&request, 100_000), Some(Mismatch::Share));
    }
}
