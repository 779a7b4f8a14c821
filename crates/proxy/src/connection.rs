//! One accepted connection: look at its first bytes, choose a filter chain, terminate TLS, hand it to HTTP or TCP.

mod proxy_protocol;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mizzen_identity::Peer;
use mizzen_net::{Plain, Socket, Stream, listen};
use mizzen_snapshot::http::ClientCertDetails;
use mizzen_snapshot::listener::{ConnectionFacts, FilterChain, Handler, Inspect, Listener, TcpHandler, Transport};
use mizzen_snapshot::tls::{ClientAuth, ServerTls};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::drain::{Drain, Phase};
use crate::facts::{Downstream, DownstreamTls};
use crate::http;
use crate::listener::Admission;
use crate::tcp::{self, Attempt, Caller};
use crate::worker::Worker;

/// Enough for any ClientHello; more is not one.
const MAX_HELLO: usize = 64 * 1024;
/// How long a silent client is waited for before its server is dialled; it decides nothing.
const HEAD_START: Duration = Duration::from_millis(2);
/// How long a silent client whose server cannot be reached may still begin to speak.
const UNHEARD: Duration = Duration::from_secs(1);

/// What an accepted connection and all its exchanges hold on to.
pub struct Connection {
    pub worker: Rc<Worker>,
    pub downstream: Arc<Downstream>,
    pub drain: Rc<Drain>,
    /// What `x-forwarded-client-cert` says of this client; made at the first request that needs it.
    certificate: std::cell::OnceCell<Option<String>>,
    /// Counts the connection as open.
    _admission: Admission,
}

impl Connection {
    pub fn certificate_element(&self, details: ClientCertDetails) -> Option<String> {
        self.certificate.get_or_init(|| http::headers::certificate_element(self, details)).clone()
    }
}

pub async fn serve(worker: Rc<Worker>, admission: Admission, drain: Rc<Drain>, tcp: TcpStream, peer: SocketAddr) {
    let over = Rc::clone(&drain);
    tokio::select! {
        () = handle(worker, admission, drain, tcp, peer) => {}
        () = over.reached(Phase::Over) => tracing::debug!(%peer, "connection closed: the drain time is over"),
    }
}

async fn handle(worker: Rc<Worker>, admission: Admission, drain: Rc<Drain>, tcp: TcpStream, peer: SocketAddr) {
    let _ = tcp.set_nodelay(true);
    let Ok(accepted_on) = tcp.local_addr().map(listen::canonical) else { return };
    let peer = listen::canonical(peer);
    let accepted_at = SystemTime::now();
    let state = Arc::clone(admission.state());
    let mut listener = Arc::clone(&state.listener);
    let original = if listener.inspect.original_dst || listener.use_original_dst {
        listen::original_destination(&tcp)
    } else {
        None
    };
    let mut local = original.unwrap_or(accepted_on);
    let mut plain = Plain::new(Socket::Tcp(tcp));
    let direct = peer;
    let mut peer = peer;
    if listener.inspect.proxy_protocol {
        match proxy_protocol::read(&mut plain, worker.shared.limits.header_timeout).await {
            Ok(Some((source, destination))) => (peer, local) = (source, destination),
            Ok(None) => {}
            Err(reason) => {
                tracing::debug!(%peer, listener = %listener.name, reason, "connection closed: no PROXY protocol header");
                return;
            }
        }
    }
    if listener.use_original_dst
        && let Some(other) = worker.snapshot().listener_at(local)
    {
        listener = Arc::clone(other);
    }
    let (seen, attempt) = match look(&worker, &listener, &mut plain, peer, local).await {
        Ok(seen) => seen,
        Err(reason) => {
            tracing::debug!(%peer, listener = %listener.name, reason, "connection closed before it said what it is");
            return;
        }
    };
    let protocols: Vec<&str> = seen.application_protocols.iter().map(String::as_str).collect();
    let facts = ConnectionFacts {
        direct_source: direct.ip(),
        transport: seen.transport,
        server_name: seen.server_name.as_deref(),
        application_protocols: &protocols,
        ..facts_of_silent(peer, local)
    };
    let Some(chain) = listener.choose(&facts).cloned() else {
        tracing::debug!(%peer, listener = %listener.name, ?facts, "connection closed: no filter chain matches");
        if let Some(log) = listener.unmatched.clone() {
            let (id, tls) = (worker.shared.next_connection(), passed_through(&seen));
            let downstream = Downstream { listener, id, peer, local, tls, filter_chain: String::new() };
            worker.shared.recorder.unmatched(&log, &downstream, accepted_at);
        }
        return;
    };
    let (stream, tls) = match &chain.tls {
        Some(tls) => match terminate(&worker, &state, &listener, &chain, tls, plain, &seen).await {
            Ok((stream, facts)) => (stream, Some(facts)),
            Err(reason) => {
                tracing::info!(%peer, listener = %listener.name, chain = chain.name, reason, "TLS handshake failed");
                return;
            }
        },
        None => (Stream::Plain(plain), None),
    };
    let tls = tls.or_else(|| passed_through(&seen));
    let id = worker.shared.next_connection();
    let filter_chain = chain.name.clone();
    let downstream = Arc::new(Downstream { listener, id, peer, local, tls, filter_chain });
    let connection = Rc::new(Connection {
        worker,
        downstream,
        drain,
        certificate: std::cell::OnceCell::new(),
        _admission: admission,
    });
    match &chain.handler {
        Handler::Http(handler) => http::serve(connection, Arc::clone(handler), stream).await,
        Handler::Tcp(handler) => {
            // What was begun for another chain is given up.
            let attempt = attempt.filter(|ahead| Arc::ptr_eq(&ahead.handler, handler)).map(|ahead| ahead.attempt);
            tcp::serve(connection, Arc::clone(handler), stream, attempt).await;
        }
    }
}

