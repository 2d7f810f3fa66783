//! What the service asks of an OCI runtime, and the two that answer: the library, and another runtime's command line.
//!
//! The service doesn't see the difference. Processes that a runtime makes become children of the shim, which is told
//! their identity; terminals come back as masters; errors are the library's own kind either way.

mod command;
mod library;
mod program;

use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;

use coracle::cgroup::Cgroup;
use coracle::container::{Begun, Identity};
use coracle::error::{Doing, Result};
use rustix::io::Errno;

use crate::options::Options;
use crate::reaper::Reaper;
use crate::worker::Streams;

pub use command::Command;
pub use library::Library;

/// The process that is to be added to a container.
pub struct Exec {
    /// The `process` object of the specification, as JSON.
    pub spec: Rc<[u8]>,
    /// The name of the files that belong to it.
    pub id: String,
    /// It gets a terminal.
    pub terminal: bool,
    /// What it gets at 0, 1 and 2, where there is no terminal.
    pub streams: Streams,
}

/// An OCI runtime that owns one container.
pub enum Runtime {
    /// Coracle itself, in this process.
    Library(Library),
    /// Another one, by its command line.
    Command(Command),
}

/// Does the same with either runtime.
macro_rules! either {
    ($runtime:expr, $it:ident => $call:expr) => {
        match $runtime {
            Runtime::Library($it) => $call,
            Runtime::Command($it) => $call,
        }
    };
}

/// Which container is meant.
#[derive(Clone, Copy)]
pub struct Of<'a> {
    /// containerd's namespace.
    pub namespace: &'a str,
    /// Its id.
    pub id: &'a str,
    /// Its bundle.
    pub bundle: &'a Path,
    /// Its processes don't end with the first one.
    pub shares_pids: bool,
}

impl Runtime {
    /// The runtime that `options` name, for a container.
    pub fn new(of: Of<'_>, options: &Options, reaper: Rc<Reaper>) -> Self {
        match &options.other_runtime {
            None => Self::Library(Library::new(of, options, reaper)),
            Some(program) => Self::Command(Command::new(program.clone(), of, options, reaper)),
        }
    }

    /// Makes the container; its first process waits for [`Runtime::start`].
    pub async fn create(&self, terminal: bool, streams: Streams) -> Result<Begun> {
        either!(self, it => it.create(terminal, streams).await)
    }

    /// Lets the container's program begin.
    pub async fn start(&self) -> Result<()> {
        either!(self, it => it.start().await)
    }

    /// Adds a process.
    pub async fn exec(&self, exec: Exec) -> Result<Begun> {
        either!(self, it => it.exec(exec).await)
    }

    /// Signals the first process, or all.
    pub async fn kill(&self, signal: i32, all: bool) -> Result<()> {
        either!(self, it => it.kill(signal, all).await)
    }

    /// Takes the container away; with `force`, whatever it is doing.
    pub async fn delete(&self, force: bool) -> Result<()> {
        either!(self, it => it.delete(force).await)
    }

    /// The ids of the container's processes.
    pub async fn pids(&self) -> Result<Vec<i32>> {
        either!(self, it => it.pids().await)
    }

    /// Freezes the container.
    pub async fn pause(&self) -> Result<()> {
        either!(self, it => it.pause().await)
    }

    /// Thaws it.
    pub async fn resume(&self) -> Result<()> {
        either!(self, it => it.resume().await)
    }

    /// Changes limits: `resources` is the object of the specification, as JSON.
    pub async fn update(&self, resources: &[u8]) -> Result<()> {
        either!(self, it => it.update(resources).await)
    }

    /// The cgroup of the container, whose first process has this pid.
    pub fn cgroup(&self, init: i32) -> Result<Cgroup> {
        either!(self, it => it.cgroup(init))
    }
}

/// What a worker sends of a process that it has made.
#[derive(serde::Serialize, serde::Deserialize)]
struct Made {
    pid: i32,
    start_time: u64,
}

impl From<Identity> for Made {
    fn from(process: Identity) -> Self {
        Self { pid: process.pid, start_time: process.start_time }
    }
}

impl Made {
    fn identity(&self) -> Identity {
        Identity { pid: self.pid, start_time: self.start_time }
    }

    fn begun(&self, master: Option<OwnedFd>) -> Begun {
        Begun { process: self.identity(), master }
    }
}

/// Ends a process of an exec that nobody will hear of, because what made it was killed.
fn end(process: Identity) {
    let killed = process.open().and_then(|pidfd| match pidfd {
        Some(pidfd) => match coracle::sys::signal::send(&pidfd, libc::SIGKILL) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(errno) => Err(errno).doing(|| "send it SIGKILL"),
        },
        None => Ok(()),
    });
    if let Err(error) = killed {
        log::warn!("end process {}, whose exec was ended half-way: {error}", process.pid);
    }
}
