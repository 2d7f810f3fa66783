//! A process of a container: what it is doing, its streams, and its end.

use std::cell::{Cell, RefCell};
use std::os::fd::OwnedFd;
use std::rc::Rc;

use coracle::container::{Begun, Identity};
use coracle::error::Doing;
use protobuf::{EnumOrUnknown, MessageField};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::sync::{Mutex, watch};

use crate::failure::{Failure, Result};
use crate::io::Stdio;
use crate::proto::Timestamp;
use crate::proto::task::StateResponse;
use crate::proto::types::Status;
use crate::reaper::Exit;

/// What a client gave as the process's streams.
#[derive(Debug, Clone, Default)]
pub struct Streams {
    /// See the Create request.
    pub stdin: String,
    /// See the Create request.
    pub stdout: String,
    /// See the Create request.
    pub stderr: String,
    /// The process has a terminal.
    pub terminal: bool,
}

/// What a process is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It is not there yet: an exec that was added, or a container that is being made.
    Added,
    /// The container's first process waits for Start.
    Created,
    /// It runs.
    Running,
    /// It has ended, and that was told.
    Ended(Exit),
    /// An exec that will never begin: it failed to, or was deleted before.
    Never,
}

/// A process of a container: its first one, or one of an exec.
pub struct Process {
    /// Empty for the first one.
    pub exec_id: String,
    /// Its streams.
    pub streams: Streams,
    /// The specification of an exec's process, as JSON.
    pub spec: Rc<[u8]>,
    /// Its streams, once they are open, until it is deleted.
    pub stdio: RefCell<Option<Stdio>>,
    /// Who begins or deletes it: one at a time.
    pub turn: Mutex<()>,
    /// Its end must not be told yet: the event that it began is still to be sent.
    pub held: Cell<bool>,
    /// Its end, from when it was noticed.
    pub pending: Cell<Option<Exit>>,
    identity: Cell<Option<Identity>>,
    pidfd: RefCell<Option<OwnedFd>>,
    stage: watch::Sender<Stage>,
}

impl Process {
    /// A process that isn't there yet.
    pub fn new(exec_id: &str, streams: Streams, spec: Rc<[u8]>) -> Self {
        Self {
            exec_id: exec_id.to_owned(),
            streams,
            spec,
            stdio: RefCell::default(),
            turn: Mutex::default(),
            held: Cell::new(false),
            pending: Cell::new(None),
            identity: Cell::new(None),
            pidfd: RefCell::default(),
            stage: watch::Sender::new(Stage::Added),
        }
    }

    /// Notes that the process is there, and takes its terminal. It may have ended already.
    pub fn begun(&self, begun: Begun) -> Result<()> {
        self.identity.set(Some(begun.process));
        if let Some(pid) = Pid::from_raw(begun.process.pid) {
            // The pid is the process's own until the shim takes its status; one that has ended needs no signals.
            *self.pidfd.borrow_mut() = pidfd_open(pid, PidfdFlags::empty()).ok();
        }
        if let (Some(master), Some(stdio)) = (begun.master, self.stdio.borrow_mut().as_mut()) {
            stdio.attach_terminal(master)?;
        }
        Ok(())
    }

    /// Its pid; 0 before there is one.
    pub fn pid(&self) -> i32 {
        self.identity.get().map_or(0, |identity| identity.pid)
    }

    /// What it is doing.
    pub fn stage(&self) -> Stage {
        *self.stage.borrow()
    }

    /// Whether it runs, as far as the shim knows: nobody else has its pid then.
    pub fn is_there(&self) -> bool {
        self.stage() == Stage::Running && self.pending.get().is_none()
    }

    /// Changes what it is doing.
    pub fn set_stage(&self, stage: Stage) {
        self.stage.send_replace(stage);
    }

    /// Notes that it has ended, though that may be told later: no signal reaches it any more.
    pub fn gone(&self, exit: Exit) {
        self.pending.set(Some(exit));
        *self.pidfd.borrow_mut() = None;
        if let Some(stdio) = self.stdio.borrow_mut().as_mut() {
            stdio.process_ended();
        }
    }

    /// Waits until its end is told; nothing where it will never begin.
    pub async fn ended(&self) -> Option<Exit> {
        let mut stage = self.stage.subscribe();
        loop {
            match *stage.borrow_and_update() {
                Stage::Ended(exit) => return Some(exit),
                Stage::Never => return None,
                Stage::Added | Stage::Created | Stage::Running => {}
            }
            if stage.changed().await.is_err() {
                // The sender is this process's own: it lives as long as `self` does.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Sends a signal to this process alone.
    pub fn signal(&self, number: i32) -> Result<()> {
        let finished = || Failure::not_found("process already finished");
        match self.stage() {
            Stage::Added | Stage::Never => {
                Err(Failure::precondition(format!("process {} is not started", self.exec_id)))
            }
            Stage::Ended(_) => Err(finished()),
            Stage::Created | Stage::Running => {
                let pidfd = self.pidfd.borrow();
                let pidfd = pidfd.as_ref().ok_or_else(finished)?;
                match coracle::sys::signal::send(pidfd, number) {
                    Err(rustix::io::Errno::SRCH) => Err(finished()),
                    sent => Ok(sent.doing(|| format!("send signal {number} to process {}", self.pid()))?),
                }
            }
        }
    }

    /// The answer to State, as far as the process knows it.
    pub fn state(&self, id: &str, bundle: &str) -> StateResponse {
        let (status, exit) = match self.stage() {
            Stage::Added | Stage::Created | Stage::Never => (Status::CREATED, None),
            Stage::Running => (Status::RUNNING, None),
            Stage::Ended(exit) => (Status::STOPPED, Some(exit)),
        };
        StateResponse {
            id: id.to_owned(),
            bundle: bundle.to_owned(),
            pid: self.pid() as u32,
            status: EnumOrUnknown::new(status),
            stdin: self.streams.stdin.clone(),
            stdout: self.streams.stdout.clone(),
            stderr: self.streams.stderr.clone(),
            terminal: self.streams.terminal,
            exit_status: exit.map_or(0, |exit| exit.status),
            exited_at: exited_at(exit),
            exec_id: self.exec_id.clone(),
            ..StateResponse::default()
        }
    }

    /// One line for the dump of the shim's state, and those of its streams.
    pub fn describe(&self) -> Vec<String> {
        let name = if self.exec_id.is_empty() { "init" } else { &self.exec_id };
        let held = if self.held.get() { ", its end is held back" } else { "" };
        let mut lines = vec![format!("  {name}: pid {}, {:?}{held}", self.pid(), self.stage())];
        // A task that is waiting for the output's end has taken the streams.
        if let Ok(stdio) = self.stdio.try_borrow()
            && let Some(stdio) = stdio.as_ref()
        {
            lines.extend(stdio.describe().into_iter().map(|line| format!("    {line}")));
        }
        lines
    }
}

/// A time as it is sent.
pub fn timestamp(at: std::time::SystemTime) -> Timestamp {
    Timestamp::from(at)
}

/// The time of an end; nothing where there is none.
pub fn exited_at(exit: Option<Exit>) -> MessageField<Timestamp> {
    exit.map(|exit| timestamp(exit.at)).into()
}
