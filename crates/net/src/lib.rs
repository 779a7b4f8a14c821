//! Sockets, TLS, HTTP framing and keep-alive pools: the I/O below the proxy's decisions.
//!
//! Connections belong to one thread (`Rc`, no locks). Nothing here decides where traffic goes.

pub mod body;
pub mod dial;
pub mod http1;
pub mod http2;
pub mod listen;
pub mod memory;
pub mod relay;
pub mod stream;
pub mod timer;

pub use body::Body;
pub use stream::{Plain, Socket, Stream};
