//! One child process that is kept running: started, watched, restarted with back-off, and stopped in an orderly way.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::process::Child;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};

use crate::backoff::Backoff;
use crate::child::{self, Inside};
use crate::logs::Log;
use crate::reaper::Reaper;

/// What to run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Spec {
    pub(crate) program: OsString,
    pub(crate) arguments: Vec<OsString>,
    /// Added to the environment of the supervisor.
    pub(crate) environment: Vec<(String, String)>,
    /// Taken away from it.
    pub(crate) without: &'static [&'static str],
    /// The namespaces in which it runs, where these are not the machine's own.
    pub(crate) inside: Option<Inside>,
    pub(crate) folder: PathBuf,
    /// Between SIGTERM and SIGKILL.
    pub(crate) grace: Duration,
}

/// Something that happened to a process.
#[derive(Debug)]
pub(crate) enum Happened {
    Started,
    /// It ended by itself; it is started again after `pause`.
    Died {
        how: String,
        ran: Duration,
        pause: Duration,
        tail: Vec<String>,
    },
    /// It was stopped as asked; nothing of it lives.
    Stopped,
}

/// What a process shall do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    Run,
    /// End in an orderly way.
    End,
    /// End at once.
    Kill,
}

/// What every process is started with.
#[derive(Debug, Clone)]
pub(crate) struct Starter {
    /// Our own binary, which every child is at first.
    pub(crate) mizzen: Arc<Path>,
    pub(crate) reaper: Arc<Reaper>,
}

/// Handle of a process that is kept running.
#[derive(Debug)]
pub(crate) struct Process {
    wish: watch::Sender<Wish>,
    pub(crate) log: Log,
}

impl Process {
    /// Starts `spec` and keeps it running. `tell` hears what happens.
    pub(crate) fn keep_running<T: Send + 'static>(
        starter: Starter,
        spec: Spec,
        log: Log,
        events: mpsc::UnboundedSender<T>,
        tell: impl Fn(Happened) -> T + Send + 'static,
    ) -> Self {
        let (wish, wished) = watch::channel(Wish::Run);
        // The supervisor may be gone when it hears nothing any more; then there is nobody to tell.
        let tell = move |happened| drop(events.send(tell(happened)));
        tokio::task::spawn(keep_running(starter, spec, log.clone(), wished, tell));
        Self { wish, log }
    }

    pub(crate) fn end(&self) {
        // Killing is never taken back.
        self.wish.send_if_modified(|wish| {
            *wish == Wish::Run && {
                *wish = Wish::End;
                true
            }
        });
    }

    pub(crate) fn kill(&self) {
        self.wish.send_replace(Wish::Kill);
    }
}

async fn keep_running(
    starter: Starter,
    spec: Spec,
    log: Log,
    mut wished: watch::Receiver<Wish>,
    tell: impl Fn(Happened) + Send + 'static,
) {
    let mut backoff = Backoff::default();
    while *wished.borrow() == Wish::Run {
        let begun = Instant::now();
        let how = match spawn(&starter.mizzen, &spec, &log) {
            Err(error) => format!("cannot be started: {error}"),
            Ok(mut child) => {
                tell(Happened::Started);
                let group = child_group(&child);
                group.iter().for_each(|group| starter.reaper.watch(*group));
                tokio::select! {
                    status = child.wait() => {
                        // What it started itself must not live on beside its successor.
                        kill_group(&group, Signal::KILL);
                        group.iter().for_each(|group| starter.reaper.forget(*group));
                        status.map_or_else(|error| error.to_string(), describe)
                    }
                    () = wish_other_than_run(&mut wished) => {
                        stop(child, spec.grace, &mut wished).await;
                        group.iter().for_each(|group| starter.reaper.forget(*group));
                        break;
                    }
                }
            }
        };
        let ran = begun.elapsed();
        let pause = backoff.next(ran, rand::random());
        tell(Happened::Died { how, ran, pause, tail: log.tail() });
        tokio::select! {
            () = sleep(pause) => {}
            () = wish_other_than_run(&mut wished) => break,
        }
    }
    tell(Happened::Stopped);
}

/// Waits until the process shall not run any more. A supervisor that is gone wants nothing to run.
async fn wish_other_than_run(wished: &mut watch::Receiver<Wish>) {
    let _ = wished.wait_for(|wish| *wish != Wish::Run).await;
}

fn spawn(mizzen: &Path, spec: &Spec, log: &Log) -> std::io::Result<Child> {
    log.forget_tail();
    let mut command = tokio::process::Command::from(child::guarded(mizzen, spec.inside.as_ref(), &spec.program));
    for name in spec.without {
        command.env_remove(name);
    }
    command
        .args(&spec.arguments)
        .envs(spec.environment.iter().map(|(name, value)| (name, value)))
        .current_dir(&spec.folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Ctrl-C in the terminal is for the supervisor, which then stops all in order.
        .process_group(0)
        .kill_on_drop(true);
    let mut child = command.spawn()?;
    if let Some(stdout) = child.stdout.take() {
        tokio::task::spawn(log.clone().copy(stdout));
    }
    if let Some(stderr) = child.stderr.take() {
        tokio::task::spawn(log.clone().copy(stderr));
    }
    Ok(child)
}

/// SIGTERM to the whole group, SIGKILL after the grace or when killing is wished meanwhile.
async fn stop(mut child: Child, grace: Duration, wished: &mut watch::Receiver<Wish>) {
    let group = child_group(&child);
    if *wished.borrow() == Wish::End {
        kill_group(&group, Signal::TERM);
        let killed = wished.wait_for(|wish| *wish == Wish::Kill);
        tokio::select! {
            _ = timeout(grace, child.wait()) => {}
            _ = killed => {}
        }
    }
    kill_group(&group, Signal::KILL);
    let _ = child.wait().await;
}

/// The group that the child leads; what it started itself is in it too.
fn child_group(child: &Child) -> Option<Pid> {
    child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw)
}

fn kill_group(group: &Option<Pid>, signal: Signal) {
    if let Some(group) = group {
        // An error means that the group is gone.
        let _ = rustix::process::kill_process_group(*group, signal);
    }
}

fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with status {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}{}", signal_name(signal)),
        (None, None) => "ended".to_owned(),
    }
}

fn signal_name(signal: i32) -> &'static str {
    match signal {
        6 => " (SIGABRT)",
        9 => " (SIGKILL; perhaps out of memory)",
        11 => " (SIGSEGV)",
        15 => " (SIGTERM)",
        _ => "",
    }
}
