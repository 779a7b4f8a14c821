//! `mizzen-analysis`
