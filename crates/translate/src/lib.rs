//! `mizzen-translate`
