//! `mizzen-sources`
