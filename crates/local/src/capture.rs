//! How an application's traffic comes to its proxy. The one place that knows; everything else asks it.

use std::net::{Ipv4Addr, SocketAddrV4};

use crate::network::HTTP_PROXY_PORT;

/// The ways to catch traffic on one machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Capture {
    /// Nothing is redirected. The proxy listens on the instance's mesh address for inbound requests; the application
    /// listens on 127.0.0.1, and sends outbound requests to the proxy because its `http_proxy` variable says so.
    /// Works without privilege; catches HTTP of clients that honour the variable.
    #[default]
    Explicit,
    /// Every instance has a network namespace of its own, in which the kernel sends the application's connections to the
    /// proxy, as in a pod. Works with programs as they are. See [`crate::netns`].
    Netns,
}

/// Variables by which programs are sent to a proxy, in either spelling.
pub(crate) const PROXY_VARIABLES: &[&str] =
    &["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"];

impl Capture {
    /// Istio's word for it in the node metadata.
    pub fn interception_mode(self) -> &'static str {
        match self {
            Self::Explicit => "NONE",
            Self::Netns => "REDIRECT",
        }
    }

    /// The variables that an application gets so that its outbound requests are caught by the proxy on `mesh`.
    pub fn environment(self, mesh: Ipv4Addr) -> Vec<(&'static str, String)> {
        match self {
            Self::Explicit => {
                let proxy = format!("http://{}", SocketAddrV4::new(mesh, HTTP_PROXY_PORT));
                vec![
                    ("http_proxy", proxy.clone()),
                    ("HTTP_PROXY", proxy),
                    ("no_proxy", String::new()),
                    ("NO_PROXY", String::new()),
                ]
            }
            Self::Netns => Vec::new(),
        }
    }

    /// Variables of the user's shell that an application must not get.
    pub fn hidden_variables(self) -> &'static [&'static str] {
        match self {
            Self::Explicit => &[],
            Self::Netns => PROXY_VARIABLES,
        }
    }

    /// Where the application is told to listen.
    pub fn listen_address(self) -> Ipv4Addr {
        match self {
            Self::Explicit => Ipv4Addr::LOCALHOST,
            Self::Netns => Ipv4Addr::UNSPECIFIED,
        }
    }

    /// Where an application on `mesh` is asked whether it is ready.
    pub fn probe_address(self, mesh: Ipv4Addr) -> Ipv4Addr {
        match self {
            Self::Explicit => Ipv4Addr::LOCALHOST,
            Self::Netns => mesh,
        }
    }
}
