//! The body of a request on its way upstream: kept, up to a limit, until it is clear that no other try will need it.

use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;
use mizzen_net::Body;
use mizzen_net::body::BodyError;
use tokio::sync::mpsc;

/// Most bytes that a mirror may be behind; a slower one loses its copy.
const MIRROR_LAG: usize = 1024 * 1024;

pub struct RequestBody {
    source: Body,
    kept: Vec<Bytes>,
    kept_bytes: usize,
    trailers: Option<HeaderMap>,
    /// Next piece of `kept` to give out.
    cursor: usize,
    /// Limit of `kept_bytes`; zero once nothing is kept any more.
    limit: usize,
    /// Something that was given out is not kept.
    lost: bool,
    ended: bool,
    received: u64,
    received_at: Option<Instant>,
    mirrors: Vec<mpsc::UnboundedSender<Frame<Bytes>>>,
    mirrored: usize,
}

impl RequestBody {
    /// `limit`: how many bytes are kept for another try.
    pub fn new(source: Body, limit: usize) -> Self {
        let ended = source.is_end();
        Self {
            source,
            kept: Vec::new(),
            kept_bytes: 0,
            trailers: None,
            cursor: 0,
            limit,
            lost: false,
            ended,
            received: 0,
            received_at: ended.then(Instant::now),
            mirrors: Vec::new(),
            mirrored: 0,
        }
    }

    /// There is no body at all.
    pub fn is_empty(&self) -> bool {
        self.ended && self.kept.is_empty() && self.trailers.is_none() && !self.lost
    }

    /// Everything was received from the client.
    pub fn is_received(&self) -> bool {
        self.ended
    }

    pub fn received(&self) -> u64 {
        self.received
    }

    pub fn received_at(&self) -> Option<Instant> {
        self.received_at
    }

    /// Bytes that are still to be given out, when that is known.
    pub fn length(&self) -> Option<u64> {
        let kept: u64 = self.kept[self.cursor..].iter().map(|piece| piece.len() as u64).sum();
        self.source.length().map(|rest| rest + kept)
    }

    /// Goes back to the beginning for another try; false when the beginning is gone.
    pub fn rewind(&mut self) -> bool {
        self.cursor = 0;
        !self.lost
    }

    /// No other try will come: what was kept may go.
    pub fn commit(&mut self) {
        self.limit = 0;
        if self.cursor >= self.kept.len() && !self.kept.is_empty() {
            self.kept = Vec::new();
            self.cursor = 0;
            self.lost = true;
        }
    }

    /// A copy of the body for a mirror, filled while the body itself is sent.
    pub fn mirror(&mut self) -> Body {
        if self.is_empty() {
            return Body::Empty;
        }
        let (sender, receiver) = mpsc::unbounded_channel();
        self.mirrors.push(sender);
        Body::Channel { frames: receiver, length: self.source.length() }
    }

    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(piece) = self.kept.get(self.cursor) {
            let piece = piece.clone();
            self.cursor += 1;
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        if self.ended {
            return Poll::Ready(self.trailers.clone().map(|trailers| {
                // Given out once for each try: the sender stops after trailers.
                Ok(Frame::trailers(trailers))
            }));
        }
        let frame = match ready!(self.source.poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(error))),
            None => {
                self.end();
                return Poll::Ready(None);
            }
        };
        self.copy_to_mirrors(&frame);
        match frame.into_data() {
            Ok(data) => {
                self.received += data.len() as u64;
                self.keep(&data);
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Err(frame) => {
                let trailers = frame.into_trailers().unwrap_or_default();
                self.trailers = Some(trailers.clone());
                self.end();
                Poll::Ready(Some(Ok(Frame::trailers(trailers))))
            }
        }
    }

    fn end(&mut self) {
        self.ended = true;
        self.received_at = Some(Instant::now());
        self.mirrors.clear();
    }

    fn keep(&mut self, data: &Bytes) {
        if self.lost {
            return;
        }
        if self.kept_bytes + data.len() > self.limit {
            self.lost = true;
            self.kept = Vec::new();
            self.cursor = 0;
            return;
        }
        self.kept_bytes += data.len();
        self.kept.push(data.clone());
        self.cursor = self.kept.len();
    }

    fn copy_to_mirrors(&mut self, frame: &Frame<Bytes>) {
        if self.mirrors.is_empty() {
            return;
        }
        let copy = || match (frame.data_ref(), frame.trailers_ref()) {
            (Some(data), _) => Frame::data(data.clone()),
            (None, Some(trailers)) => Frame::trailers(trailers.clone()),
            (None, None) => Frame::data(Bytes::new()),
        };
        self.mirrored += frame.data_ref().map_or(0, Bytes::len);
        if self.mirrored > MIRROR_LAG {
            self.mirrors.clear();
        }
        self.mirrors.retain(|mirror| mirror.send(copy()).is_ok());
    }
}
