//! Asking another resolver. The answer is passed on as it is.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, UdpSocket};
use tokio::time::timeout;

/// A resolver that says nothing for so long is given up for this query (as `resolv.conf` does by default).
const PATIENCE: Duration = Duration::from_secs(5);
/// Largest datagram.
const MOST: usize = 65_535;

/// Resolvers to ask, in this order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forwarder {
    pub servers: Vec<SocketAddr>,
    /// Marks our own queries, so that the kernel's rules do not send them back to us.
    pub mark: Option<u32>,
}

impl Forwarder {
    /// Asks by datagram; the first answer counts.
    pub async fn datagram(&self, query: &[u8]) -> io::Result<Vec<u8>> {
        let mut last = none();
        for server in &self.servers {
            match timeout(PATIENCE, self.ask(*server, query)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => last = error,
                Err(_) => last = io::ErrorKind::TimedOut.into(),
            }
        }
        Err(last)
    }

    async fn ask(&self, server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
        let any: SocketAddr =
            if server.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
        let socket = UdpSocket::bind(any).await?;
        if let Some(mark) = self.mark {
            SockRef::from(&socket).set_mark(mark)?;
        }
        // Answers of anybody else are dropped by the kernel.
        socket.connect(server).await?;
        // A number that the client did not choose: it need not be hard to guess for others.
        let Some(own) = query.get(..2).map(<[u8]>::to_vec) else { return Err(io::ErrorKind::InvalidData.into()) };
        let number = rand::random::<u16>().to_be_bytes();
        let mut sent = query.to_vec();
        sent[..2].copy_from_slice(&number);
        socket.send(&sent).await?;
        let mut answer = vec![0; MOST];
        loop {
            let length = socket.recv(&mut answer).await?;
            if length >= 12 && answer[..2] == number {
                answer.truncate(length);
                answer[..2].copy_from_slice(&own);
                return Ok(answer);
            }
        }
    }

    /// Asks over a connection.
    pub async fn stream(&self, query: &[u8]) -> io::Result<Vec<u8>> {
        let mut last = none();
        for server in &self.servers {
            match timeout(PATIENCE, self.ask_on_stream(*server, query)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => last = error,
                Err(_) => last = io::ErrorKind::TimedOut.into(),
            }
        }
        Err(last)
    }

    async fn ask_on_stream(&self, server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
        let socket = if server.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(mark) = self.mark {
            SockRef::from(&socket).set_mark(mark)?;
        }
        let mut stream = socket.connect(server).await?;
        let length = u16::try_from(query.len()).map_err(|_| io::ErrorKind::InvalidData)?;
        stream.write_all(&[&length.to_be_bytes()[..], query].concat()).await?;
        let length = stream.read_u16().await?;
        let mut answer = vec![0; usize::from(length)];
        stream.read_exact(&mut answer).await?;
        Ok(answer)
    }
}

fn none() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "there is no resolver to ask")
}
