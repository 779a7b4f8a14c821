//! `mizzen-local`
