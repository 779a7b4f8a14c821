//! Telling connections that their time is up.
//!
//! A drain begins when a listener is removed or replaced, or the process ends. HTTP connections then finish what they
//! carry, saying `connection: close` or GOAWAY; whatever is still open when the drain time is over is closed.

use std::cell::Cell;

use tokio::sync::Notify;

/// One worker's signal for the connections of one listener version.
#[derive(Debug, Default)]
pub struct Drain {
    phase: Cell<Phase>,
    changed: Notify,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Phase {
    #[default]
    Serving,
    /// Finish, and take nothing new.
    Draining,
    /// Idle connections are closed.
    ClosingIdle,
    /// The drain time is over.
    Over,
}

impl Drain {
    pub fn phase(&self) -> Phase {
        self.phase.get()
    }

    pub fn is_draining(&self) -> bool {
        self.phase.get() >= Phase::Draining
    }

    /// Phases only advance.
    pub fn advance(&self, phase: Phase) {
        if phase > self.phase.get() {
            self.phase.set(phase);
            self.changed.notify_waiters();
        }
    }

    /// Ready once this phase is reached.
    pub async fn reached(&self, phase: Phase) {
        loop {
            let changed = self.changed.notified();
            if self.phase.get() >= phase {
                return;
            }
            changed.await;
        }
    }
}
