//! The clocks of a request: the route's timeout over all tries, that of one try, the time in which something has to move,
//! and the time in which the request has to be received.
//!
//! The first two begin once the request was received whole (as in Envoy), so that a long upload is not cut off.

use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;

use mizzen_net::timer::Deadline;
use tokio::time::Instant;

use crate::refusal::Refusal;

pub struct Timeouts {
    route: Option<Duration>,
    per_try: Option<Duration>,
    idle: Option<Duration>,
    receive: Option<Duration>,
    route_at: Deadline,
    try_at: Deadline,
    idle_at: Deadline,
    receive_at: Deadline,
    received: bool,
}

/// How long things may take; `None` is for ever.
#[derive(Debug, Clone, Copy, Default)]
pub struct Times {
    /// All tries together, and the body of the response.
    pub route: Option<Duration>,
    pub per_try: Option<Duration>,
    /// Between two bytes.
    pub idle: Option<Duration>,
    /// The whole request.
    pub receive: Option<Duration>,
}

impl Timeouts {
    /// `received`: the request is whole already.
    pub fn new(times: Times, received: bool) -> Self {
        let mut timeouts = Self {
            route: times.route,
            per_try: times.per_try,
            idle: times.idle,
            receive: times.receive.filter(|_| !received),
            route_at: Deadline::default(),
            try_at: Deadline::default(),
            idle_at: Deadline::default(),
            receive_at: Deadline::default(),
            received: false,
        };
        if timeouts.receive.is_some() {
            timeouts.receive_at.set_after(Instant::now(), timeouts.receive);
        }
        timeouts.moved();
        if received {
            timeouts.request_received();
        }
        timeouts
    }

    /// The request is whole: both clocks start.
    pub fn request_received(&mut self) {
        self.receive = None;
        if !std::mem::replace(&mut self.received, true) && (self.route.is_some() || self.per_try.is_some()) {
            let now = Instant::now();
            self.route_at.set_after(now, self.route);
            self.try_at.set_after(now, self.per_try);
        }
    }

    /// Bytes of the request went on.
    pub fn moved(&mut self) {
        if self.idle.is_some() {
            self.idle_at.set_after(Instant::now(), self.idle);
        }
    }

    /// No try is under way.
    pub fn pause_try(&mut self) {
        self.try_at.set(None);
    }

    /// The next try gets its own time.
    pub fn next_try(&mut self) {
        if self.received && self.per_try.is_some() {
            self.try_at.set_after(Instant::now(), self.per_try);
        }
    }

    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Refusal> {
        if let Some(after) = self.route
            && self.route_at.poll(cx).is_ready()
        {
            return Poll::Ready(Refusal::RequestTimeout { after });
        }
        if let Some(after) = self.per_try
            && self.try_at.poll(cx).is_ready()
        {
            return Poll::Ready(Refusal::PerTryTimeout { after });
        }
        if let Some(after) = self.idle
            && self.idle_at.poll(cx).is_ready()
        {
            return Poll::Ready(Refusal::IdleTimeout { after });
        }
        if let Some(after) = self.receive
            && self.receive_at.poll(cx).is_ready()
        {
            return Poll::Ready(Refusal::RequestReceiveTimeout { after });
        }
        Poll::Pending
    }

    /// Runs something within both times.
    pub async fn within<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Refusal> {
        let mut work = pin!(work);
        poll_fn(|cx| {
            if let Poll::Ready(done) = work.as_mut().poll(cx) {
                return Poll::Ready(Ok(done));
            }
            self.poll(cx).map(Err)
        })
        .await
    }

    /// What is left for the body of the response: when, and the whole time for the message.
    pub fn rest(&self) -> (Option<Instant>, Duration) {
        (self.route_at.at(), self.route.unwrap_or_default())
    }
}
