//! Kubernetes kinds: only what would otherwise become a wrong listener or endpoint. The API server checks the rest.

use std::net::IpAddr;

use mizzen_api::kubernetes::{
    ConfigMap, Deployment, EndpointSlice, IPAddress, Namespace, Node, Pod, Secret, Service, ServiceAccount,
};

use super::Validate;
use crate::check::Check;
use crate::yaml::shortened;

impl Validate for Service {
    fn validate(&self, check: &mut Check) {
        let mut seen = std::collections::HashSet::new();
        check.field("spec", |check| {
            check.each("ports", &self.spec.ports, |check, port| {
                if port.port == 0 {
                    check.missing("port", "port: 9080");
                } else if !seen.insert((port.port, port.protocol.to_ascii_uppercase())) {
                    check.field("port", |check| {
                        check.conflict(format!("the port {} is given twice", port.port), "remove one of the two");
                    });
                }
            });
            if self.spec.r#type == "ExternalName" && self.spec.external_name.is_empty() {
                check.missing("externalName", "externalName: api.example.com");
            }
        });
    }
}

impl Validate for EndpointSlice {
    fn validate(&self, check: &mut Check) {
        if self.address_type == "FQDN" {
            return;
        }
        check.each("endpoints", &self.endpoints, |check, endpoint| {
            check.each("addresses", &endpoint.addresses, |check, text| {
                if text.parse::<IpAddr>().is_err() {
                    check.not_allowed(
                        format!("`{}` is no address", shortened(text)),
                        "write an address such as 10.0.0.1",
                    );
                }
            });
        });
    }
}

macro_rules! as_they_are {
    ($($kind:ty),* $(,)?) => {
        $(impl Validate for $kind {
            fn validate(&self, _: &mut Check) {}
        })*
    };
}

as_they_are! { ConfigMap, Deployment, IPAddress, Namespace, Node, Pod, Secret, ServiceAccount }
