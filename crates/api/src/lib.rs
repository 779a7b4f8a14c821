//! `mizzen-api`
