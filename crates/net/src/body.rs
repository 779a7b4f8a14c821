//! A message body as it is passed from one connection to another.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::Frame;

use crate::http1::{self, Decoder, HeadError};

/// Where the bytes come from. Pulled by the receiving side, which is what makes back-pressure.
pub enum Body {
    Empty,
    /// Bytes at hand.
    Full(Bytes),
    /// Read from an HTTP/1 connection.
    Http1(http1::Connection),
    /// Received on an HTTP/2 stream; with the length that its `content-length` promises.
    Http2 {
        stream: h2::RecvStream,
        length: Option<u64>,
    },
    /// Filled by somebody else on this thread, for instance with a copy for a mirror.
    Channel {
        frames: tokio::sync::mpsc::UnboundedReceiver<Frame<Bytes>>,
        length: Option<u64>,
    },
    /// What was kept of a body for another try, then the rest of it.
    Replay {
        kept: Bytes,
        rest: Box<Self>,
    },
}

#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error(transparent)]
    Http1(#[from] HeadError),
    #[error("stream ended: {0}")]
    Http2(#[from] h2::Error),
}

impl Body {
    pub fn from_static(text: &'static str) -> Self {
        Self::Full(Bytes::from_static(text.as_bytes()))
    }

    /// Shared bytes without a copy.
    pub fn from_shared(bytes: Arc<[u8]>) -> Self {
        if bytes.is_empty() { Self::Empty } else { Self::Full(Bytes::from_owner(bytes)) }
    }

    /// The body of a request or response that an HTTP/1 head announced.
    pub fn of_http1(connection: &http1::Connection, decoder: Decoder) -> Self {
        if decoder.is_done() { Self::Empty } else { Self::Http1(connection.clone()) }
    }

    pub fn of_http2(stream: h2::RecvStream, headers: &http::HeaderMap) -> Self {
        if stream.is_end_stream() {
            return Self::Empty;
        }
        let length = headers
            .get(http::header::CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok())
            .and_then(|text| text.parse().ok());
        Self::Http2 { stream, length }
    }

    /// Nothing (more) will come, trailers included.
    pub fn is_end(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(bytes) => bytes.is_empty(),
            Self::Http1(connection) => connection.decoder().is_done(),
            Self::Http2 { stream, .. } => stream.is_end_stream(),
            Self::Channel { frames, .. } => frames.is_closed() && frames.is_empty(),
            Self::Replay { kept, rest } => kept.is_empty() && rest.is_end(),
        }
    }

    /// Number of bytes to come, when that is known.
    pub fn length(&self) -> Option<u64> {
        match self {
            Self::Empty => Some(0),
            Self::Full(bytes) => Some(bytes.len() as u64),
            Self::Http1(connection) => match connection.decoder() {
                Decoder::Done => Some(0),
                Decoder::Length(left) => Some(left),
                Decoder::Chunked(_) | Decoder::UntilEof => None,
            },
            Self::Http2 { stream, length } => {
                if stream.is_end_stream() {
                    Some(0)
                } else {
                    *length
                }
            }
            Self::Channel { length, .. } => *length,
            Self::Replay { kept, rest } => rest.length().map(|rest| rest + kept.len() as u64),
        }
    }

    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = Self::Empty;
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Self::Http1(connection) => {
                let frame = ready!(connection.poll_body(cx));
                Poll::Ready(frame.map(|frame| frame.map_err(BodyError::from)))
            }
            Self::Http2 { stream, .. } => poll_http2(stream, cx),
            Self::Channel { frames, .. } => frames.poll_recv(cx).map(|frame| frame.map(Ok)),
            Self::Replay { kept, rest } => {
                let bytes = std::mem::take(kept);
                let rest = std::mem::replace(&mut **rest, Self::Empty);
                *self = rest;
                if bytes.is_empty() { self.poll_frame(cx) } else { Poll::Ready(Some(Ok(Frame::data(bytes)))) }
            }
        }
    }

    /// Reads the body to its end, if it has at most `limit` bytes. On overflow gives back a body that starts with what
    /// was read. Trailers are dropped: only used where they carry nothing.
    pub async fn collect(mut self, limit: usize) -> Result<Bytes, Collect> {
        let mut kept = BytesMut::new();
        loop {
            match std::future::poll_fn(|cx| self.poll_frame(cx)).await {
                None => return Ok(kept.freeze()),
                Some(Err(error)) => return Err(Collect::Failed(error)),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        kept.extend_from_slice(&data);
                        if kept.len() > limit {
                            return Err(Collect::TooLarge(Self::Replay { kept: kept.freeze(), rest: Box::new(self) }));
                        }
                    }
                }
            }
        }
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        if text.is_empty() { Self::Empty } else { Self::Full(text.into()) }
    }
}

/// Why a body was not collected.
pub enum Collect {
    TooLarge(Body),
    Failed(BodyError),
}

fn poll_http2(stream: &mut h2::RecvStream, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
    match ready!(stream.poll_data(cx)) {
        Some(Ok(data)) => {
            // The peer may send as much again once we have taken it; whoever pulls frames bounds what is held.
            let _ = stream.flow_control().release_capacity(data.len());
            Poll::Ready(Some(Ok(Frame::data(data))))
        }
        // A reset without error after the whole response is a normal end (RFC 9113, section 8.1).
        Some(Err(error)) if error.reason() == Some(h2::Reason::NO_ERROR) && error.is_remote() => Poll::Ready(None),
        Some(Err(error)) => Poll::Ready(Some(Err(error.into()))),
        None => match ready!(stream.poll_trailers(cx)) {
            Ok(Some(trailers)) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            Ok(None) => Poll::Ready(None),
            Err(error) => Poll::Ready(Some(Err(error.into()))),
        },
    }
}
