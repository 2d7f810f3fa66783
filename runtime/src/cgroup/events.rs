//! What happens to a container, told when it happens: `events --push`.
//!
//! It owns the kernel's notifications: `memory.events`, `cgroup.events` and pressure triggers of
//! version 2, eventfds registered in `cgroup.event_control` of version 1. Nothing is polled by time.
//! It promises that an OOM kill is told before the end of the container that it caused. Sources:
//! cgroup-v2.rst, cgroup-v1/memory.rst, psi.rst of the kernel.

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;
use rustix::io::Errno;
use serde::Serialize;

use super::file::{self, CgroupDir};
use super::{Cgroup, stats};
use crate::error::{Doing, Error, Kind, Result};

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "type")]
pub enum Event {
    /// The kernel ended processes because the memory limit was reached.
    Oom {
        /// How many it has ended since the cgroup was made. Version 1 tells before it kills: the one that is told is
        /// counted already.
        kills: u64,
    },
    /// Processes waited for a resource for longer than the trigger allows.
    Pressure {
        /// `memory`, `cpu` or `io`.
        resource: &'static str,
    },
    /// The last process has ended.
    Empty,
}

/// When pressure is told: when processes waited for `stall` within `window`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watch {
    /// At least so much waiting; shorter than the window.
    pub stall: Duration,
    /// 500 ms to 10 s. Without CAP_SYS_RESOURCE the kernel takes only multiples of 2 s.
    pub window: Duration,
}

impl Default for Watch {
    fn default() -> Watch {
        Watch { stall: Duration::from_millis(200), window: Duration::from_secs(2) }
    }
}

/// A container's events, in order.
#[derive(Debug)]
pub struct Events {
    sources: Vec<Source>,
    memory: Option<CgroupDir>,
    oom_kills: OomCount,
    /// Version 1: the kernel has said that it is out of memory here.
    announced: bool,
    empty: bool,
    queue: VecDeque<Event>,
}

