//! The data plane over real sockets on loopback: what clients and upstreams see, byte for byte.

mod http1;
mod support;
