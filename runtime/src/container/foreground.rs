//! Waiting for a container's program in the foreground: signals are passed on, the terminal is carried, orphans are
//! taken, and the program's exit status becomes ours.
//!
//! The end is noticed by the pidfd, not by SIGCHLD, so that no signal that is lost or merged can hide it.

use std::io::{stdin, stdout};
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::notify::Proxy;
use super::process;
use super::terminal::{Bridge, Stream};
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

/// What the foreground waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Ended,
    Signal,
    Carried(Stream),
    Notification,
}

/// Waits for the end of a child that runs in the foreground. Gives its exit status, 128 and the signal's number for a
/// signal. Signals stay held: one that comes when there is nobody left to pass it on to must not replace that status.
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
        let mut sources = vec![Source::Ended, Source::Signal];
        let mut fds = vec![
            PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(queue.as_fd(), PollFlags::IN),
        ];
        for (stream, fd) in bridge.iter().flat_map(|bridge| bridge.poll_fds(input.as_fd(), output.as_fd())) {
            sources.push(Source::Carried(stream));
            fds.push(fd);
        }
        if let Some(fd) = notify.as_ref().and_then(Proxy::readable) {
            sources.push(Source::Notification);
            fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
        }
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::os(errno, "wait for the container")),
        }
        let said: Vec<_> = sources.into_iter().zip(fds.iter().map(PollFd::revents)).collect();
        drop(fds);
        let mut ended = false;
        for (source, said) in said.into_iter().filter(|(_, said)| !said.is_empty()) {
            match source {
                Source::Ended => ended = true,
                Source::Signal => pass_on_signals(&mut queue, pid, pidfd, bridge.as_ref())?,
                Source::Carried(stream) => {
                    if let Some(bridge) = &mut bridge {
                        bridge.carry(stream, said);
                    }
                }
                Source::Notification => {
                    // A service manager that has gone is no reason to end what it managed.
                    if let Some(Err(error)) = notify.as_mut().map(Proxy::pass_on) {
                        log::warn!("{error}");
                        notify = None;
                    }
                }
            }
        }
        if ended {
            let status = process::wait(pidfd)?;
            if let Some(Err(error)) = bridge.as_mut().map(Bridge::finish) {
                log::warn!("{}", error.while_doing("write the last of the container's output"));
            }
            return Ok(status);
        }
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
            // The kernel's own word that nobody reads our output, which is not the container's affair.
            libc::SIGPIPE if info.ssi_pid == std::process::id() => {}
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
