//! The FIFOs between a client and the shim.
//!
//! Opening never waits, though a FIFO's open(2) does: the end that is held anyway is opened first, without blocking
//! (fifo(7)). An output FIFO is also held open for reading, so that a client that goes away and comes back loses
//! nothing and a write never fails. It is let go only when a reader is there to have the rest, and the end of it.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use coracle::error::{Doing, Error, Kind, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::fs::{CWD, FileType, Mode, OFlags, openat};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use crate::sys;

/// How long a reader that isn't there may keep a task from being deleted. A client that deletes a task reads its
/// output: only its open(2) may still be on its way.
const LATE_READER: Duration = Duration::from_secs(1);

/// What stands at the path of a stream.
pub enum Opened {
    /// A FIFO for output.
    Fifo(Fifo),
    /// A file of another type, open for appending.
    Other(OwnedFd),
}

/// An output FIFO.
pub struct Fifo {
    /// Where the output goes.
    pub writer: AsyncFd<OwnedFd>,
    /// Holds the FIFO open for reading, until it is let go.
    reader: Mutex<Option<OwnedFd>>,
    /// A reader has been there.
    attached: bool,
}

/// Opens the place of an output stream.
pub fn open_output(path: &Path) -> Result<Opened> {
    let place = open_place(path)?;
    if !is_fifo(&place, path)? {
        let file = reopen(&place, path, OFlags::WRONLY | OFlags::APPEND)?;
        return Ok(Opened::Other(file));
    }
    // Without a reader this fails: fifo(7). A client that waits in its open(2) counts as one.
    let early = match reopen_raw(&place, OFlags::WRONLY) {
        Ok(writer) => Some(writer),
        Err(Errno::NXIO) => None,
        Err(errno) => return Err(Error::os(errno, format!("open the FIFO {} for writing", path.display()))),
    };
    let reader = reopen(&place, path, OFlags::RDONLY)?;
    let attached = early.is_some();
    let writer = match early {
        Some(writer) => writer,
        None => reopen(&place, path, OFlags::WRONLY)?,
    };
    let writer =
        sys::watch(writer, Interest::WRITABLE).doing(|| format!("wait for the FIFO {}", path.display()))?;
    Ok(Opened::Fifo(Fifo { writer, reader: Mutex::new(Some(reader)), attached }))
}

/// Opens the FIFO of standard input: the end to read from, and an end to write to, which keeps the input from ending
/// when a client goes away.
pub fn open_input(path: &Path) -> Result<(AsyncFd<OwnedFd>, OwnedFd)> {
    let place = open_place(path)?;
    if !is_fifo(&place, path)? {
        return Err(Error::new(Kind::Config, format!("stdin {} is not a FIFO", path.display())));
    }
    let reader = reopen(&place, path, OFlags::RDONLY)?;
    let holder = reopen(&place, path, OFlags::WRONLY)?;
    let reader =
        sys::watch(reader, Interest::READABLE).doing(|| format!("wait for the FIFO {}", path.display()))?;
    Ok((reader, holder))
}

fn open_place(path: &Path) -> Result<OwnedFd> {
    openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .doing(|| format!("open {}", path.display()))
        .map_err(|error| match error.errno() {
            Some(Errno::NOENT) => error.hint("the client makes the FIFO before it makes the task"),
            _ => error,
        })
}

fn is_fifo(place: &OwnedFd, path: &Path) -> Result<bool> {
    let stat = rustix::fs::fstat(place).doing(|| format!("look at {}", path.display()))?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Fifo)
}

/// Opens what a path was resolved to, without blocking.
fn reopen(place: &OwnedFd, path: &Path, flags: OFlags) -> Result<OwnedFd> {
    reopen_raw(place, flags).doing(|| format!("open {}", path.display()))
}

fn reopen_raw(place: &OwnedFd, flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    openat(CWD, by_descriptor(place), flags, Mode::empty())
}

fn by_descriptor(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

impl Fifo {
    /// Holds the FIFO for readers that come later no longer; what is unread stays for as long as the other end is open.
    /// Says whether a reader is there.
    pub fn let_go(&self) -> bool {
        // Nobody panics while the lock is held.
        if let Ok(mut reader) = self.reader.lock() {
            *reader = None;
        }
        has_reader(self.writer.get_ref())
    }

    /// Ends the output, of which `written` bytes were written. While nobody is there who could read what is left, the
    /// FIFO stays: until a reader comes, or, once `deleting` says true, for a second at the most.
    pub async fn end(mut self, written: &AtomicU64, deleting: &mut watch::Receiver<bool>) {
        if self.let_go() {
            return;
        }
        let Self { writer, attached, .. } = &mut self;
        let Ok(watch) = opens_of(writer) else { return };
        loop {
            // Who came before the watch was there isn't told of by it.
            if has_reader(writer.get_ref()) {
                return;
            }
            let left = rustix::io::ioctl_fionread(writer.get_ref()).unwrap_or(0);
            if left == 0 && (*attached || written.load(Ordering::Relaxed) > 0) {
                return;
            }
            tokio::select! {
                opened = next_open(&watch) => match opened {
                    Ok(()) => *attached = true,
                    Err(_) => return,
                },
                () = late(deleting) => return,
            }
        }
    }
}

/// A watch for whoever opens the FIFO.
fn opens_of(fifo: &AsyncFd<OwnedFd>) -> std::io::Result<AsyncFd<OwnedFd>> {
    let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    inotify::add_watch(&watch, by_descriptor(fifo.get_ref()), WatchFlags::OPEN)?;
    sys::watch(watch, Interest::READABLE)
}

/// Waits until somebody has opened the FIFO.
async fn next_open(watch: &AsyncFd<OwnedFd>) -> std::io::Result<()> {
    let mut events = [0; 1024];
    loop {
        let mut guard = watch.readable().await?;
        if let Ok(read) = guard.try_io(|watch| Ok(rustix::io::read(watch.get_ref(), &mut events)?)) {
            return read.map(drop);
        }
    }
}

/// Waits until the process is being deleted, and a reader that is on its way has had the time to come.
pub async fn late(deleting: &mut watch::Receiver<bool>) {
    // The sender is gone with the stream's owner, which ends this task too.
    let _ = deleting.wait_for(|deleting| *deleting).await;
    tokio::time::sleep(LATE_READER).await;
}

/// Whether somebody has the FIFO open for reading: without one, poll(2) reports an error.
fn has_reader(writer: &OwnedFd) -> bool {
    let mut polled = [PollFd::from_borrowed_fd(writer.as_fd(), PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    match poll(&mut polled, Some(&now)) {
        Ok(_) => polled.iter().all(|fd| !fd.revents().contains(PollFlags::ERR)),
        Err(_) => true,
    }
}
