//! Following: processes that start, die and become ready, and files that change.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::{Event, RunError, Supervisor, start};
use crate::manifest;
use crate::plan::{self, Workload};
use crate::process::{Happened, Process};

/// Between the moment at which an instance is no endpoint any more and the end of its processes: callers hear of it
/// meanwhile.
const LEAVE_TIME: Duration = Duration::from_millis(500);

impl Supervisor {
    pub(super) fn application_happened(&mut self, key: &str, happened: Happened) {
        let Some(member) = self.members.get_mut(key) else { return };
        match happened {
            Happened::Started => return self.probe_application_anew(key),
            Happened::Stopped => {
                member.application = None;
                // Its proxy was needed until now, for the requests that it made itself.
                member.proxy.iter().for_each(Process::end);
            }
            Happened::Died { how, ran, pause, tail } => {
                // The probe would find out, but later.
                member.application_ready = Some(false);
                member.trouble = Some(how.clone());
                let log = member.application.as_ref().map(|process| process.log.path()).unwrap_or_default();
                self.report_death(&format!("{key}: the application"), &how, ran, pause, &tail, &log);
            }
        }
        self.stale = true;
        self.forget_when_gone(key);
    }

    pub(super) fn proxy_happened(&mut self, key: &str, happened: Happened) {
        let Some(member) = self.members.get_mut(key) else { return };
        match happened {
            Happened::Started => return self.probe_proxy_anew(key),
            Happened::Stopped => member.proxy = None,
            Happened::Died { how, ran, pause, tail } => {
                member.proxy_ready = false;
                member.trouble = Some(format!("proxy {how}"));
                let log = member.proxy.as_ref().map(|process| process.log.path()).unwrap_or_default();
                self.report_death(&format!("{key}: the proxy"), &how, ran, pause, &tail, &log);
            }
        }
        self.stale = true;
        self.forget_when_gone(key);
    }

    pub(super) fn application_probed(&mut self, key: &str, outcome: Result<(), String>) {
        let announced = self.announced;
        let Some(member) = self.members.get_mut(key) else { return };
        member.application_ready = Some(outcome.is_ok());
        if let Err(why) = &outcome
            && announced
            && member.application.is_some()
            && !member.leaving
        {
            self.console.warn(&format!("{key}: not ready any more: {why}"));
        }
        self.readiness_changed(key, outcome.err());
    }

    pub(super) fn proxy_probed(&mut self, key: &str, ready: bool) {
        let Some(member) = self.members.get_mut(key) else { return };
        member.proxy_ready = ready;
        self.readiness_changed(key, None);
    }

    fn readiness_changed(&mut self, key: &str, trouble: Option<String>) {
        self.stale = true;
        let Some(member) = self.members.get_mut(key) else { return };
        member.trouble = trouble;
        if !member.is_ready() {
            return;
        }
        let replaced = std::mem::take(&mut member.replaces);
        for old in replaced {
            self.leave(&old);
        }
        let ready = self.members.values().filter(|member| member.is_ready()).count();
        if self.announced {
            if !self.members.get(key).is_some_and(|member| member.leaving) {
                self.console.good(&format!("{key} is ready"));
            }
        } else {
            self.console.milestone(ready + 1, &format!("{key} ready"));
        }
    }

    /// Reads the user's files again, and starts and ends what differs.
    pub(super) fn follow_files(&mut self) -> Result<(), RunError> {
        let manifests = manifest::read(&self.settings.config);
        let plan = plan::plan(&manifests, self.settings.capture);
        let news = manifests.problems != self.manifests.problems
            || manifests.skipped != self.manifests.skipped
            || (&plan.left_out, &plan.notes) != (&self.plan.left_out, &self.plan.notes);
        if news {
            self.report_reading(&manifests, &plan);
        }
        // A file that cannot be read for a moment, or a broken document, must not end the processes that it described.
        let broken = manifests.problems.len() > self.manifests.problems.len();
        let old: BTreeMap<String, Arc<Workload>> =
            self.plan.workloads.iter().map(|workload| (workload.key(), workload.clone())).collect();
        let mut new = plan.workloads.clone();
        if broken {
            new.extend(old.values().filter(|old| !plan.workloads.iter().any(|new| new.key() == old.key())).cloned());
        }
        self.manifests = manifests;
        self.gateway_ports = start::gateway_ports(&self.manifests, self.settings.gateway_port);
        self.stale = true;
        for (key, gone) in &old {
            if !new.iter().any(|workload| workload.key() == *key) {
                self.console.news(&format!("Deployment {key} was removed"));
                self.instances_of(gone).into_iter().for_each(|instance| self.leave(&instance));
            }
        }
        for workload in &new {
            match old.get(&workload.key()) {
                Some(before) if before.same_processes(workload) => self.scale(workload)?,
                Some(_) => self.replace(workload)?,
                None => {
                    self.console.news(&format!("Deployment {} was added", workload.key()));
                    self.scale(workload)?;
                }
            }
        }
        self.plan = plan::Plan { workloads: new, ..plan };
        Ok(())
    }

