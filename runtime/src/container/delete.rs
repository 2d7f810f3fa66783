//! `delete`: taking a container away, from whatever phase it is in.

use std::os::fd::OwnedFd;

use rustix::io::Errno;

use super::identity::Identity;
use super::process::wait_for_end;
use super::state::{Container, Remains, State, Status};
use super::store::{DELETED, Home, STATE_FILE, Store};
use crate::cgroup::Cgroup;
use crate::error::{Error, Kind, Result};
use crate::hooks;
use crate::init::host_mounts::HostMount;
use crate::sys::signal;

/// How long a killed process may take to end, in seconds: as long as with runc.
const PATIENCE: i64 = 10;

/// Takes away a container that is stopped, or was never started; with `force`, any.
pub fn delete(store: &Store, id: &str, force: bool) -> Result<()> {
    let home = match store.open(id) {
        Err(error) if force && error.kind() == Kind::NotFound => return Ok(()),
        opened => opened?,
    };
    if !force {
        return delete_known(&Container::from_home(home)?, false);
    }
    if home.read(STATE_FILE)?.is_none() {
        await_creator(&home)?;
    }
    // Its creator may have put it there meanwhile.
    let Some(text) = home.read(STATE_FILE)? else { return remove_stateless(&home) };
    match State::from_json(&home, &text) {
        Ok(state) => delete_known(&Container { home, state }, true),
        Err(error) => {
            log::warn!("{error}");
            remove_damaged(&home, &Remains::from_json(&text))
        }
    }
}

fn delete_known(container: &Container, force: bool) -> Result<()> {
    let (status, init) = container.status_and_init()?;
    match status {
        Status::Stopped | Status::Created => {}
        _ if force => {}
        _ => {
            return Err(Error::new(
                Kind::State,
                format!(
                    "cannot delete container {} that is not stopped: {}",
                    container.home.id(),
                    status.name()
                ),
            )
            .hint("stop it first, or use --force"));
        }
    }
    if status == Status::Creating {
        container.home.write(DELETED, b"")?;
    }
    if let Some(init) = init {
        end(&init, Some(&container.cgroup()?))?;
    }
    remove(&container.home, &container.state)
}

/// Takes away what a container that has ended leaves: processes that outlived the first one, the cgroup, the
/// directory. Can be done again after any interruption.
pub fn remove(home: &Home, state: &State) -> Result<()> {
    let lock = home.lock();
    if home.is_gone() {
        // Somebody else has done it. What has the same names now is another container's.
        return Ok(());
    }
    let cgroup = Cgroup::open(&state.cgroup)?;
    if !state.own_pids || state.init.is_none() {
        cgroup.kill(libc::SIGKILL)?;
    }
    cgroup.remove().map_err(|error| error.while_doing("remove the container's cgroup"))?;
    if let Some(rdt) = &state.intel_rdt {
        rdt.remove()?;
    }
    undo_host_mounts(state);
    home.remove()?;
    drop(lock);
    run_poststop(state);
    Ok(())
}

/// Runs the poststop hooks. Their failures stop nothing: runtime-spec, runtime.md "Lifecycle" step 13.
pub fn run_poststop(state: &State) {
    for failure in hooks::run_all(&state.poststop, "poststop", &state.for_hooks("stopped")) {
        log::warn!("{failure}");
    }
}

/// Unmounts what a container without a mount namespace of its own mounted in the host's.
pub fn undo_host_mounts(state: &State) {
    state.host_mounts.iter().rev().for_each(HostMount::undo);
}

/// Kills a container's first process and waits for its end.
fn end(init: &OwnedFd, cgroup: Option<&Cgroup>) -> Result<()> {
    match signal::send(init, libc::SIGKILL) {
        Ok(()) | Err(Errno::SRCH) => {}
        Err(errno) => return Err(Error::os(errno, "kill the container's first process")),
    }
    for _ in 0..PATIENCE {
        // Where it is frozen, or its pid namespace has processes that are, it doesn't end. Somebody may have frozen it just
        // now, and the container itself may do it again.
        if let Some(cgroup) = cgroup
            && cgroup.holds_back_kills()?
        {
            cgroup.kill(libc::SIGKILL)?;
        }
        if wait_for_end(init, 1)? {
            return Ok(());
        }
    }
    Err(Error::new(Kind::System, "container init still running"))
}

/// Tells a creator that hasn't put the state into its place yet to stop, and waits until it has: it takes away by itself
/// what it made. One that takes longer than that does so later.
fn await_creator(home: &Home) -> Result<()> {
    home.write(DELETED, b"")?;
    if home.has(STATE_FILE) {
        return Ok(());
    }
    let Some(state) = unfinished_state(home)? else { return Ok(()) };
    if let Some(creator) = state.creator.open()?
        && !wait_for_end(&creator, PATIENCE)?
    {
        log::warn!("process {}, which creates container {}, goes on", state.creator.pid, home.id());
    }
    Ok(())
}

fn unfinished_state(home: &Home) -> Result<Option<State>> {
    Ok(home.read_unfinished(STATE_FILE)?.and_then(|text| serde_json::from_slice(&text).ok()))
}

/// Takes away a container whose state can't be read: what still can be told of it.
fn remove_damaged(home: &Home, remains: &Remains) -> Result<()> {
    let _lock = home.lock();
    if home.is_gone() {
        return Ok(());
    }
    let cgroup = remains.cgroup.as_ref().map(Cgroup::open).transpose()?;
    if let Some(init) = remains.init.map(Identity::open).transpose()?.flatten() {
        end(&init, cgroup.as_ref())?;
    }
    if let Some(cgroup) = cgroup {
        cgroup.kill(libc::SIGKILL)?;
        cgroup.remove().map_err(|error| error.while_doing("remove the container's cgroup"))?;
    }
    home.remove()
}

/// A directory without a state in its place: its creator died before the cgroup was known to be its own.
fn remove_stateless(home: &Home) -> Result<()> {
    let _lock = home.lock();
    if home.is_gone() {
        return Ok(());
    }
    if let Some(state) = unfinished_state(home)? {
        remove_unclaimed(&Cgroup::open(&state.cgroup)?)?;
    }
    home.remove()
        .map_err(|error| error.while_doing(format_args!("remove the unfinished container {}", home.id())))
}

/// Removes a cgroup that may be another container's, which was named by mistake: the own one has no process yet; one that
/// has some is somebody else's.
pub fn remove_unclaimed(cgroup: &Cgroup) -> Result<()> {
    if cgroup.paths().is_empty() || !cgroup.pids()?.is_empty() {
        return Ok(());
    }
    cgroup.remove()
}
