//! One instance that runs: its two processes and what is known of them.

use tokio::task::JoinHandle;

use crate::instance::Instance;
use crate::netns::Pod;
use crate::process::Process;

#[derive(Debug)]
pub(super) struct Member {
    pub instance: Instance,
    /// Its own network, where it has one.
    pub pod: Option<Pod>,
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
    /// Asks the present application process whether it is ready.
    pub application_probe: Option<JoinHandle<()>>,
    /// Asks the present proxy process.
    pub proxy_probe: Option<JoinHandle<()>>,
    /// The certificate service of a stock Envoy.
    pub tasks: Vec<JoinHandle<()>>,
}

impl Member {
    pub(super) fn new(instance: Instance, pod: Option<Pod>) -> Self {
        let is_gateway = matches!(instance.role, crate::instance::Role::Gateway { .. });
        Self {
            instance,
            pod,
            application: None,
            proxy: None,
            application_ready: (!is_gateway).then_some(false),
            proxy_ready: false,
            leaving: false,
            replaces: Vec::new(),
            trouble: None,
            application_probe: None,
            proxy_probe: None,
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

impl Member {
    /// Ends what asks and serves beside the processes.
    pub(super) fn end_tasks(&mut self) {
        let probes = self.application_probe.take().into_iter().chain(self.proxy_probe.take());
        probes.chain(self.tasks.drain(..)).for_each(|task| task.abort());
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.end_tasks();
    }
}
