//! The task of one stream: brings requests, changes and time to the [`Stream`] and its responses to the client.

use std::future::Future;
use std::time::Duration;

use mizzen_proto::envoy::config::core::v3::Node;
use mizzen_proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::{Stream as Messages, StreamExt};
use tonic::Status;

use super::stream::{Content, Mark, Observed, Response, Stream};
use crate::Mode;
use crate::wire::Request;

/// A client that leaves responses unread for this long is given up. (One that is dead altogether is noticed earlier,
/// by keep-alive pings.)
pub const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// A stream must say who it is within this time.
pub const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// What the control plane has for one stream. Dropped when the stream ends.
pub trait Session: Content + Send + 'static {
    /// Waits until [`Self::take`] has something new; an error ends the stream with that status. Must be safe to cancel.
    fn changed(&mut self) -> impl Future<Output = Result<(), Status>> + Send;

    /// Moves on to the newest state and says what may differ in it. [`Content::resources`] answers from this state
    /// until the next call, so that what is sent together fits together.
    fn take(&mut self) -> Vec<Mark>;

    fn observe(&mut self, event: Observed);
}

/// A request of either mode.
pub(crate) trait Incoming: Send + 'static {
    const MODE: Mode;
    fn node(&mut self) -> Option<Node>;
    fn into_request(self) -> Request;
}

impl Incoming for DeltaDiscoveryRequest {
    const MODE: Mode = Mode::Delta;

    fn node(&mut self) -> Option<Node> {
        self.node.take()
    }

    fn into_request(self) -> Request {
        Request::Delta(self)
    }
}

impl Incoming for DiscoveryRequest {
    const MODE: Mode = Mode::Sotw;

    fn node(&mut self) -> Option<Node> {
        self.node.take()
    }

    fn into_request(self) -> Request {
        Request::Sotw(self)
    }
}

/// Waits for the first request, opens the session for its node and serves until either side ends it.
pub(crate) async fn drive<R, M, S>(
    mut requests: M,
    responses: mpsc::Sender<Result<Response, Status>>,
    open: impl FnOnce(Node) -> Result<S, Status>,
) where
    R: Incoming,
    M: Messages<Item = Result<R, Status>> + Unpin,
    S: Session,
{
    let first = match tokio::time::timeout(FIRST_REQUEST_TIMEOUT, requests.next()).await {
        Ok(Some(Ok(first))) => first,
        Ok(Some(Err(_)) | None) => return,
        Err(_) => return end(&responses, Status::deadline_exceeded("no discovery request came")).await,
    };
    if let Err(status) = serve(first, requests, &responses, open).await {
        end(&responses, status).await;
    }
}

async fn end(responses: &mpsc::Sender<Result<Response, Status>>, status: Status) {
    // Nobody may be there to hear it.
    let _ = tokio::time::timeout(READ_TIMEOUT, responses.send(Err(status))).await;
}

async fn serve<R, M, S>(
    mut first: R,
    mut requests: M,
    responses: &mpsc::Sender<Result<Response, Status>>,
    open: impl FnOnce(Node) -> Result<S, Status>,
) -> Result<(), Status>
where
    R: Incoming,
    M: Messages<Item = Result<R, Status>> + Unpin,
    S: Session,
{
    let node =
        first.node().ok_or_else(|| Status::invalid_argument("the first request of a stream must have a node"))?;
    let mut session = open(node)?;
    let mut stream = Stream::new(R::MODE);
    let mut request = Some(first);
    loop {
        if let Some(request) = request.take() {
            let now = Instant::now().into_std();
            stream
                .request(request.into_request(), now)
                .map_err(|error| Status::resource_exhausted(error.to_string()))?;
        }
        for mark in session.take() {
            stream.mark(mark);
        }
        for response in stream.advance(Instant::now().into_std(), &mut session) {
            match tokio::time::timeout(READ_TIMEOUT, responses.send(Ok(response))).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Ok(()),
                Err(_) => return Err(Status::deadline_exceeded("responses are not read")),
            }
        }
        for event in stream.observed() {
            session.observe(event);
        }
        let deadline = stream.deadline();
        let wake = async {
            match deadline {
                Some(at) => tokio::time::sleep_until(Instant::from_std(at)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            message = requests.next() => match message {
                Some(Ok(message)) => request = Some(message),
                // The client is gone; a reset and an orderly end are the same to us.
                Some(Err(_)) | None => return Ok(()),
            },
            changed = session.changed() => changed?,
            () = wake => {}
        }
    }
}
