//! Create, Start, Exec and Delete.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use coracle::error::Kind;
use tokio::sync::oneshot;
use ttrpc::Code;

use super::Shim;
use super::container::{Container, Freeze, exec_failed, follow, release};
use super::process::{Process, Stage, Streams, exited_at};
use crate::failure::{Failure, Result};
use crate::io::{self, Stdio};
use crate::oom;
use crate::options::Options;
use crate::proto::events::{TaskCreate, TaskDelete, TaskExecAdded, TaskExecStarted, TaskIO, TaskStart};
use crate::proto::{Empty, task};
use crate::reaper::Exit;
use crate::rootfs;
use crate::runtime::{self, Of, Runtime};
use crate::spec;
use crate::worker;

/// How long Delete waits for the rest of a container's output.
const DRAIN: Duration = Duration::from_secs(10);
/// The same for an exec, of which something may well stay in the background and hold the output: as with the shim of
/// containerd 1.x.
const DRAIN_EXEC: Duration = Duration::from_secs(2);

/// Marks an id as being made, as long as it lives.
struct Creating<'shim> {
    shim: &'shim Shim,
    id: String,
}

impl<'shim> Creating<'shim> {
    fn begin(shim: &'shim Shim, id: &str) -> Result<Self> {
        let known = shim.containers.borrow().contains_key(id);
        if known || !shim.creating.borrow_mut().insert(id.to_owned()) {
            return Err(Failure::new(Code::ALREADY_EXISTS, format!("container {id} already exists")));
        }
        Ok(Self { shim, id: id.to_owned() })
    }
}

impl Drop for Creating<'_> {
    fn drop(&mut self) {
        self.shim.creating.borrow_mut().remove(&self.id);
    }
}

impl Shim {
    pub(super) async fn create(
        self: &Rc<Self>,
        request: task::CreateTaskRequest,
    ) -> Result<task::CreateTaskResponse> {
        if !request.checkpoint.is_empty() {
            return Err(Failure::invalid(
                "restore a container from a checkpoint: the runtime has no restore yet",
            ));
        }
        if self.closing.get() {
            return Err(Failure::new(Code::UNAVAILABLE, "the shim is shutting down"));
        }
        let _creating = Creating::begin(self, &request.id)?;
        let bundle = PathBuf::from(&request.bundle);
        let options = Options::read(request.options.as_ref())?;
        options.save(&bundle)?;
        spec::save_runtime(&bundle, &options)?;
        let streams = Streams {
            stdin: request.stdin.clone(),
            stdout: request.stdout.clone(),
            stderr: request.stderr.clone(),
            terminal: request.terminal,
        };
        let shares_pids = spec::shares_pids(&bundle)?;
        let of = Of { namespace: &self.namespace, id: &request.id, bundle: &bundle, shares_pids };
        let runtime = Runtime::new(of, &options, self.reaper.clone());
        let init = Process::new("", streams, Rc::from([]));
        let target = bundle.join("rootfs");
        rootfs::mount(&self.reaper, &request.rootfs, &target).await?;
        let container = Rc::new(Container::new(&request.id, bundle, options, runtime, init, shares_pids));
        let ended = match self.make(&container).await {
            Ok(ended) => ended,
            Err(error) => {
                *container.init.stdio.borrow_mut() = None;
                rootfs::unmount(&self.reaper, &request.rootfs, &target).await;
                return Err(error.during("OCI runtime create failed"));
            }
        };
        let pid = container.init.pid();
        self.watch_oom(&container, pid);
        spec::save_pid(&spec::pid_file(&container.bundle), pid);
        self.containers.borrow_mut().insert(request.id.clone(), container.clone());
        let event = TaskCreate {
            container_id: request.id,
            bundle: request.bundle,
            rootfs: request.rootfs,
            io: Some(TaskIO {
                stdin: request.stdin,
                stdout: request.stdout,
                stderr: request.stderr,
                terminal: request.terminal,
                ..TaskIO::default()
            })
            .into(),
            pid: pid as u32,
            ..TaskCreate::default()
        };
        self.publish("/tasks/create", &event);
        follow(self, &container, &container.init, ended);
        crate::sys::trim_memory();
        Ok(task::CreateTaskResponse { pid: pid as u32, ..Default::default() })
    }

    /// Opens the streams and makes the container. Gives the end of its first process.
    async fn make(&self, container: &Container) -> Result<oneshot::Receiver<Exit>> {
        let init = &container.init;
        let ends = self.open_streams(container, init).await?;
        let _birth = self.reaper.expect_birth();
        let begun = container.runtime.create(init.streams.terminal, ends).await?;
        let ended = self.reaper.watch_born(begun.process);
        init.set_stage(Stage::Created);
        let terminal = begun.master.is_some();
        let begun = if terminal == init.streams.terminal {
            init.begun(begun)
        } else {
            Err(Failure::invalid(format!(
                "process.terminal of config.json is {terminal}, but the terminal of the request is {}",
                init.streams.terminal
            )))
        };
        if let Err(error) = begun {
            if let Err(error) = container.runtime.delete(true).await {
                log::warn!("container {}: take it away again: {error}", container.id);
            }
            return Err(error);
        }
        Ok(ended)
    }

