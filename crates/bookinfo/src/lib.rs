//! Bookinfo, the demo application that service meshes are shown with: four small services and one web page.
//!
//! ```text
//! productpage ──▶ details
//!      └────────▶ reviews v1 (no stars), v2 (black stars), v3 (red stars) ──▶ ratings
//! ```
//!
//! URLs, JSON and environment names are those of Istio's Bookinfo, so its samples and exercises work unchanged; the
//! code, the page and its texts are our own. Calls between the services go through `http_proxy` when it is set.
//! Not here: the variants of the original that need a database.

#![forbid(unsafe_code)]

mod config;
mod details;
mod headers;
mod productpage;
mod ratings;
mod reviews;
mod upstream;

use std::future::Future;
use std::io;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::serve::ListenerExt;
use tokio::net::TcpListener;

pub use config::{Address, Config, ConfigError, Service};

/// No request to these services has a larger body.
const MAX_BODY_BYTES: usize = 16 * 1024;

/// Serves until `shutdown` is ready, then finishes the requests that are under way.
pub async fn run(config: Config, shutdown: impl Future<Output = ()> + Send + 'static) -> io::Result<()> {
    let listener = TcpListener::bind((config.host.as_str(), config.port)).await.map_err(|error| {
        let place = format!("{}:{}", config.host, config.port);
        io::Error::new(error.kind(), format!("{} cannot listen on {place}: {error}", config.service))
    })?;
    serve(listener, config, shutdown).await
}

/// The same on a socket that is open already.
pub async fn serve(
    listener: TcpListener,
    config: Config,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    tracing::info!(service = %config.service, version = config.version, address = ?listener.local_addr(), "serving");
    let listener = listener.tap_io(|stream| {
        // Without it answers wait for the acknowledgement of what went before; nothing breaks if it cannot be set.
        drop(stream.set_nodelay(true));
    });
    axum::serve(listener, router(config)).with_graceful_shutdown(shutdown).await
}

fn router(config: Config) -> Router {
    let router = match config.service {
        Service::Productpage => productpage::router(config),
        Service::Details => details::router(),
        Service::Reviews => reviews::router(config),
        Service::Ratings => ratings::router(config),
    };
    router.layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
}

#[cfg(test)]
mod tests;
