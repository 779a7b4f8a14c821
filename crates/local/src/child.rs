//! The few instructions between `fork` and the real program of a child: die with the supervisor.
//!
//! A signal asked for with `PR_SET_PDEATHSIG` survives `execve`, so a child first runs `mizzen` itself with the word
//! [`GUARD`], asks for the signal, and becomes the real program. That keeps the supervisor free of unsafe code.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use mizzen_capture::namespace::{self, Parts};
use rustix::process::{Pid, Signal};

use crate::netns::inside;

/// First argument of `mizzen` when it is started as the guard of a child: `mizzen __guard PARENT PROGRAM ARGUMENT…`.
pub const GUARD: &str = "__guard";

/// The namespaces in which a child runs: those of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inside {
    process: Pid,
    parts: Parts,
    /// Whether it may mark its packets.
    net_admin: bool,
}

impl Inside {
    /// In a pod, as its application.
    pub fn pod(process: Pid) -> Self {
        Self { process, parts: inside::OF_POD, net_admin: false }
    }

    /// In a pod, as its proxy.
    pub fn pod_as_proxy(process: Pid) -> Self {
        Self { net_admin: true, ..Self::pod(process) }
    }

    /// In the network of a node.
    pub fn beside(process: Pid) -> Self {
        Self { process, parts: inside::OF_NODE, net_admin: false }
    }

    /// As one word of a command line.
    fn word(&self) -> String {
        let place = if self.parts == inside::OF_POD { "pod" } else { "node" };
        format!("{INSIDE}{place}:{}:{}", self.process.as_raw_nonzero(), u8::from(self.net_admin))
    }

    fn read(word: &str) -> Option<Self> {
        let mut words = word.strip_prefix(INSIDE)?.split(':');
        let parts = if words.next()? == "pod" { inside::OF_POD } else { inside::OF_NODE };
        let process = words.next()?.parse().ok().and_then(Pid::from_raw)?;
        Some(Self { process, parts, net_admin: words.next()? == "1" })
    }

    fn enter(&self) -> io::Result<()> {
        namespace::enter(self.process, self.parts)
            .and_then(|()| if self.net_admin { namespace::keep_net_admin() } else { Ok(()) })
            .map_err(|error| io::Error::new(error.kind(), format!("cannot enter the pod's namespaces: {error}")))
    }
}

const INSIDE: &str = "--inside=";

/// The command line that runs `program` guarded; `mizzen` is the path of our own binary.
pub fn guarded(mizzen: &Path, inside: Option<&Inside>, program: &OsStr) -> Command {
    let mut command = Command::new(mizzen);
    command.arg(GUARD).arg(std::process::id().to_string()).args(inside.map(Inside::word)).arg(program);
    command
}

/// First argument of `mizzen` when it becomes a program in the namespaces of a pod: `mizzen __inside POD PROGRAM ARGUMENT…`.
pub const ENTER: &str = "__inside";

/// The command line that runs `program` in the namespaces of the sandbox with this process id.
pub fn entering(mizzen: &Path, sandbox: u32, program: &OsStr) -> Option<Command> {
    let process = i32::try_from(sandbox).ok().and_then(Pid::from_raw)?;
    let mut command = Command::new(mizzen);
    command.arg(ENTER).arg(Inside::pod(process).word()).arg(program);
    for name in crate::capture::PROXY_VARIABLES {
        command.env_remove(name);
    }
    Some(command)
}

/// Becomes a program there: never returns but with an error. `arguments` are those after [`ENTER`].
pub fn enter_and_become(arguments: impl IntoIterator<Item = OsString>) -> io::Error {
    let mut arguments = arguments.into_iter();
    let inside = arguments.next().as_ref().and_then(|word| Inside::read(word.to_str()?));
    let (Some(inside), Some(program)) = (inside, arguments.next()) else {
        return io::Error::new(io::ErrorKind::InvalidInput, format!("{ENTER} needs a pod and a program"));
    };
    match inside.enter() {
        Ok(()) => become_it(&program, arguments),
        Err(error) => error,
    }
}

fn become_it(program: &OsStr, arguments: impl Iterator<Item = OsString>) -> io::Error {
    let error = Command::new(program).args(arguments).exec();
    io::Error::new(error.kind(), format!("cannot run `{}`: {error}", program.to_string_lossy()))
}

/// Runs as the guard: never returns but with an error. `arguments` are those after [`GUARD`].
pub fn become_program(arguments: impl IntoIterator<Item = OsString>) -> io::Error {
    let mut arguments = arguments.into_iter();
    let parent = arguments.next().and_then(|text| text.to_str().and_then(|text| text.parse::<i32>().ok()));
    let mut next = arguments.next();
    let inside = next.as_ref().and_then(|word| Inside::read(word.to_str()?));
    if inside.is_some() {
        next = arguments.next();
    }
    let (Some(parent), Some(program)) = (parent.and_then(Pid::from_raw), next) else {
        return io::Error::new(io::ErrorKind::InvalidInput, format!("{GUARD} needs a process id and a program"));
    };
    // First, since the signal is forgotten with a change of privilege.
    if let Some(Err(error)) = inside.map(|inside| inside.enter()) {
        return error;
    }
    if let Err(error) = rustix::process::set_parent_process_death_signal(Some(Signal::KILL)) {
        return error.into();
    }
    // The supervisor may have died before the signal was asked for.
    if rustix::process::getppid() != Some(parent) {
        return io::Error::other("the supervisor has ended");
    }
    become_it(&program, arguments)
}
