//! `mizzen-net`
