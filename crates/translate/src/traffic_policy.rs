//! What of a DestinationRule holds for one port and subset (reference: semantics 110 to 112, 129, 142).

use mizzen_api::mesh::MeshConfig;
use mizzen_api::networking::{
    ClientTlsSettings, ConnectionPoolSettings, LoadBalancerSettings, OutlierDetection, ProxyProtocol, RetryBudget,
    TrafficPolicy,
};

/// The blocks in force.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Effective<'a> {
    pub(crate) load_balancer: Option<&'a LoadBalancerSettings>,
    pub(crate) connection_pool: Option<&'a ConnectionPoolSettings>,
    pub(crate) outlier_detection: Option<&'a OutlierDetection>,
    pub(crate) tls: Option<&'a ClientTlsSettings>,
    pub(crate) proxy_protocol: Option<&'a ProxyProtocol>,
    pub(crate) retry_budget: Option<&'a RetryBudget>,
}

impl<'a> Effective<'a> {
    /// The policy of the rule, overridden by that of the subset, for one service port.
    pub(crate) fn new(rule: Option<&'a TrafficPolicy>, subset: Option<&'a TrafficPolicy>, port: u16) -> Self {
        let top = Self::default().overridden(rule, port);
        let mut effective = top.overridden(subset, port);
        effective.tls = effective.tls.or(top.tls);
        effective
    }

    /// Blocks that nobody sets come from the mesh.
    pub(crate) fn or_mesh(mut self, config: &'a MeshConfig) -> Self {
        if let Some(default) = &config.default_traffic_policy {
            self.connection_pool = self.connection_pool.or(default.connection_pool.as_ref());
            self.outlier_detection = self.outlier_detection.or(default.outlier_detection.as_ref());
        }
        self
    }

    fn overridden(mut self, by: Option<&'a TrafficPolicy>, port: u16) -> Self {
        let Some(by) = by else { return self };
        self.load_balancer = by.load_balancer.as_ref().or(self.load_balancer);
        self.connection_pool = by.connection_pool.as_ref().or(self.connection_pool);
        self.outlier_detection = by.outlier_detection.as_ref().or(self.outlier_detection);
        self.tls = by.tls.as_ref().or(self.tls);
        self.proxy_protocol = by.proxy_protocol.as_ref().or(self.proxy_protocol);
        self.retry_budget = by.retry_budget.as_ref().or(self.retry_budget);
        let of_port = by.port_level_settings.iter().find(|s| s.port.as_ref().is_some_and(|p| p.number == port));
        if let Some(settings) = of_port {
            // A port's settings inherit nothing.
            self.load_balancer = settings.load_balancer.as_ref();
            self.connection_pool = settings.connection_pool.as_ref();
            self.outlier_detection = settings.outlier_detection.as_ref();
            self.tls = settings.tls.as_ref();
        }
        self
    }
}
