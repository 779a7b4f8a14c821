//! What a connection to an endpoint begins with where it is told who the client is (PROXY protocol).
//!
//! An opaque connection is one client's. Connections for requests are shared by all clients, so they name ourselves, as
//! Envoy's do: the endpoint finds the clients in `x-forwarded-for`.

use std::net::{IpAddr, SocketAddr};

use mizzen_snapshot::cluster::ProxyVersion;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// `client` is who is there and the address that was called; `own` are both ends of the new connection.
pub fn of(
    version: ProxyVersion,
    client: Option<(SocketAddr, SocketAddr)>,
    own: Option<(SocketAddr, SocketAddr)>,
) -> Vec<u8> {
    match version {
        ProxyVersion::V1 => text(client.or(own)),
        ProxyVersion::V2 => binary(client),
    }
}

fn text(ends: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
    let Some((from, to)) = ends else { return b"PROXY UNKNOWN\r\n".to_vec() };
    let (family, from_ip, to_ip) = match same_family(from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ("TCP4", from.to_string(), to.to_string()),
        (from, to) => ("TCP6", from.to_string(), to.to_string()),
    };
    format!("PROXY {family} {from_ip} {to_ip} {} {}\r\n", from.port(), to.port()).into_bytes()
}

fn binary(client: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
    let mut header = SIGNATURE.to_vec();
    let Some((from, to)) = client else {
        // Version 2, LOCAL: the connection is our own.
        header.extend([0x20, 0, 0, 0]);
        return header;
    };
    let addresses = match same_family(from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => [from.octets(), to.octets()].concat(),
        (from, to) => [from, to].map(in_v6).concat(),
    };
    let family = if addresses.len() == 8 { 0x11 } else { 0x21 };
    header.extend([0x21, family, 0, addresses.len() as u8 + 4]);
    header.extend(addresses);
    header.extend(from.port().to_be_bytes());
    header.extend(to.port().to_be_bytes());
    header
}

/// One header has one address family: with two, the older is written within the newer.
fn same_family(from: SocketAddr, to: SocketAddr) -> (IpAddr, IpAddr) {
    let (from, to) = (from.ip().to_canonical(), to.ip().to_canonical());
    if from.is_ipv4() == to.is_ipv4() {
        return (from, to);
    }
    let wide = |ip| IpAddr::from(in_v6(ip));
    (wide(from), wide(to))
}

fn in_v6(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(from: &str, to: &str) -> Option<(SocketAddr, SocketAddr)> {
        Some((from.parse().unwrap(), to.parse().unwrap()))
    }

    #[test]
    fn a_line_of_text() {
        let line = |client, own| String::from_utf8(of(ProxyVersion::V1, client, own)).unwrap();
        let v4 = ends("10.0.0.1:5000", "10.0.0.2:3306");
        assert_eq!(line(v4, None), "PROXY TCP4 10.0.0.1 10.0.0.2 5000 3306\r\n");
        assert_eq!(line(None, v4), "PROXY TCP4 10.0.0.1 10.0.0.2 5000 3306\r\n");
        assert_eq!(
            line(ends("[2001:db8::1]:1", "[2001:db8::2]:2"), None),
            "PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n"
        );
        assert_eq!(line(ends("10.0.0.1:1", "[2001:db8::2]:2"), None), "PROXY TCP6 ::ffff:10.0.0.1 2001:db8::2 1 2\r\n");
        assert_eq!(line(None, None), "PROXY UNKNOWN\r\n");
    }

    #[test]
    fn binary_form() {
        let v4 = of(ProxyVersion::V2, ends("10.0.0.1:5000", "10.0.0.2:3306"), None);
        let mut expected = SIGNATURE.to_vec();
        expected.extend([0x21, 0x11, 0, 12, 10, 0, 0, 1, 10, 0, 0, 2, 0x13, 0x88, 0x0c, 0xea]);
        assert_eq!(v4, expected);
        let v6 = of(ProxyVersion::V2, ends("[::1]:1", "[::2]:2"), None);
        assert_eq!((v6.len(), &v6[12..16]), (16 + 36, &[0x21, 0x21, 0, 36][..]));
        assert_eq!(of(ProxyVersion::V2, None, ends("10.0.0.1:1", "10.0.0.2:2"))[12..], [0x20, 0, 0, 0]);
    }
}
