//! The gRPC service `envoy.service.discovery.v3.AggregatedDiscoveryService`.
//!
//! Written by hand instead of generated, because responses are written piece by piece from shared bytes (see `body`).

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::CONTENT_TYPE;
use mizzen_proto::envoy::config::core::v3::Node;
use mizzen_proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest, DiscoveryResponse};
use prost::Message;
use tokio::sync::{Semaphore, mpsc};
use tonic::body::Body;
use tonic::codegen::{Body as HttpBody, BoxFuture, Service, StdError};
use tonic::metadata::{GRPC_CONTENT_TYPE, MetadataMap};
use tonic::server::NamedService;
use tonic::{Extensions, Status};

use super::body::{Requests, ResponseBody};
use super::drive::{ANSWERS, Incoming, Question, Session, drive};
use crate::Mode;
use crate::wire::{DELTA_PATH, SERVICE_NAME, SOTW_PATH};

/// Largest request read. The longest honest one lists the versions of everything that a proxy holds.
pub const MAX_REQUEST_BYTES: usize = 16 << 20;

/// Responses that may wait for a slow reader: one of each type.
const QUEUE: usize = 5;

/// Who may have a stream, and what each is served.
pub trait Sessions: Send + Sync + 'static {
    /// What is known of the caller before it says which node it is.
    type Caller: Send + Sync + 'static;
    type Session: Session;

    /// Decides before anything is read from the stream.
    fn admit(
        &self,
        extensions: &Extensions,
        metadata: &MetadataMap,
    ) -> impl Future<Output = Result<Self::Caller, Status>> + Send;

    /// Decides when the first request has named the node.
    fn open(&self, caller: Self::Caller, node: Node, mode: Mode) -> Result<Self::Session, Status>;

    /// Answers what a tool asks about the control plane itself.
    fn inspect(&self, _: &Self::Caller, question: Question<'_>) -> Result<DiscoveryResponse, Status> {
        Err(Status::invalid_argument(format!("nothing is known of the type {:.100}", question.type_url)))
    }
}

/// The service.
#[derive(Debug)]
pub struct Discovery<S> {
    sessions: Arc<S>,
    /// Of answers to questions of tools, until they are written.
    places: Arc<Semaphore>,
}

impl<S> Discovery<S> {
    pub fn new(sessions: Arc<S>) -> Self {
        Self { sessions, places: Arc::new(Semaphore::new(ANSWERS)) }
    }
}

impl<S> Clone for Discovery<S> {
    fn clone(&self) -> Self {
        Self { sessions: self.sessions.clone(), places: self.places.clone() }
    }
}

impl<S> NamedService for Discovery<S> {
    const NAME: &'static str = SERVICE_NAME;
}

impl<S, B> Service<http::Request<B>> for Discovery<S>
where
    S: Sessions,
    B: HttpBody + Send + Unpin + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let (sessions, places) = (self.sessions.clone(), self.places.clone());
        match request.uri().path() {
            DELTA_PATH => Box::pin(answer::<DeltaDiscoveryRequest, _, _>(sessions, places, request)),
            SOTW_PATH => Box::pin(answer::<DiscoveryRequest, _, _>(sessions, places, request)),
            _ => Box::pin(async { Ok(Status::unimplemented("no such method").into_http()) }),
        }
    }
}

async fn answer<R, S, B>(
    sessions: Arc<S>,
    places: Arc<Semaphore>,
    request: http::Request<B>,
) -> Result<http::Response<Body>, Infallible>
where
    R: Incoming + Message + Default,
    S: Sessions,
    B: HttpBody + Send + Unpin + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    let (parts, body) = request.into_parts();
    let metadata = MetadataMap::from_headers(parts.headers);
    let caller = match sessions.admit(&parts.extensions, &metadata).await {
        Ok(caller) => caller,
        Err(status) => return Ok(status.into_http()),
    };
    let (responses, queue) = mpsc::channel(QUEUE);
    // Ends with its stream: by an error or the end of the requests, or when the queue is no longer read.
    tokio::spawn(drive(Requests::<B, R>::new(body, MAX_REQUEST_BYTES), responses, sessions, caller, places));
    let mut response = http::Response::new(Body::new(ResponseBody::new(queue)));
    response.headers_mut().insert(CONTENT_TYPE, GRPC_CONTENT_TYPE);
    Ok(response)
}
