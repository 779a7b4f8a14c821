//! HTTP on an accepted connection: which version, then requests one after another or side by side.

pub mod answer;
pub mod exchange;
pub mod forward;
pub mod headers;
pub mod http1;
pub mod http2;
pub mod mirror;
pub mod normalize;
pub mod peer;
pub mod tunnel;

use std::rc::Rc;
use std::sync::Arc;

use mizzen_net::http1::Limits;
use mizzen_net::{Stream, http1 as codec};
use mizzen_snapshot::http::{Codec, HttpHandler};

use crate::connection::Connection;
use crate::shared::{Opened, Shared};

pub async fn serve(connection: Rc<Connection>, handler: Arc<HttpHandler>, stream: Stream) {
    let limits =
        Limits { head_bytes: handler.max_request_headers_kb as usize * 1024, headers: handler.max_headers as usize };
    let alpn = connection.downstream.tls.as_ref().and_then(|tls| tls.alpn.as_deref());
    let http2 = match (handler.codec, alpn) {
        (Codec::Http1, _) => Some(false),
        (Codec::Http2, _) | (Codec::Auto, Some("h2" | "istio-h2")) => Some(true),
        (Codec::Auto, Some("http/1.1" | "http/1.0" | "istio-http/1.1" | "istio-http/1.0")) => Some(false),
        (Codec::Auto, _) => None,
    };
    let io = codec::Connection::new(stream, limits);
    let http2 = match http2 {
        Some(known) => known,
        None => {
            let patience = handler.request_headers_timeout.unwrap_or(connection.worker.shared.limits.header_timeout);
            let looking = tokio::time::timeout(patience, io.is_http2_preface());
            tokio::select! {
                seen = looking => match seen {
                    Ok(Ok(http2)) => http2,
                    Ok(Err(_)) | Err(_) => return,
                },
                () = connection.drain.reached(crate::drain::Phase::ClosingIdle) => return,
            }
        }
    };
    let tls = connection.downstream.tls.as_ref().is_some_and(|tls| !tls.version.is_empty());
    let _open = Open::new(&connection, &handler, Opened { http2, tls });
    if http2 {
        Box::pin(http2::serve(connection, handler, io)).await;
    } else {
        http1::serve(connection, handler, io).await;
    }
}

/// Counts a connection as open.
struct Open {
    shared: Arc<Shared>,
    handler: Arc<HttpHandler>,
    opened: Opened,
}

impl Open {
    fn new(connection: &Connection, handler: &Arc<HttpHandler>, opened: Opened) -> Self {
        let shared = Arc::clone(&connection.worker.shared);
        shared.recorder.http_connection(handler, &opened, true);
        Self { shared, handler: Arc::clone(handler), opened }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.shared.recorder.http_connection(&self.handler, &self.opened, false);
    }
}
