//! HTTP/1.x on a connection that one thread owns.
//!
//! Our own framing rather than a library's, because a proxy must see what libraries hide: whether a byte of the request
//! was sent or of the response received (safe replay), informational responses, both framing headers at once, and
//! because a connection that is owned by the exchange needs no task and no channel of its own.
//!
//! Not here: what a request means, timeouts, pools.

pub mod connection;
pub mod decode;
pub mod head;

pub use connection::Connection;
pub use decode::Decoder;
pub use head::{Encoder, Request, Response};

/// What one message head may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub head_bytes: usize,
    pub headers: usize,
}

impl Default for Limits {
    /// Envoy's: 60 KiB and 100 headers.
    fn default() -> Self {
        Self { head_bytes: 60 * 1024, headers: 100 }
    }
}

/// Why a message could not be read.
#[derive(Debug, thiserror::Error)]
pub enum HeadError {
    #[error("connection closed before a message began")]
    Closed,
    #[error("connection closed in the middle of a message")]
    Truncated,
    #[error("message head is larger than the limit")]
    TooLarge,
    #[error("message head has more headers than the limit")]
    TooManyHeaders,
    #[error("transfer-encoding other than chunked")]
    UnknownTransferEncoding,
    #[error("{0}")]
    Malformed(&'static str),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}