/// What the first bytes say.
struct Seen {
    transport: Transport,
    server_name: Option<String>,
    application_protocols: Vec<String>,
}

impl Seen {
    fn nothing() -> Self {
        Self { transport: Transport::RawBuffer, server_name: None, application_protocols: Vec::new() }
    }
}

/// A connection to an upstream that was made before the client had said anything.
struct Ahead {
    handler: Arc<TcpHandler>,
    attempt: Box<Attempt>,
}

/// Looks at the first bytes, as far as the listener asks for it.
///
/// With protocols in which the server speaks first, a client says nothing until it has heard the server. So when a
/// silent client would be taken for one of those, its server is dialled, and whoever speaks first decides: the client
/// what it speaks, the server that it is no HTTP and no TLS. No timer decides that.
async fn look(
    worker: &Rc<Worker>,
    listener: &Listener,
    plain: &mut Plain,
    peer: SocketAddr,
    local: SocketAddr,
) -> Result<(Seen, Option<Ahead>), &'static str> {
    let inspect = &listener.inspect;
    let (tls, http) = (inspect.tls_on(local.port()), inspect.http_on(local.port()));
    if !(tls || http) {
        return Ok((Seen::nothing(), None));
    }
    let looking = look_until_known(plain, tls, http);
    let silent = if inspect.continue_on_timeout { silent_handler(listener, peer, local) } else { None };
    let looking = async {
        match silent {
            None => looking.await.map(|seen| (seen, None)),
            Some(handler) => Box::pin(look_or_hear(worker, inspect, handler, looking, peer, local)).await,
        }
    };
    let Some(timeout) = inspect.timeout else {
        return looking.await;
    };
    match tokio::time::timeout(timeout, looking).await {
        Ok(seen) => seen,
        Err(_) if inspect.continue_on_timeout => Ok((Seen::nothing(), None)),
        Err(_) => Err("no first bytes in time"),
    }
}

fn facts_of_silent(peer: SocketAddr, local: SocketAddr) -> ConnectionFacts<'static> {
    ConnectionFacts {
        destination: local,
        source: peer,
        direct_source: peer.ip(),
        transport: Transport::RawBuffer,
        server_name: None,
        application_protocols: &[],
    }
}

