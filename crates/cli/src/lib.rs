//! What people ask a running mesh: who is connected ([`status`]), what a proxy has ([`proxy_config`]), which way a
//! request takes ([`explain`]), and what is wrong with a file ([`validate`]).
//!
//! Each module asks, and renders the answer as text for people or as JSON. A mesh is found by [`target`]. Not here: flags,
//! environment and writing to the terminal (`mizzen`).

#![forbid(unsafe_code)]

pub mod ask;
pub mod cluster;
pub mod duration;
pub mod explain;
pub mod observe;
pub mod proxy_config;
pub mod status;
pub mod target;
pub mod validate;
