//! PeerAuthentication.

use mizzen_api::security::PeerAuthentication;

use super::Validate;
use crate::check::Check;
use crate::yaml::shortened;

impl Validate for PeerAuthentication {
    fn validate(&self, check: &mut Check) {
        let selects = self.selector.as_ref().is_some_and(|selector| !selector.match_labels.is_empty());
        check.field("portLevelMtls", |check| {
            if !self.port_level_mtls.is_empty() && !selects {
                check.conflict(
                    "`portLevelMtls` needs a `selector` with labels",
                    "write `selector: {matchLabels: {app: reviews}}`",
                );
            }
            for port in self.port_level_mtls.keys() {
                if !port.parse::<u16>().is_ok_and(|number| number != 0) {
                    check.field(port, |check| {
                        check.not_allowed(
                            format!("`{}` is no port of a workload", shortened(port)),
                            "write a number such as 9080",
                        );
                    });
                }
            }
        });
    }
}
