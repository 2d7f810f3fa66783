//! What of a container exists while it is made, and taking it away when the making fails.

use std::os::fd::OwnedFd;

use super::delete;
use super::process::kill_and_reap;
use super::state::State;
use super::store::Home;
use crate::cgroup::Cgroup;
use crate::network::Moves;
use crate::rdt;

/// What of a container exists so far.
pub struct Made {
    /// Its directory.
    pub home: Home,
    /// Its state so far.
    pub state: State,
    /// The state stands in its place: others know of the cgroup.
    pub known: bool,
    /// Its cgroup.
    pub cgroup: Option<Cgroup>,
    /// Its first process's pidfd.
    pub process: Option<OwnedFd>,
    /// The network devices that were moved into it.
    pub devices: Option<Moves>,
    /// Its class of service.
    pub rdt: Option<rdt::Record>,
    /// Hooks may have run: the poststop hooks answer to them.
    pub hooks: bool,
}

impl Made {
    /// A container of which there is only the directory.
    pub fn new(home: Home, state: State) -> Self {
        Self {
            home,
            state,
            known: false,
            cgroup: None,
            process: None,
            devices: None,
            rdt: None,
            hooks: false,
        }
    }

    /// Lets go of a container that somebody else takes away. Another one of its id may be there already, with a
    /// cgroup of the same name: nothing is touched by name.
    fn let_go(&mut self) {
        // Before the namespace that holds them ends with its process.
        if let Some(devices) = self.devices.take() {
            devices.undo();
        }
        if let Some(process) = self.process.take() {
            kill_and_reap(&process);
        }
        // By their identity.
        delete::undo_host_mounts(&self.state);
    }

    /// Leaves a container to whoever deletes it, who knows of the cgroup only once the state stands in its place.
    pub fn leave_to_deleter(mut self) {
        self.let_go();
        if self.known {
            return;
        }
        let cgroup = self.cgroup.take();
        let removed = cgroup.as_ref().map_or(Ok(()), delete::remove_unclaimed);
        if let Err(error) = removed.and_then(|()| self.home.remove()) {
            log::warn!("{error}");
        }
    }

    /// Takes everything away. What goes wrong here is only logged: the error that led here is the one to tell.
    pub fn take_away(mut self) {
        self.let_go();
        let lock = self.home.lock();
        // Somebody else may have taken it away just now.
        let is_ours = !self.home.is_gone();
        if let Some(cgroup) = self.cgroup.take().filter(|_| is_ours)
            && let Err(error) = cgroup.kill(libc::SIGKILL).and_then(|()| cgroup.remove())
        {
            log::warn!("{error}");
        }
        if let Some(Err(error)) = self.rdt.take().filter(|_| is_ours).map(|rdt| rdt.remove()) {
            log::warn!("{error}");
        }
        // The hooks may delete it too.
        drop(lock);
        if self.hooks {
            delete::run_poststop(&self.state);
        }
        if let Err(error) = self.home.remove() {
            log::warn!("{error}");
        }
    }
}
