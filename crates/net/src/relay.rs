//! Opaque bytes both ways, until both sides have closed.
//!
//! A side that closes its sending half is passed on as that; the other direction goes on.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWrite;
use tokio::time::Instant;
use tokio_util::io::poll_read_buf;

use crate::http1::Connection;
use crate::http1::connection::HIGH_WATER;
use crate::stream::Stream;
use crate::timer::Deadline;

/// Bytes that one direction may hold.
const BUFFER: usize = 16 * 1024;

#[derive(Debug, Default)]
pub struct Moved {
    pub to_upstream: u64,
    pub to_client: u64,
    /// Ended because nothing moved for too long.
    pub idle: bool,
    /// What each side said before the application's bytes.
    pub client_preface: Option<Bytes>,
    pub upstream_preface: Option<Bytes>,
    /// A side broke instead of closing.
    pub client_error: Option<io::Error>,
    pub upstream_error: Option<io::Error>,
}

/// Sides that may say something before the application's bytes: a magic number of four bytes, a length of four, and so many
/// bytes, all in network order (Istio's metadata exchange). It is not relayed. Other bytes are the application's.
#[derive(Debug, Clone, Copy, Default)]
pub struct Prefaces {
    pub client: Option<u32>,
    pub upstream: Option<u32>,
}

/// A longer preface is none.
const MAX_PREFACE: usize = 64 * 1024;

/// One direction: from reading to having written everything and passed on the end.
struct Half {
    buffer: BytesMut,
    /// The magic number of a preface that may still come, and one that has come.
    magic: Option<u32>,
    preface: Option<Bytes>,
    read_ended: bool,
    done: bool,
    moved: u64,
}

enum HalfError {
    Read(io::Error),
    Write(io::Error),
}

impl Half {
    fn new(magic: Option<u32>) -> Self {
        Self { buffer: BytesMut::new(), magic, preface: None, read_ended: false, done: false, moved: 0 }
    }

    /// Takes the preface from the front of the buffer. False when more bytes are needed to tell.
    fn take_preface(&mut self) -> bool {
        let Some(magic) = self.magic.map(u32::to_be_bytes) else { return true };
        let seen = self.buffer.len().min(4);
        if self.buffer[..seen] != magic[..seen] || self.read_ended {
            return true;
        }
        let Some(head) = self.buffer.first_chunk::<8>() else { return false };
        let length = u32::from_be_bytes([head[4], head[5], head[6], head[7]]) as usize;
        if length > MAX_PREFACE {
            return true;
        }
        if self.buffer.len() < 8 + length {
            return false;
        }
        self.buffer.advance(8);
        self.preface = Some(self.buffer.split_to(length).freeze());
        true
    }

    fn poll(&mut self, from: &mut Stream, to: &mut Stream, cx: &mut Context<'_>) -> Poll<Result<(), HalfError>> {
        loop {
            if self.done {
                return Poll::Ready(Ok(()));
            }
            if self.magic.is_some() {
                if self.take_preface() {
                    self.magic = None;
                } else {
                    self.buffer.reserve(BUFFER);
                    match ready!(poll_read_buf(Pin::new(&mut *from), cx, &mut self.buffer)) {
                        Ok(0) => self.read_ended = true,
                        Ok(_) => {}
                        Err(error) => return Poll::Ready(Err(HalfError::Read(error))),
                    }
                    continue;
                }
            }
            while !self.buffer.is_empty() {
                match ready!(Pin::new(&mut *to).poll_write(cx, &self.buffer)) {
                    Ok(0) => return Poll::Ready(Err(HalfError::Write(io::ErrorKind::WriteZero.into()))),
                    Ok(count) => {
                        self.buffer.advance(count);
                        self.moved += count as u64;
                    }
                    Err(error) => return Poll::Ready(Err(HalfError::Write(error))),
                }
            }
            if self.read_ended {
                ready!(Pin::new(&mut *to).poll_shutdown(cx)).map_err(HalfError::Write)?;
                self.done = true;
                continue;
            }
            self.buffer.clear();
            self.buffer.reserve(BUFFER);
            match poll_read_buf(Pin::new(&mut *from), cx, &mut self.buffer) {
                Poll::Ready(Ok(0)) => self.read_ended = true,
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(HalfError::Read(error))),
                Poll::Pending => {
                    // Encrypted bytes may still be in TLS's own buffer. An idle direction holds no memory.
                    ready!(Pin::new(&mut *to).poll_flush(cx)).map_err(HalfError::Write)?;
                    self.buffer = BytesMut::new();
                    return Poll::Pending;
                }
            }
        }
    }
}

/// Reads what an upstream says while it is not yet known whether its bytes will be relayed.
pub struct ReadAhead(Half);

impl ReadAhead {
    /// `preface` is the magic number of what it may say before the application's bytes.
    pub fn new(preface: Option<u32>) -> Self {
        Self(Half::new(preface))
    }

