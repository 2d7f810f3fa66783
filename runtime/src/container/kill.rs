//! `kill` and `ps`: signals to, and the list of, a container's processes.

use super::state::{Container, Status};
use super::store::Store;
use crate::error::{Doing, Error, Kind, Result};
use crate::sys::signal;

/// Sends a signal to the container's first process, or, with `all`, to each of its processes.
pub fn kill(store: &Store, id: &str, number: i32, all: bool) -> Result<()> {
    let container = Container::open(store, id)?;
    let (status, init) = container.status_and_init()?;
    if all {
        let cgroup = container.cgroup()?;
        if !cgroup.paths().is_empty() {
            // Processes may outlive the first one, where the container has no pid namespace of its own.
            return cgroup.kill(number);
        }
        if status == Status::Stopped {
            return Ok(());
        }
        refuse_without_a_list(&container, number)?;
    }
    let mut others = false;
    if number == libc::SIGKILL && !container.state.own_pids {
        // No pid namespace ends with the first process here, so the others are killed too, as runc does.
        // Without a cgroup they can't be told.
        let cgroup = container.cgroup()?;
        if !cgroup.paths().is_empty() {
            others = !cgroup.pids()?.is_empty();
            cgroup.kill(number)?;
        }
    }
    let init = match (status, init) {
        (Status::Stopped, _) | (_, None) if others => return Ok(()),
        (Status::Stopped, _) | (_, None) => return Err(Error::new(Kind::State, "container not running")),
        (_, Some(init)) => init,
    };
    match signal::send(&init, number) {
        // The signal to all may have ended it, and its parent may have reaped it already.
        Err(rustix::io::Errno::SRCH) if others => {}
        Err(rustix::io::Errno::SRCH) => return Err(Error::new(Kind::State, "container not running")),
        sent => sent.doing(|| format!("send signal {number} to the container's first process"))?,
    }
    if number == libc::SIGKILL {
        let cgroup = container.cgroup()?;
        if cgroup.holds_back_kills()? {
            cgroup.kill(number)?;
        } else if status == Status::Paused {
            cgroup.thaw()?;
        }
    }
    Ok(())
}

/// Without a cgroup nothing tells who belongs to a container. SIGKILL of the first process in a pid namespace is one
/// for all the same.
fn refuse_without_a_list(container: &Container, number: i32) -> Result<()> {
    if number == libc::SIGKILL && container.state.own_pids {
        return Ok(());
    }
    Err(Error::new(Kind::Unsupported, "signal all processes of the container: it has no cgroup that lists them")
        .hint("leave --all out to signal the first process alone; create without --cgroup-manager=disabled for a list"))
}

/// The ids of the container's processes, in the runtime's pid namespace.
pub fn pids(store: &Store, id: &str) -> Result<Vec<i32>> {
    Container::open(store, id)?.cgroup()?.pids()
}
