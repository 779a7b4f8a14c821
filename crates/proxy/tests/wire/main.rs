//! The data plane over real sockets on loopback: what clients and upstreams see, byte for byte.

// A test that cannot go on fails, in its helpers too.
#![allow(clippy::unwrap_used)]

mod drain;
mod frames;
mod hostile;
mod http1;
mod http2;
mod peers;
mod policies;
mod routing;
mod support;
mod tcp;
mod tls;
mod upgrade;
mod upstreams;
