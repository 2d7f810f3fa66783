//! Moving bytes between a process's pipes and where its streams go to.
//!
//! Between two pipes bytes are moved by splice(2), which copies nothing; elsewhere through a small buffer. Nothing is
//! read before there is room for it, so a container whose output nobody reads waits by itself, and holds no memory
//! here. Each round is short and gives way to others.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{SpliceFlags, splice};
use tokio::io::unix::AsyncFd;

/// How much splice(2) may move at once, in bytes: what a pipe holds.
const PIPE: usize = 64 * 1024;
/// How much is carried through a buffer at once, in bytes. A pipe that can be written to takes this much.
const PORTION: usize = 4096;

/// Why a copy came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The source has ended.
    Source,
    /// Nobody takes the bytes any more.
    Sink(Errno),
}

/// Moves bytes from pipe to pipe, until either ends.
pub async fn between_pipes(from: &AsyncFd<OwnedFd>, to: &AsyncFd<OwnedFd>, moved: &AtomicU64) -> End {
    loop {
        let Ok(mut readable) = from.readable().await else { return End::Source };
        let Ok(mut writable) = to.writable().await else { return End::Sink(Errno::BADF) };
        match splice(
            from.get_ref(),
            None,
            to.get_ref(),
            None,
            PIPE,
            SpliceFlags::NONBLOCK | SpliceFlags::MOVE,
        ) {
            Ok(0) => return End::Source,
            Ok(count) => {
                moved.fetch_add(count as u64, Ordering::Relaxed);
            }
            Err(Errno::AGAIN) => {
                // Which of the two has to be waited for isn't told.
                let (has_input, has_room) = look(from.get_ref().as_fd(), to.get_ref().as_fd());
                if !has_input {
                    readable.clear_ready();
                }
                if !has_room {
                    writable.clear_ready();
                }
            }
            Err(Errno::INTR) => {}
            Err(errno) => return End::Sink(errno),
        }
    }
}

fn look(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> (bool, bool) {
    let mut polled =
        [PollFd::from_borrowed_fd(from, PollFlags::IN), PollFd::from_borrowed_fd(to, PollFlags::OUT)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    if poll(&mut polled, Some(&now)).is_err() {
        return (true, true);
    }
    let [from, to] = polled.map(|fd| !fd.revents().is_empty());
    (from, to)
}

/// Carries bytes between descriptors that aren't both pipes, until either ends. After `stop` only what is there already
/// is carried.
pub async fn carry(
    from: &AsyncFd<OwnedFd>,
    to: &AsyncFd<OwnedFd>,
    carried: &AtomicU64,
    stop: impl Future<Output = ()>,
) -> End {
    let mut stop = std::pin::pin!(stop);
    let mut is_stopped = false;
    let mut buffer = [0; PORTION];
    loop {
        // Room first: what was read must be kept until it is written.
        if to.writable().await.is_err() {
            return End::Sink(Errno::BADF);
        }
        let read = if is_stopped {
            rustix::io::read(from.get_ref(), &mut buffer).ok().filter(|length| *length > 0)
        } else {
            tokio::select! {
                biased;
                read = read(from, &mut buffer) => read,
                () = &mut stop => {
                    is_stopped = true;
                    continue;
                }
            }
        };
        let Some(length) = read else { return End::Source };
        let mut left = buffer.get(..length).unwrap_or_default();
        while !left.is_empty() {
            let Ok(mut writable) = to.writable().await else { return End::Sink(Errno::BADF) };
            match writable.try_io(|to| Ok(rustix::io::write(to.get_ref(), left)?)) {
                Ok(Ok(count)) => {
                    carried.fetch_add(count as u64, Ordering::Relaxed);
                    left = left.get(count..).unwrap_or_default();
                }
                Ok(Err(error)) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return End::Sink(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
                Err(_would_block) => {}
            }
        }
    }
}

/// Reads what is there; nothing at the end. A terminal whose other side is closed fails with `EIO`.
async fn read(from: &AsyncFd<OwnedFd>, buffer: &mut [u8]) -> Option<usize> {
    loop {
        let mut readable = from.readable().await.ok()?;
        match readable.try_io(|from| Ok(rustix::io::read(from.get_ref(), &mut *buffer)?)) {
            Ok(Ok(0)) => return None,
            Ok(Ok(length)) => return Some(length),
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Ok(Err(_)) => return None,
            Err(_would_block) => {}
        }
    }
}

/// Copies a pipe or a terminal into a file, which can't be waited for: its writes go to the page cache. A file that
/// takes no more (a full disk) doesn't stop the container: `failed` is told the first time, and the bytes are dropped
/// until the file takes some again.
pub async fn into_file(
    from: &AsyncFd<OwnedFd>,
    file: &OwnedFd,
    copied: &AtomicU64,
    mut failed: impl FnMut(Errno),
) {
    let mut is_failing = false;
    loop {
        let Ok(mut readable) = from.readable().await else { return };
        match readable.try_io(|from| one_portion(from.get_ref(), file)) {
            Ok(Ok(Portion::Written(count))) => {
                is_failing = false;
                copied.fetch_add(count as u64, Ordering::Relaxed);
            }
            Ok(Ok(Portion::Lost(errno))) => {
                if !is_failing {
                    failed(errno);
                }
                is_failing = true;
            }
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Ok(Ok(Portion::End) | Err(_)) => return,
            Err(_would_block) => {}
        }
    }
}

enum Portion {
    End,
    Written(usize),
    Lost(Errno),
}

/// Reads one portion and writes all of it. The buffer lives on the stack of this call only.
fn one_portion(from: &OwnedFd, file: &OwnedFd) -> std::io::Result<Portion> {
    let mut buffer = [0; 4 * PORTION];
    let length = rustix::io::read(from, &mut buffer)?;
    if length == 0 {
        return Ok(Portion::End);
    }
    let mut left = buffer.get(..length).unwrap_or_default();
    while !left.is_empty() {
        match rustix::io::write(file, left) {
            Ok(count) => left = left.get(count..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(errno) => return Ok(Portion::Lost(errno)),
        }
    }
    Ok(Portion::Written(length))
}

/// Throws away what still comes, so that who writes it isn't held up.
pub async fn discard(from: &AsyncFd<OwnedFd>) {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let Ok(null) = rustix::fs::open("/dev/null", flags, Mode::empty()) else { return };
    into_file(from, &null, &AtomicU64::new(0), |_| ()).await;
}
