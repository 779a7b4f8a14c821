//! `mizzen-proxy`
