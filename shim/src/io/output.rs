//! One output stream: where it goes to, and the task that brings it there.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use coracle::error::{Error, Kind, Result, describe};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::copy::{self, End};
use super::fifo::{self, Fifo, Opened};
use crate::sys;

/// Where an output goes to.
pub enum Sink {
    /// A client's FIFO.
    Fifo(Fifo),
    /// What can be waited for, but isn't a client's FIFO: a logger's pipe, a terminal's device.
    Waitable(AsyncFd<OwnedFd>),
    /// Nowhere.
    Nothing,
}

impl Sink {
    /// Opens what stands at a path, and was found to be no file before.
    pub fn at(path: &Path) -> Result<Self> {
        match Place::open(path)? {
            Place::Sink(sink) => Ok(sink),
            Place::File(_) => Err(Error::new(
                Kind::System,
                format!("open {}: it became a file while it was opened", path.display()),
            )),
        }
    }
}

/// What stands at a path.
pub enum Place {
    /// Something that tells when it takes output.
    Sink(Sink),
    /// A file, for which a process of its own has to wait: epoll(7) refuses it.
    File(OwnedFd),
}

impl Place {
    /// Opens what stands at a path.
    pub fn open(path: &Path) -> Result<Self> {
        let file = match fifo::open_output(path)? {
            Opened::Fifo(fifo) => return Ok(Self::Sink(Sink::Fifo(fifo))),
            Opened::Other(file) => file,
        };
        Ok(match sys::try_watch(file, Interest::WRITABLE) {
            Ok(file) => Self::Sink(Sink::Waitable(file)),
            Err(refused) => Self::File(refused.into_parts().0),
        })
    }
}

/// An output that is being copied.
pub struct Output {
    /// `stdout` or `stderr`, and where it goes to.
    name: String,
    moved: Arc<AtomicU64>,
    task: AbortHandle,
}

/// What all outputs of a process share.
pub struct Common {
    /// How many are being copied.
    pub running: watch::Sender<usize>,
    /// Whether the process is being deleted.
    pub deleting: watch::Sender<bool>,
    /// Whether the terminal is to be hung up.
    pub hangup: watch::Sender<bool>,
}

impl Output {
    /// Copies a pipe.
    pub fn of_pipe(name: String, from: AsyncFd<OwnedFd>, sink: Sink, common: &Arc<Common>) -> Self {
        Self::start(name, Arc::new(from), sink, common, false)
    }

    /// Copies what a terminal shows.
    pub fn of_terminal(
        name: String,
        master: Arc<AsyncFd<OwnedFd>>,
        sink: Sink,
        common: &Arc<Common>,
    ) -> Self {
        Self::start(name, master, sink, common, true)
    }

    fn start(
        name: String,
        from: Arc<AsyncFd<OwnedFd>>,
        sink: Sink,
        common: &Arc<Common>,
        is_terminal: bool,
    ) -> Self {
        let moved = Arc::new(AtomicU64::new(0));
        let running = Running::new(common);
        let copy = Copy { name: name.clone(), from, moved: moved.clone(), is_terminal };
        let task = tokio::spawn(async move {
            copy.run(sink, &running.0).await;
            drop(running);
        });
        Self { name, moved, task: task.abort_handle() }
    }

    /// One line about it.
    pub fn describe(&self) -> String {
        let state = if self.task.is_finished() { "ended" } else { "open" };
        format!("{}: {} bytes, {state}", self.name, self.moved.load(Ordering::Relaxed))
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Counts a copy for as long as it lives, however it ends.
struct Running(Arc<Common>);

impl Running {
    fn new(common: &Arc<Common>) -> Self {
        common.running.send_modify(|count| *count += 1);
        Self(common.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.send_modify(|count| *count -= 1);
    }
}

struct Copy {
    name: String,
    from: Arc<AsyncFd<OwnedFd>>,
    moved: Arc<AtomicU64>,
    is_terminal: bool,
}

impl Copy {
    async fn run(self, sink: Sink, common: &Common) {
        let mut hangup = common.hangup.subscribe();
        let stop = async move {
            let _ = hangup.wait_for(|hangup| *hangup).await;
        };
        match sink {
            Sink::Fifo(fifo) => {
                let Some(end) = self.until_late(&fifo, common, stop).await else {
                    log::info!("{}: nobody reads it any more; the rest is thrown away", self.name);
                    return;
                };
                self.after(end).await;
                // What wrote may go on: only the output is told to have ended.
                let Self { from, moved, .. } = self;
                drop(from);
                fifo.end(&moved, &mut common.deleting.subscribe()).await;
            }
            Sink::Waitable(to) => {
                let end = copy::carry(&self.from, &to, &self.moved, stop).await;
                drop(to);
                self.after(end).await;
            }
            Sink::Nothing => tokio::select! {
                biased;
                () = copy::discard(&self.from) => {}
                () = stop => {}
            },
        }
    }

    /// Copies into a FIFO. Gives no end where the process is being deleted and nobody is there to read: then there would
    /// be none.
    async fn until_late(&self, fifo: &Fifo, common: &Common, stop: impl Future<Output = ()>) -> Option<End> {
        let mut deleting = common.deleting.subscribe();
        let copy = async {
            if self.is_terminal {
                copy::carry(&self.from, &fifo.writer, &self.moved, stop).await
            } else {
                copy::between_pipes(&self.from, &fifo.writer, &self.moved).await
            }
        };
        let mut copy = std::pin::pin!(copy);
        tokio::select! {
            biased;
            end = &mut copy => return Some(end),
            () = fifo::late(&mut deleting) => {}
        }
        if fifo.let_go() { Some(copy.await) } else { None }
    }

    /// Where nobody takes the output any more, it is thrown away: the container isn't to wait, or to die of it.
    async fn after(&self, end: End) {
        if let End::Sink(errno) = end {
            if errno != Errno::PIPE {
                log::warn!("write {}: {}; the rest of the output is thrown away", self.name, describe(errno));
            }
            copy::discard(&self.from).await;
        }
    }
}
