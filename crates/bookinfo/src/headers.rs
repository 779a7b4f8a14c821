//! Headers that a service passes on, so that traces hang together and routing by user works along the whole way.

use http::{HeaderMap, HeaderName, HeaderValue};

/// Passed on by every service, as in the original.
const FORWARDED: [&str; 21] = [
    "x-request-id",
    "x-ot-span-context",
    "x-datadog-trace-id",
    "x-datadog-parent-id",
    "x-datadog-sampling-priority",
    "traceparent",
    "tracestate",
    "x-cloud-trace-context",
    "grpc-trace-bin",
    "b3",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "sw8",
    "authorization",
    "cookie",
    "end-user",
    "user-agent",
    "baggage",
];

/// The headers of an incoming request that go along with the calls made for it.
pub(crate) fn forwarded(incoming: &HeaderMap) -> HeaderMap {
    let mut outgoing = HeaderMap::new();
    for name in FORWARDED {
        let name = HeaderName::from_static(name);
        for value in incoming.get_all(&name) {
            outgoing.append(&name, value.clone());
        }
    }
    outgoing
}

/// Says who is signed in; whatever the client wrote there itself is dropped.
pub(crate) fn set_user(headers: &mut HeaderMap, user: Option<&str>) {
    headers.remove("end-user");
    if let Some(value) = user.and_then(|user| HeaderValue::from_str(user).ok()) {
        headers.insert("end-user", value);
    }
}
