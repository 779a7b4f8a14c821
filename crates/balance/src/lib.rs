//! Which endpoint a request goes to, and whether it may go at all.
//!
//! For the data plane. A [`Balancer`] stands for one cluster and is shared by all worker threads; a pick takes no lock
//! and allocates nothing. Endpoints are replaced in place ([`Balancer::update`]), so that what is known of an endpoint
//! (active requests, consecutive errors, ejection) survives a change of the others. The rules are Envoy's: priorities
//! and locality weights, overprovisioning factor and panic threshold, xxHash rings, outlier detection, circuit breakers.
//!
//! Not here: sockets, connection pools, clocks and random number generators. Time ([`Time`]) and random draws are
//! arguments.

#![forbid(unsafe_code)]

pub mod balancer;
pub mod breaker;
mod compiled;
mod draw;
pub mod endpoint;
mod maglev;
mod outlier;
mod priority;
mod ring;
mod schedule;
pub mod time;

pub use balancer::{Balancer, Membership, NoEndpoint, PickContext};
pub use breaker::{Breakers, Exceeded, Permit, Resource};
pub use endpoint::{ActiveConnection, ActiveRequest, Availability, EndpointState, Host};
pub use outlier::{Ejection, EjectionCause, Outcome, Swept};
pub use time::Time;