/// Who gets a connection on which the client never says anything, when that is opaque TCP.
fn silent_handler(listener: &Listener, peer: SocketAddr, local: SocketAddr) -> Option<Arc<TcpHandler>> {
    let chain = listener.choose(&facts_of_silent(peer, local))?;
    match (&chain.handler, &chain.tls) {
        (Handler::Tcp(handler), None) => Some(Arc::clone(handler)),
        _ => None,
    }
}

async fn look_or_hear(
    worker: &Rc<Worker>,
    inspect: &Inspect,
    handler: Arc<TcpHandler>,
    looking: impl Future<Output = Result<Seen, &'static str>>,
    peer: SocketAddr,
    local: SocketAddr,
) -> Result<(Seen, Option<Ahead>), &'static str> {
    tokio::pin!(looking);
    // A client that speaks first nearly always does so at once, and then nothing is dialled in vain.
    if let Ok(seen) = tokio::time::timeout(HEAD_START, &mut looking).await {
        return Ok((seen?, None));
    }
    let caller = Caller { worker, peer, local, server_name: None, inspect };
    let mut attempt = tokio::select! {
        biased;
        seen = &mut looking => return Ok((seen?, None)),
        attempt = tcp::connect(&caller, &handler) => Box::new(attempt),
    };
    let spoken = match &mut attempt.result {
        Ok(connected) => tokio::select! {
            biased;
            seen = &mut looking => Some(seen?),
            heard = connected.heard() => {
                if !heard {
                    // A server that closed without a word waits for the client to speak first.
                    return Ok((looking.await?, None));
                }
                None
            }
        },
        // There is nobody to hear. The client learns it soon, unless it speaks another protocol.
        Err(_) => tokio::time::timeout(UNHEARD, looking).await.ok().transpose()?,
    };
    Ok((spoken.unwrap_or_else(Seen::nothing), Some(Ahead { handler, attempt })))
}

async fn look_until_known(plain: &mut Plain, tls: bool, http: bool) -> Result<Seen, &'static str> {
    let mut acceptor = rustls::server::Acceptor::default();
    let mut fed = 0;
    loop {
        if let Some(first) = plain.peeked.first() {
            // A TLS record that holds a handshake begins with 0x16.
            if tls && *first == 0x16 {
                match hello(&mut acceptor, &plain.peeked, &mut fed) {
                    Hello::Whole(seen) => return Ok(seen),
                    Hello::NotTls => return Ok(Seen::nothing()),
                    Hello::More if plain.peeked.len() > MAX_HELLO => return Err("ClientHello is too large"),
                    Hello::More => {}
                }
            } else if !http {
                return Ok(Seen::nothing());
            } else if let Some(protocol) = http_version(&plain.peeked) {
                let application_protocols = protocol.into_iter().map(str::to_owned).collect();
                return Ok(Seen { application_protocols, ..Seen::nothing() });
            }
        }
        match plain.peek_more(2048).await {
            Ok(0) if plain.peeked.is_empty() => return Err("closed without a byte"),
            Ok(0) => return Ok(Seen::nothing()),
            Ok(_) => {}
            Err(_) => return Err("connection broke"),
        }
    }
}

enum Hello {
    Whole(Seen),
    More,
    NotTls,
}

/// Feeds what arrived to a parser of ClientHellos; the bytes themselves stay where they are.
fn hello(acceptor: &mut rustls::server::Acceptor, bytes: &[u8], fed: &mut usize) -> Hello {
    while *fed < bytes.len() {
        match acceptor.read_tls(&mut &bytes[*fed..]) {
            Ok(0) => break,
            Ok(count) => *fed += count,
            Err(_) => return Hello::NotTls,
        }
        match acceptor.accept() {
            Ok(None) => {}
            Ok(Some(accepted)) => {
                let hello = accepted.client_hello();
                let alpn = hello.alpn().into_iter().flatten();
                return Hello::Whole(Seen {
                    transport: Transport::Tls,
                    server_name: hello.server_name().map(str::to_ascii_lowercase),
                    application_protocols: alpn.map(|name| String::from_utf8_lossy(name).into_owned()).collect(),
                });
            }
            Err(_) => return Hello::NotTls,
        }
    }
    Hello::More
}

