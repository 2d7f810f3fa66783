//! What the container's side says and hears: over the channel to the host side, and at the gate.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};

use super::channel::{Channel, Frame, send_with_descriptor};
use super::root::Root;
use super::{ConsoleReceiver, Inside};
use crate::error::{Doing, Error, Result};
use crate::hooks::{self, HookState, Side};
use crate::sys;

pub fn tell(inside: &Inside<'_>, frame: &Frame) -> Result<()> {
    inside.channel.send(frame).doing(|| "tell the runtime")
}

/// Waits for the host side's word. Without one the host side has died, and this process is of no use.
pub fn await_go(inside: &Inside<'_>) -> Result<()> {
    await_word(&inside.channel)
}

/// As [`await_go`], for who has only the channel.
pub fn await_word(channel: &Channel) -> Result<()> {
    match channel.receive()? {
        Some(Frame::Go) => Ok(()),
        _ => sys::process::exit_now(1),
    }
}

pub fn hand_over_console(master: OwnedFd, inside: &Inside<'_>) -> Result<()> {
    match &inside.console {
        ConsoleReceiver::Host | ConsoleReceiver::Caller => tell(inside, &Frame::Console(master)),
        ConsoleReceiver::Engine(socket) => {
            send_with_descriptor(socket.as_fd(), b"/dev/pts/ptmx", Some(master.as_fd()))
                .doing(|| "send the terminal to the console socket")
        }
    }
}

pub fn run_hooks(name: &'static str, inside: &Inside<'_>, root: Option<&Root>) -> Result<()> {
    // As with runc: createContainer hooks run in the rootfs and without an environment, startContainer hooks in the
    // program's directory and with its environment.
    if let Some(root) = root.filter(|_| name == "createContainer") {
        rustix::process::fchdir(root).doing(|| "change to the rootfs")?;
    }
    let (hooks, status, env) = match name {
        "createContainer" => (inside.create_container, "creating", [].as_slice()),
        _ => (inside.start_container, "created", inside.env.as_slice()),
    };
    let Some(state) = &inside.hook_state else { return Ok(()) };
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    hooks::run(hooks, name, &HookState { status, pid, ..state.clone() }, Side::Container { env })
}

/// Waits at the gate for `start`, which calls and says `Go`. A caller that hangs up without a word only looked whether
/// somebody waits here. Once one has said it, later callers find nobody listening.
pub fn await_start(inside: &mut Inside<'_>) -> Result<Option<Channel>> {
    let Some(gate) = inside.gate.take() else { return Ok(None) };
    // A process that nobody starts can be ended by the usual signals, also as the first of its pid namespace, which gets
    // only those that it handles: pid_namespaces(7).
    sys::signal::end_by_usual_signals().doing(|| "handle signals")?;
    // It may wait for long. Where the kernel can't do it, it waits all the same.
    let _ = sys::memory::give_back_code();
    loop {
        let call = match accept_with(&gate, SocketFlags::CLOEXEC) {
            Ok(call) => Channel::from_socket(call),
            Err(Errno::INTR | Errno::CONNABORTED) => continue,
            Err(errno) => return Err(Error::os(errno, "wait for start")),
        };
        if let Ok(Some(Frame::Go)) = call.receive() {
            drop(gate);
            call.send(&Frame::Go).doing(|| "answer start")?;
            return Ok(Some(call));
        }
    }
}
