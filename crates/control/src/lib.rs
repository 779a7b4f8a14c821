//! `mizzen-control`
