//! `mizzen-mesh`
