//! Handing a seccomp listener over to the host side (seccomp_unotify(2)).
//!
//! The thread that has loaded the filter can't do it: its own calls may be what the agent is to decide. A second one,
//! which was made before and so is not under the filter, sends the listener over the channel. Nobody needs a right over
//! this process for that, as pidfd_getfd(2) would, which an ordinary user and a confined root lack. Whatever becomes of
//! the hand-over, the program never meets that thread: execve(2) ends it at the latest.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Builder;

use rustix::io::{Errno, retry_on_intr};
use rustix::param::page_size;
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

use super::channel::{Channel, Frame};
use crate::error::{Doing, Error, Result};
use crate::sys::process::exit_now;

/// Stack of the second thread, in bytes.
const STACK: usize = 128 * 1024;

/// Where one thread leaves the listener for the other.
type Place = Arc<Mutex<Option<OwnedFd>>>;

/// The second thread, as the first one sees it.
pub struct Courier {
    place: Place,
    pipe: OwnedFd,
    /// Twice what the pipe holds: a write of it ends only when the other side has read from it.
    weight: Vec<u8>,
}

impl Courier {
    /// Makes the thread. Everything that [`Courier::deliver`] needs is there afterwards.
    pub fn call(channel: &Channel) -> Result<Self> {
        let doing = || "prepare the hand-over of the seccomp listener";
        let channel = channel.try_clone().doing(doing)?;
        let (reader, pipe) = pipe_with(PipeFlags::CLOEXEC).doing(doing)?;
        fcntl_setpipe_size(&pipe, page_size()).doing(doing)?;
        let place = Place::default();
        let weight = vec![0; 2 * page_size()];
        let length = weight.len();
        let theirs = Arc::clone(&place);
        Builder::new()
            .stack_size(STACK)
            .spawn(move || carry(&theirs, &channel, &reader, length))
            .map_err(|error| {
                let errno = Errno::from_io_error(&error).unwrap_or(Errno::AGAIN);
                Error::os(errno, doing()).hint(
                    "it takes a second thread for a moment: pids.max of the cgroup or RLIMIT_NPROC may be too low",
                )
            })?;
        Ok(Self { place, pipe, weight })
    }

    /// Gives the listener away, and waits until the host side has it. It makes no system call but write(2), the one that
    /// no profile may give to an agent, and allocates nothing.
    pub fn deliver(self, listener: OwnedFd) -> Result<(), Errno> {
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = Some(listener);
        let mut rest = self.weight.as_slice();
        while !rest.is_empty() {
            let count = retry_on_intr(|| rustix::io::write(&self.pipe, rest))?;
            rest = rest.get(count..).unwrap_or_default();
        }
        // Closing is for execve(2): an agent might be asked about it.
        std::mem::forget(self);
        Ok(())
    }
}

/// The second thread: sends the listener, keeps nothing of it, and lets the first thread go on. If the host side has
/// failed or died, the process ends, which the first thread could not do without an agent.
fn carry(place: &Place, channel: &Channel, reader: &OwnedFd, length: usize) {
    let mut bytes = vec![0; length];
    // Nothing comes when the filter could not be loaded.
    let Ok(1) = retry_on_intr(|| rustix::io::read(reader, &mut bytes[..1])) else { return };
    let Some(listener) = place.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
    if channel.send(&Frame::Listener(listener)).is_err() {
        exit_now(1);
    }
    let Ok(Some(Frame::Go)) = channel.receive() else { exit_now(1) };
    let mut read = 1;
    while let Ok(count @ 1..) = retry_on_intr(|| rustix::io::read(reader, &mut bytes)) {
        read += count;
        if read >= length {
            break;
        }
    }
}
