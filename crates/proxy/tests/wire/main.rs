//! The data plane over real sockets on loopback: what clients and upstreams see, byte for byte.

mod drain;
mod hostile;
mod http1;
mod http2;
mod routing;
mod support;
mod tcp;
mod tls;
mod upgrade;
mod upstreams;
