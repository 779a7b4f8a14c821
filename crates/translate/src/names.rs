//! Names that others rely on, byte for byte (reference: semantics 193 and 275).

/// `outbound|9080|v1|reviews.default.svc.cluster.local`.
pub(crate) fn outbound(port: u16, subset: &str, host: &str) -> String {
    format!("outbound|{port}|{subset}|{host}")
}

/// `inbound|9080||`.
pub(crate) fn inbound(port: u16) -> String {
    format!("inbound|{port}||")
}

/// The server name with which mesh TLS is begun: `outbound_.9080_.v1_.reviews.default.svc.cluster.local`.
pub(crate) fn sni(port: u16, subset: &str, host: &str) -> String {
    format!("outbound_.{port}_.{subset}_.{host}")
}

/// The parts of an outbound cluster's name: port, subset, host.
pub fn parse_outbound(name: &str) -> Option<(u16, &str, &str)> {
    let mut parts = name.split('|');
    let (direction, port, subset, host) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    (direction == "outbound" && parts.next().is_none() && !host.is_empty())
        .then(|| port.parse().ok().map(|port| (port, subset, host)))?
}

/// How Istio points at the object that a decision comes from.
pub(crate) fn config_path(kind: &str, namespace: &str, name: &str) -> String {
    format!("/apis/networking.istio.io/v1/namespaces/{namespace}/{kind}/{name}")
}

pub(crate) const BLACK_HOLE: &str = "BlackHoleCluster";
pub(crate) const PASSTHROUGH: &str = "PassthroughCluster";
pub(crate) const INBOUND_PASSTHROUGH: &str = "InboundPassthroughCluster";
/// The route table of the explicit HTTP proxy listener.
pub const HTTP_PROXY_TABLE: &str = "http_proxy";

#[cfg(test)]
mod tests {
    use super::{outbound, parse_outbound};

    #[test]
    fn cluster_names_are_read_as_they_are_made() {
        assert_eq!(parse_outbound(&outbound(9080, "v1", "reviews.default")), Some((9080, "v1", "reviews.default")));
        assert_eq!(parse_outbound("outbound|80||*.a.b"), Some((80, "", "*.a.b")));
        for bad in ["", "inbound|80||", "outbound|80||", "outbound|x||h", "outbound|80|h", "outbound|80||h|i"] {
            assert_eq!(parse_outbound(bad), None, "{bad}");
        }
    }
}