/// `Some(Some(name))`: HTTP of this version. `Some(None)`: not HTTP. `None`: too early to tell.
fn http_version(bytes: &[u8]) -> Option<Option<&'static str>> {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let compared = bytes.len().min(PREFACE.len());
    if bytes[..compared] == PREFACE[..compared] {
        return (compared == PREFACE.len()).then_some(Some("h2c"));
    }
    let line = match bytes.iter().position(|byte| *byte == b'\n') {
        Some(end) => &bytes[..end],
        None if bytes.len() > 8 * 1024 => return Some(None),
        None => {
            // A method is a short token; anything else cannot become a request line.
            let method = bytes.split(|byte| *byte == b' ').next().unwrap_or_default();
            let possible = method.len() <= 32 && method.iter().all(|byte| byte.is_ascii_uppercase() || *byte == b'-');
            return if possible { None } else { Some(None) };
        }
    };
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    Some(if line.ends_with(b" HTTP/1.1") {
        Some("http/1.1")
    } else if line.ends_with(b" HTTP/1.0") {
        Some("http/1.0")
    } else {
        None
    })
}

async fn terminate(
    worker: &Worker,
    state: &crate::listener::ListenerState,
    listener: &Arc<Listener>,
    chain: &FilterChain,
    tls: &Arc<ServerTls>,
    plain: Plain,
    seen: &Seen,
) -> Result<(Stream, DownstreamTls), String> {
    let handed_over;
    let configs = match state.server_configs(tls) {
        Some(configs) => configs,
        // The connection was handed over to a listener that has no socket of its own.
        None => {
            tracing::debug!(listener = %listener.name, "TLS settings made for one connection");
            handed_over = mizzen_identity::tls::server_config(tls, &worker.shared.secrets);
            &handed_over
        }
    };
    let config = if seen.application_protocols.is_empty() {
        configs.current()
    } else {
        configs.for_offer(seen.application_protocols.iter().map(String::as_bytes))
    };
    let config = config.map_err(|error| error.to_string())?;
    let patience = chain.handshake_timeout.unwrap_or(worker.shared.limits.handshake_timeout);
    let accepting = TlsAcceptor::from(config).accept(plain);
    let stream = match tokio::time::timeout(patience, accepting).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(error.to_string()),
        Err(_) => return Err(format!("not finished after {} ms", patience.as_millis())),
    };
    let session = stream.get_ref().1;
    let chain = session.peer_certificates().unwrap_or_default();
    let peer = match (&tls.client, chain.first()) {
        (ClientAuth::None, _) | (_, None) => None,
        (ClientAuth::Optional(_) | ClientAuth::Required(_), Some(leaf)) => {
            Some(Arc::new(Peer::of(leaf).map_err(|error| error.to_string())?))
        }
    };
    let facts = DownstreamTls {
        version: session.protocol_version().map_or("", tls_version),
        cipher: session.negotiated_cipher_suite().map(|suite| format!("{:?}", suite.suite())).unwrap_or_default(),
        server_name: session.server_name().map(str::to_owned),
        alpn: session.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned()),
        chain: chain.iter().map(|der| der.to_vec()).collect(),
        peer,
    };
    Ok((Stream::ServerTls(Box::new(stream)), facts))
}

/// TLS that is passed on unopened still told its server name.
fn passed_through(seen: &Seen) -> Option<DownstreamTls> {
    (seen.transport == Transport::Tls).then(|| DownstreamTls {
        version: "",
        cipher: String::new(),
        server_name: seen.server_name.clone(),
        alpn: None,
        peer: None,
        chain: Vec::new(),
    })
}

pub(crate) fn tls_version(version: rustls::ProtocolVersion) -> &'static str {
    match version {
        rustls::ProtocolVersion::TLSv1_2 => "TLSv1.2",
        rustls::ProtocolVersion::TLSv1_3 => "TLSv1.3",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<A, B, C, D, E, F: Future>(_: fn(A, B, C, D, E) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn an_idle_connection_is_small() {
        let bytes = size(serve);
        assert!(bytes <= 8 * 1024, "the task of a connection takes {bytes} bytes");
    }
}
