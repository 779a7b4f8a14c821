//! The signals that end a long-running subcommand.

use tokio::signal::unix::{SignalKind, signal};

/// Listens from now on; the future is ready with the first SIGTERM or SIGINT.
pub(crate) fn end() -> std::io::Result<impl Future<Output = ()> + Send + 'static> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
