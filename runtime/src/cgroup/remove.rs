//! Removing a container's cgroups.
//!
//! It promises to wait for the kernel's word that a cgroup is empty, never for a time: on version 2
//! and in hybrid that is `populated 0` in `cgroup.events`; on pure version 1, which has no such
//! event, the end of each process through its pidfd. Removing twice is no error.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags};

use super::file::{self, CgroupDir};
use super::walk::walk;
use super::{Cgroup, Member, freezer, procs};
use crate::error::{Error, Kind, Result};
use crate::interrupt::{self, Waited};

/// How long a process that was killed may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

impl Cgroup {
    /// Removes every directory, with those that the container made below.
    ///
    /// # Errors
    /// When a process is still there after 10 seconds: removal ends nobody.
    pub fn remove(&self) -> Result<()> {
        if let Some(unit) = &self.record.unit {
            // systemd would end the processes that are left, which is not for us to ask.
            if let Some(dir) = self.unified_dir()?
                && !freezer::wait_for_event(&dir, "populated 0", Instant::now() + PATIENCE)?
            {
                let members: Vec<&Member> = self.record.members.iter().collect();
                return Err(still_in_use(&members, &procs::below(&dir)?));
            }
            unit.stop()?;
        }
        let mut busy = Vec::new();
        for member in &self.record.members {
            match file::remove(&member.path) {
                Ok(true) => {}
                Ok(false) => member.expect_hierarchy()?,
                // A version 1 hierarchy says EBUSY; one with children below may say ENOTEMPTY.
                Err(Errno::BUSY | Errno::NOTEMPTY) => busy.push(member),
                Err(errno) => return Err(remove_error(&member.path, errno)),
            }
        }
        if busy.is_empty() { Ok(()) } else { remove_busy(&busy) }
    }
}

fn remove_error(path: &Path, errno: Errno) -> Error {
    Error::os(errno, format!("remove the cgroup {}", path.display()))
}

fn remove_busy(members: &[&Member]) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    // Leaving a cgroup happens in all hierarchies at once, so the unified one speaks for all.
    let unified = members.iter().find(|member| member.is_unified());
    if let Some(dir) = unified.map(|member| CgroupDir::open_if_there(&member.path)).transpose()?.flatten() {
        freezer::wait_for_event(&dir, "populated 0", until)?;
    }
    let mut left = members.to_vec();
    let mut idle_rounds = 0;
    while !left.is_empty() {
        let mut pids = BTreeSet::new();
        let mut still = Vec::new();
        for member in left {
            if !remove_tree(&member.path)? {
                if let Some(dir) = CgroupDir::open_if_there(&member.path)? {
                    pids.append(&mut procs::below(&dir)?);
                }
                still.push(member);
            }
        }
        left = still;
        if left.is_empty() {
            return Ok(());
        }
        // A directory without processes that cannot be removed: somebody makes new ones, or the
        // last process is on its way out of the kernel.
        idle_rounds = if pids.is_empty() { idle_rounds + 1 } else { 0 };
        if idle_rounds > 100 || !wait_for_end(&pids, until)? {
            return Err(still_in_use(&left, &pids));
        }
    }
    Ok(())
}

fn still_in_use(left: &[&Member], pids: &BTreeSet<i32>) -> Error {
    let path = left.first().map(|member| member.path.display().to_string()).unwrap_or_default();
    let pids: Vec<String> = pids.iter().map(i32::to_string).collect();
    let holders = if pids.is_empty() { "none of this pid namespace".to_owned() } else { pids.join(", ") };
    Error::new(Kind::State, format!("remove the cgroup {path}: it still has processes ({holders})"))
        .hint("end them (kill --all), then delete again")
}

/// Removes a directory and all below it, deepest first; false when something is still in use.
fn remove_tree(path: &Path) -> Result<bool> {
    match file::remove(path) {
        Ok(_) => return Ok(true),
        Err(Errno::BUSY | Errno::NOTEMPTY) => {}
        Err(errno) => return Err(remove_error(path, errno)),
    }
    let Some(top) = CgroupDir::open_if_there(path)? else { return Ok(true) };
    walk(
        &top,
        |_| Ok(()),
        |above, name| match above.remove_child(name) {
            Ok(()) | Err(Errno::NOENT | Errno::NODEV | Errno::BUSY | Errno::NOTEMPTY) => Ok(()),
            Err(errno) => Err(remove_error(&above.path().join(name), errno)),
        },
    )?;
    match file::remove(path) {
        Ok(_) => Ok(true),
        Err(Errno::BUSY | Errno::NOTEMPTY) => Ok(false),
        Err(errno) => Err(remove_error(path, errno)),
    }
}

/// Waits until every one of `pids` has ended; false when `until` passes first. One after the other, since there may be
/// more of them than descriptors.
fn wait_for_end(pids: &BTreeSet<i32>, until: Instant) -> Result<bool> {
    for pid in pids.iter().filter_map(|&pid| Pid::from_raw(pid)) {
        let pidfd = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(Errno::SRCH) => continue,
            Err(errno) => return Err(Error::os(errno, format!("watch process {}", pid.as_raw_nonzero()))),
        };
        let left = until.saturating_duration_since(Instant::now());
        if interrupt::wait(pidfd.as_fd(), None, Some(left))? == Waited::TimedOut {
            return Ok(false);
        }
    }
    Ok(Instant::now() < until)
}
