//! # MZ0115 uneven-weights
//!
//! ## What it does
//!
//! Finds rules with several destinations whose weights do not sum up to 100.
//!
//! ## Why is this bad
//!
//! Weights are relative, so `90` and `90` are halves. Often one of two numbers was forgotten when the other was changed.
//!
//! ## Example
//!
//! ```yaml
//! apiVersion: networking.istio.io/v1
//! kind: VirtualService
//! metadata: {name: reviews}
//! spec:
//!   hosts: [reviews]
//!   http: [{route: [{destination: {host: reviews}, weight: 90}, {destination: {host: ratings}, weight: 20}]}]
//! ```
//!
//! ## Fix
//!
//! ```yaml
//! apiVersion: networking.istio.io/v1
//! kind: VirtualService
//! metadata: {name: reviews}
//! spec:
//!   hosts: [reviews]
//!   http: [{route: [{destination: {host: reviews}, weight: 90}, {destination: {host: ratings}, weight: 10}]}]
//! ```

use crate::Found;
use crate::view::View;

pub(super) fn check(view: &View<'_>, found: &mut Found<'_>) {
    for rule in &view.virtual_services {
        for (index, http) in rule.spec.http.iter().enumerate() {
            let weights: Vec<i64> = http.route.iter().map(|to| i64::from(to.weight)).collect();
            let sum: i64 = weights.iter().sum();
            // Equal weights are plainly meant as equal shares.
            let equal = weights.windows(2).all(|pair| pair[0] == pair[1]);
            if weights.len() > 1 && sum != 100 && !equal {
                let shares: Vec<String> = weights
                    .iter()
                    .map(|weight| format!("{:.1}%", *weight as f64 * 100.0 / sum.max(1) as f64))
                    .collect();
                found.at(
                    rule.object,
                    format!("spec.http[{index}].route"),
                    format!("the weights sum up to {sum}, so the shares are {}", shares.join(", ")),
                    "let the weights sum up to 100 if they are meant as percentages",
                );
            }
        }
    }
}
