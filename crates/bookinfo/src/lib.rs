//! `mizzen-bookinfo`
