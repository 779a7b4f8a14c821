//! HTTP/2 settings and sending, over the `h2` crate's streams.
//!
//! Limits are on by default: streams at once, resets of either side, decoded header bytes, tiny and empty frames.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use mizzen_snapshot::http::Http2Limits;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::stream::Stream;

/// Resets by the client of streams that were not even taken up, and resets of ours for its errors, after which the
/// connection ends (rapid reset, "MadeYouReset").
const MAX_PENDING_RESETS: usize = 20;
const MAX_LOCAL_ERROR_RESETS: usize = 256;
/// Response bytes that one stream may have waiting for its client.
const SEND_BUFFER: usize = 64 * 1024;

/// Settings of the accepting side.
pub fn server(limits: &Http2Limits, max_header_bytes: usize) -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(limits.initial_stream_window)
        .initial_connection_window_size(limits.initial_connection_window)
        .max_concurrent_streams(limits.max_concurrent_streams)
        .max_header_list_size(u32::try_from(max_header_bytes).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(Some(MAX_LOCAL_ERROR_RESETS))
        .max_concurrent_reset_streams(limits.max_concurrent_streams as usize)
        .max_send_buffer_size(SEND_BUFFER);
    builder
}

/// Settings of the dialling side.
pub fn client() -> h2::client::Builder {
    let mut builder = h2::client::Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(1024 * 1024)
        .initial_connection_window_size(4 * 1024 * 1024)
        .max_header_list_size(64 * 1024)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(Some(MAX_LOCAL_ERROR_RESETS))
        .max_send_buffer_size(SEND_BUFFER);
    builder
}

/// Sends bytes within the peer's flow-control window.
pub struct Sender {
    stream: h2::SendStream<Bytes>,
    /// Taken from the body, waiting for the window.
    pending: Bytes,
}

impl Sender {
    pub fn new(stream: h2::SendStream<Bytes>) -> Self {
        Self { stream, pending: Bytes::new() }
    }

    pub fn push(&mut self, data: Bytes) {
        debug_assert!(self.pending.is_empty(), "pushed before the last piece was sent");
        self.stream.reserve_capacity(data.len());
        self.pending = data;
    }

    /// Ready when everything pushed went into the connection's own buffer.
    pub fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        while !self.pending.is_empty() {
            if self.stream.capacity() == 0 {
                match ready!(self.stream.poll_capacity(cx)) {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Poll::Ready(Err(error)),
                    None => return Poll::Ready(Err(h2::Reason::CANCEL.into())),
                }
            }
            let count = self.stream.capacity().min(self.pending.len());
            if count == 0 {
                continue;
            }
            let piece = self.pending.split_to(count);
            self.stream.send_data(piece, false)?;
        }
        Poll::Ready(Ok(()))
    }

    pub fn end(&mut self, trailers: Option<HeaderMap>) -> Result<(), h2::Error> {
        match trailers {
            Some(trailers) => self.stream.send_trailers(trailers),
            None => self.stream.send_data(Bytes::new(), true),
        }
    }

    pub fn reset(&mut self, reason: h2::Reason) {
        self.stream.send_reset(reason);
    }

    pub fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<Result<h2::Reason, h2::Error>> {
        self.stream.poll_reset(cx)
    }

    pub async fn closed(&mut self) {
        let _ = poll_fn(|cx| self.poll_reset(cx)).await;
    }
}

/// A stream of which the first bytes were read already.
pub struct Rewound {
    read: BytesMut,
    io: Stream,
}

impl Rewound {
    pub fn new(io: Stream, read: BytesMut) -> Self {
        Self { read, io }
    }
}

impl AsyncRead for Rewound {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.read.is_empty() {
            return Pin::new(&mut this.io).poll_read(cx, buffer);
        }
        let count = this.read.len().min(buffer.remaining());
        buffer.put_slice(&this.read.split_to(count));
        if this.read.is_empty() {
            this.read = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}
