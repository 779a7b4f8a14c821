//! The bodies of a discovery call as they cross HTTP/2: gRPC's frames, without a whole message in memory.
//!
//! A response is written piece by piece, each when there is room for it: small resources are gathered, large ones go out
//! as the very bytes that all streams share (see `wire`). So what a stream that is slow to read keeps in memory is
//! [`AHEAD`] pieces, however long its responses are. What a request took is given back when it has been read.

use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame};
use prost::Message;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::Stream as Messages;
use tokio_util::sync::PollSemaphore;
use tonic::Status;
use tonic::codegen::StdError;

use super::stream::Response;
use crate::wire::{FRAME_HEADER, Piece, Pieces};

/// Pieces of one stream that are gathered and not yet written to its socket.
const AHEAD: usize = 2;

/// What goes out on a stream.
#[derive(Debug)]
pub(super) enum Outgoing {
    Response(Response),
    /// A message that is encoded already, with gRPC's frame header.
    Message(Bytes),
}

impl Outgoing {
    /// A message that is no response with resources of a proxy. It keeps its place until it is written.
    pub(super) fn message(message: &impl Message, place: OwnedSemaphorePermit) -> Result<Self, Status> {
        let length = message.encoded_len();
        let mut bytes = Vec::with_capacity(FRAME_HEADER + length);
        bytes.put_u8(0);
        let announced = u32::try_from(length);
        bytes.put_u32(announced.map_err(|_| Status::out_of_range("the answer is longer than a message may be"))?);
        message.encode(&mut bytes).map_err(|error| Status::internal(error.to_string()))?;
        Ok(Self::Message(Bytes::from_owner(Gathered { bytes, _room: Some(place) })))
    }
}

/// Responses to bytes.
#[derive(Debug)]
pub(super) struct ResponseBody {
    responses: mpsc::Receiver<Result<Outgoing, Status>>,
    writing: Option<Pieces>,
    room: PollSemaphore,
    ended: bool,
}

impl ResponseBody {
    pub(super) fn new(responses: mpsc::Receiver<Result<Outgoing, Status>>) -> Self {
        Self { responses, writing: None, room: PollSemaphore::new(Arc::new(Semaphore::new(AHEAD))), ended: false }
    }

    fn end(&mut self, status: Status) -> Frame<Bytes> {
        self.ended = true;
        let mut trailers = HeaderMap::new();
        if let Err(unwritable) = status.add_header(&mut trailers) {
            trailers.insert(Status::GRPC_STATUS, (unwritable.code() as i32).into());
        }
        Frame::trailers(trailers)
    }
}

/// Gathered bytes that hold their room until they are written.
struct Gathered {
    bytes: Vec<u8>,
    _room: Option<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Gathered {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        loop {
            if self.writing.is_none() {
                match ready!(self.responses.poll_recv(cx)) {
                    Some(Ok(Outgoing::Response(response))) => self.writing = Some(Pieces::new(response)),
                    Some(Ok(Outgoing::Message(bytes))) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                    Some(Err(status)) => return Poll::Ready(Some(Ok(self.end(status)))),
                    None => return Poll::Ready(Some(Ok(self.end(Status::ok(""))))),
                }
            }
            let room = ready!(self.room.poll_acquire(cx));
            match self.writing.as_mut().and_then(Pieces::next) {
                Some(Piece::Gathered(bytes)) => {
                    let bytes = Bytes::from_owner(Gathered { bytes, _room: room });
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
                Some(Piece::Shared(bytes)) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                None => self.writing = None,
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

/// Bytes to requests.
#[derive(Debug)]
pub(super) struct Requests<B, R> {
    body: B,
    read: BytesMut,
    limit: usize,
    kind: PhantomData<fn() -> R>,
}

impl<B, R> Requests<B, R> {
    /// Reads requests of at most `limit` bytes.
    pub(super) fn new(body: B, limit: usize) -> Self {
        Self { body, read: BytesMut::new(), limit, kind: PhantomData }
    }
}

impl<B, R: Message + Default> Requests<B, R> {
    /// The next request, if all of it is there.
    fn decode(&mut self) -> Result<Option<R>, Status> {
        let Some((mut header, _)) = self.read.split_at_checked(FRAME_HEADER) else { return Ok(None) };
        if header.get_u8() != 0 {
            return Err(Status::unimplemented("requests are read uncompressed only"));
        }
        let length = header.get_u32() as usize;
        if length > self.limit {
            return Err(Status::out_of_range(format!("a request of {length} bytes is longer than {}", self.limit)));
        }
        if self.read.len() - FRAME_HEADER < length {
            return Ok(None);
        }
        self.read.advance(FRAME_HEADER);
        let message = self.read.split_to(length);
        if self.read.is_empty() {
            // Most streams are silent most of the time: nothing is kept for the next request.
            self.read = BytesMut::new();
        }
        let request = R::decode(message);
        request.map(Some).map_err(|error| Status::invalid_argument(format!("a request cannot be read: {error}")))
    }
}

impl<B, R> Messages for Requests<B, R>
where
    B: Body + Unpin,
    B::Error: Into<StdError>,
    R: Message + Default,
{
    type Item = Result<R, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match self.decode() {
                Ok(None) => {}
                Ok(Some(request)) => return Poll::Ready(Some(Ok(request))),
                Err(status) => return Poll::Ready(Some(Err(status))),
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                None if self.read.is_empty() => return Poll::Ready(None),
                None => return Poll::Ready(Some(Err(Status::internal("a request ended before its end")))),
                Some(Err(error)) => return Poll::Ready(Some(Err(Status::from_error(error.into())))),
                Some(Ok(frame)) => {
                    // Trailers say nothing here.
                    if let Ok(data) = frame.into_data() {
                        self.read.put(data);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