    async fn open_streams(&self, container: &Container, process: &Process) -> Result<worker::Streams> {
        let streams = &process.streams;
        let (stdio, ends) = Stdio::open(io::Request {
            id: &container.id,
            namespace: &self.namespace,
            stdin: &streams.stdin,
            stdout: &streams.stdout,
            stderr: &streams.stderr,
            terminal: streams.terminal,
            owner: container.options.owner(),
        })
        .await?;
        *process.stdio.borrow_mut() = Some(stdio);
        Ok(worker::Streams { stdin: ends.stdin, stdout: ends.stdout, stderr: ends.stderr })
    }

    /// A container whose OOM kills can't be watched runs all the same.
    fn watch_oom(self: &Rc<Self>, container: &Container, pid: i32) {
        let watched = container.runtime.cgroup(pid).and_then(|cgroup| {
            let cgroup = container.cgroup.get_or_init(|| cgroup);
            oom::watch(self, &container.id, cgroup)
        });
        match watched {
            Ok(watcher) => *container.oom.borrow_mut() = watcher,
            Err(error) => log::warn!("container {}: watch for OOM kills: {error}", container.id),
        }
    }

    pub(super) async fn start(self: &Rc<Self>, request: &task::StartRequest) -> Result<task::StartResponse> {
        let container = self.container(&request.id)?;
        let process = container.process(&request.exec_id)?;
        let _turn = process.turn.lock().await;
        if request.exec_id.is_empty() {
            self.start_init(&container).await?;
        } else {
            self.start_exec(&container, &process).await?;
        }
        Ok(task::StartResponse { pid: process.pid() as u32, ..Default::default() })
    }

    async fn start_init(self: &Rc<Self>, container: &Rc<Container>) -> Result<()> {
        let init = &container.init;
        match init.stage() {
            Stage::Created => {}
            Stage::Added => {
                return Err(Failure::precondition("cannot start a container that is being created"));
            }
            Stage::Running => return Err(Failure::precondition("cannot start a running container")),
            Stage::Ended(_) | Stage::Never => {
                return Err(Failure::precondition("cannot start a stopped process"));
            }
        }
        init.held.set(true);
        let started = container.runtime.start().await;
        if started.is_ok() {
            init.set_stage(Stage::Running);
            let event = TaskStart {
                container_id: container.id.clone(),
                pid: init.pid() as u32,
                ..TaskStart::default()
            };
            self.publish("/tasks/start", &event);
        }
        release(self, container, init);
        started.map_err(|error| Failure::from(error).during("OCI runtime start failed"))
    }

    async fn start_exec(self: &Rc<Self>, container: &Rc<Container>, process: &Rc<Process>) -> Result<()> {
        if container.init_is_gone() {
            return Err(Failure::precondition(format!(
                "container {} init process is not running",
                container.id
            )));
        }
        match process.stage() {
            Stage::Added | Stage::Created => {}
            Stage::Running => return Err(Failure::precondition("cannot start a running process")),
            Stage::Ended(_) => return Err(Failure::precondition("cannot start a stopped process")),
            Stage::Never => return Err(Failure::precondition("cannot start a process that failed to start")),
        }
        container.exec_begins();
        process.held.set(true);
        match self.make_exec(container, process).await {
            Ok(()) => {
                let event = TaskExecStarted {
                    container_id: container.id.clone(),
                    exec_id: process.exec_id.clone(),
                    pid: process.pid() as u32,
                    ..TaskExecStarted::default()
                };
                self.publish("/tasks/exec-started", &event);
                release(self, container, process);
                Ok(())
            }
            Err(error) => {
                *process.stdio.borrow_mut() = None;
                match process.stage() {
                    // It is there, and was killed: its end is still to come.
                    Stage::Running => release(self, container, process),
                    _ => exec_failed(self, container, process),
                }
                Err(error.during("OCI runtime exec failed"))
            }
        }
    }

