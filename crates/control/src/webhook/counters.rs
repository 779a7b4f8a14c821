//! How often the webhooks were asked and what they answered, under the names of the genuine control plane.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

#[derive(Debug, Default)]
pub(crate) struct Counters {
    injected: AtomicU64,
    skipped: AtomicU64,
    failed: AtomicU64,
    passed: AtomicU64,
    refused: AtomicU64,
    unreadable: AtomicU64,
}

macro_rules! count {
    ($($name:ident),*) => {
        $(pub(super) fn $name(&self) {
            self.$name.fetch_add(1, Relaxed);
        })*
    };
}

impl Counters {
    count!(injected, skipped, failed, passed, refused, unreadable);

    /// Prometheus text format.
    pub(crate) fn text(&self) -> String {
        let of = |counter: &AtomicU64| counter.load(Relaxed);
        let asked = of(&self.injected) + of(&self.skipped) + of(&self.failed);
        let mut text = String::new();
        for (name, help, value) in [
            ("sidecar_injection_requests_total", "Pods that the injection webhook was asked about.", asked),
            ("sidecar_injection_success_total", "Pods that were injected.", of(&self.injected)),
            ("sidecar_injection_skip_total", "Pods that were left alone.", of(&self.skipped)),
            ("sidecar_injection_failure_total", "Pods that could not be injected.", of(&self.failed)),
            ("galley_validation_passed", "Objects that the validation webhook accepted.", of(&self.passed)),
            ("galley_validation_failed", "Objects that the validation webhook refused.", of(&self.refused)),
            ("galley_validation_http_error", "Questions to the webhooks that were none.", of(&self.unreadable)),
        ] {
            // Writing to a string does not fail.
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter\n{name} {value}");
        }
        text
    }
}
