//! `mizzen-compile`
