//! Ending what takes long, when somebody asks for it by a signal.
//!
//! While a container is being made, all signals are held back, since one in the middle would leave half a container
//! behind. Those that ask a program to end are looked for wherever the making may wait for others: then it fails, and
//! what was made is taken away as after any failure.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::error::{Error, Kind, Result};
use crate::sys::signal::is_ignored;

/// The signals that ask a program to end.
const ENDING: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT];

/// A watch for signals that ask to end. They must be blocked.
#[derive(Debug)]
pub struct Interrupt(SignalFd);

/// What a wait came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waited {
    /// What was waited for is there.
    Ready,
    /// The time was over.
    TimedOut,
}

impl Interrupt {
    /// Watches from now on; signals that are pending already count.
    pub fn watch() -> Result<Self> {
        let signals: SigSet = ENDING.into_iter().collect();
        SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .map(Self)
            .map_err(|errno| Error::os(Errno::from_raw_os_error(errno as i32), "make the signal descriptor"))
    }

    /// An error if somebody has asked to end. A signal that the caller ignores (nohup(1)) asks for nothing.
    pub fn check(&self) -> Result<()> {
        while let Ok(Some(info)) = self.0.read_signal() {
            let number = info.ssi_signo as i32;
            if is_ignored(number) {
                continue;
            }
            let name = Signal::try_from(number).map_or("a signal", Signal::as_str);
            return Err(Error::new(Kind::State, format!("interrupted by {name}")));
        }
        Ok(())
    }
}

impl AsFd for Interrupt {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Waits until a descriptor is readable, until the time is over, or until `interrupt` tells of a signal, which is an
/// error. A limit that ends later than the clock can tell is none.
pub fn wait(fd: BorrowedFd<'_>, interrupt: Option<&Interrupt>, limit: Option<Duration>) -> Result<Waited> {
    wait_until(fd, PollFlags::IN, interrupt, limit)
}

/// As [`wait`], for what else can be waited for at a descriptor.
pub fn wait_until(
    fd: BorrowedFd<'_>,
    ready: PollFlags,
    interrupt: Option<&Interrupt>,
    limit: Option<Duration>,
) -> Result<Waited> {
    let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let left = left
            .map(|left| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) });
        let mut fds = vec![PollFd::from_borrowed_fd(fd, ready)];
        fds.extend(interrupt.map(|watch| PollFd::from_borrowed_fd(watch.as_fd(), PollFlags::IN)));
        match poll(&mut fds, left.as_ref()) {
            Ok(0) => return Ok(Waited::TimedOut),
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::os(errno, "wait")),
        }
        let is_ready = fds.first().is_some_and(|fd| !fd.revents().is_empty());
        drop(fds);
        if is_ready {
            return Ok(Waited::Ready);
        }
        if let Some(interrupt) = interrupt {
            interrupt.check()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_limit_is_none() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        drop(writer);
        assert_eq!(wait(reader.as_fd(), None, Some(Duration::MAX)).unwrap(), Waited::Ready);
    }
}
