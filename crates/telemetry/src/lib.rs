//! `mizzen-telemetry`
