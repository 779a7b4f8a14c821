//! The connection: buffers, and polling them.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode};
use http_body::Frame;
use tokio::io::AsyncWrite;
use tokio_util::io::poll_read_buf;

use super::decode::{Decoded, Decoder};
use super::head::{self, Encoder, Request, Response};
use super::{HeadError, Limits};
use crate::stream::Stream;

/// Room made for a head; most heads fit.
const HEAD_ROOM: usize = 4 * 1024;
/// Room made for body bytes, doubled up to [`BODY_ROOM_MAX`] while a peer fills it.
const BODY_ROOM: usize = 8 * 1024;
const BODY_ROOM_MAX: usize = 64 * 1024;
/// Pieces smaller than this are copied behind the head, so that one write takes both.
const COPY_BELOW: usize = 4 * 1024;
/// Unsent bytes beyond which a sender has to wait.
pub const HIGH_WATER: usize = 64 * 1024;
/// How much of the next request is read while the current one is being answered.
const PIPELINE_ROOM: usize = 16 * 1024;

/// A handle; clones share the connection. Single-threaded by construction.
#[derive(Clone)]
pub struct Connection(Rc<RefCell<Inner>>);

struct Inner {
    io: Stream,
    read: BytesMut,
    /// How much of `read` was searched for the end of a head.
    scanned: usize,
    room: usize,
    write: WriteQueue,
    decoder: Decoder,
    limits: Limits,
    eof: bool,
    /// The sending side is closed.
    shut: bool,
    /// The client waits for `100 Continue` before it sends its body.
    expects_continue: bool,
    received: u64,
    sent: u64,
}

#[derive(Default)]
struct WriteQueue {
    pieces: VecDeque<Bytes>,
    /// Written after `pieces`.
    tail: BytesMut,
    length: usize,
}

impl Connection {
    pub fn new(io: Stream, limits: Limits) -> Self {
        Self(Rc::new(RefCell::new(Inner {
            io,
            read: BytesMut::new(),
            scanned: 0,
            room: BODY_ROOM,
            write: WriteQueue::default(),
            decoder: Decoder::Done,
            limits,
            eof: false,
            shut: false,
            expects_continue: false,
            received: 0,
            sent: 0,
        })))
    }

    /// The next request, or `Closed` when the client is done.
    pub async fn read_request(&self) -> Result<Request, HeadError> {
        poll_fn(|cx| self.0.borrow_mut().poll_request(cx)).await
    }

    pub fn poll_request(&self, cx: &mut Context<'_>) -> Poll<Result<Request, HeadError>> {
        self.0.borrow_mut().poll_request(cx)
    }

    /// Whether the client begins with HTTP/2's preface. Waits for as many bytes as it takes to tell; none is lost.
    pub async fn is_http2_preface(&self) -> Result<bool, HeadError> {
        const START: &[u8] = b"PRI * HTTP/2.0";
        poll_fn(|cx| {
            let mut inner = self.0.borrow_mut();
            loop {
                let compared = inner.read.len().min(START.len());
                if inner.read[..compared] != START[..compared] {
                    return Poll::Ready(Ok(false));
                }
                if compared == START.len() {
                    return Poll::Ready(Ok(true));
                }
                if inner.eof {
                    return Poll::Ready(Err(HeadError::Closed));
                }
                ready!(inner.poll_fill(cx, HEAD_ROOM))?;
            }
        })
        .await
    }

    /// The next response head; informational ones come out like any other.
    pub fn poll_response(&self, cx: &mut Context<'_>, method: &Method) -> Poll<Result<Response, HeadError>> {
        self.0.borrow_mut().poll_response(cx, method)
    }