    async fn make_exec(self: &Rc<Self>, container: &Rc<Container>, process: &Rc<Process>) -> Result<()> {
        let streams = self.open_streams(container, process).await?;
        let _birth = self.reaper.expect_birth();
        let begun = container
            .runtime
            .exec(runtime::Exec {
                spec: process.spec.clone(),
                id: process.exec_id.clone(),
                terminal: process.streams.terminal,
                streams,
            })
            .await?;
        let ended = self.reaper.watch_born(begun.process);
        let taken = process.begun(begun);
        process.set_stage(Stage::Running);
        follow(self, container, process, ended);
        spec::save_pid(&spec::exec_pid_file(&container.bundle, &process.exec_id), process.pid());
        if taken.is_err() {
            // Without its terminal it is of no use.
            process.signal(libc::SIGKILL)?;
        }
        taken
    }

    pub(super) fn exec(self: &Rc<Self>, request: task::ExecProcessRequest) -> Result<Empty> {
        let container = self.container(&request.id)?;
        if request.exec_id.is_empty() {
            return Err(Failure::invalid("exec_id must not be empty"));
        }
        spec::check_exec_id(&request.exec_id)?;
        if container.init_is_gone() {
            return Err(Failure::precondition("cannot exec in a stopped container"));
        }
        if container.freeze.get() != Freeze::No {
            return Err(Failure::precondition("cannot exec in a paused container"));
        }
        let spec = request.spec.into_option().map(|any| any.value).unwrap_or_default();
        // The runtime reads it at Start; what isn't even an object is refused before anybody hears of the exec.
        serde_json::from_slice::<serde_json::Map<_, _>>(&spec)
            .map_err(|error| Failure::invalid(format!("the process of exec {}: {error}", request.exec_id)))?;
        let streams = Streams {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            terminal: request.terminal,
        };
        {
            let mut execs = container.execs.borrow_mut();
            if execs.contains_key(&request.exec_id) {
                return Err(Failure::new(
                    Code::ALREADY_EXISTS,
                    format!("id {}: already exists", request.exec_id),
                ));
            }
            let process = Process::new(&request.exec_id, streams, Rc::from(spec));
            execs.insert(request.exec_id.clone(), Rc::new(process));
        }
        let event =
            TaskExecAdded { container_id: request.id, exec_id: request.exec_id, ..TaskExecAdded::default() };
        self.publish("/tasks/exec-added", &event);
        Ok(Empty::new())
    }

    pub(super) async fn delete(
        self: &Rc<Self>,
        request: &task::DeleteRequest,
    ) -> Result<task::DeleteResponse> {
        let container = self.container(&request.id)?;
        let process = container.process(&request.exec_id)?;
        let _turn = process.turn.lock().await;
        if process.stage() == Stage::Running {
            let state = if container.freeze.get() == Freeze::Paused { "paused" } else { "running" };
            return Err(Failure::precondition(format!("cannot delete a {state} process")));
        }
        if request.exec_id.is_empty() {
            self.delete_init(&container).await?;
        } else {
            drain(&process).await;
            if process.stage() == Stage::Added {
                process.set_stage(Stage::Never);
            }
            container.execs.borrow_mut().remove(&request.exec_id);
            // One that never began has none.
            let _ = std::fs::remove_file(spec::exec_pid_file(&container.bundle, &request.exec_id));
        }
        let exit = match process.stage() {
            Stage::Ended(exit) => Some(exit),
            _ => None,
        };
        Ok(task::DeleteResponse {
            pid: process.pid() as u32,
            exit_status: exit.map_or(0, |exit| exit.status),
            exited_at: exited_at(exit),
            ..Default::default()
        })
    }

    async fn delete_init(self: &Rc<Self>, container: &Rc<Container>) -> Result<()> {
        let init = &container.init;
        let id = &container.id;
        if matches!(init.stage(), Stage::Ended(_)) {
            drain(init).await;
        }
        match container.runtime.delete(false).await {
            // Gone by another hand is what is wanted.
            Err(error) if error.kind() == Kind::NotFound => {}
            deleted => deleted.map_err(|error| Failure::from(error).during("OCI runtime delete failed"))?,
        }
        // Of a container that was never started the first process was killed by that.
        let exit = init.ended().await;
        drain(init).await;
        rootfs::unmount_all(&self.reaper, &container.bundle.join("rootfs")).await;
        self.containers.borrow_mut().remove(id);
        let event = TaskDelete {
            container_id: id.clone(),
            pid: init.pid() as u32,
            exit_status: exit.map_or(0, |exit| exit.status),
            exited_at: exited_at(exit),
            ..TaskDelete::default()
        };
        self.publish("/tasks/delete", &event);
        crate::sys::trim_memory();
        Ok(())
    }
}

/// Waits for the rest of the output, and closes the streams.
async fn drain(process: &Process) {
    let limit = if process.exec_id.is_empty() { DRAIN } else { DRAIN_EXEC };
    let stdio = process.stdio.borrow_mut().take();
    if let Some(mut stdio) = stdio
        && !stdio.drained(limit).await
    {
        log::warn!("the output of process {} did not come to its end", process.pid());
    }
}