    /// Waits until the upstream has spoken (true) or closed (false). May be given up and asked again.
    pub async fn heard(&mut self, upstream: &mut Stream) -> io::Result<bool> {
        let half = &mut self.0;
        poll_fn(|cx| {
            loop {
                if half.magic.is_some() && half.take_preface() {
                    half.magic = None;
                }
                if half.magic.is_none() && !half.buffer.is_empty() {
                    return Poll::Ready(Ok(true));
                }
                if half.read_ended {
                    return Poll::Ready(Ok(false));
                }
                half.buffer.reserve(BUFFER);
                match ready!(poll_read_buf(Pin::new(&mut *upstream), cx, &mut half.buffer)) {
                    Ok(0) => half.read_ended = true,
                    Ok(_) => {}
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
        })
        .await
    }
}

/// Relays between two streams. `ahead` is what the upstream has said by now.
pub async fn streams(
    client: &mut Stream,
    prefaces: Prefaces,
    upstream: &mut Stream,
    ahead: Option<ReadAhead>,
    idle: Option<Duration>,
) -> Moved {
    let mut up = Half::new(prefaces.client);
    let mut down = ahead.map_or_else(|| Half::new(prefaces.upstream), |ahead| ahead.0);
    let mut clock = Deadline::default();
    clock.set_after(Instant::now(), idle);
    let mut moved = Moved::default();
    poll_fn(|cx| {
        let before = up.moved + down.moved;
        let sent = up.poll(client, upstream, cx);
        let received = down.poll(upstream, client, cx);
        match (&sent, &received) {
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(()),
            (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) => {
                for (result, is_up) in [(sent, true), (received, false)] {
                    match result {
                        Poll::Ready(Err(HalfError::Read(error))) if is_up => moved.client_error = Some(error),
                        Poll::Ready(Err(HalfError::Write(error))) if !is_up => moved.client_error = Some(error),
                        Poll::Ready(Err(HalfError::Read(error) | HalfError::Write(error))) => {
                            moved.upstream_error = Some(error);
                        }
                        _ => {}
                    }
                }
                return Poll::Ready(());
            }
            _ => {}
        }
        if up.moved + down.moved > before {
            clock.set_after(Instant::now(), idle);
        }
        if clock.poll(cx).is_ready() {
            moved.idle = true;
            return Poll::Ready(());
        }
        Poll::Pending
    })
    .await;
    moved.to_upstream = up.moved;
    moved.to_client = down.moved;
    moved.client_preface = up.preface;
    moved.upstream_preface = down.preface;
    moved
}

/// Relays between two HTTP/1 connections that have switched protocols; bytes that either has read ahead come first.
pub async fn http1(client: &Connection, upstream: &Connection, idle: Option<Duration>) -> Moved {
    client.start_tunnel();
    upstream.start_tunnel();
    let mut clock = Deadline::default();
    clock.set_after(Instant::now(), idle);
    let mut moved = Moved::default();
    let mut ended = [false, false];
    poll_fn(|cx| {
        let before = moved.to_upstream + moved.to_client;
        let up = poll_pass(client, upstream, &mut ended[0], &mut moved.to_upstream, cx);
        let down = poll_pass(upstream, client, &mut ended[1], &mut moved.to_client, cx);
        match (up, down) {
            (Poll::Ready(true), Poll::Ready(true)) => return Poll::Ready(()),
            (Poll::Ready(false), _) | (_, Poll::Ready(false)) => return Poll::Ready(()),
            _ => {}
        }
        if moved.to_upstream + moved.to_client > before {
            clock.set_after(Instant::now(), idle);
        }
        if clock.poll(cx).is_ready() {
            moved.idle = true;
            return Poll::Ready(());
        }
        Poll::Pending
    })
    .await;
    moved
}

/// Ready with true at the end of the direction, with false when a side broke.
fn poll_pass(
    from: &Connection,
    to: &Connection,
    ended: &mut bool,
    moved: &mut u64,
    cx: &mut Context<'_>,
) -> Poll<bool> {
    let mut raw = crate::http1::Encoder::UntilClose;
    loop {
        if (*ended || to.unsent() > HIGH_WATER) && ready!(to.poll_flush(cx)).is_err() {
            return Poll::Ready(false);
        }
        if *ended {
            return to.poll_shutdown(cx).map(|result| result.is_ok());
        }
        match from.poll_body(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data() {
                    *moved += data.len() as u64;
                    if to.queue_data(&mut raw, data).is_err() {
                        return Poll::Ready(false);
                    }
                }
            }
            Poll::Ready(Some(Err(_))) => return Poll::Ready(false),
            Poll::Ready(None) => *ended = true,
            Poll::Pending => {
                if let Poll::Ready(Err(_)) = to.poll_flush(cx) {
                    return Poll::Ready(false);
                }
                return Poll::Pending;
            }
        }
    }
}
