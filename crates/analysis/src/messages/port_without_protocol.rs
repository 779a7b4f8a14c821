//! # MZ0112 port-without-protocol
//!
//! ## What it does
//!
//! Finds ports of Services whose protocol neither `appProtocol` nor the port's name says.
//!
//! ## Why is this bad
//!
//! The proxy has to guess from the first bytes. That takes a moment, and a protocol whose server speaks first waits for
//! bytes that do not come.
//!
//! ## Example
//!
//! ```yaml
//! apiVersion: v1
//! kind: Service
//! metadata: {name: details}
//! spec:
//!   selector: {app: details}
//!   ports: [{port: 9080, name: web}]
//! ```
//!
//! ## Fix
//!
//! Begin the name with the protocol, or give `appProtocol`.
//!
//! ```yaml
//! apiVersion: v1
//! kind: Service
//! metadata: {name: details}
//! spec:
//!   selector: {app: details}
//!   ports: [{port: 9080, name: http-web}]
//! ```

use mizzen_types::Protocol;

use crate::Found;
use crate::view::View;

pub(super) fn check(view: &View<'_>, found: &mut Found<'_>) {
    let root = view.mesh.config().root_namespace.as_str();
    for service in &view.services {
        // Nobody's own: what the mesh and the cluster bring with them.
        if [root, "kube-system"].contains(&service.namespace()) || service.spec.spec.r#type == "ExternalName" {
            continue;
        }
        for (index, port) in service.spec.spec.ports.iter().enumerate() {
            let protocol =
                Protocol::of_service_port(port.port, &port.name, &port.protocol, port.app_protocol.as_deref());
            // The health port of gateways, which every installation has under this name.
            let health = port.name == "status-port";
            if protocol == Protocol::Sniff && !health {
                found.at(
                    service.object,
                    format!("spec.ports[{index}]"),
                    format!("the protocol of port {} is not said, so it is guessed from the first bytes", port.port),
                    "begin the name of the port with the protocol (`http-…`, `grpc-…`, `tcp-…`), or give `appProtocol`",
                );
            }
        }
    }
}
