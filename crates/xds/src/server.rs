//! The serving side: [`stream`] is the protocol of one stream as a pure state machine, [`drive`] the task that runs it,
//! [`service`] the gRPC methods.

mod body;
pub mod drive;
pub mod service;
pub mod stream;
mod watch;

pub use drive::{Question, Session};
pub use service::{Discovery, Sessions};
pub use stream::{Content, Mark, Observed, Response, Stream, Touched, Wanted};
pub use watch::Names;
