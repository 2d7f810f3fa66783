//! `delete`: taking a container away, from whatever phase it is in.

use super::process::wait_for_end;
use super::state::{Container, State, Status};
use super::store::{DELETED, Home, STATE_FILE, Store};
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
    if force && !home.has(STATE_FILE) {
        return remove_stateless(&home);
    }
    let container = match Container::from_home(home) {
        Err(error) if force && error.kind() == Kind::System => {
            return store.open(id)?.remove().map_err(|_| error);
        }
        opened => opened?,
    };
    let (status, init) = container.status_and_init()?;
    match status {
        Status::Stopped | Status::Created => {}
        _ if force => {}
        _ => {
            return Err(Error::new(
                Kind::State,
                format!("cannot delete container {id} that is not stopped: {}", status.name()),
            )
            .hint("stop it first, or use --force"));
        }
    }
    if status == Status::Creating {
        container.home.write(DELETED, b"")?;
    }
    if let Some(init) = init {
        match signal::send(&init, libc::SIGKILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(errno) => return Err(Error::os(errno, "kill the container's first process")),
        }
        if status == Status::Paused {
            // On cgroup v1 a frozen process isn't even killed before it is thawed.
            container.cgroup()?.thaw()?;
        }
        if !wait_for_end(&init, PATIENCE)? {
            return Err(Error::new(Kind::System, "container init still running"));
        }
    }
    remove(&container.home, &container.state)
}

/// Takes away what a container that has ended leaves: processes that outlived the first one, the cgroup, the
/// directory. Can be done again after any interruption.
pub fn remove(home: &Home, state: &State) -> Result<()> {
    if home.is_gone() {
        // Somebody else has done it. What has the same names now is another container's.
        return Ok(());
    }
    let cgroup = crate::cgroup::Cgroup::open(&state.cgroup)?;
    if !state.own_pids || state.init.is_none() {
        cgroup.kill(libc::SIGKILL)?;
    }
    cgroup.remove().map_err(|error| error.while_doing("remove the container's cgroup"))?;
    if let Some(rdt) = &state.intel_rdt {
        rdt.remove()?;
    }
    undo_host_mounts(state);
    home.remove()?;
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

/// A directory without a state in its place: its creator died before the cgroup was known to be its own. A cgroup that it
/// made has no process yet; one that has some is somebody else's.
fn remove_stateless(home: &Home) -> Result<()> {
    if let Some(state) =
        home.read_unfinished(STATE_FILE)?.and_then(|text| serde_json::from_slice::<State>(&text).ok())
    {
        let cgroup = crate::cgroup::Cgroup::open(&state.cgroup)?;
        if !cgroup.paths().is_empty() && cgroup.pids()?.is_empty() {
            cgroup.remove()?;
        }
    }
    home.remove()
        .map_err(|error| error.while_doing(format_args!("remove the unfinished container {}", home.id())))
}
