//! `mizzen-identity`
