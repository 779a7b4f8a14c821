//! The supervisor's side of a sandbox: a child process that holds namespaces, and makes sockets in them.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketFlags, SocketType,
};
use rustix::process::Pid;
use tokio::net::{TcpSocket, TcpStream};

use super::inside::{LONGEST, SANDBOX, SEPARATOR};
use crate::child::{self, Inside};
use crate::process::Starter;
use crate::reaper::Reaper;

/// Why there is no network for the mesh.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    #[error(
        "--capture netns: the kernel does not permit a network namespace ({0}); run it as root; or allow namespaces to \
         users (sysctl -w kernel.unprivileged_userns_clone=1, on Ubuntu kernel.apparmor_restrict_unprivileged_userns=0, and \
         user.max_user_namespaces and user.max_net_namespaces above 0); \
         in a container start that with more privilege (CAP_SYS_ADMIN); or leave --capture netns away"
    )]
    NotPermitted(String),
    #[error("--capture netns: cannot prepare a network namespace: {0}; without --capture netns none is needed")]
    Refused(String),
    #[error("--capture netns: a process that holds a network namespace does not answer: {0}")]
    Gone(io::Error),
    #[error("--capture netns: cannot write {}: {error}", .path.display())]
    File { path: PathBuf, error: io::Error },
    #[error("--capture netns: cannot connect the mesh's network with this machine's: {0}")]
    Relay(io::Error),
}

/// Ends its process, and so the namespaces, when it is dropped.
#[derive(Debug)]
pub(crate) struct Sandbox {
    pid: Pid,
    channel: Mutex<OwnedFd>,
    child: Mutex<Child>,
    reaper: Arc<Reaper>,
}

/// Preparing includes loading modules of the kernel.
const PATIENCE: Duration = Duration::from_secs(30);

impl Sandbox {
    /// Starts one and waits until its namespaces are there. `beside` is one whose user namespace it shares.
    pub(crate) fn start(starter: &Starter, beside: Option<Pid>, role: &[&str]) -> Result<Self, SandboxError> {
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
            .map_err(|error| SandboxError::Gone(error.into()))?;
        rustix::net::sockopt::set_socket_timeout(&ours, rustix::net::sockopt::Timeout::Recv, Some(PATIENCE))
            .map_err(|error| SandboxError::Gone(error.into()))?;
        let inside = beside.map(Inside::beside);
        let child = child::guarded(&starter.mizzen, inside.as_ref(), starter.mizzen.as_os_str())
            .arg(SANDBOX)
            .args(role)
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .process_group_of_its_own()
            .spawn()
            .map_err(SandboxError::Gone)?;
        // A child's number is positive and fits.
        let pid = i32::try_from(child.id())
            .ok()
            .and_then(Pid::from_raw)
            .ok_or_else(|| SandboxError::Gone(io::ErrorKind::NotFound.into()))?;
        starter.reaper.watch(pid);
        let sandbox = Self { pid, channel: Mutex::new(ours), child: Mutex::new(child), reaper: starter.reaper.clone() };
        sandbox.hear(&sandbox.channel.lock().unwrap_or_else(PoisonError::into_inner))?;
        Ok(sandbox)
    }

    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// Asks for something to be done in the namespace, and waits until it is.
    pub(crate) fn ask(&self, words: &[&str]) -> Result<Option<OwnedFd>, SandboxError> {
        let message = words.join(SEPARATOR);
        let channel = self.channel.lock().unwrap_or_else(PoisonError::into_inner);
        rustix::net::send(&*channel, message.as_bytes(), SendFlags::NOSIGNAL)
            .map_err(|error| SandboxError::Gone(error.into()))?;
        self.hear(&channel)
    }

    fn hear(&self, channel: &OwnedFd) -> Result<Option<OwnedFd>, SandboxError> {
        let mut text = vec![0; LONGEST];
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = rustix::net::recvmsg(
            channel.as_fd(),
            &mut [io::IoSliceMut::new(&mut text)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        )
        .map_err(|error| SandboxError::Gone(error.into()))?;
        let handed = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut all) => all.next(),
            _ => None,
        });
        text.truncate(received.bytes);
        let text = String::from_utf8_lossy(&text);
        match text.split_once(SEPARATOR).unwrap_or((&text, "")) {
            ("ok", _) => Ok(handed),
            ("not permitted", why) => Err(SandboxError::NotPermitted(why.to_owned())),
            ("refused", why) => Err(SandboxError::Refused(why.to_owned())),
            _ => Err(SandboxError::Gone(io::ErrorKind::UnexpectedEof.into())),
        }
    }

    fn socket(&self, words: &[&str]) -> Result<OwnedFd, SandboxError> {
        self.ask(words)?.ok_or_else(|| SandboxError::Gone(io::Error::other("it sent no socket")))
    }

    /// A listener in the namespace.
    pub(crate) fn listen(&self, at: SocketAddr) -> Result<std::net::TcpListener, SandboxError> {
        Ok(self.socket(&["listen", &at.to_string()])?.into())
    }

    /// A socket for datagrams in the namespace.
    pub(crate) fn datagrams(&self, at: SocketAddr) -> Result<std::net::UdpSocket, SandboxError> {
        Ok(self.socket(&["datagrams", &at.to_string()])?.into())
    }

    /// Connects from within the namespace.
    pub(crate) async fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let socket = self.socket(&["stream"]).map_err(io::Error::other)?;
        TcpSocket::from_std_stream(socket.into()).connect(to).await
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _ = child.kill();
        let _ = child.wait();
        self.reaper.forget(self.pid);
    }
}

/// So that Ctrl-C in the terminal is for the supervisor alone.
trait OwnGroup {
    fn process_group_of_its_own(&mut self) -> &mut Self;
}

impl OwnGroup for std::process::Command {
    fn process_group_of_its_own(&mut self) -> &mut Self {
        std::os::unix::process::CommandExt::process_group(self, 0)
    }
}
