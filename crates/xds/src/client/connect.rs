//! Keeps an ADS stream open: connects, feeds the [`Session`], reconnects with back-off.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use mizzen_proto::envoy::config::core::v3::Node;
use mizzen_proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use prost::Message;
use rustls_pki_types::ServerName;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::metadata::{Ascii, MetadataKey, MetadataValue};
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Status, Streaming};
use tonic_prost::ProstCodec;

use super::backoff::Backoff;
use super::session::{Refusal, Session, Subscription, Update, UpdateId};
use crate::wire::{DELTA_PATH, DeltaResponse, Request, SOTW_PATH, SotwResponse};
use crate::{Mode, ResourceType};

/// Where the server is and how to reach it.
#[derive(Clone)]
pub enum Authority {
    /// `host:port`, unencrypted.
    Plaintext(String),
    /// `host:port` with TLS. The configuration decides what is believed and shown; it should offer ALPN `h2`.
    Tls { address: String, server_name: ServerName<'static>, config: Arc<rustls::ClientConfig> },
    /// A Unix socket, unencrypted.
    Unix(PathBuf),
    /// There is no way to it at the moment, for this reason: the attempt fails, and the next one asks again.
    Unavailable(String),
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plaintext(address) => write!(f, "{address}"),
            Self::Tls { address, .. } => write!(f, "{address} (TLS)"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Unavailable(_) => f.write_str("the control plane"),
        }
    }
}

/// Asked at each connect, so that renewed tokens and certificates are used. The number is that of the failures since the
/// last response.
pub type AuthoritySource = Arc<dyn Fn(u32) -> Authority + Send + Sync>;
/// Request metadata (`authorization`, `Bearer …`), asked at each connect after the authority.
pub type MetadataSource = Arc<dyn Fn() -> Vec<(String, String)> + Send + Sync>;

/// What a client is made of.
#[derive(Clone)]
pub struct Config {
    pub authority: AuthoritySource,
    pub node: Node,
    pub mode: Mode,
    pub metadata: MetadataSource,
    pub backoff: Backoff,
    pub connect_timeout: Duration,
    /// Idle connections are probed this often; an unanswered probe ends the connection.
    pub keepalive_interval: Duration,
    pub keepalive_timeout: Duration,
    /// Largest response read, in bytes.
    pub max_response_bytes: usize,
}

impl Config {
    /// Delta, no extra metadata, default times and limits.
    pub fn new(authority: Authority, node: Node) -> Self {
        Self {
            authority: Arc::new(move |_| authority.clone()),
            node,
            mode: Mode::Delta,
            metadata: Arc::new(Vec::new),
            backoff: Backoff::default(),
            connect_timeout: Duration::from_secs(5),
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(10),
            max_response_bytes: 256 << 20,
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("node", &self.node.id).field("mode", &self.mode).finish_non_exhaustive()
    }
}

/// What a client tells its consumer.
#[derive(Debug)]
pub enum Event {
    /// A stream is open and the subscriptions are sent.
    Connected,
    /// The stream ended, or none could be opened; the next attempt follows after `retry_in`. The last state stays.
    Disconnected { reason: String, retry_in: Duration },
    /// To be answered by [`Handle::accept`] or [`Handle::refuse`].
    Update(Update),
}

enum Command {
    Subscribe(ResourceType, Subscription),
    Answer(UpdateId, Vec<Refusal>),
}

/// Tells a running client what to ask for. The client ends when its handles or its event receiver are dropped.
#[derive(Clone)]
pub struct Handle {
    commands: mpsc::UnboundedSender<Command>,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handle")
    }
}

impl Handle {
    /// Replaces what is wanted of a type.
    pub fn subscribe(&self, kind: ResourceType, wanted: Subscription) {
        self.command(Command::Subscribe(kind, wanted));
    }

    /// The update is in force.
    pub fn accept(&self, id: UpdateId) {
        self.command(Command::Answer(id, Vec::new()));
    }

    /// These resources are not; all others of the update are in force.
    pub fn refuse(&self, id: UpdateId, refused: Vec<Refusal>) {
        self.command(Command::Answer(id, refused));
    }

    fn command(&self, command: Command) {
        // A client that has ended needs no commands.
        let _ = self.commands.send(command);
    }
}

/// Updates that may wait for the consumer; beyond them the stream is not read on.
const QUEUE: usize = 16;

