//! `start`: opening the gate at which a created container waits.

use super::host::call;
use super::listener::{await_execution, unasked};
use super::notify;
use super::process::wait_for_end;
use super::state::{Container, State, Status};
use super::store::{GATE, Store};
use crate::error::{Doing, Error, Kind, Result};
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
    await_execution(&channel, &init, None, |listener| {
        let agent = state.seccomp_agent.as_ref().ok_or_else(unasked)?;
        agent.take(&listener, pid, &state.for_hooks("created"))
    })?;
    drop(channel);
    if let Err(error) = run_poststart(&container.state, None) {
        // runtime-spec, runtime.md "Lifecycle" step 10: the container is stopped, and the error told.
        signal::send(&init, libc::SIGKILL).doing(|| "stop the container whose poststart hook failed")?;
        wait_for_end(&init, PATIENCE)?;
        super::delete::remove(&container.home, &container.state)?;
        return Err(error);
    }
    if let Some(notify) = notify {
        notify.wait_until_ready(&init, None)?;
    }
    Ok(())
}

fn already_running() -> Error {
    Error::new(Kind::State, "cannot start an already running container")
}

/// Runs the poststart hooks.
pub fn run_poststart(state: &State, interrupt: Option<&Interrupt>) -> Result<()> {
    hooks::run(&state.poststart, "poststart", &state.for_hooks("running"), Side::Runtime(interrupt))
}
