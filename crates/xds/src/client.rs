//! The asking side: [`session`] is the protocol as a pure state machine, [`connect`] keeps a stream open with it.

pub mod backoff;
pub mod connect;
pub mod session;

pub use connect::{Authority, Config, Event, Handle, start};
pub use session::{Received, Refusal, Session, Subscription, Update, UpdateId};
