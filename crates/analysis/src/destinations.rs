//! Every place of a VirtualService that names a destination.

use mizzen_api::networking::{Destination, VirtualService};

/// All destinations with the paths of their fields.
pub(crate) fn destinations(spec: &VirtualService) -> Vec<(String, &Destination)> {
    let mut found = Vec::new();
    for (r, rule) in spec.http.iter().enumerate() {
        for (d, to) in rule.route.iter().enumerate() {
            found.push((format!("spec.http[{r}].route[{d}].destination"), &to.destination));
        }
        found.extend(rule.mirror.iter().map(|to| (format!("spec.http[{r}].mirror"), to)));
        for (m, mirror) in rule.mirrors.iter().enumerate() {
            let path = || format!("spec.http[{r}].mirrors[{m}].destination");
            found.extend(mirror.destination.iter().map(|to| (path(), to)));
        }
    }
    for (r, rule) in spec.tls.iter().enumerate() {
        for (d, to) in rule.route.iter().enumerate() {
            found.push((format!("spec.tls[{r}].route[{d}].destination"), &to.destination));
        }
    }
    for (r, rule) in spec.tcp.iter().enumerate() {
        for (d, to) in rule.route.iter().enumerate() {
            found.push((format!("spec.tcp[{r}].route[{d}].destination"), &to.destination));
        }
    }
    found
}
