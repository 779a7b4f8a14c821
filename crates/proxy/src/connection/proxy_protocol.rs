//! The PROXY protocol, versions 1 and 2: a load balancer in front of us says who really connected.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Buf;
use mizzen_net::Plain;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Longest header of version 1.
const LINE: usize = 107;

/// Source and destination; `None` when the balancer speaks for itself (health checks).
type Addresses = Option<(SocketAddr, SocketAddr)>;

/// Reads the header and takes it out of what was read.
pub(super) async fn read(plain: &mut Plain, patience: Duration) -> Result<Addresses, &'static str> {
    let reading = async {
        loop {
            if let Some((length, addresses)) = parse(&plain.peeked)? {
                plain.peeked.advance(length);
                return Ok(addresses);
            }
            match plain.peek_more(256).await {
                Ok(0) | Err(_) => return Err("closed before the PROXY protocol header"),
                Ok(_) => {}
            }
        }
    };
    tokio::time::timeout(patience, reading).await.unwrap_or(Err("no PROXY protocol header in time"))
}

/// Length of the header and what it says; `None` when more bytes are needed.
fn parse(bytes: &[u8]) -> Result<Option<(usize, Addresses)>, &'static str> {
    if bytes.starts_with(SIGNATURE) {
        return version_2(bytes);
    }
    if SIGNATURE.starts_with(bytes) || b"PROXY ".starts_with(bytes) {
        return Ok(None);
    }
    if bytes.starts_with(b"PROXY ") {
        return version_1(bytes);
    }
    Err("not a PROXY protocol header")
}

fn version_1(bytes: &[u8]) -> Result<Option<(usize, Addresses)>, &'static str> {
    let Some(end) = bytes.iter().take(LINE).position(|byte| *byte == b'\n') else {
        return if bytes.len() >= LINE { Err("the PROXY line is too long") } else { Ok(None) };
    };
    let line = std::str::from_utf8(&bytes[..end]).map_err(|_| "the PROXY line is not text")?;
    let line = line.strip_suffix('\r').ok_or("the PROXY line does not end in CRLF")?;
    let words: Vec<&str> = line.split(' ').collect();
    let addresses = match words.as_slice() {
        ["PROXY", "UNKNOWN", ..] => None,
        ["PROXY", "TCP4" | "TCP6", source, destination, from, to] => {
            let address = |ip: &str, port: &str| Some(SocketAddr::new(ip.parse().ok()?, port.parse().ok()?));
            let both = address(source, from).zip(address(destination, to));
            Some(both.ok_or("the PROXY line has no valid addresses")?)
        }
        _ => return Err("the PROXY line cannot be read"),
    };
    Ok(Some((end + 1, addresses)))
}

fn version_2(bytes: &[u8]) -> Result<Option<(usize, Addresses)>, &'static str> {
    let Some(fixed) = bytes.get(..16) else { return Ok(None) };
    let length = 16 + usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    let Some(rest) = bytes.get(16..length) else { return Ok(None) };
    let port = |at: usize| rest.get(at..at + 2).map(|port| u16::from_be_bytes([port[0], port[1]]));
    let addresses = match (fixed[12], fixed[13]) {
        (0x20, _) => None,
        (0x21, 0x11) => {
            let ip = |at: usize| -> Option<IpAddr> {
                let octets: [u8; 4] = rest.get(at..at + 4)?.try_into().ok()?;
                Some(Ipv4Addr::from(octets).into())
            };
            both(ip(0), port(8), ip(4), port(10))?
        }
        (0x21, 0x21) => {
            let ip = |at: usize| -> Option<IpAddr> {
                let octets: [u8; 16] = rest.get(at..at + 16)?.try_into().ok()?;
                Some(Ipv6Addr::from(octets).into())
            };
            both(ip(0), port(32), ip(16), port(34))?
        }
        (0x21, _) => None,
        _ => return Err("unknown version of the PROXY protocol"),
    };
    Ok(Some((length, addresses)))
}

fn both(
    source: Option<IpAddr>,
    from: Option<u16>,
    destination: Option<IpAddr>,
    to: Option<u16>,
) -> Result<Addresses, &'static str> {
    match (source, from, destination, to) {
        (Some(source), Some(from), Some(destination), Some(to)) => {
            Ok(Some((SocketAddr::new(source, from), SocketAddr::new(destination, to))))
        }
        _ => Err("the PROXY header is too short for its addresses"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(source: &str, destination: &str) -> Addresses {
        Some((source.parse().unwrap(), destination.parse().unwrap()))
    }

    #[test]
    fn both_versions_are_read_and_nothing_else() {
        let line = b"PROXY TCP4 1.2.3.4 5.6.7.8 90 80\r\nGET";
        assert_eq!(parse(line), Ok(Some((34, pair("1.2.3.4:90", "5.6.7.8:80")))));
        assert_eq!(parse(b"PROXY UNKNOWN\r\n"), Ok(Some((15, None))));
        let mut binary = SIGNATURE.to_vec();
        binary.extend([0x21, 0x11, 0, 12, 1, 2, 3, 4, 5, 6, 7, 8, 0, 90, 0, 80]);
        assert_eq!(parse(&binary), Ok(Some((28, pair("1.2.3.4:90", "5.6.7.8:80")))));
        for short in [&line[..0], &line[..3], &line[..20], &binary[..5], &binary[..20]] {
            assert_eq!(parse(short), Ok(None), "{short:?}");
        }
        for bad in [&b"GET / HTTP/1.1\r\n"[..], b"PROXY TCP4 x y 1 2\r\n", b"PROXY TCP4 1.2.3.4 5.6.7.8 90 80\n"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
        binary[15] = 4;
        binary.truncate(20);
        assert!(parse(&binary).is_err());
    }
}
