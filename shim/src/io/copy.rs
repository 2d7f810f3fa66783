//! Moving bytes between a process's pipes and where its streams go to.
//!
//! Between two pipes bytes are moved by splice(2), which copies nothing; elsewhere through a small buffer. Nothing is
//! read before there is room for it, so a container whose output nobody reads waits by itself, and holds no memory
//! here. Each round is short, and gives way to others even where there is always more to move.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
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
                give_way().await;
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

/// Lets the event loop do what else there is to do. A descriptor that is always ready doesn't do that by itself: waiting
/// for it returns at once, and counts nothing against what Tokio lets a task do in one go.
async fn give_way() {
    tokio::task::yield_now().await;
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
        give_way().await;
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

/// Throws away what still comes, so that who writes it isn't held up.
pub async fn discard(from: &AsyncFd<OwnedFd>) {
    loop {
        let Ok(mut readable) = from.readable().await else { return };
        // The buffer lives on the stack of this round only.
        match readable.try_io(|from| Ok(rustix::io::read(from.get_ref(), &mut [0; 4 * PORTION])?)) {
            Ok(Ok(1..)) => give_way().await,
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Ok(Ok(0) | Err(_)) => return,
            Err(_would_block) => {}
        }
    }
}
