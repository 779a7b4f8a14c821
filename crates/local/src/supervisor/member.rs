//! One instance that runs: its two processes and what is known of them.

use tokio::task::JoinHandle;

use crate::instance::Instance;
use crate::process::Process;

#[derive(Debug)]
pub(super) struct Member {
    pub instance: Instance,
    pub application: Option<Process>,
    pub proxy: Option<Process>,
    /// `None` for a gateway.
    pub application_ready: Option<bool>,
    pub proxy_ready: bool,
    /// It takes no new requests; it ends when the last ones are done.
    pub leaving: bool,
    /// Keys of those that leave once this one is ready.
    pub replaces: Vec<String>,
    /// Why it is not ready.
    pub trouble: Option<String>,
    /// Probes, and the certificate service of a stock Envoy. They end with the member.
    pub tasks: Vec<JoinHandle<()>>,
}

impl Member {
    pub(super) fn new(instance: Instance) -> Self {
        let is_gateway = matches!(instance.role, crate::instance::Role::Gateway { .. });
        Self {
            instance,
            application: None,
            proxy: None,
            application_ready: (!is_gateway).then_some(false),
            proxy_ready: false,
            leaving: false,
            replaces: Vec::new(),
            trouble: None,
            tasks: Vec::new(),
        }
    }

    pub(super) fn is_gateway(&self) -> bool {
        self.application_ready.is_none()
    }

    pub(super) fn is_ready(&self) -> bool {
        self.proxy_ready && self.application_ready.unwrap_or(true)
    }

    /// For people.
    pub(super) fn state(&self) -> String {
        let word = match (self.leaving, self.is_ready(), self.application_ready) {
            (true, ..) => return "leaving".to_owned(),
            (_, true, _) => return "ready".to_owned(),
            (_, _, Some(false)) => "application not ready",
            _ => "proxy not ready",
        };
        match &self.trouble {
            Some(trouble) => format!("{word}: {trouble}"),
            None => word.to_owned(),
        }
    }

    /// Whether anything of it still lives.
    pub(super) fn lives(&self) -> bool {
        self.application.is_some() || self.proxy.is_some()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}
