//! Connecting to a server that a name or several addresses stand for.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

/// An address gets at least this long, however many there are.
const LEAST: Duration = Duration::from_millis(250);

/// Connects to `address` (`HOST:PORT`). A name is resolved anew at each call; its addresses are tried in turn, from a
/// random one on so that clients spread, until one answers. Each gets a share of `budget`.
pub async fn connect(address: &str, budget: Duration) -> io::Result<TcpStream> {
    let mut addresses: Vec<SocketAddr> = lookup_host(address).await?.collect();
    if let Some(first) = (RandomState::new().hash_one(0u8) as usize).checked_rem(addresses.len()) {
        addresses.rotate_left(first);
    }
    one_of(&addresses, budget).await
}

async fn one_of(addresses: &[SocketAddr], budget: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    let share = (budget / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX)).max(LEAST);
    for address in addresses {
        let reason = match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Ok(Err(error)) => error,
            Err(_) => io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {share:?}")),
        };
        last = io::Error::new(reason.kind(), format!("{address}: {reason}"));
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_dead_address_does_not_hide_a_living_one() {
        let living = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let living = living.local_addr().unwrap();
        // Bound and not listening: connections are refused, and nobody else takes the port.
        let dead = tokio::net::TcpSocket::new_v4().unwrap();
        dead.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let dead = dead.local_addr().unwrap();
        let stream = one_of(&[dead, living], Duration::from_secs(20)).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), living);
        let error = one_of(&[dead], Duration::from_secs(20)).await.unwrap_err().to_string();
        assert!(error.contains(&dead.to_string()), "{error}");
        assert!(one_of(&[], Duration::from_secs(1)).await.is_err());
    }

    #[tokio::test]
    async fn names_are_resolved() {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = format!("localhost:{}", server.local_addr().unwrap().port());
        // `localhost` may stand for an address of each family, of which only one is served.
        connect(&address, Duration::from_secs(20)).await.unwrap();
        assert!(connect("nonsense", Duration::from_secs(1)).await.is_err());
    }
}
