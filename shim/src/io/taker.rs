//! A process that takes a container's output from pipes: a logger, or the writer of a file.
//!
//! The container writes to it directly; the shim holds the pipes too, so that a taker that dies neither kills the
//! container nor stops it: what still comes is thrown away.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use coracle::sys::signal;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{WaitId, WaitIdOptions, WaitIdStatus, waitid};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};

use super::copy;
use crate::sys;

/// A process that takes output.
pub struct Taker {
    /// What it is and what it is called, for messages.
    pub name: String,
    pidfd: Arc<OwnedFd>,
    /// The ends of the pipes that it reads: one or two.
    pipes: Arc<[OwnedFd]>,
    ended: watch::Receiver<bool>,
    guard: Option<AbortHandle>,
}

impl Taker {
    /// A process that was made just now, and the pipes that it reads. From its end on, what still comes is thrown away.
    /// To be called within a Tokio runtime.
    pub fn new(name: String, pidfd: OwnedFd, pipes: Vec<OwnedFd>) -> Self {
        let pidfd = Arc::new(pidfd);
        let ended = watch_end(&pidfd, &name);
        let mut taker = Self { name, pidfd, pipes: pipes.into(), ended, guard: None };
        taker.guard = Some(taker.discard_at_its_end());
        taker
    }

    /// One line about it.
    pub fn describe(&self) -> String {
        format!("{} {}", self.name, if self.has_ended() { "has ended" } else { "runs" })
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        *self.ended.borrow()
    }

    /// Whether there is something that it hasn't read.
    pub fn has_unread(&self) -> bool {
        self.pipes.iter().any(|pipe| rustix::io::ioctl_fionread(pipe).unwrap_or(0) > 0)
    }

    /// What acts on the process, also when this is gone.
    pub fn process(&self) -> Process {
        Process { name: self.name.clone(), pidfd: self.pidfd.clone(), ended: self.ended.clone() }
    }

    /// Throws the output away from when the process has ended.
    fn discard_at_its_end(&self) -> AbortHandle {
        let mut ended = self.ended.clone();
        let name = self.name.clone();
        let pipes = self.pipes.clone();
        let guard = tokio::spawn(async move {
            let _ = ended.wait_for(|ended| *ended).await;
            let open: Vec<_> = pipes.iter().filter(|pipe| has_writer(pipe)).collect();
            if !open.is_empty() {
                log::warn!("{name} has ended before the output: the rest is thrown away");
            }
            let [first, second] = [open.first(), open.last()];
            tokio::join!(discard(first.copied()), discard(second.copied()));
        });
        guard.abort_handle()
    }

    /// Waits until the container's output has ended.
    pub async fn output_ended(&self) {
        for pipe in self.pipes.iter() {
            // Asked for nothing but urgent data, which a pipe never has, epoll(7) still tells the end.
            let Ok(pipe) = pipe.try_clone() else { continue };
            if let Ok(pipe) = sys::watch(pipe, Interest::PRIORITY) {
                let _ = pipe.ready(Interest::PRIORITY).await;
            }
        }
    }
}

impl Drop for Taker {
    fn drop(&mut self) {
        if let Some(guard) = &self.guard {
            guard.abort();
        }
    }
}

/// The process alone, without its pipes.
pub struct Process {
    name: String,
    pidfd: Arc<OwnedFd>,
    ended: watch::Receiver<bool>,
}

impl Process {
    /// Sends a signal to it, if it is still there.
    pub fn signal(&self, number: i32) {
        if !*self.ended.borrow() {
            // It may have ended meanwhile.
            let _ = signal::send(&self.pidfd, number);
        }
    }

    /// Waits for its end until `deadline`, and says whether it came.
    pub async fn ended(&mut self, deadline: Instant) -> bool {
        timeout_at(deadline, self.ended.wait_for(|ended| *ended)).await.is_ok()
    }

    /// Waits for its end until `deadline`, and kills it then.
    pub async fn end_by(mut self, deadline: Instant) {
        if !self.ended(deadline).await {
            log::warn!("{} didn't end in time: killed", self.name);
            self.signal(libc::SIGKILL);
        }
    }

    /// As [`Process::end_by`], but nobody waits.
    pub fn end_beside(self, deadline: Instant) {
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(self.end_by(deadline))),
            // The shim is about to end.
            Err(_) => self.signal(libc::SIGKILL),
        }
    }
}

async fn discard(pipe: Option<&OwnedFd>) {
    // The taker has ended, so nobody minds that its descriptor changes with this one.
    let Some(Ok(Ok(pipe))) = pipe.map(|pipe| pipe.try_clone().map(non_blocking)) else { return };
    copy::discard(&pipe).await;
}

/// A pipe, ready to be read from in the event loop.
pub fn non_blocking(pipe: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    rustix::io::ioctl_fionbio(&pipe, true)?;
    sys::watch(pipe, Interest::READABLE)
}

/// Tells when the process has ended, and collects its status, unless somebody else has.
fn watch_end(pidfd: &Arc<OwnedFd>, name: &str) -> watch::Receiver<bool> {
    let (sender, receiver) = watch::channel(false);
    let (pidfd, name) = (pidfd.clone(), name.to_owned());
    tokio::spawn(async move {
        if let Ok(Ok(end)) = pidfd.try_clone().map(|pidfd| sys::watch(pidfd, Interest::READABLE)) {
            let _ = end.readable().await;
        }
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        if let Ok(Some(status)) = waitid(WaitId::PidFd(pidfd.as_fd()), options) {
            log::debug!("{name} ended: {}", how(&status));
        }
        let _ = sender.send(true);
    });
    receiver
}

fn how(status: &WaitIdStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "unknown".to_owned(),
    }
}

/// Whether somebody may still write into the pipe, or has left something in it.
fn has_writer(pipe: &OwnedFd) -> bool {
    let mut polled = [PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let _ = poll(&mut polled, Some(&now));
    polled.iter().all(|fd| fd.revents() != PollFlags::HUP)
}
