//! Cross-origin requests: answered here, or marked on the way back.

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode};

use super::Cors;

/// What to do with a request where cross-origin rules are in force.
#[derive(Debug, Clone)]
pub enum CorsDecision {
    /// No origin, or one that the rules do not name: nothing is added.
    Pass,
    /// A preflight, answered without asking the service.
    Answer { status: StatusCode, headers: HeaderMap },
    /// Forward, and call [`CorsGrant::mark`] on the response.
    Grant(CorsGrant),
}

/// An origin that may read the response.
#[derive(Debug, Clone)]
pub struct CorsGrant {
    origin: HeaderValue,
}

impl Cors {
    pub fn decide(&self, method: &Method, headers: &HeaderMap) -> CorsDecision {
        let Some(origin) = headers.get(header::ORIGIN).filter(|origin| !origin.is_empty()) else {
            return CorsDecision::Pass;
        };
        let preflight = method == Method::OPTIONS
            && headers.get(header::ACCESS_CONTROL_REQUEST_METHOD).is_some_and(|method| !method.is_empty());
        let allowed =
            self.origins.iter().any(|matcher| matcher.matches("*") || matcher.matches_bytes(origin.as_bytes()));
        if !allowed {
            return if preflight && !self.forward_unmatched_preflights {
                CorsDecision::Answer { status: StatusCode::OK, headers: HeaderMap::new() }
            } else {
                CorsDecision::Pass
            };
        }
        if !preflight {
            return CorsDecision::Grant(CorsGrant { origin: origin.clone() });
        }
        let mut answer = HeaderMap::new();
        answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        if self.credentials {
            answer.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        insert(&mut answer, header::ACCESS_CONTROL_ALLOW_METHODS, self.methods.as_deref());
        insert(&mut answer, header::ACCESS_CONTROL_ALLOW_HEADERS, self.headers.as_deref());
        insert(&mut answer, header::ACCESS_CONTROL_MAX_AGE, self.max_age.as_deref());
        CorsDecision::Answer { status: StatusCode::OK, headers: answer }
    }
}

impl CorsGrant {
    /// Adds to a response what lets the origin read it; a service's own answers to the same question are replaced.
    pub fn mark(&self, cors: &Cors, response: &mut HeaderMap) {
        response.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, self.origin.clone());
        if cors.credentials {
            response.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        insert(response, header::ACCESS_CONTROL_EXPOSE_HEADERS, cors.expose_headers.as_deref());
    }
}

fn insert(headers: &mut HeaderMap, name: header::HeaderName, value: Option<&str>) {
    if let Some(value) = value.filter(|value| !value.is_empty()).and_then(|value| HeaderValue::from_str(value).ok()) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matcher::StringMatch;

    fn cors() -> Cors {
        Cors {
            origins: vec![StringMatch::exact("https://a")],
            methods: Some("GET,POST".to_owned()),
            headers: Some("x-a".to_owned()),
            expose_headers: Some("x-b".to_owned()),
            max_age: Some("86400".to_owned()),
            credentials: true,
            forward_unmatched_preflights: true,
        }
    }

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (header::HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn a_preflight_of_a_known_origin_is_answered() {
        let request = headers(&[("origin", "https://a"), ("access-control-request-method", "GET")]);
        let CorsDecision::Answer { status, headers: answer } = cors().decide(&Method::OPTIONS, &request) else {
            panic!("not answered")
        };
        assert_eq!(status, StatusCode::OK);
        assert_eq!(answer["access-control-allow-origin"], "https://a");
        assert_eq!(answer["access-control-allow-methods"], "GET,POST");
        assert_eq!(answer["access-control-allow-headers"], "x-a");
        assert_eq!(answer["access-control-max-age"], "86400");
        assert_eq!(answer["access-control-allow-credentials"], "true");
    }

    #[test]
    fn a_request_of_a_known_origin_is_marked_on_its_way_back() {
        let CorsDecision::Grant(grant) = cors().decide(&Method::GET, &headers(&[("origin", "https://a")])) else {
            panic!("not granted")
        };
        let mut response = headers(&[("access-control-allow-origin", "*")]);
        grant.mark(&cors(), &mut response);
        assert_eq!(response["access-control-allow-origin"], "https://a");
        assert_eq!(response["access-control-expose-headers"], "x-b");
        assert_eq!(response.get_all("access-control-allow-origin").iter().count(), 1);
    }

    #[test]
    fn other_origins_get_nothing() {
        let preflight = headers(&[("origin", "https://b"), ("access-control-request-method", "GET")]);
        assert!(matches!(cors().decide(&Method::OPTIONS, &preflight), CorsDecision::Pass));
        assert!(matches!(cors().decide(&Method::GET, &headers(&[])), CorsDecision::Pass));
        let strict = Cors { forward_unmatched_preflights: false, ..cors() };
        let CorsDecision::Answer { headers, .. } = strict.decide(&Method::OPTIONS, &preflight) else {
            panic!("not answered")
        };
        assert!(headers.is_empty());
    }
}