/// Starts a client in a task of its own. Must be called within a tokio runtime.
pub fn start(config: Config) -> (Handle, mpsc::Receiver<Event>) {
    let (commands, command_queue) = mpsc::unbounded_channel();
    let (events, event_queue) = mpsc::channel(QUEUE);
    tokio::spawn(run(config, command_queue, events));
    (Handle { commands }, event_queue)
}

/// Why the client task stops for good: nobody listens any more.
struct Abandoned;

async fn run(config: Config, mut commands: mpsc::UnboundedReceiver<Command>, events: mpsc::Sender<Event>) {
    let mut session = Session::new(config.mode, config.node.clone());
    let mut backoff = config.backoff.clone();
    loop {
        let Ok(reason) = one_stream(&config, &mut session, &mut backoff, &mut commands, &events).await else {
            return;
        };
        session.disconnected();
        let retry_in = backoff.failed(rand::random());
        if events.send(Event::Disconnected { reason, retry_in }).await.is_err() {
            return;
        }
        let pause = tokio::time::sleep(retry_in);
        tokio::pin!(pause);
        loop {
            tokio::select! {
                () = &mut pause => break,
                () = events.closed() => return,
                command = commands.recv() => match command {
                    Some(command) => drop(apply(&mut session, command)),
                    None => return,
                },
            }
        }
    }
}

fn apply(session: &mut Session, command: Command) -> Vec<Request> {
    match command {
        Command::Subscribe(kind, wanted) => session.subscribe(kind, wanted).into_iter().collect(),
        Command::Answer(id, refused) => session.answer(id, refused),
    }
}

/// Runs one stream to its end and says why it ended.
async fn one_stream(
    config: &Config,
    session: &mut Session,
    backoff: &mut Backoff,
    commands: &mut mpsc::UnboundedReceiver<Command>,
    events: &mpsc::Sender<Event>,
) -> Result<String, Abandoned> {
    let authority = (config.authority)(backoff.failures());
    let connecting = connect(config, &authority);
    tokio::pin!(connecting);
    let channel = loop {
        tokio::select! {
            channel = &mut connecting => break channel,
            () = events.closed() => return Err(Abandoned),
            command = commands.recv() => drop(apply(session, command.ok_or(Abandoned)?)),
        }
    };
    let channel = match channel {
        Ok(channel) => channel,
        Err(error) => return Ok(format!("{authority}: {error}")),
    };
    // Some servers say nothing, not even that the stream is open, before they have read the first request.
    let (requests, queue) = mpsc::unbounded_channel();
    for request in session.connected() {
        let _ = requests.send(request);
    }
    let opening = open(config, channel, queue);
    tokio::pin!(opening);
    let opened = loop {
        tokio::select! {
            opened = &mut opening => break opened,
            () = events.closed() => return Err(Abandoned),
            command = commands.recv() => {
                for request in apply(session, command.ok_or(Abandoned)?) {
                    let _ = requests.send(request);
                }
            }
        }
    };
    let mut responses = match opened {
        Ok(responses) => responses,
        Err(status) => return Ok(format!("{authority}: {}", describe(&status))),
    };
    if events.send(Event::Connected).await.is_err() {
        return Err(Abandoned);
    }
    loop {
        tokio::select! {
            () = events.closed() => return Err(Abandoned),
            command = commands.recv() => {
                for request in apply(session, command.ok_or(Abandoned)?) {
                    let _ = requests.send(request);
                }
            }
            response = responses.next() => match response {
                Ok(Some(response)) => {
                    backoff.succeeded();
                    let update = match response {
                        Response::Delta(response) => session.delta_response(response),
                        Response::Sotw(response) => session.sotw_response(response),
                    };
                    if let Some(update) = update {
                        events.send(Event::Update(update)).await.map_err(|_| Abandoned)?;
                    }
                }
                Ok(None) => return Ok(format!("{authority}: closed the stream")),
                Err(status) => return Ok(format!("{authority}: {}", describe(&status))),
            },
        }
    }
}

fn describe(status: &Status) -> String {
    let mut text = format!("{:?}: {}", status.code(), status.message());
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    text
}

enum Response {
    Delta(DeltaResponse),
    Sotw(SotwResponse),
}

enum Responses {
    Delta(Box<Streaming<DeltaResponse>>),
    Sotw(Box<Streaming<SotwResponse>>),
}

