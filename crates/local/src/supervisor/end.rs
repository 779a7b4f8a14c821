//! Ending, in the order in which nobody is cut off: the gateway finishes what it has begun, then applications, then
//! their proxies, then the control plane. A second signal ends everything at once.

use tokio::sync::mpsc;

use super::{Event, Signals, Supervisor};
use crate::process::{Happened, Process};

#[derive(Debug, Clone, Copy)]
enum Step {
    Gateway,
    Applications,
    Sidecars,
    Control,
}

impl Supervisor {
    /// Ends all processes; returns when none lives. The state folder is removed with the supervisor.
    pub(super) async fn end(&mut self, signals: &mut Signals, events: &mut mpsc::UnboundedReceiver<Event>) {
        self.console.end();
        self.console.news("stopping (once more to stop at once) …");
        for member in self.members.values_mut() {
            member.end_tasks();
        }
        for step in [Step::Gateway, Step::Applications, Step::Sidecars, Step::Control] {
            self.living(step).for_each(Process::end);
            while self.living(step).next().is_some() {
                tokio::select! {
                    () = signals.next() => self.kill_all(),
                    event = events.recv() => match event {
                        Some(event) => self.note_end(event),
                        None => return,
                    },
                }
            }
        }
        self.console.news("stopped");
    }

    fn living(&self, step: Step) -> impl Iterator<Item = &Process> {
        let members = self.members.values().filter_map(move |member| match step {
            Step::Gateway => member.proxy.as_ref().filter(|_| member.is_gateway()),
            Step::Sidecars => member.proxy.as_ref().filter(|_| !member.is_gateway()),
            Step::Applications => member.application.as_ref(),
            Step::Control => None,
        });
        members.chain(self.control.as_ref().filter(move |_| matches!(step, Step::Control)))
    }

    fn kill_all(&self) {
        for member in self.members.values() {
            member.application.iter().chain(&member.proxy).for_each(Process::kill);
        }
        self.control.iter().for_each(Process::kill);
    }

    fn note_end(&mut self, event: Event) {
        match event {
            Event::Control(Happened::Stopped) => self.control = None,
            Event::Application(key, Happened::Stopped) => {
                if let Some(member) = self.members.get_mut(&key) {
                    member.application = None;
                }
            }
            Event::Proxy(key, Happened::Stopped) => {
                if let Some(member) = self.members.get_mut(&key) {
                    member.proxy = None;
                }
            }
            // Whatever else happens while everything ends is of no consequence.
            _ => {}
        }
    }
}
