//! The few instructions between `fork` and the real program of a child: die with the supervisor.
//!
//! A signal asked for with `PR_SET_PDEATHSIG` survives `execve`, so a child first runs `mizzen` itself with the word
//! [`GUARD`], asks for the signal, and becomes the real program. That keeps the supervisor free of unsafe code.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use rustix::process::{Pid, Signal};

/// First argument of `mizzen` when it is started as the guard of a child: `mizzen __guard PARENT PROGRAM ARGUMENT…`.
pub const GUARD: &str = "__guard";

/// The command line that runs `program` guarded; `mizzen` is the path of our own binary.
pub fn guarded(mizzen: &Path, program: &OsStr) -> Command {
    let mut command = Command::new(mizzen);
    command.arg(GUARD).arg(std::process::id().to_string()).arg(program);
    command
}

/// Runs as the guard: never returns but with an error. `arguments` are those after [`GUARD`].
pub fn become_program(arguments: impl IntoIterator<Item = OsString>) -> io::Error {
    let mut arguments = arguments.into_iter();
    let parent = arguments.next().and_then(|text| text.to_str().and_then(|text| text.parse::<i32>().ok()));
    let (Some(parent), Some(program)) = (parent.and_then(Pid::from_raw), arguments.next()) else {
        return io::Error::new(io::ErrorKind::InvalidInput, format!("{GUARD} needs a process id and a program"));
    };
    if let Err(error) = rustix::process::set_parent_process_death_signal(Some(Signal::KILL)) {
        return error.into();
    }
    // The supervisor may have died before the signal was asked for.
    if rustix::process::getppid() != Some(parent) {
        return io::Error::other("the supervisor has ended");
    }
    let error = Command::new(&program).args(arguments).exec();
    io::Error::new(error.kind(), format!("cannot run `{}`: {error}", program.to_string_lossy()))
}
