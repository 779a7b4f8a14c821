//! `mizzen-cli`
