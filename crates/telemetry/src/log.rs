//! The access log: what a listener asks for ([`Logger`]), and who writes it to files ([`Writers`]).

mod render;
mod writer;

use std::sync::Arc;
use std::time::SystemTime;

use mizzen_snapshot::listener::{AccessLog, LogFilter};
use mizzen_snapshot::log_format::{LogFormatError, LogTemplate, TimeFormat};

use crate::exchange::Exchange;
pub use writer::{Sink, Writers};

/// One access log of one listener, compiled.
#[derive(Debug)]
pub struct Logger {
    template: LogTemplate,
    filters: Vec<LogFilter>,
    sink: Arc<Sink>,
    hostname: Arc<str>,
}

impl Logger {
    pub fn new(log: &AccessLog, writers: &Writers, hostname: &Arc<str>) -> Result<Self, LogFormatError> {
        Ok(Self {
            template: LogTemplate::compile(&log.format)?,
            filters: log.filters.clone(),
            sink: writers.sink(&log.sink),
            hostname: Arc::clone(hostname),
        })
    }

    /// Formats a line and leaves it to the writer. `draw` decides filters that keep a share.
    pub fn write(&self, exchange: &Exchange<'_>, draw: u32) {
        if self.filters.iter().all(|filter| passes(filter, exchange, draw)) {
            self.sink.append(|line| render::line(line, &self.template, exchange, &self.hostname));
        }
    }
}

impl AsRef<Self> for Logger {
    fn as_ref(&self) -> &Self {
        self
    }
}

fn passes(filter: &LogFilter, exchange: &Exchange<'_>, draw: u32) -> bool {
    match filter {
        LogFilter::ResponseFlags(flags) => {
            let mut set = exchange.flags.split(',').filter(|flag| !flag.is_empty()).peekable();
            // An empty list is any flag, as in Envoy.
            if flags.is_empty() {
                set.peek().is_some()
            } else {
                set.any(|flag| flags.iter().any(|wanted| wanted == flag))
            }
        }
        LogFilter::Share(share) => share.hit(draw),
        LogFilter::StatusAtLeast(status) => exchange.status >= *status,
    }
}

/// `time` as `2026-01-31T23:59:59.123Z`.
pub fn timestamp(time: SystemTime) -> String {
    render::timestamp(&TimeFormat::default(), time)
}

/// `time` as seconds and nanoseconds since 1970; earlier times are 1970.
fn since_epoch(time: SystemTime) -> (u64, u32) {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    (since.as_secs(), since.subsec_nanos())
}

#[cfg(test)]
mod tests;