#[derive(Debug)]
struct Source {
    kind: SourceKind,
    fd: OwnedFd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SourceKind {
    /// `memory.events`, or an eventfd for `memory.oom_control`.
    Oom,
    /// A trigger for a resource, or an eventfd for `memory.pressure_level`.
    Pressure(&'static str),
    /// `cgroup.events`.
    Populated,
}

/// The kernel's notifications of OOM kills alone: what the shim tells engines of. A descriptor to wait on beside others.
#[derive(Debug)]
pub struct OomWatch {
    source: Source,
    memory: CgroupDir,
    kills: OomCount,
}

impl OomWatch {
    /// The descriptor, and what to poll it for.
    pub fn descriptor(&self) -> (BorrowedFd<'_>, PollFlags) {
        (self.source.fd.as_fd(), self.source.flags())
    }

    /// Whether the kernel has ended processes since the last call; without waiting. False once the cgroup is gone.
    pub fn take(&mut self) -> Result<bool> {
        let announced = self.source.drain()? && self.memory.has("cgroup.procs");
        Ok(self.kills.look(&self.memory, announced)?.is_some())
    }
}

impl Cgroup {
    /// Begins to listen for OOM kills. What happened before is not told. Nothing where the container has no memory
    /// cgroup, or the kernel no such notifications.
    pub fn watch_oom(&self) -> Result<Option<OomWatch>> {
        let mut sources = Vec::new();
        let memory = match self.v1_dir("memory")? {
            Some(dir) => {
                v1_source(&dir, SourceKind::Oom, "memory.oom_control", "", &mut sources)?;
                Some(dir)
            }
            None => {
                let dir = self.unified_dir()?;
                dir.as_ref().map_or(Ok(()), |dir| v2_oom_source(dir, &mut sources))?;
                dir
            }
        };
        match (memory, sources.pop()) {
            (Some(memory), Some(source)) => {
                let kills = OomCount(oom_kills(&memory)?);
                Ok(Some(OomWatch { source, memory, kills }))
            }
            _ => Ok(None),
        }
    }

    /// How many of the container's processes the kernel has ended for want of memory.
    pub fn oom_kills(&self) -> Result<u64> {
        let dir = match self.v1_dir("memory")? {
            None => self.unified_dir()?,
            dir => dir,
        };
        dir.map_or(Ok(0), |dir| oom_kills(&dir))
    }

    /// Begins to listen. What happened before is not told.
    ///
    /// # Errors
    /// When the container has no cgroup any more, or the kernel refuses the trigger.
    pub fn events(&self, watch: &Watch) -> Result<Events> {
        self.require("watch the container")?;
        let mut sources = Vec::new();
        let unified = self.unified_dir()?;
        let memory = match self.v1_dir("memory")? {
            Some(dir) => {
                v1_sources(&dir, &mut sources)?;
                Some(dir)
            }
            None => match self.unified_dir()? {
                Some(dir) => {
                    v2_sources(&dir, watch, &mut sources)?;
                    Some(dir)
                }
                None => None,
            },
        };
        let mut empty = unified.is_none() && memory.is_none();
        if let Some(dir) = unified {
            match dir.open_file("cgroup.events", OFlags::RDONLY) {
                Ok(fd) => sources.push(Source { kind: SourceKind::Populated, fd }),
                Err(Errno::NOENT | Errno::NODEV) => empty = true,
                Err(errno) => return Err(Error::os(errno, format!("watch {}", dir.path().display()))),
            }
        }
        let oom_kills = OomCount(memory.as_ref().map_or(Ok(0), oom_kills)?);
        let queue = VecDeque::from_iter(empty.then_some(Event::Empty));
        Ok(Events { sources, memory, oom_kills, announced: false, empty, queue })
    }
}

impl Events {
    /// What to poll, and for which events, beside other descriptors; when one is ready, call
    /// [`Events::wait`] with a zero timeout.
    pub fn poll_fds(&self) -> impl Iterator<Item = (BorrowedFd<'_>, PollFlags)> {
        self.sources.iter().map(|source| (source.fd.as_fd(), source.flags()))
    }

    /// The next event; `None` when `timeout` passes first. Without a timeout it waits for ever,
    /// except after [`Event::Empty`], which is the last one.
    pub fn wait(&mut self, timeout: Option<Duration>) -> Result<Option<Event>> {
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        // A file is ready from its opening to its first reading: look before waiting.
        self.look()?;
        loop {
            if let Some(event) = self.queue.pop_front() {
                return Ok(Some(event));
            }
            if self.empty || self.sources.is_empty() {
                return Ok(None);
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            let time = left.and_then(|left| Timespec::try_from(left).ok());
            let mut polled: Vec<PollFd<'_>> =
                self.sources.iter().map(|source| PollFd::new(&source.fd, source.flags())).collect();
            match rustix::event::poll(&mut polled, time.as_ref()) {
                Err(Errno::INTR) => continue,
                result => result.doing(|| "wait for the container's events")?,
            };
            let ready: Vec<bool> = polled.iter().map(|polled| !polled.revents().is_empty()).collect();
            self.take(&ready)?;
            self.look()?;
            if self.queue.is_empty() && left.is_some_and(|left| left.is_zero()) {
                return Ok(None);
            }
        }
    }

    /// Takes what the descriptors say that are ready.
    fn take(&mut self, ready: &[bool]) -> Result<()> {
        let mut gone = Vec::new();
        for (index, source) in
            self.sources.iter().enumerate().filter(|(index, _)| ready.get(*index) == Some(&true))
        {
            match source.kind {
                SourceKind::Pressure(resource) => {
                    // A trigger whose cgroup is gone is ready for ever.
                    if self.memory.as_ref().is_none_or(|dir| !dir.has("cgroup.procs")) {
                        gone.push(index);
                        continue;
                    }
                    source.drain()?;
                    self.queue.push_back(Event::Pressure { resource });
                }
                SourceKind::Oom => {
                    // The end of the cgroup makes the eventfd ready too.
                    self.announced =
                        source.drain()? && self.memory.as_ref().is_some_and(|dir| dir.has("cgroup.procs"));
                }
                SourceKind::Populated => {}
            }
        }
        for index in gone.into_iter().rev() {
            self.sources.remove(index);
        }
        Ok(())
    }

    /// Reads the counters: first the OOM kills, then whether anybody is left.
    fn look(&mut self) -> Result<()> {
        if self.empty {
            return Ok(());
        }
        let populated = self.sources.iter().find(|source| source.kind == SourceKind::Populated);
        let empty = populated.map_or(Ok(false), |source| Ok(!is_populated(&source.fd)?))?;
        // Read after the populated state, so that a kill that emptied the container is in it.
        if let Some(dir) = &self.memory {
            if let Some(kills) = self.oom_kills.look(dir, std::mem::take(&mut self.announced))? {
                self.queue.push_back(Event::Oom { kills });
            }
            self.empty = populated.is_none() && !dir.has("cgroup.procs");
        }
        self.empty |= empty;
        if self.empty {
            self.queue.push_back(Event::Empty);
        }
        Ok(())
    }
}

impl Source {
    fn flags(&self) -> PollFlags {
        // Files of cgroups and triggers are ready by POLLPRI, eventfds by POLLIN.
        if self.is_eventfd() { PollFlags::IN } else { PollFlags::PRI }
    }

    fn is_eventfd(&self) -> bool {
        rustix::fs::fcntl_getfl(&self.fd).is_ok_and(|flags| flags.contains(OFlags::NONBLOCK))
    }

    /// Takes the notification away; whether it was that of an eventfd.
    fn drain(&self) -> Result<bool> {
        if !self.is_eventfd() {
            return Ok(false);
        }
        let mut count = [0; 8];
        match rustix::io::read(&self.fd, &mut count) {
            Ok(_) => Ok(true),
            Err(Errno::AGAIN | Errno::INTR) => Ok(false),
            Err(errno) => Err(Error::os(errno, "read an eventfd of the container's cgroup")),
        }
    }
}

/// How many OOM kills were told.
#[derive(Debug)]
struct OomCount(u64);

impl OomCount {
    /// The count, when there is one to tell. Version 1 announces that memory is out, and kills after that: the kill
    /// that is announced counts already, or it would be told only when something else happens.
    fn look(&mut self, dir: &CgroupDir, announced: bool) -> Result<Option<u64>> {
        let counted = oom_kills(dir)?;
        if !announced && counted <= self.0 {
            return Ok(None);
        }
        let coming = announced && counted <= self.0 && kills_for_memory(dir)?;
        self.0 = counted.max(self.0 + u64::from(coming));
        Ok(Some(self.0))
    }
}

fn oom_kills(dir: &CgroupDir) -> Result<u64> {
    for file in ["memory.events", "memory.oom_control"] {
        if let Some(kills) = stats::table(dir, file)?.get("oom_kill") {
            return Ok(*kills);
        }
    }
    Ok(0)
}

/// Whether the OOM killer of version 1 is not disabled.
fn kills_for_memory(dir: &CgroupDir) -> Result<bool> {
    Ok(stats::table(dir, "memory.oom_control")?.get("oom_kill_disable") != Some(&1))
}

fn is_populated(events: &OwnedFd) -> Result<bool> {
    let text =
        rustix::fs::seek(events, rustix::fs::SeekFrom::Start(0)).and_then(|_| file::read_all(events.as_fd()));
    match text {
        Ok(text) => Ok(!text.lines().any(|line| line == "populated 0")),
        Err(Errno::NODEV) => Ok(false),
        Err(errno) => Err(Error::os(errno, "read cgroup.events of the container")),
    }
}

fn v2_oom_source(dir: &CgroupDir, sources: &mut Vec<Source>) -> Result<()> {
    match dir.open_file("memory.events", OFlags::RDONLY) {
        Ok(fd) => sources.push(Source { kind: SourceKind::Oom, fd }),
        // The memory controller is not enabled here.
        Err(Errno::NOENT) => {}
        Err(errno) => return Err(Error::os(errno, format!("watch {}/memory.events", dir.path().display()))),
    }
    Ok(())
}

fn v2_sources(dir: &CgroupDir, watch: &Watch, sources: &mut Vec<Source>) -> Result<()> {
    v2_oom_source(dir, sources)?;
    for (file, resource) in [("memory.pressure", "memory"), ("cpu.pressure", "cpu"), ("io.pressure", "io")] {
        let fd = match dir.open_file(file, OFlags::RDWR) {
            Ok(fd) => fd,
            // A kernel without pressure information, or one told not to collect it.
            Err(Errno::NOENT | Errno::OPNOTSUPP) => continue,
            Err(errno) => return Err(Error::os(errno, format!("watch {}/{file}", dir.path().display()))),
        };
        let trigger = format!("some {} {}\0", watch.stall.as_micros(), watch.window.as_micros());
        match file::write_once(fd.as_fd(), &trigger) {
            Ok(()) => sources.push(Source { kind: SourceKind::Pressure(resource), fd }),
            Err(Errno::OPNOTSUPP) => {}
            Err(errno) => {
                return Err(dir.write_error(file, trigger.trim_end_matches('\0'), errno).hint(
                    "a window is 500 ms to 10 s and longer than the stall; without CAP_SYS_RESOURCE a multiple of 2 s",
                ));
            }
        }
    }
    Ok(())
}

fn v1_sources(dir: &CgroupDir, sources: &mut Vec<Source>) -> Result<()> {
    v1_source(dir, SourceKind::Oom, "memory.oom_control", "", sources)?;
    v1_source(dir, SourceKind::Pressure("memory"), "memory.pressure_level", " medium", sources)
}

fn v1_source(
    dir: &CgroupDir,
    kind: SourceKind,
    name: &str,
    argument: &str,
    sources: &mut Vec<Source>,
) -> Result<()> {
    let doing = || format!("watch {}/{name}", dir.path().display());
    let target = match dir.open_file(name, OFlags::RDONLY) {
        Ok(target) => target,
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(Error::os(errno, doing())),
    };
    let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
    let fd = rustix::event::eventfd(0, flags).doing(doing)?;
    let line = format!("{} {}{argument}", fd.as_raw_fd(), target.as_raw_fd());
    match dir.write("cgroup.event_control", &line) {
        Ok(()) => sources.push(Source { kind, fd }),
        // A kernel built for realtime has no notifications of version 1.
        Err(error) if error.errno() == Some(Errno::NOENT) => {
            return Err(
                Error::new(Kind::Unsupported, doing()).hint("this kernel has no cgroup.event_control")
            );
        }
        Err(error) => return Err(error),
    }
    Ok(())
}
