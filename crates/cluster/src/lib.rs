//! End-to-end tests on the Kubernetes cluster that `KUBECONFIG` names, by the commands that a person types: helm and kubectl.
//!
//! `cargo xtask test --cluster` runs them. They change the cluster (namespaces `istio-system`, `istio-ingress`, `default`,
//! `mizzen-test-*`), so nothing here runs unless `MIZZEN_CLUSTER` is set. The steps build on each other and run in the
//! order of [`steps::all`], those of a group side by side. Numbers that they measure are printed at the end.
//!
//! Not here: what can be tested without a cluster (the crates' own tests), images and the cluster itself (`xtask`).

#![forbid(unsafe_code)]

pub mod applied;
pub mod apps;
pub mod call;
mod diagnosis;
pub mod kube;
pub mod load;
pub mod pki;
pub mod place;
pub mod poll;
pub mod run;
pub mod steps;
