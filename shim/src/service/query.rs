//! State, Pids, Wait and Stats.

use protobuf::EnumOrUnknown;

use super::Shim;
use super::container::Freeze;
use super::process::{Stage, exited_at};
use crate::failure::{Failure, Result};
use crate::metrics;
use crate::proto::runc::ProcessDetails;
use crate::proto::types::{ProcessInfo, Status};
use crate::proto::{pack, task};

impl Shim {
    pub(super) fn state(&self, request: &task::StateRequest) -> Result<task::StateResponse> {
        let container = self.container(&request.id)?;
        let process = container.process(&request.exec_id)?;
        let mut state = process.state(&container.id, &container.bundle.to_string_lossy());
        if process.stage() == Stage::Running {
            match container.freeze.get() {
                Freeze::No => {}
                Freeze::Pausing => state.status = EnumOrUnknown::new(Status::PAUSING),
                Freeze::Paused => state.status = EnumOrUnknown::new(Status::PAUSED),
            }
        }
        Ok(state)
    }

    pub(super) async fn pids(&self, request: &task::PidsRequest) -> Result<task::PidsResponse> {
        let container = self.container(&request.id)?;
        let pids = container.runtime.pids().await?;
        let execs = container.execs.borrow();
        let mut processes = Vec::with_capacity(pids.len());
        for pid in pids {
            let mut info = ProcessInfo { pid: pid as u32, ..ProcessInfo::default() };
            if let Some(exec) = execs.values().find(|exec| exec.is_there() && exec.pid() == pid) {
                let details = ProcessDetails { exec_id: exec.exec_id.clone(), ..ProcessDetails::default() };
                info.info = pack(&details).ok().into();
            }
            processes.push(info);
        }
        Ok(task::PidsResponse { processes, ..Default::default() })
    }

    pub(super) async fn wait(&self, request: &task::WaitRequest) -> Result<task::WaitResponse> {
        let process = self.container(&request.id)?.process(&request.exec_id)?;
        let exit = process.ended().await;
        Ok(task::WaitResponse {
            exit_status: exit.map_or(0, |exit| exit.status),
            exited_at: exited_at(exit),
            ..Default::default()
        })
    }

    pub(super) fn stats(&self, request: &task::StatsRequest) -> Result<task::StatsResponse> {
        let container = self.container(&request.id)?;
        let cgroup = container.cgroup.get();
        let cgroup =
            cgroup.ok_or_else(|| Failure::not_found(format!("container {} has no cgroup", container.id)))?;
        let has_ended = matches!(container.init.stage(), Stage::Ended(_));
        let stats = metrics::of(cgroup).map_err(|error| {
            if has_ended {
                // systemd takes the cgroup away with the last process.
                Failure::not_found(format!("container {} has ended: {error}", container.id))
            } else {
                error.into()
            }
        })?;
        Ok(task::StatsResponse { stats: Some(stats).into(), ..Default::default() })
    }
}
