//! `start`: opening the gate at which a created container waits.

use std::os::fd::OwnedFd;

use rustix::io::Errno;

use super::host::call;
use super::listener::{await_execution, unasked};
use super::notify;
use super::process::wait_for_end;
use super::state::{Container, State, Status};
use super::store::{GATE, Store};
use crate::error::{Error, Kind, Result};
use crate::hooks::{self, Side};
use crate::init::channel::{Channel, Frame};
use crate::interrupt::Interrupt;
use crate::sys::signal;

/// How long a killed process may take to end, in seconds.
const PATIENCE: i64 = 10;

/// Executes the program of a created container.
pub fn start(store: &Store, id: &str) -> Result<()> {
    let container = Container::open(store, id)?;
    let (status, init) = container.status_and_init()?;
    let init = match (status, init) {
        (Status::Created, Some(init)) => init,
        (Status::Creating, _) => {
            return Err(Error::new(Kind::State, "cannot start a container that is still being created"));
        }
        (Status::Stopped, _) | (_, None) => {
            return Err(Error::new(Kind::State, "cannot start a container that has stopped"));
        }
        (Status::Paused, _) => {
            return Err(Error::new(Kind::State, "cannot start a paused container").hint("resume it first"));
        }
        _ => return Err(already_running()),
    };
    // As with runc, only where this very command was told of a service manager; the container's side of it is made at
    // creation.
    let manager = container.state.notify_socket.as_ref().and_then(|_| notify::manager());
    let notify = manager
        .map(|manager| notify::Proxy::open(&container.home, &container.state, &manager))
        .transpose()?;
    let channel = Channel::from_socket(call(container.home.as_fd(), GATE).map_err(|_| already_running())?);
    // The process answers one caller; to any other the socket just closes.
    channel.send(&Frame::Go).map_err(|_| already_running())?;
    match channel.receive()? {
        Some(Frame::Go) => {}
        _ => return Err(already_running()),
    }
    container.home.unlink(GATE)?;
    let state = &container.state;
    let pid = state.init.map_or(0, |init| init.pid);
    let mut refused = false;
    let executed = await_execution(&channel, None, |listener| {
        let agent = state.seccomp_agent.as_ref().ok_or_else(unasked);
        let taken = agent.and_then(|agent| agent.take(&listener, pid, &state.for_hooks("created")));
        refused = taken.is_err();
        taken
    });
    drop(channel);
    if let Err(error) = executed {
        let is_hook = error.place().is_some_and(|place| place.starts_with("hooks.startContainer"));
        // Under a filter whose agent is missing, it could neither go on nor be started again. After a failed hook the
        // container is destroyed: runtime-spec, runtime.md "Lifecycle" step 8.
        if refused || is_hook {
            take_away(&container, &init)?;
        }
        return Err(error);
    }
    if let Err(error) = run_poststart(&container.state, None) {
        // runtime-spec, runtime.md "Lifecycle" step 10: the container is stopped, and the error told.
        take_away(&container, &init)?;
        return Err(error);
    }
    if let Some(notify) = notify {
        notify.wait_until_ready(&init, None)?;
    }
    Ok(())
}

/// Ends a container that could not be started, and leaves nothing of it.
fn take_away(container: &Container, init: &OwnedFd) -> Result<()> {
    match signal::send(init, libc::SIGKILL) {
        // It may have ended by itself.
        Ok(()) | Err(Errno::SRCH) => {}
        Err(errno) => return Err(Error::os(errno, "stop the container that could not be started")),
    }
    wait_for_end(init, PATIENCE)?;
    super::delete::remove(&container.home, &container.state)
}

fn already_running() -> Error {
    Error::new(Kind::State, "cannot start an already running container")
}

/// Runs the poststart hooks.
pub fn run_poststart(state: &State, interrupt: Option<&Interrupt>) -> Result<()> {
    hooks::run(&state.poststart, "poststart", &state.for_hooks("running"), Side::Runtime(interrupt))
}
