//! New paths, and the place a redirect points to.

use std::borrow::Cow;

use super::{PathMatch, PathRewrite, Redirect, RequestView};
use crate::route::hosts::without_port;

impl PathRewrite {
    /// The new path and query of a request that `matched`.
    pub fn apply(&self, matched: &PathMatch, path_and_query: &str) -> String {
        let (path, rest) = split(path_and_query);
        match self {
            Self::Matched(replacement) => {
                let kept = match matched {
                    PathMatch::Prefix { prefix, .. } | PathMatch::SegmentPrefix { prefix, .. } => {
                        path.get(prefix.len()..).unwrap_or_default()
                    }
                    PathMatch::Exact { .. } | PathMatch::Regex(_) | PathMatch::Connect => "",
                };
                [replacement, kept, rest].concat()
            }
            Self::Regex { pattern, substitution } => {
                [&*pattern.replace_all(path, substitution.as_str()), rest].concat()
            }
            Self::Full(replacement) if replacement.contains('?') => replacement.to_string(),
            Self::Full(replacement) => [replacement, rest].concat(),
        }
    }
}

impl Redirect {
    /// The `location`: scheme, host, port and path of the request, with what the redirect changes.
    pub fn location(&self, matched: &PathMatch, request: &RequestView<'_>) -> String {
        let scheme = self.scheme.as_ref().map_or(request.scheme, |scheme| scheme.as_str());
        let host = match &self.host {
            Some(host) => host.as_str(),
            None => self.kept_host(scheme, request),
        };
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        let path: Cow<'_, str> = match &self.path {
            None => Cow::Borrowed(request.path_and_query),
            Some(rewrite) => Cow::Owned(rewrite.apply(matched, request.path_and_query)),
        };
        // A query that the redirect itself brings is not stripped.
        let own_query = matches!(&self.path, Some(PathRewrite::Full(path)) if path.contains('?'));
        let path = if self.strip_query && !own_query { split(&path).0 } else { &path };
        [scheme, "://", host, &port, path].concat()
    }

    /// The request's host; its port goes when the redirect has one of its own, or when it was the default of a
    /// scheme that changes.
    fn kept_host<'a>(&self, scheme: &str, request: &RequestView<'a>) -> &'a str {
        let host = without_port(request.authority);
        let port = &request.authority[host.len()..];
        let default = (request.scheme == "http" && port == ":80") || (request.scheme == "https" && port == ":443");
        if self.port.is_some() || (scheme != request.scheme && default) { host } else { request.authority }
    }
}

/// The path, and what follows it.
fn split(path_and_query: &str) -> (&str, &str) {
    path_and_query.split_at(path_and_query.find(['?', '#']).unwrap_or(path_and_query.len()))
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method, StatusCode, uri::Scheme};

    use super::*;

    fn prefix(prefix: &str) -> PathMatch {
        PathMatch::Prefix { prefix: prefix.into(), ignore_case: false }
    }

    #[track_caller]
    fn check(rewrite: PathRewrite, matched: &PathMatch, path: &str, expect: &str) {
        assert_eq!(rewrite.apply(matched, path), expect);
    }

    #[test]
    fn paths_are_rewritten_and_queries_stay() {
        let matched = |text: &str| PathRewrite::Matched(text.into());
        check(matched("/b"), &prefix("/a"), "/a/x?q=/a", "/b/x?q=/a");
        // Plain substitution, as Istio documents it: no slash is taken away.
        check(matched("/"), &prefix("/a"), "/a/x", "//x");
        check(matched("/b"), &PathMatch::Exact { path: "/a".into(), ignore_case: true }, "/A?q", "/b?q");
        let any = PathMatch::Regex(regex::bytes::Regex::new(".*").unwrap());
        check(matched("/b"), &any, "/whatever", "/b");
        let pattern = regex::Regex::new("/service/([^/]+)(/.*)").unwrap();
        let regex = PathRewrite::Regex { pattern, substitution: "${2}/instance/${1}".to_owned() };
        check(regex.clone(), &prefix("/"), "/service/foo/v1/api?x=/service/a/b", "/v1/api/instance/foo?x=/service/a/b");
        check(regex, &prefix("/"), "/other", "/other");
        check(PathRewrite::Full("/new".into()), &prefix("/"), "/old?q", "/new?q");
        check(PathRewrite::Full("/new?x=1".into()), &prefix("/"), "/old?q", "/new?x=1");
    }

    #[track_caller]
    fn redirect(redirect: Redirect, scheme: &str, authority: &str, path_and_query: &str, expect: &str) {
        let headers = HeaderMap::new();
        let request =
            RequestView { method: &Method::GET, authority, scheme, path_and_query, headers: &headers, client_ip: None };
        assert_eq!(redirect.location(&prefix("/a"), &request), expect);
    }

    #[test]
    fn a_redirect_keeps_what_it_does_not_change() {
        let plain = || Redirect {
            status: StatusCode::MOVED_PERMANENTLY,
            scheme: None,
            host: None,
            port: None,
            path: None,
            strip_query: false,
        };
        redirect(plain(), "http", "h:8080", "/a?b", "http://h:8080/a?b");
        redirect(Redirect { scheme: Some(Scheme::HTTPS), ..plain() }, "http", "h:80", "/a", "https://h/a");
        redirect(Redirect { scheme: Some(Scheme::HTTPS), ..plain() }, "http", "h:8080", "/a", "https://h:8080/a");
        redirect(Redirect { port: Some(8443), ..plain() }, "http", "[::1]:80", "/a", "http://[::1]:8443/a");
        redirect(Redirect { host: Some("n".to_owned()), ..plain() }, "http", "h:80", "/a", "http://n/a");
        let path = |path| Redirect { path: Some(path), ..plain() };
        redirect(path(PathRewrite::Matched("/b".into())), "http", "h", "/a/x?q", "http://h/b/x?q");
        redirect(path(PathRewrite::Full("/b".into())), "http", "h", "/a/x?q", "http://h/b?q");
        let stripped = Redirect { strip_query: true, ..path(PathRewrite::Full("/b?own".into())) };
        redirect(stripped, "http", "h", "/a?q", "http://h/b?own");
        redirect(Redirect { strip_query: true, ..plain() }, "http", "h", "/a?q", "http://h/a");
    }
}
