//! A deadline that is cheap to move.
//!
//! Most deadlines are pushed back long before they pass. Moving this one back writes a field; the runtime's timer is
//! touched only when it fires early and has to be set again.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Duration, Instant, Sleep};

#[derive(Default)]
pub struct Deadline {
    at: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    pub fn set(&mut self, at: Option<Instant>) {
        self.at = at;
    }

    pub fn set_after(&mut self, now: Instant, after: Option<Duration>) {
        self.at = after.and_then(|after| now.checked_add(after));
    }

    pub fn at(&self) -> Option<Instant> {
        self.at
    }

    /// Ready once the deadline has passed; pending for ever while there is none.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else {
            return Poll::Pending;
        };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        if sleep.deadline() > at {
            sleep.as_mut().reset(at);
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if Instant::now() >= at {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(at);
        }
        Poll::Pending
    }
}