    /// The next piece of the body of the message whose head was read last.
    pub fn poll_body(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HeadError>>> {
        self.0.borrow_mut().poll_body(cx)
    }

    /// The client waits to be told to go on; that happens once somebody asks for the body.
    pub fn expect_continue(&self) {
        self.0.borrow_mut().expects_continue = true;
    }

    /// How the body being read is framed, and how much is left.
    pub fn decoder(&self) -> Decoder {
        self.0.borrow().decoder
    }

    pub fn queue_request(&self, method: &Method, target: &str, host: &[u8], headers: &HeaderMap, encoder: Encoder) {
        let mut inner = self.0.borrow_mut();
        inner.write.append(|tail| head::write_request(tail, method, target, host, headers, encoder));
    }

    /// `connection` is the value of a `connection` header, when one is due.
    pub fn queue_response(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        encoder: Encoder,
        connection: Option<&'static str>,
    ) {
        let mut inner = self.0.borrow_mut();
        inner.expects_continue = false;
        inner.write.append(|tail| head::write_response(tail, status, headers, encoder, connection));
    }

    /// A piece of the outgoing body. An encoder with a length is counted down; more bytes than were promised are an error
    /// of the caller and refused.
    pub fn queue_data(&self, encoder: &mut Encoder, data: Bytes) -> Result<(), BodyLengthError> {
        if data.is_empty() {
            return Ok(());
        }
        let mut inner = self.0.borrow_mut();
        match encoder {
            Encoder::None => return Err(BodyLengthError),
            Encoder::Length(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or(BodyLengthError)?;
                inner.write.push(data);
            }
            Encoder::Chunked => {
                let mut line = [0; 18];
                inner.write.append(|tail| tail.put_slice(chunk_line(&mut line, data.len())));
                inner.write.push(data);
                inner.write.append(|tail| tail.put_slice(b"\r\n"));
            }
            Encoder::UntilClose => inner.write.push(data),
        }
        Ok(())
    }

    /// The end of the outgoing body. Fails when fewer bytes came than were promised: the peer must not take the
    /// next message's bytes for the rest.
    pub fn queue_end(&self, encoder: Encoder, trailers: Option<&HeaderMap>) -> Result<(), BodyLengthError> {
        match encoder {
            Encoder::Length(left) if left > 0 => Err(BodyLengthError),
            Encoder::Chunked => {
                self.0.borrow_mut().write.append(|tail| {
                    tail.put_slice(b"0\r\n");
                    match trailers {
                        Some(trailers) => head::write_trailers(tail, trailers),
                        None => tail.put_slice(b"\r\n"),
                    }
                });
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Bytes that are queued and not yet taken by the kernel.
    pub fn unsent(&self) -> usize {
        self.0.borrow().write.length
    }

    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_flush(cx)
    }

    pub async fn flush(&self) -> io::Result<()> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Ready when the peer has closed or broken the connection. Bytes of a next message are kept, up to a limit; then
    /// the connection is no longer watched.
    pub fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut inner = self.0.borrow_mut();
        while !inner.eof {
            if inner.read.len() >= PIPELINE_ROOM {
                return Poll::Pending;
            }
            match inner.poll_fill(cx, HEAD_ROOM) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(()),
            }
        }
        Poll::Ready(())
    }

    /// Whether an idle connection may carry a request: nothing arrived, and the peer has not closed. TLS records that
    /// carry no data (session tickets) are taken in.
    pub fn is_idle_and_open(&self) -> bool {
        let mut inner = self.0.borrow_mut();
        if inner.eof || !inner.read.is_empty() || inner.write.length > 0 || !inner.decoder.is_done() {
            return false;
        }
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let open = matches!(inner.poll_fill(&mut cx, 64), Poll::Pending);
        inner.read = BytesMut::new();
        open
    }

    /// Gives buffers back that an idle connection does not need.
    pub fn shrink(&self) {
        let mut inner = self.0.borrow_mut();
        if inner.read.is_empty() {
            inner.read = BytesMut::new();
            inner.scanned = 0;
            inner.room = BODY_ROOM;
        }
        if inner.write.length == 0 {
            inner.write = WriteQueue::default();
        }
    }

    /// Bytes read from and written to the peer since the connection began.
    pub fn counts(&self) -> (u64, u64) {
        let inner = self.0.borrow();
        (inner.received, inner.sent)
    }

    /// Unread bytes that have arrived.
    pub fn buffered(&self) -> usize {
        self.0.borrow().read.len()
    }

    pub fn set_limits(&self, limits: Limits) {
        self.0.borrow_mut().limits = limits;
    }

    /// From now on bytes are opaque, both ways.
    pub fn start_tunnel(&self) {
        self.0.borrow_mut().decoder = Decoder::UntilEof;
    }

    /// Closes the sending side after everything queued was sent.
    pub async fn shutdown(&self) -> io::Result<()> {
        self.flush().await?;
        poll_fn(|cx| self.poll_shutdown(cx)).await
    }

    /// Closes the sending side. Idempotent.
    pub fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.borrow_mut();
        if !inner.shut {
            ready!(Pin::new(&mut inner.io).poll_shutdown(cx))?;
            inner.shut = true;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads and drops what the peer still sends, so that closing does not reset what it has not read yet.
    /// Ends at the peer's close or after `limit` bytes; the caller bounds the time.
    pub async fn drain(&self, mut limit: usize) {
        poll_fn(|cx| {
            let mut inner = self.0.borrow_mut();
            loop {
                limit = limit.saturating_sub(inner.read.len());
                inner.read.clear();
                if limit == 0 || inner.eof {
                    return Poll::Ready(());
                }
                match inner.poll_fill(cx, BODY_ROOM) {
                    Poll::Ready(Ok(_)) => {}
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await;
    }

    /// The stream and what was read of it, when this is the last handle.
    pub fn into_parts(self) -> Option<(Stream, BytesMut)> {
        Rc::try_unwrap(self.0).ok().map(|inner| {
            let inner = inner.into_inner();
            (inner.io, inner.read)
        })
    }
}

/// A body that is longer or shorter than its `content-length`.
#[derive(Debug, thiserror::Error)]
#[error("body length differs from content-length")]
pub struct BodyLengthError;

impl Inner {
    fn poll_request(&mut self, cx: &mut Context<'_>) -> Poll<Result<Request, HeadError>> {
        let head = ready!(self.poll_head(cx))?;
        let request = head::parse_request(head, self.limits)?;
        self.decoder = request.body;
        Poll::Ready(Ok(request))
    }

    fn poll_response(&mut self, cx: &mut Context<'_>, method: &Method) -> Poll<Result<Response, HeadError>> {
        let head = ready!(self.poll_head(cx))?;
        let response = head::parse_response(head, self.limits, method)?;
        self.decoder = response.body;
        Poll::Ready(Ok(response))
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, HeadError>> {
        loop {
            // An empty line before a request is tolerated (RFC 9112, section 2.2).
            while self.scanned == 0 && self.read.starts_with(b"\r\n") {
                self.read.advance(2);
            }
            if let Some(end) = head::find_end(&self.read, &mut self.scanned, self.limits)? {
                self.scanned = 0;
                return Poll::Ready(Ok(self.read.split_to(end).freeze()));
            }
            if self.eof {
                let error = if self.read.is_empty() { HeadError::Closed } else { HeadError::Truncated };
                return Poll::Ready(Err(error));
            }
            ready!(self.poll_fill(cx, HEAD_ROOM))?;
        }
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HeadError>>> {
        if std::mem::take(&mut self.expects_continue) && self.read.is_empty() {
            self.write.append(|tail| tail.put_slice(b"HTTP/1.1 100 Continue\r\n\r\n"));
            // Nothing else is queued on this side, so these few bytes go out at once.
            if let Poll::Ready(Err(error)) = self.poll_flush(cx) {
                return Poll::Ready(Some(Err(error.into())));
            }
        }
        loop {
            match self.decoder.decode(&mut self.read) {
                Ok(Decoded::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(Decoded::Trailers(trailers)) => return Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                Ok(Decoded::End) => return Poll::Ready(None),
                Ok(Decoded::More) => {}
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
            if self.eof {
                if self.decoder == Decoder::UntilEof {
                    self.decoder = Decoder::Done;
                    return Poll::Ready(None);
                }
                return Poll::Ready(Some(Err(HeadError::Truncated)));
            }
            let room = match self.decoder {
                Decoder::Length(left) => self.room.min(usize::try_from(left).unwrap_or(usize::MAX).max(HEAD_ROOM)),
                _ => self.room,
            };
            match ready!(self.poll_fill(cx, room)) {
                Ok(count) if count == room => self.room = (self.room * 2).min(BODY_ROOM_MAX),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
            }
        }
    }

    /// Reads once. Returns the number of bytes; zero also sets `eof`.
    fn poll_fill(&mut self, cx: &mut Context<'_>, room: usize) -> Poll<io::Result<usize>> {
        if self.read.capacity() - self.read.len() < room.min(HEAD_ROOM) / 2 || self.read.is_empty() {
            self.read.reserve(room);
        }
        let count = ready!(poll_read_buf(Pin::new(&mut self.io), cx, &mut (&mut self.read).limit(room)))?;
        if count == 0 {
            self.eof = true;
        }
        self.received += count as u64;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.write.length > 0 {
            let count = ready!(self.write.poll_write(cx, &mut self.io))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += count as u64;
        }
        Pin::new(&mut self.io).poll_flush(cx)
    }
}

/// Hexadecimal length and CRLF.
fn chunk_line(line: &mut [u8; 18], length: usize) -> &[u8] {
    let digits = ((usize::BITS - length.leading_zeros()).div_ceil(4) as usize).max(1);
    for (index, byte) in line[..digits].iter_mut().enumerate() {
        *byte = b"0123456789abcdef"[length >> (4 * (digits - 1 - index)) & 0xf];
    }
    line[digits..digits + 2].copy_from_slice(b"\r\n");
    &line[..digits + 2]
}

impl WriteQueue {
    fn append(&mut self, write: impl FnOnce(&mut BytesMut)) {
        let before = self.tail.len();
        write(&mut self.tail);
        self.length += self.tail.len() - before;
    }

    fn push(&mut self, data: Bytes) {
        self.length += data.len();
        if data.len() < COPY_BELOW {
            self.tail.extend_from_slice(&data);
        } else {
            if !self.tail.is_empty() {
                self.pieces.push_back(self.tail.split().freeze());
            }
            self.pieces.push_back(data);
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, io: &mut Stream) -> Poll<io::Result<usize>> {
        let count = if self.pieces.is_empty() {
            ready!(Pin::new(io).poll_write(cx, &self.tail))?
        } else {
            let mut slices = [IoSlice::new(&[]); 16];
            let mut used = 0;
            for (slot, piece) in slices.iter_mut().zip(&self.pieces) {
                *slot = IoSlice::new(piece);
                used += 1;
            }
            if used < slices.len() && !self.tail.is_empty() {
                slices[used] = IoSlice::new(&self.tail);
                used += 1;
            }
            ready!(Pin::new(io).poll_write_vectored(cx, &slices[..used]))?
        };
        self.consume(count);
        Poll::Ready(Ok(count))
    }

    fn consume(&mut self, mut count: usize) {
        self.length -= count;
        while let Some(front) = self.pieces.front_mut() {
            if count < front.len() {
                front.advance(count);
                return;
            }
            count -= front.len();
            self.pieces.pop_front();
        }
        if count == self.tail.len() {
            self.tail.clear();
        } else {
            self.tail.advance(count);
        }
    }
}
