//! A signal for every process of a container.
//!
//! SIGKILL on version 2 is one write to `cgroup.kill`. Everything else signals process by process
//! until there is no new one, and stops them all first when they fork faster than that. A pid that
//! was reused by a process outside the container is never signalled.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags};

use super::file::CgroupDir;
use super::{Cgroup, freezer, procs};
use crate::error::{Error, Result};

impl Cgroup {
    /// Signals every process in the container's cgroups; none being left is no error, nor is a
    /// container without cgroups (its [`Cgroup::paths`] are empty), which has no such list. A container
    /// that is paused stays so, except for SIGKILL, which its processes must wake up for.
    pub fn kill(&self, signal: i32) -> Result<()> {
        let killing = signal == libc::SIGKILL;
        if killing
            && let Some(dir) = self.unified_dir()?
            // In hybrid a process can be moved in the version 1 hierarchies alone.
            && self.record.members.len() == 1
            && dir.has("cgroup.kill")
        {
            match dir.write("cgroup.kill", "1") {
                // A container that may write its cgroup can make it a threaded one, which has no such kill.
                Err(error) if error.errno() == Some(Errno::OPNOTSUPP) => {}
                written => return written,
            }
        }
        let Some(member) = self.process_member() else { return Ok(()) };
        let Some(dir) = CgroupDir::open_if_there(&member.path)? else { return member.expect_hierarchy() };
        let settled = chase(&dir, signal)?;
        if settled {
            return if killing { self.wake() } else { Ok(()) };
        }
        let freezer = self.freezer_dir("signal the container's processes")?;
        let frozen_before = freezer::is_frozen_dir(&freezer)?;
        if !frozen_before {
            freezer::set_frozen(&freezer, true)?;
        }
        let result = signal_each(&dir, signal, &mut BTreeSet::new());
        if killing {
            self.wake()?;
        } else if !frozen_before {
            freezer::set_frozen(&freezer, false)?;
        }
        result
    }
}

/// Signals until a pass meets no new process; false when they fork faster than that.
fn chase(dir: &CgroupDir, signal: i32) -> Result<bool> {
    const PASSES: usize = 4;
    let mut signalled = BTreeSet::new();
    for _ in 0..PASSES {
        let before = signalled.len();
        signal_each(dir, signal, &mut signalled)?;
        if signalled.len() == before {
            return Ok(true);
        }
    }
    Ok(false)
}

/// How many processes are pinned at a time: a container decides how many it has, and descriptors are limited.
const PINNED: usize = 64;

/// Signals every process of the subtree that is not in `signalled` yet.
fn signal_each(dir: &CgroupDir, signal: i32, signalled: &mut BTreeSet<i32>) -> Result<()> {
    let new: Vec<i32> = procs::below(dir)?.into_iter().filter(|pid| !signalled.contains(pid)).collect();
    new.chunks(PINNED).try_for_each(|pids| signal_pinned(dir, pids, signal, signalled))
}

/// A pid could end and be given to a stranger after the list was read. So each is pinned by a pidfd
/// first, and signalled only when a second list, read after that, still has it.
fn signal_pinned(dir: &CgroupDir, pids: &[i32], signal: i32, signalled: &mut BTreeSet<i32>) -> Result<()> {
    let mut pinned: Vec<(i32, OwnedFd)> = Vec::with_capacity(pids.len());
    for &pid in pids {
        let Some(process) = Pid::from_raw(pid) else { continue };
        match rustix::process::pidfd_open(process, PidfdFlags::empty()) {
            Ok(pidfd) => pinned.push((pid, pidfd)),
            // It has ended; or it is a thread, in the list of a threaded cgroup, and ends with its process.
            Err(Errno::SRCH | Errno::INVAL | Errno::NOENT) => {}
            Err(errno) => return Err(Error::os(errno, format!("open process {pid}"))),
        }
    }
    if pinned.is_empty() {
        return Ok(());
    }
    let still = procs::below(dir)?;
    for (pid, pidfd) in pinned.into_iter().filter(|(pid, _)| still.contains(pid)) {
        match crate::sys::signal::send(&pidfd, signal) {
            Ok(()) | Err(Errno::SRCH) => signalled.insert(pid),
            Err(errno) => return Err(Error::os(errno, format!("signal process {pid}"))),
        };
    }
    Ok(())
}
