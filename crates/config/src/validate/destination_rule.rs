//! DestinationRule.

use std::collections::HashSet;

use mizzen_api::networking::DestinationRule;

use super::http_route::subset_name;
use super::traffic_policy::traffic_policy;
use super::{Validate, export_to, names};
use crate::check::Check;

impl Validate for DestinationRule {
    fn validate(&self, check: &mut Check) {
        if self.host.is_empty() {
            check.missing("host", "host: reviews");
        } else {
            check.field("host", |check| names::rule_host(check, &self.host));
        }
        check.optional("trafficPolicy", self.traffic_policy.as_ref(), traffic_policy);
        let mut seen = HashSet::new();
        check.each("subsets", &self.subsets, |check, subset| {
            if subset.name.is_empty() {
                check.missing("name", "name: v1");
            } else {
                check.field("name", |check| {
                    subset_name(check, &subset.name);
                    if !seen.insert(subset.name.clone()) {
                        check.conflict(
                            format!("the subset `{}` is defined twice in this rule", subset.name),
                            "give it another name, or remove one of the two",
                        );
                    }
                });
            }
            check.optional("trafficPolicy", subset.traffic_policy.as_ref(), traffic_policy);
        });
        export_to(check, &self.export_to);
        let for_few = self.workload_selector.as_ref().is_some_and(|selector| !selector.match_labels.is_empty());
        if for_few && self.export_to.iter().any(|to| to != ".") {
            check.field("exportTo", |check| {
                check.conflict(
                    "a rule with `workloadSelector` holds in its own namespace only",
                    "remove `exportTo`, or write `exportTo: [\".\"]`",
                );
            });
        }
    }
}
