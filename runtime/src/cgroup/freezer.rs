//! Stopping and continuing all of a container's processes.
//!
//! Version 2 says by an event that everything is frozen. Version 1 has no such event: there, the
//! state is read again until it is so.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::file::{self, CgroupDir};
use super::walk::walk;
use super::{Cgroup, layout::LayoutKind};
use crate::error::{Doing, Error, Kind, Result};

/// The file of version 1, which version 2 doesn't have.
const STATE_V1: &str = "freezer.state";

/// How long freezing may take; a process in an uninterruptible sleep cannot be frozen.
const PATIENCE: Duration = Duration::from_secs(10);

impl Cgroup {
    /// Stops every process of the container, and returns when they have stopped.
    pub fn freeze(&self) -> Result<()> {
        let dir = self.freezer_dir("pause the container")?;
        set_frozen(&dir, true)
    }

    /// Lets the container's processes go on.
    pub fn thaw(&self) -> Result<()> {
        let dir = self.freezer_dir("resume the container")?;
        set_frozen(&dir, false)
    }

    /// Whether the container's processes are stopped. False when the cgroup is gone.
    pub fn is_frozen(&self) -> Result<bool> {
        match self.freezer_path().map(CgroupDir::open_if_there).transpose()?.flatten() {
            Some(dir) => is_frozen_dir(&dir),
            None => Ok(false),
        }
    }

    /// Whether SIGKILL alone may not end every process. On version 1 a frozen process isn't killed before it is thawed, and
    /// a container that may write its cgroups can freeze processes in one below.
    pub fn holds_back_kills(&self) -> Result<bool> {
        let Some(dir) = self.freezer_path().map(CgroupDir::open_if_there).transpose()?.flatten() else {
            return Ok(false);
        };
        if !dir.has(STATE_V1) {
            return Ok(false);
        }
        let mut frozen = is_frozen_dir(&dir)?;
        if !frozen && dir.has_children()? {
            let look = |dir: &CgroupDir| is_frozen_dir(dir).map(|is_frozen| frozen |= is_frozen);
            walk(&dir, look, |_, _| Ok(()))?;
        }
        Ok(frozen)
    }

    /// Lets go on all that is to end, with what the container itself has frozen.
    pub(super) fn wake(&self) -> Result<()> {
        let Some(dir) = self.freezer_path().map(CgroupDir::open_if_there).transpose()?.flatten() else {
            return Ok(());
        };
        if !dir.has(STATE_V1) || !dir.has_children()? {
            return if is_frozen_dir(&dir)? { set_frozen(&dir, false) } else { Ok(()) };
        }
        walk(
            &dir,
            |dir| match dir.write(STATE_V1, "THAWED") {
                // It was removed meanwhile.
                Err(error) if matches!(error.errno(), Some(Errno::NOENT | Errno::NODEV)) => Ok(()),
                written => written,
            },
            |_, _| Ok(()),
        )
    }

    fn freezer_path(&self) -> Option<&Path> {
        let members = &self.record.members;
        let member = members.iter().find(|member| member.has("freezer")).or_else(|| {
            members.iter().find(|member| self.record.layout != LayoutKind::V1 && member.is_unified())
        });
        member.map(|member| member.path.as_path())
    }

    pub(super) fn freezer_dir(&self, what: &str) -> Result<CgroupDir> {
        self.require(what)?;
        let path = self.freezer_path().ok_or_else(|| {
            Error::new(Kind::Unsupported, format!("{what}: no freezer controller is mounted"))
                .hint("mount it (mount -t cgroup -o freezer freezer /sys/fs/cgroup/freezer)")
        })?;
        CgroupDir::open(path)
    }
}

/// Whether the processes in `dir` are stopped, or about to be.
pub fn is_frozen_dir(dir: &CgroupDir) -> Result<bool> {
    if let Some(state) = dir.read_if_there(STATE_V1)? {
        return Ok(state.trim() != "THAWED");
    }
    Ok(dir.read_if_there("cgroup.freeze")?.is_some_and(|value| value.trim() == "1"))
}

/// Freezes or thaws a cgroup of either version.
pub fn set_frozen(dir: &CgroupDir, frozen: bool) -> Result<()> {
    if dir.has(STATE_V1) {
        return if frozen { freeze_v1(dir) } else { dir.write(STATE_V1, "THAWED") };
    }
    dir.write("cgroup.freeze", if frozen { "1" } else { "0" })?;
    let wanted = if frozen { "frozen 1" } else { "frozen 0" };
    let settled = wait_for_event(dir, wanted, Instant::now() + PATIENCE)?;
    if !settled && frozen {
        dir.write("cgroup.freeze", "0")?;
        return Err(not_frozen(dir));
    }
    Ok(())
}

fn not_frozen(dir: &CgroupDir) -> Error {
    Error::new(
        Kind::System,
        format!("freeze {}: not every process stopped within {} s", dir.path().display(), PATIENCE.as_secs()),
    )
    .hint("a process is in an uninterruptible sleep; it was thawed again")
}

/// The kernel tells nobody when a version 1 cgroup is frozen, so the state is read until it is.
/// A process that forks while it is being frozen can leave the cgroup FREEZING for good: now and
/// then it is thawed for a moment (kernel cgroup-v1/freezer-subsystem.rst).
fn freeze_v1(dir: &CgroupDir) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    let mut tries: u32 = 0;
    while Instant::now() < until {
        if tries % 50 == 49 {
            dir.write(STATE_V1, "THAWED")?;
        }
        dir.write(STATE_V1, "FROZEN")?;
        if dir.read_value(STATE_V1)? == "FROZEN" {
            return Ok(());
        }
        tries += 1;
        pause(Duration::from_micros(20 * u64::from(tries.min(100))))?;
    }
    dir.write(STATE_V1, "THAWED")?;
    Err(not_frozen(dir))
}

fn pause(time: Duration) -> Result<()> {
    let time =
        Timespec::try_from(time).map_err(|_| Error::new(Kind::System, "wait: the time is out of range"))?;
    match rustix::event::poll(&mut [], Some(&time)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(Error::os(errno, "wait for the freezer")),
    }
}

/// Waits until `cgroup.events` has the line `wanted`, or the cgroup is gone; false when `until`
/// passes first. The kernel wakes a poll on the file at every change.
pub fn wait_for_event(dir: &CgroupDir, wanted: &str, until: Instant) -> Result<bool> {
    let doing = || format!("wait for {wanted:?} in {}/cgroup.events", dir.path().display());
    let events = match dir.open_file("cgroup.events", OFlags::RDONLY) {
        Ok(events) => events,
        Err(Errno::NOENT | Errno::NODEV) => return Ok(true),
        Err(errno) => return Err(Error::os(errno, doing())),
    };
    loop {
        match rustix::fs::seek(&events, rustix::fs::SeekFrom::Start(0))
            .and_then(|_| file::read_all(std::os::fd::AsFd::as_fd(&events)))
        {
            Ok(text) if text.lines().any(|line| line == wanted) => return Ok(true),
            Ok(_) => {}
            Err(Errno::NODEV) => return Ok(true),
            Err(errno) => return Err(Error::os(errno, doing())),
        }
        let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) else {
            return Ok(false);
        };
        let left = Timespec::try_from(left).ok();
        match rustix::event::poll(&mut [PollFd::new(&events, PollFlags::PRI)], left.as_ref()) {
            Err(Errno::INTR) => {}
            result => {
                result.doing(doing)?;
            }
        }
    }
}
