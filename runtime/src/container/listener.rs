//! Handing a seccomp listener over, to its agent as a rule (runtime-spec, config-linux.md "The Container Process State").
//!
//! It comes over the channel from the container's side, and the process goes on when the agent has it.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};
use serde::{Deserialize, Serialize};

use super::host::{connect_to, with_address};
use crate::error::{Doing, Error, Kind, Result};
use crate::hooks::HookState;
use crate::init::channel::{Channel, Frame, send_with_descriptor};
use crate::interrupt::{self, Interrupt};

/// The agent: `linux.seccomp.listenerPath` and `listenerMetadata`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Agent {
    path: String,
    metadata: Option<String>,
}

impl From<&coracle_seccomp::Listener> for Agent {
    fn from(listener: &coracle_seccomp::Listener) -> Self {
        Self { path: listener.path.clone(), metadata: listener.metadata.clone() }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ContainerProcessState<'a> {
    oci_version: &'a str,
    fds: [&'static str; 1],
    pid: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a str>,
    state: &'a HookState,
}

impl Agent {
    /// An error unless somebody has a stream socket at the agent's path. The agent doesn't notice: a datagram socket can't
    /// be connected with it, which the kernel says (EPROTOTYPE: connect(2)) only of a socket that is open.
    pub fn look_for(&self) -> Result<()> {
        let found = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
            .and_then(|socket| with_address(self.path.as_ref(), |address| connect(&socket, address)));
        let errno = match found {
            Err(Errno::PROTOTYPE) => return Ok(()),
            Err(errno) => errno,
            // A datagram socket: the agent's must be a stream.
            Ok(()) => Errno::PROTOTYPE,
        };
        Err(unreachable(Error::os(errno, format!("look for the seccomp agent {}", self.path))))
    }

    /// Sends a listener to the agent, which owns it from then on.
    pub fn take(&self, listener: &OwnedFd, pid: i32, state: &HookState) -> Result<()> {
        let message = ContainerProcessState {
            oci_version: &state.oci_version,
            fds: ["seccompFd"],
            pid,
            metadata: self.metadata.as_deref(),
            state,
        };
        let text = serde_json::to_vec(&message).map_err(|error| {
            Error::new(Kind::System, format!("write the container process state: {error}"))
        })?;
        let socket = connect_to(self.path.as_ref(), "seccomp agent", None).map_err(unreachable)?;
        send_with_descriptor(socket.as_fd(), &text, Some(listener.as_fd()))
            .doing(|| format!("send the seccomp listener to {}", self.path))
            .map_err(|error| error.at(PLACE))
    }
}

/// Where the bundle names the agent.
const PLACE: &str = "linux.seccomp.listenerPath";

/// runc's words.
fn unreachable(error: Error) -> Error {
    error.while_doing("failed to connect with seccomp agent").at(PLACE)
}

/// The error when nobody wants a listener.
pub fn unasked() -> Error {
    Error::new(Kind::System, "the container's process loaded a seccomp listener that nobody asked for")
}

/// Waits until a process that was told to go on has executed its program: then the kernel closes its end of the channel.
/// A listener that comes meanwhile is handed over; the process goes on when that is done, and ends when it fails. An
/// interrupt ends the wait.
pub fn await_execution(
    channel: &Channel,
    interrupt: Option<&Interrupt>,
    mut hand_over: impl FnMut(OwnedFd) -> Result<()>,
) -> Result<()> {
    loop {
        interrupt::wait(channel.as_fd(), interrupt, None)
            .map_err(|error| error.while_doing("wait for the program's execution"))?;
        match channel.receive()? {
            None => return Ok(()),
            Some(Frame::Listener(listener)) => {
                hand_over(listener)?;
                channel.send(&Frame::Go).doing(|| "let the container's process go on")?;
            }
            Some(Frame::Failed(error)) => return Err(error),
            Some(_) => return Err(Error::new(Kind::System, "the container's process answered out of turn")),
        }
    }
}
