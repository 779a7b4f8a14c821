//! `mizzen-xds`
