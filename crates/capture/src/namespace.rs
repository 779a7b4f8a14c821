//! Namespaces of the kernel: leaving those of the machine for new ones, and entering those of another process.
//!
//! Both act on the calling thread, and are for processes that have only this one.

use std::fs;
use std::io;
use std::os::fd::AsFd;

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::thread::{ThreadNameSpaceType, UnshareFlags, move_into_thread_name_spaces};

/// What a process gets for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts {
    /// Mounted files as well as the network.
    pub mounts: bool,
    /// A host name.
    pub host_name: bool,
}

/// How a new network namespace came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    /// We were allowed to.
    Directly,
    /// In a new user namespace, in which we are allowed to.
    InUserNamespace,
}

/// Leaves the network of the machine (and more, as `parts` say) for one that has nothing in it yet. Without the privilege
/// it needs, a user namespace is made too, in which our user stays what it is.
pub fn leave(parts: Parts) -> io::Result<Made> {
    let mut flags = UnshareFlags::NEWNET;
    flags.set(UnshareFlags::NEWNS, parts.mounts);
    flags.set(UnshareFlags::NEWUTS, parts.host_name);
    let user = rustix::process::geteuid().as_raw();
    let group = rustix::process::getegid().as_raw();
    match unshare(flags) {
        Ok(()) => Ok(Made::Directly),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            unshare(flags | UnshareFlags::NEWUSER)?;
            // One user and one group is all that may be written without privilege, and only without `setgroups`.
            fs::write("/proc/self/setgroups", "deny")?;
            fs::write("/proc/self/uid_map", format!("{user} {user} 1"))?;
            fs::write("/proc/self/gid_map", format!("{group} {group} 1"))?;
            Ok(Made::InUserNamespace)
        }
        Err(error) => Err(error),
    }
}

#[allow(unsafe_code)]
fn unshare(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: the one danger is a table of file descriptors that threads do not share any more (`FILES`), which is never
    // among the flags here.
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(io::Error::from)
}

/// Moves into the namespaces of a process that has called [`leave`]; also its user namespace, where it has another one
/// than we have. The working folder stays what it is called.
pub fn enter(process: Pid, parts: Parts) -> io::Result<()> {
    let mut types = ThreadNameSpaceType::NETWORK;
    types.set(ThreadNameSpaceType::MOUNT, parts.mounts);
    types.set(ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME, parts.host_name);
    let user = |process: &str| fs::read_link(format!("/proc/{process}/ns/user"));
    types.set(ThreadNameSpaceType::USER, user("self")? != user(&process.as_raw_nonzero().to_string())?);
    let folder = std::env::current_dir();
    let process = pidfd_open(process, PidfdFlags::empty())?;
    move_into_thread_name_spaces(process.as_fd(), types)?;
    if let (true, Ok(folder)) = (parts.mounts, folder) {
        std::env::set_current_dir(folder)?;
    }
    Ok(())
}

/// What is mounted from now on stays in our own namespace.
pub fn keep_mounts() -> io::Result<()> {
    use rustix::mount::{MountPropagationFlags, mount_change};
    Ok(mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)?)
}

/// Puts a file in the place of another one, for our own namespace.
pub fn replace_file(with: &std::path::Path, at: &std::path::Path) -> io::Result<()> {
    Ok(rustix::mount::mount_bind(with, at)?)
}

/// Hides what is in a folder, for our own namespace.
pub fn hide_folder(at: &std::path::Path) -> io::Result<()> {
    Ok(rustix::mount::mount("tmpfs", at, "tmpfs", rustix::mount::MountFlags::empty(), None)?)
}

pub fn set_host_name(name: &str) -> io::Result<()> {
    Ok(rustix::system::sethostname(name.as_bytes())?)
}

/// Capability to change the network of our namespaces, handed to the program that this process becomes, even where it is
/// not root's.
pub fn keep_net_admin() -> io::Result<()> {
    use rustix::thread::{CapabilitySet, capabilities, configure_capability_in_ambient_set, set_capabilities};
    let mut sets = capabilities(None)?;
    sets.inheritable |= CapabilitySet::NET_ADMIN;
    set_capabilities(None, sets)?;
    Ok(configure_capability_in_ambient_set(CapabilitySet::NET_ADMIN, true)?)
}