    /// Keys of the instances of a Deployment that are not leaving, oldest first.
    fn instances_of(&self, workload: &Workload) -> Vec<String> {
        let mut found: Vec<&String> = self
            .members
            .iter()
            .filter(|(_, member)| {
                !member.leaving
                    && member.instance.namespace == workload.namespace
                    && member.instance.workload == workload.name
            })
            .map(|(key, _)| key)
            .collect();
        found.sort_by_key(|key| (key.len(), (*key).clone()));
        found.into_iter().cloned().collect()
    }

    fn scale(&mut self, workload: &Arc<Workload>) -> Result<(), RunError> {
        let running = self.instances_of(workload);
        let wanted = workload.replicas as usize;
        for extra in running.iter().skip(wanted) {
            self.leave(extra);
        }
        for _ in running.len()..wanted {
            self.add_and_start(workload)?;
        }
        Ok(())
    }

    /// New instances first; the old ones leave when the new are ready, so that no request finds none.
    fn replace(&mut self, workload: &Arc<Workload>) -> Result<(), RunError> {
        self.console.news(&format!("Deployment {} changed: its processes are replaced", workload.key()));
        let old = self.instances_of(workload);
        // Two processes cannot listen on one fixed port: the old one has to go first.
        if workload.fixed_port.is_some() || workload.replicas == 0 {
            old.iter().for_each(|key| self.leave(key));
        }
        let mut fresh = Vec::new();
        for _ in 0..workload.replicas {
            fresh.push(self.add_and_start(workload)?);
        }
        // One leaves for each that comes; if fewer come, the last one takes the rest with it.
        for (index, leaves) in old.into_iter().enumerate() {
            let comes = fresh.get(index).or(fresh.last());
            if let Some(member) = comes.and_then(|key| self.members.get_mut(key)) {
                member.replaces.push(leaves);
            }
        }
        Ok(())
    }

    fn add_and_start(&mut self, workload: &Arc<Workload>) -> Result<String, RunError> {
        let key = self.add_workload_instance(workload)?;
        // The control plane must know the pod before its proxy asks.
        self.publish();
        self.start_application(&key);
        if self.control_up {
            self.start_proxy(&key);
        }
        Ok(key)
    }

    /// Takes an instance out of service; its processes end a little later.
    fn leave(&mut self, key: &str) {
        let Some(member) = self.members.get_mut(key) else { return };
        if member.leaving {
            return;
        }
        member.leaving = true;
        self.stale = true;
        let (events, key) = (self.events.clone(), key.to_owned());
        tokio::task::spawn(async move {
            sleep(LEAVE_TIME).await;
            let _ = events.send(Event::Left(key));
        });
    }

    pub(super) fn left(&mut self, key: &str) {
        let Some(member) = self.members.get(key) else { return };
        match &member.application {
            Some(application) => application.end(),
            None => member.proxy.iter().for_each(Process::end),
        }
        self.forget_when_gone(key);
    }

    fn forget_when_gone(&mut self, key: &str) {
        if self.members.get(key).is_none_or(|member| !member.leaving || member.lives()) {
            return;
        }
        if let Some(member) = self.members.remove(key) {
            self.addresses.give_back(member.instance.host);
            if let crate::instance::Role::Sidecar { app_ports, .. } = &member.instance.role {
                self.app_ports.retain(|port| !app_ports.values().any(|given| given == port));
            }
            self.state.forget_instance(&member.instance.folder());
            self.stale = true;
        }
    }
}
