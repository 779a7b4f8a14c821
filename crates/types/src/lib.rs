//! The mesh's words as values that cannot be wrong.
//!
//! Everything here is plain data with pure functions: no I/O, no clock, no Istio resource and no Envoy message. Each
//! value is checked when it is made, so whoever holds one need not check again.

#![forbid(unsafe_code)]

pub mod causes;
pub mod hostname;
pub mod labels;
pub mod locality;
pub mod name;
pub mod object;
pub mod percent;
pub mod protocol;
pub mod spiffe;

pub use causes::with_causes;
pub use hostname::Hostname;
pub use labels::Labels;
pub use locality::Locality;
pub use name::{ClusterName, ListenerName, RouteTableName, SecretName};
pub use object::{Finding, ObjectKey, Origin, Position, Severity};
pub use percent::Percent;
pub use protocol::Protocol;
pub use spiffe::{SpiffeId, TrustDomain};
