//! Files that take a container's output (`file://`, and what stands at a path and is no FIFO).
//!
//! A regular file can't be waited for: a write to it lasts as long as its disk does. So a copy of the shim does that, one
//! for each file and process of a container, which both outputs share. It reads the pipes itself, and nothing passes
//! through the shim. It ends with the output, or when the shim lets go of it, with what is in the pipes by then.

use std::fs::OpenOptions;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use coracle::error::{Doing, Result, describe};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tokio::time::Instant;

use super::taker::Taker;
use crate::worker::{self, Helper, Streams};

/// What ps(1) shows of a writer.
const NAME: &std::ffi::CStr = c"shim-file";
/// How much is read and written at once, in bytes.
const PORTION: usize = 16 << 10;
/// How long a writer may take for what is left once the output has ended, or once nobody waits for its end any more.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// The file of an output.
pub enum Destination {
    /// It is opened for appending; it and the directories above it are made where they aren't there.
    Path(PathBuf),
    /// It is open already.
    Open(PathBuf, OwnedFd),
}

impl Destination {
    fn path(&self) -> &Path {
        match self {
            Self::Path(path) | Self::Open(path, _) => path,
        }
    }
}

/// A process that writes a file.
pub struct Writer {
    taker: Taker,
    /// Closed, it tells the writer that nobody waits for more.
    hold: Option<OwnedFd>,
}

impl Writer {
    /// Begins to write what comes through the pipes, one or two, into a file. An error is that of opening it.
    pub async fn start(destination: Destination, pipes: Vec<OwnedFd>) -> Result<Self> {
        let name = destination.path().display().to_string();
        let clone =
            |pipe: Option<&OwnedFd>| pipe.map(OwnedFd::try_clone).transpose().doing(|| "duplicate a pipe");
        let mut streams =
            Streams { stdin: clone(pipes.first())?, stdout: clone(pipes.get(1))?, stderr: None };
        let path = match destination {
            Destination::Path(path) => Some(path),
            Destination::Open(_, file) => {
                streams.stderr = Some(file);
                None
            }
        };
        let open = || match &path {
            Some(path) => open_to_append(path),
            None => rustix::stdio::stderr().try_clone_to_owned().doing(|| format!("duplicate {name}")),
        };
        let both = pipes.len() > 1;
        let go_on = |shim: OwnedFd, file: OwnedFd| {
            // Only for those who look.
            let _ = rustix::thread::set_name(NAME);
            copy(both, &shim, &mut File { descriptor: file, name: &name, is_failing: false });
        };
        let Helper { pidfd, socket } = worker::start(&streams, open, go_on)?;
        let mut writer =
            Self { taker: Taker::new(format!("the writer of {name}"), pidfd, pipes), hold: None };
        writer.hold = Some(worker::first_word(socket).await?);
        Ok(writer)
    }

    /// One line about it.
    pub fn describe(&self) -> String {
        self.taker.describe()
    }

    /// Waits until the container's output has ended.
    pub async fn output_ended(&self) {
        self.taker.output_ended().await;
    }

    /// Ends it, with what is in the pipes now: until `deadline`, or somewhat later where that has come.
    pub async fn end(&mut self, deadline: Instant) {
        self.hold = None;
        self.taker.process().end_by(deadline.max(Instant::now() + LAST_WORDS)).await;
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.hold = None;
        if !self.taker.has_ended() {
            self.taker.process().end_beside(Instant::now() + LAST_WORDS);
        }
    }
}

/// Opens a file for appending; makes it, and the directories above it, where they aren't there. A FIFO without a reader
/// is an error.
fn open_to_append(path: &Path) -> Result<OwnedFd> {
    if let Some(parent) = path.parent() {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(parent)
            .doing(|| format!("make the directory {}", parent.display()))?;
    }
    let doing = || format!("open the file {}", path.display());
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o644)
        .custom_flags(flags)
        .open(path)
        .doing(doing)?;
    // Whoever is slow to take it may make this process wait.
    rustix::io::ioctl_fionbio(&file, false).doing(doing)?;
    Ok(file.into())
}

/// The writer's work: from standard input, and from standard output where it is a pipe, too, into the file.
fn copy(both: bool, shim: &OwnedFd, file: &mut File<'_>) {
    let mut pipes = vec![rustix::stdio::stdin()];
    if both {
        pipes.push(rustix::stdio::stdout());
    }
    while !pipes.is_empty() {
        let mut polled: Vec<PollFd<'_>> =
            pipes.iter().map(|pipe| PollFd::from_borrowed_fd(*pipe, PollFlags::IN)).collect();
        polled.push(PollFd::new(shim, PollFlags::IN));
        match poll(&mut polled, None) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(errno) => return log::error!("wait for the output to {}: {}", file.name, describe(errno)),
        }
        let mut is_ready = polled.iter().map(|fd| !fd.revents().is_empty()).collect::<Vec<_>>().into_iter();
        if is_ready.next_back() == Some(true) {
            for pipe in pipes {
                file.take_what_is_there(pipe);
            }
            return;
        }
        pipes.retain(|pipe| is_ready.next() == Some(false) || file.take(*pipe, PORTION) > 0);
    }
}

/// The file, in its writer.
struct File<'a> {
    descriptor: OwnedFd,
    name: &'a str,
    /// The last write failed, and that was told.
    is_failing: bool,
}

impl File<'_> {
    fn take_what_is_there(&mut self, pipe: BorrowedFd<'_>) {
        let mut left = usize::try_from(rustix::io::ioctl_fionread(pipe).unwrap_or(0)).unwrap_or(0);
        while left > 0 {
            match self.take(pipe, left.min(PORTION)) {
                0 => return,
                count => left = left.saturating_sub(count),
            }
        }
    }

    /// Reads one portion and writes all of it; gives its length, 0 at the end.
    fn take(&mut self, pipe: BorrowedFd<'_>, most: usize) -> usize {
        let mut buffer = [0; PORTION];
        let buffer = buffer.get_mut(..most).unwrap_or_default();
        match rustix::io::read(pipe, &mut *buffer) {
            Ok(length) => {
                self.write(buffer.get(..length).unwrap_or_default());
                length
            }
            // Nothing was read; there is more to come.
            Err(Errno::INTR) => 1,
            Err(errno) => {
                log::error!("read the output to {}: {}", self.name, describe(errno));
                0
            }
        }
    }

    /// A file that takes no more (a full disk) doesn't stop the container: that is told the first time, and bytes are
    /// dropped until the file takes some again.
    fn write(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match rustix::io::write(self.descriptor.as_fd(), bytes) {
                Ok(count) => {
                    self.is_failing = false;
                    bytes = bytes.get(count..).unwrap_or_default();
                }
                Err(Errno::INTR) => {}
                Err(errno) => {
                    if !self.is_failing {
                        log::warn!("write {}: {}; output is lost", self.name, describe(errno));
                    }
                    self.is_failing = true;
                    return;
                }
            }
        }
    }
}
