//! `mizzen-balance`
