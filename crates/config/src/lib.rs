//! `mizzen-config`
