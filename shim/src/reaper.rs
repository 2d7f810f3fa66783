//! Ends of processes: the shim's own children, and the orphans that come to it as their subreaper.
//!
//! One place takes all exit statuses, so that none is taken by the wrong hand. A process is told of by the pid under
//! which it is a child of the shim: such a pid is not given to another process before its status is taken here. A
//! container's first process, or one of an exec, is born as a grandchild, and may end before the shim has been told its
//! pid; while such births are under way, statuses of strangers are kept, with the start time that makes a pid certain.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::time::SystemTime;

use coracle::container::Identity;
use coracle::sys::process::{look_for_ended, take_status};
use tokio::sync::oneshot;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// The exit status; 128 and the signal's number for a signal.
    pub status: u32,
    /// When the shim noticed.
    pub at: SystemTime,
}

/// Who waits for which process.
#[derive(Debug, Default)]
pub struct Reaper {
    inner: RefCell<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    watched: HashMap<i32, oneshot::Sender<Exit>>,
    /// Ends of strangers, each with the number of the birth that came next.
    early: HashMap<(i32, u64), (Exit, u64)>,
    /// The births under way, by their numbers.
    births: BTreeSet<u64>,
    next_birth: u64,
}

/// While this lives, statuses of unknown processes are kept.
#[derive(Debug)]
pub struct Birth<'reaper> {
    reaper: &'reaper Reaper,
    number: u64,
}

impl Drop for Birth<'_> {
    fn drop(&mut self) {
        let mut inner = self.reaper.inner.borrow_mut();
        inner.births.remove(&self.number);
        // Only a birth that was under way at a stranger's end can have been the stranger's.
        let oldest = inner.births.first().copied().unwrap_or(u64::MAX);
        inner.early.retain(|_, (_, next_birth)| oldest < *next_birth);
    }
}

impl Reaper {
    /// Announces that a process will be born whose pid isn't known yet.
    pub fn expect_birth(&self) -> Birth<'_> {
        let mut inner = self.inner.borrow_mut();
        let number = inner.next_birth;
        inner.next_birth += 1;
        inner.births.insert(number);
        Birth { reaper: self, number }
    }

    /// The end of a child that was made just now: nothing was waited for since.
    pub fn watch(&self, pid: i32) -> oneshot::Receiver<Exit> {
        let (sender, receiver) = oneshot::channel();
        self.inner.borrow_mut().watched.insert(pid, sender);
        receiver
    }

    /// The end of a process whose [`Birth`] was announced; it may have ended already.
    pub fn watch_born(&self, process: Identity) -> oneshot::Receiver<Exit> {
        let early = self.inner.borrow_mut().early.remove(&(process.pid, process.start_time));
        match early {
            Some((exit, _)) => {
                let (sender, receiver) = oneshot::channel();
                // The receiver is right here.
                let _ = sender.send(exit);
                receiver
            }
            None => self.watch(process.pid),
        }
    }

    /// A process of this pid that has ended while a birth was under way.
    pub fn early(&self, pid: i32) -> Option<Identity> {
        let inner = self.inner.borrow();
        let (pid, start_time) = *inner.early.keys().find(|(early, _)| *early == pid)?;
        Some(Identity { pid, start_time })
    }

    /// Takes the status of every child that has ended. To be called after each SIGCHLD.
    pub fn sweep(&self) {
        while let Some(ended) = look_for_ended() {
            let mut inner = self.inner.borrow_mut();
            let watcher = inner.watched.remove(&ended.pid);
            // Its entry in procfs is there until its status is taken.
            let stranger = (watcher.is_none() && !inner.births.is_empty())
                .then(|| Identity::of(ended.pid).ok())
                .flatten();
            // Nobody else takes statuses; should it happen, the process is gone all the same.
            let status = take_status(ended.pid).unwrap_or(ended).status;
            let exit = Exit { status, at: SystemTime::now() };
            match (watcher, stranger) {
                // Nobody may be interested any more.
                (Some(watcher), _) => drop(watcher.send(exit)),
                (None, Some(process)) => {
                    let next_birth = inner.next_birth;
                    inner.early.insert((process.pid, process.start_time), (exit, next_birth));
                }
                (None, None) => log::debug!("took the status of the orphan {}: {status}", ended.pid),
            }
        }
    }

    /// For the dump of the shim's state.
    pub fn describe(&self) -> String {
        let inner = self.inner.borrow();
        let mut pids: Vec<i32> = inner.watched.keys().copied().collect();
        pids.sort_unstable();
        format!(
            "waiting for {pids:?}, {} births under way, {} early ends",
            inner.births.len(),
            inner.early.len()
        )
    }
}
