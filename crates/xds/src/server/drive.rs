//! The task of one stream: brings requests, changes and time to the [`Stream`] and its responses to the client.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use mizzen_proto::envoy::config::core::v3::Node;
use mizzen_proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use tokio_stream::{Stream as Messages, StreamExt};
use tonic::Status;

use super::body::Outgoing;
use super::service::Sessions;
use super::stream::{Content, Mark, Observed, Stream};
use crate::Mode;
use crate::wire::Request;

/// A client that leaves responses unread for this long is given up. (One that is dead altogether is noticed earlier,
/// by keep-alive pings.)
pub const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// A stream must say who it is within this time.
pub const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// A stream of questions on which nothing more is asked for so long ends.
const QUESTIONS_TIMEOUT: Duration = Duration::from_secs(60);
/// Answers to questions that are in memory at once. Other than responses they share nothing, and one may be as long as all
/// that a proxy has; so there are few, however many ask and do not read.
pub(super) const ANSWERS: usize = 4;
/// So long a question waits for its turn.
const TURN: Duration = Duration::from_secs(10);

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
    /// What a tool asks about the control plane itself, if this is no request of a proxy.
    fn question(&self) -> Option<Question<'_>> {
        None
    }
    fn into_request(self) -> Request;
}

/// A request of a type under [`TOOLS`].
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    pub type_url: &'a str,
    pub names: &'a [String],
}

/// Types that begin so are no resources: Istio's tools (`istioctl proxy-status`) ask about the control plane by them.
pub const TOOLS: &str = "istio.io/";

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

    fn question(&self) -> Option<Question<'_>> {
        self.type_url.starts_with(TOOLS).then_some(Question { type_url: &self.type_url, names: &self.resource_names })
    }

    fn into_request(self) -> Request {
        Request::Sotw(self)
    }
}

/// Waits for the first request, opens the session for its node and serves until either side ends it. A first request that is
/// a tool's question makes it a stream of questions.
pub(super) async fn drive<R, M, S>(
    mut requests: M,
    responses: mpsc::Sender<Result<Outgoing, Status>>,
    sessions: Arc<S>,
    caller: S::Caller,
    places: Arc<Semaphore>,
) where
    R: Incoming,
    M: Messages<Item = Result<R, Status>> + Unpin + Send,
    S: Sessions,
{
    let first = match tokio::time::timeout(FIRST_REQUEST_TIMEOUT, requests.next()).await {
        Ok(Some(Ok(first))) => first,
        Ok(Some(Err(_)) | None) => return,
        Err(_) => return end(&responses, Status::deadline_exceeded("no discovery request came")).await,
    };
    let outcome = if first.question().is_some() {
        answer(first, requests, &responses, &*sessions, &caller, &places).await
    } else {
        serve(first, requests, &responses, |node| sessions.open(caller, node, R::MODE)).await
    };
    if let Err(status) = outcome {
        end(&responses, status).await;
    }
}

/// Answers questions until the tool goes.
async fn answer<R, M, S>(
    first: R,
    mut requests: M,
    responses: &mpsc::Sender<Result<Outgoing, Status>>,
    sessions: &S,
    caller: &S::Caller,
    places: &Arc<Semaphore>,
) -> Result<(), Status>
where
    R: Incoming,
    M: Messages<Item = Result<R, Status>> + Unpin,
    S: Sessions,
{
    let mut request = Some(first);
    let mut answered: Option<(String, Vec<String>)> = None;
    while let Some(now) = request.take() {
        if let Some(question) = now.question() {
            let asked = (question.type_url.to_owned(), question.names.to_vec());
            // The acknowledgement of the answer is the same question once more.
            if answered.as_ref() != Some(&asked) {
                let Ok(Ok(place)) = tokio::time::timeout(TURN, places.clone().acquire_owned()).await else {
                    return Err(Status::resource_exhausted(
                        "others have asked and not read their answers yet; try again later",
                    ));
                };
                let answer = Outgoing::message(&sessions.inspect(caller, question)?, place)?;
                match tokio::time::timeout(READ_TIMEOUT, responses.send(Ok(answer))).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return Ok(()),
                    Err(_) => return Err(Status::deadline_exceeded("answers are not read")),
                }
                answered = Some(asked);
            }
        }
        request = match tokio::time::timeout(QUESTIONS_TIMEOUT, requests.next()).await {
            Ok(Some(Ok(next))) => Some(next),
            Ok(Some(Err(_)) | None) => None,
            Err(_) => return Err(Status::deadline_exceeded("nothing more was asked")),
        };
    }
    Ok(())
}

async fn end(responses: &mpsc::Sender<Result<Outgoing, Status>>, status: Status) {
    // Nobody may be there to hear it.
    let _ = tokio::time::timeout(READ_TIMEOUT, responses.send(Err(status))).await;
}

async fn serve<R, M, S>(
    mut first: R,
    mut requests: M,
    responses: &mpsc::Sender<Result<Outgoing, Status>>,
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
            match tokio::time::timeout(READ_TIMEOUT, responses.send(Ok(Outgoing::Response(response)))).await {
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

#[cfg(test)]
mod tests;
