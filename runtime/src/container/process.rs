//! Ends of processes: waiting for them, telling of them.

use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, WaitIdStatus, waitid};

use crate::error::{Doing, Error, Kind, Result};
use crate::sys::signal;

/// Kills a child and takes its exit status, so that no zombie stays.
pub fn kill_and_reap(pidfd: &OwnedFd) {
    // It may have ended already, or not be our child: then there is nothing to do.
    let _ = signal::send(pidfd, libc::SIGKILL);
    let _ = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
}

/// Waits for a child's end. Gives the exit status as a shell has it: 128 and the signal's number for a signal.
pub fn wait(pidfd: &OwnedFd) -> Result<i32> {
    loop {
        match waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {
            Ok(Some(status)) => return Ok(shell_status(&status)),
            Ok(None) | Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::os(errno, "wait for the process")),
        }
    }
}

fn shell_status(status: &WaitIdStatus) -> i32 {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128 + signal,
        (None, None) => 255,
    }
}

/// A child of ours ended without telling why: its exit status is all there is to tell.
pub fn ended(pidfd: &OwnedFd, when: &str) -> Error {
    let how = match waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {
        Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
            (_, Some(libc::SIGKILL)) => {
                return Error::new(
                    Kind::System,
                    format!("the container's process was killed (signal 9) {when}"),
                )
                .hint("if nobody killed it, its memory limit is too low to start in");
            }
            (_, Some(signal)) => format!("was ended by signal {signal}"),
            (Some(code), None) => format!("ended with status {code}"),
            (None, None) => "ended".to_owned(),
        },
        _ => "ended".to_owned(),
    };
    Error::new(Kind::System, format!("the container's process {how} {when}"))
}

/// Waits until a process has ended, by its pidfd; says whether it has within the time.
pub fn wait_for_end(pidfd: &OwnedFd, seconds: i64) -> Result<bool> {
    let limit = Timespec { tv_sec: seconds, tv_nsec: 0 };
    loop {
        match poll(&mut [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)], Some(&limit)) {
            Ok(count) => return Ok(count > 0),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).doing(|| "wait for the process's end"),
        }
    }
}

/// Keeps other processes from looking into this one: prctl(2), `PR_SET_DUMPABLE`.
pub fn hide_from_debuggers() -> Result<()> {
    prctl::set_dumpable(false)
        .map_err(|number| Error::os(Errno::from_raw_os_error(number), "make the runtime non-dumpable"))
}

/// Makes this process the parent of its descendants that lose theirs: prctl(2), `PR_SET_CHILD_SUBREAPER`.
pub fn adopt_orphans() -> Result<()> {
    prctl::set_child_subreaper(true)
        .map_err(|number| Error::os(Errno::from_raw_os_error(number), "become a subreaper"))
}
