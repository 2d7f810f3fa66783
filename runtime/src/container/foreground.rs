//! Waiting for a container's program in the foreground: signals are passed on, the terminal is carried, orphans are
//! taken, and the program's exit status becomes ours.
//!
//! The end is noticed by the pidfd, not by SIGCHLD, so that no signal that is lost or merged can hide it.

use std::io::{stdin, stdout};
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::notify::Proxy;
use super::process;
use super::terminal::Bridge;
use crate::error::{Doing, Error, Result};
use crate::sys::process::{look_for_ended, take_status};
use crate::sys::signal;

/// Holds all signals back while there is something to clean up.
pub struct Signals {
    before: SigSet,
}

impl Signals {
    /// Blocks every signal from now on.
    pub fn hold() -> Result<Self> {
        let mut before = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut before))
            .map_err(|errno| failed(errno, "block signals"))?;
        Ok(Self { before })
    }

    /// Goes back to the mask that was before; what was held back is delivered now.
    pub fn release(self) -> Result<()> {
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.before), None)
            .map_err(|errno| failed(errno, "unblock signals"))
    }
}

fn failed(errno: nix::errno::Errno, doing: &str) -> Error {
    Error::os(Errno::from_raw_os_error(errno as i32), doing)
}

/// Waits for the end of a child that runs in the foreground. Gives its exit status, 128 and the signal's number for a
/// signal.
pub fn wait(
    _signals: &Signals,
    pid: i32,
    pidfd: &OwnedFd,
    master: Option<OwnedFd>,
    mut notify: Option<Proxy>,
) -> Result<i32> {
    let mut queue = SignalFd::with_flags(&SigSet::all(), SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(|errno| failed(errno, "make the signal descriptor"))?;
    let mut bridge = master.map(Bridge::new).transpose()?;
    loop {
        let (input, output) = (stdin(), stdout());
        let mut fds = vec![
            PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(queue.as_fd(), PollFlags::IN),
        ];
        if let Some(bridge) = &bridge {
            fds.extend(bridge.poll_fds(input.as_fd(), output.as_fd()));
        }
        let carried = fds.len();
        if let Some(fd) = notify.as_ref().and_then(Proxy::readable) {
            fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
        }
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::os(errno, "wait for the container")),
        }
        let said: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
        drop(fds);
        let said = |index: usize| said.get(index).copied().unwrap_or(PollFlags::empty());
        if let Some(bridge) = &mut bridge
            && carried == 5
        {
            bridge.carry(said(2), said(3), said(4));
        }
        if !said(carried).is_empty()
            && let Some(notify) = &mut notify
        {
            notify.pass_on()?;
        }
        if !said(0).is_empty() {
            let status = process::wait(pidfd)?;
            if let Some(bridge) = &mut bridge {
                finish(bridge);
            }
            return Ok(status);
        }
        if !said(1).is_empty() {
            pass_on_signals(&mut queue, pid, pidfd, bridge.as_ref())?;
        }
    }
}

/// Passes on what the container wrote last: as long as there is some at once. A process that it left behind may hold
/// the terminal open for ever.
fn finish(bridge: &mut Bridge) {
    while !bridge.is_done() {
        let (input, output) = (stdin(), stdout());
        let said = {
            let [master, _, out] = bridge.poll_fds(input.as_fd(), output.as_fd());
            let mut fds = [master, out];
            let now = Timespec { tv_sec: 0, tv_nsec: 0 };
            match poll(&mut fds, Some(&now)) {
                Ok(0) | Err(_) => return,
                Ok(_) => (fds[0].revents(), fds[1].revents()),
            }
        };
        if said.0.is_empty() && said.1.is_empty() {
            return;
        }
        bridge.carry(said.0, PollFlags::empty(), said.1);
    }
}

fn pass_on_signals(queue: &mut SignalFd, pid: i32, pidfd: &OwnedFd, bridge: Option<&Bridge>) -> Result<()> {
    loop {
        let Some(info) = queue.read_signal().map_err(|errno| failed(errno, "read the signal descriptor"))?
        else {
            return Ok(());
        };
        match info.ssi_signo as i32 {
            libc::SIGCHLD => reap_orphans(pid),
            libc::SIGWINCH => match bridge {
                Some(bridge) => bridge.copy_size(),
                None => send(pidfd, libc::SIGWINCH)?,
            },
            // Go's runtime, and nobody else, sends this one to itself; runc keeps it back too.
            libc::SIGURG => {}
            number => send(pidfd, number)?,
        }
    }
}

fn send(pidfd: &OwnedFd, number: i32) -> Result<()> {
    match signal::send(pidfd, number) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(errno) => Err(errno).doing(|| format!("pass on signal {number}")),
    }
}

/// Takes the exit statuses of orphans that came to us as their subreaper. Who has ended is looked at first, without
/// taking anything: the container's own program is left for [`process::wait`].
fn reap_orphans(program: i32) {
    while let Some(ended) = look_for_ended() {
        if ended.pid == program {
            return;
        }
        let _ = take_status(ended.pid);
    }
}