impl Responses {
    async fn next(&mut self) -> Result<Option<Response>, Status> {
        Ok(match self {
            Self::Delta(stream) => stream.message().await?.map(Response::Delta),
            Self::Sotw(stream) => stream.message().await?.map(Response::Sotw),
        })
    }
}

async fn open(
    config: &Config,
    channel: Channel,
    requests: mpsc::UnboundedReceiver<Request>,
) -> Result<Responses, Status> {
    let requests = UnboundedReceiverStream::new(requests);
    Ok(match config.mode {
        Mode::Delta => {
            let requests = tokio_stream::StreamExt::filter_map(requests, |request| match request {
                Request::Delta(request) => Some(request),
                Request::Sotw(_) => None,
            });
            let call = call::<DeltaDiscoveryRequest, DeltaResponse>(config, channel, requests, DELTA_PATH);
            Responses::Delta(Box::new(call.await?))
        }
        Mode::Sotw => {
            let requests = tokio_stream::StreamExt::filter_map(requests, |request| match request {
                Request::Sotw(request) => Some(request),
                Request::Delta(_) => None,
            });
            let call = call::<DiscoveryRequest, SotwResponse>(config, channel, requests, SOTW_PATH);
            Responses::Sotw(Box::new(call.await?))
        }
    })
}

async fn call<Req, Res>(
    config: &Config,
    channel: Channel,
    requests: impl tokio_stream::Stream<Item = Req> + Send + 'static,
    path: &'static str,
) -> Result<Streaming<Res>, Status>
where
    Req: Message + Send + 'static,
    Res: Message + Default + Send + 'static,
{
    let mut request = tonic::Request::new(requests);
    for (name, value) in (config.metadata)() {
        let name: MetadataKey<Ascii> =
            name.parse().map_err(|_| Status::invalid_argument(format!("{name:?} is no metadata name")))?;
        // The value may be a token: it is not repeated in the message.
        let mut value: MetadataValue<Ascii> =
            value.parse().map_err(|_| Status::invalid_argument(format!("the value of {name} is no metadata value")))?;
        value.set_sensitive(true);
        request.metadata_mut().insert(name, value);
    }
    let mut grpc = tonic::client::Grpc::new(channel).max_decoding_message_size(config.max_response_bytes);
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let path = PathAndQuery::from_static(path);
    let opening = grpc.streaming(request, path, ProstCodec::<Req, Res>::default());
    Ok(opening.await?.into_inner())
}

async fn connect(config: &Config, authority: &Authority) -> Result<Channel, String> {
    let uri = match authority {
        Authority::Plaintext(address) | Authority::Tls { address, .. } => format!("http://{address}"),
        Authority::Unix(_) => "http://localhost".to_owned(),
        Authority::Unavailable(reason) => return Err(reason.clone()),
    };
    let endpoint = Endpoint::from_shared(uri)
        .map_err(|error| error.to_string())?
        .connect_timeout(config.connect_timeout)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(config.keepalive_interval)
        .keep_alive_timeout(config.keepalive_timeout)
        .keep_alive_while_idle(true)
        // Configuration comes in bursts of megabytes.
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(2 << 20);
    let (authority, budget) = (authority.clone(), config.connect_timeout);
    let connector = tower::service_fn(move |_: Uri| dial(authority.clone(), budget));
    let connecting = endpoint.connect_with_connector(connector);
    match tokio::time::timeout(config.connect_timeout, connecting).await {
        Ok(Ok(channel)) => Ok(channel),
        Ok(Err(error)) => Err(deepest(&error)),
        Err(_) => Err(format!("no connection within {:?}", config.connect_timeout)),
    }
}

/// The innermost cause says most: "connection refused" and not "transport error".
fn deepest(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

trait Transport: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Transport for T {}

async fn dial(authority: Authority, budget: Duration) -> io::Result<TokioIo<Box<dyn Transport>>> {
    let stream: Box<dyn Transport> = match authority {
        Authority::Plaintext(address) => Box::new(mizzen_net::dial::connect(&address, budget).await?),
        Authority::Tls { address, server_name, config } => {
            let stream = mizzen_net::dial::connect(&address, budget).await?;
            Box::new(TlsConnector::from(config).connect(server_name, stream).await?)
        }
        Authority::Unix(path) => Box::new(UnixStream::connect(path).await?),
        Authority::Unavailable(reason) => return Err(io::Error::other(reason)),
    };
    Ok(TokioIo::new(stream))
}
