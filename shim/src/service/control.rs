//! Kill, Pause, Resume, Update, ResizePty, CloseIO and Checkpoint.

use std::rc::Rc;

use coracle::error::Kind;
use ttrpc::Code;

use super::Shim;
use super::container::Freeze;
use super::process::Stage;
use crate::failure::{Failure, Result};
use crate::proto::events::{TaskPaused, TaskResumed};
use crate::proto::{Empty, task};

impl Shim {
    pub(super) async fn kill(&self, request: &task::KillRequest) -> Result<Empty> {
        let container = self.container(&request.id)?;
        let number = i32::try_from(request.signal)
            .map_err(|_| Failure::invalid(format!("there is no signal {}", request.signal)))?;
        let process = container.process(&request.exec_id)?;
        if !request.exec_id.is_empty() {
            process.signal(number)?;
            return Ok(Empty::new());
        }
        if matches!(process.stage(), Stage::Ended(_)) && !request.all {
            return Err(Failure::not_found("process already finished"));
        }
        match container.runtime.kill(number, request.all).await {
            Ok(()) => Ok(Empty::new()),
            // A first process that has ended but whose status wasn't taken yet.
            Err(error) if error.kind() == Kind::State => Err(Failure::not_found("process already finished")),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) async fn pause(&self, request: &task::PauseRequest) -> Result<Empty> {
        let container = self.container(&request.id)?;
        let _turn = container.init.turn.lock().await;
        match (container.init.stage(), container.freeze.get()) {
            (Stage::Running, Freeze::No) => {}
            (Stage::Running, _) => return Err(Failure::precondition("cannot pause a paused container")),
            (Stage::Ended(_), _) => return Err(Failure::precondition("cannot pause a stopped container")),
            _ => return Err(Failure::precondition("cannot pause task in created state")),
        }
        container.freeze.set(Freeze::Pausing);
        let paused = container.runtime.pause().await;
        container.freeze.set(if paused.is_ok() { Freeze::Paused } else { Freeze::No });
        paused.map_err(|error| Failure::from(error).during("OCI runtime pause failed"))?;
        self.publish(
            "/tasks/paused",
            &TaskPaused { container_id: request.id.clone(), ..TaskPaused::default() },
        );
        Ok(Empty::new())
    }

    pub(super) async fn resume(&self, request: &task::ResumeRequest) -> Result<Empty> {
        let container = self.container(&request.id)?;
        let _turn = container.init.turn.lock().await;
        if container.freeze.get() != Freeze::Paused || container.init.stage() != Stage::Running {
            return Err(Failure::precondition("cannot resume a container that is not paused"));
        }
        let resumed = container.runtime.resume().await;
        resumed.map_err(|error| Failure::from(error).during("OCI runtime resume failed"))?;
        container.freeze.set(Freeze::No);
        let event = TaskResumed { container_id: request.id.clone(), ..TaskResumed::default() };
        self.publish("/tasks/resumed", &event);
        Ok(Empty::new())
    }

    pub(super) async fn update(&self, request: &task::UpdateTaskRequest) -> Result<Empty> {
        let container = self.container(&request.id)?;
        let resources = request.resources.as_ref().map(|any| any.value.as_slice()).unwrap_or_default();
        if resources.is_empty() {
            return Err(Failure::invalid("the request has no resources"));
        }
        if matches!(container.init.stage(), Stage::Ended(_)) {
            return Err(Failure::precondition("cannot update a stopped container"));
        }
        let updated = container.runtime.update(resources).await;
        updated.map_err(|error| Failure::from(error).during("OCI runtime update failed"))?;
        Ok(Empty::new())
    }

    pub(super) fn resize_pty(&self, request: &task::ResizePtyRequest) -> Result<Empty> {
        let process = self.container(&request.id)?.process(&request.exec_id)?;
        let side = |length: u32| {
            u16::try_from(length).map_err(|_| Failure::invalid(format!("{length} is no size of a terminal")))
        };
        let (width, height) = (side(request.width)?, side(request.height)?);
        if let Some(stdio) = process.stdio.borrow_mut().as_mut() {
            stdio.resize(width, height)?;
        }
        Ok(Empty::new())
    }

    pub(super) fn close_io(&self, request: &task::CloseIORequest) -> Result<Empty> {
        let process = self.container(&request.id)?.process(&request.exec_id)?;
        if request.stdin
            && let Some(stdio) = process.stdio.borrow_mut().as_mut()
        {
            stdio.close_stdin();
        }
        Ok(Empty::new())
    }

    pub(super) fn checkpoint(self: &Rc<Self>, request: &task::CheckpointTaskRequest) -> Result<Empty> {
        self.container(&request.id)?;
        Err(Failure::new(
            Code::UNIMPLEMENTED,
            format!("checkpoint container {}: the runtime has no checkpoint yet", request.id),
        ))
    }
}
