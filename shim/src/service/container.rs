//! A container: its processes, and the order in which their ends are told.
//!
//! It promises containerd's order of events: the end of a process is told after its beginning, and the end of the first
//! process after those of all others. An exec that is just beginning counts as running.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;

use coracle::cgroup::Cgroup;
use tokio::sync::oneshot;

use super::process::{Process, Stage, exited_at};
use super::{Shim, last_words};
use crate::failure::{Failure, Result};
use crate::oom;
use crate::options::Options;
use crate::proto::events::TaskExit;
use crate::reaper::Exit;
use crate::runtime::Runtime;

/// Whether the processes of a container are frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freeze {
    /// They run.
    No,
    /// They are being frozen.
    Pausing,
    /// They are.
    Paused,
}

/// A container of this shim.
pub struct Container {
    /// Its id.
    pub id: String,
    /// Its bundle, as containerd named it.
    pub bundle: PathBuf,
    /// Its options.
    pub options: Options,
    /// Who runs it.
    pub runtime: Runtime,
    /// Its first process.
    pub init: Rc<Process>,
    /// The processes of execs.
    pub execs: RefCell<BTreeMap<String, Rc<Process>>>,
    /// Whether it is frozen.
    pub freeze: Cell<Freeze>,
    /// Its processes don't end with the first one: it has no pid namespace of its own.
    pub shares_pids: bool,
    /// Its cgroup, from when it was made: the first process may move to another one later.
    pub cgroup: OnceCell<Cgroup>,
    /// Who tells of OOM kills.
    pub oom: RefCell<Option<Rc<oom::Watcher>>>,
    /// Execs that run or are just beginning.
    busy: Cell<usize>,
}

impl Container {
    /// A container that isn't there yet.
    pub fn new(
        id: &str,
        bundle: PathBuf,
        options: Options,
        runtime: Runtime,
        init: Process,
        shares_pids: bool,
    ) -> Self {
        Self {
            id: id.to_owned(),
            bundle,
            options,
            runtime,
            init: Rc::new(init),
            execs: RefCell::default(),
            freeze: Cell::new(Freeze::No),
            shares_pids,
            cgroup: OnceCell::new(),
            oom: RefCell::default(),
            busy: Cell::new(0),
        }
    }

    /// The process of an exec, or the first one.
    pub fn process(&self, exec_id: &str) -> Result<Rc<Process>> {
        if exec_id.is_empty() {
            return Ok(self.init.clone());
        }
        let found = self.execs.borrow().get(exec_id).cloned();
        found.ok_or_else(|| Failure::not_found(format!("process does not exist {exec_id}")))
    }

    /// Whether the first process has ended, told or not.
    pub fn init_is_gone(&self) -> bool {
        self.init.pending.get().is_some() || matches!(self.init.stage(), Stage::Ended(_))
    }

    /// An exec begins: the first process's end waits for it. See [`Container::exec_over`].
    pub fn exec_begins(&self) {
        self.busy.set(self.busy.get() + 1);
    }

    /// How many execs run or begin.
    pub fn busy(&self) -> usize {
        self.busy.get()
    }
}

/// Waits for the end of a process that was made just now, and tells it when its time has come.
pub fn follow(
    shim: &Rc<Shim>,
    container: &Rc<Container>,
    process: &Rc<Process>,
    ended: oneshot::Receiver<Exit>,
) {
    let (shim, container, process) = (shim.clone(), container.clone(), process.clone());
    tokio::task::spawn_local(async move {
        // The reaper lives as long as the shim.
        let Ok(exit) = ended.await else { return };
        process.gone(exit);
        if process.exec_id.is_empty() {
            init_gone(&container, exit).await;
        }
        advance(&shim, &container, &process);
    });
}

/// What is to be done at once when the first process has ended.
async fn init_gone(container: &Container, exit: Exit) {
    last_words::save(&container.bundle, exit);
    if container.shares_pids
        && let Err(error) = container.runtime.kill(libc::SIGKILL, true).await
        && error.kind() != coracle::error::Kind::NotFound
    {
        log::warn!("container {}: kill what its first process left behind: {error}", container.id);
    }
}

/// The event that a process began was sent: its end may be told now.
pub fn release(shim: &Rc<Shim>, container: &Rc<Container>, process: &Rc<Process>) {
    process.held.set(false);
    advance(shim, container, process);
}

/// An exec could not begin after all.
pub fn exec_failed(shim: &Rc<Shim>, container: &Rc<Container>, process: &Rc<Process>) {
    process.held.set(false);
    process.set_stage(Stage::Never);
    exec_over(shim, container);
}

fn exec_over(shim: &Rc<Shim>, container: &Rc<Container>) {
    container.busy.set(container.busy.get().saturating_sub(1));
    advance(shim, container, &container.init.clone());
}

/// Tells the end of a process, if it has ended and nothing stands before that.
fn advance(shim: &Rc<Shim>, container: &Rc<Container>, process: &Rc<Process>) {
    if process.held.get() {
        return;
    }
    let is_init = process.exec_id.is_empty();
    if is_init && container.busy.get() > 0 {
        return;
    }
    let Some(exit) = process.pending.take() else { return };
    if is_init && let Some(oom) = container.oom.borrow_mut().take() {
        oom.look(shim, &container.id);
    }
    process.set_stage(Stage::Ended(exit));
    shim.publish(
        "/tasks/exit",
        &TaskExit {
            container_id: container.id.clone(),
            id: if is_init { container.id.clone() } else { process.exec_id.clone() },
            pid: process.pid() as u32,
            exit_status: exit.status,
            exited_at: exited_at(Some(exit)),
            ..TaskExit::default()
        },
    );
    if !is_init {
        exec_over(shim, container);
    }
}
