//! Control groups: limits on a container's processes, and the list of who they are.
//!
//! It owns everything that Coracle does below `/sys/fs/cgroup`: finding the hierarchies
//! ([`Layout`]), deciding what to make and write ([`plan()`], pure), and the made thing
//! ([`Cgroup`]): joining, freezing, killing, removing, updating, measuring. Versions 1, 2 and the
//! hybrid of both are covered, by writing to the filesystem or through systemd. It promises that
//! what it made is removed when a later step fails, that waiting is done on events of the kernel
//! wherever there are any, and that every error names the file, the value and the place in
//! `config.json`. Answers to the runtime-spec's "Control groups" and to cgroups(7).

mod apply;
mod completed;
mod create;
pub mod details;
pub mod devices;
mod ebpf;
mod enable;
mod events;
mod exec;
mod file;
mod freezer;
mod kill;
pub mod layout;
mod path;
mod plan;
mod procs;
mod remove;
mod snapshot;
pub mod stats;
mod stats_v1;
mod stats_v2;
mod systemd;
mod update;
mod v1;
mod v2;
mod walk;

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

pub use devices::{DeviceRule, default_rules};
pub use events::{Event, Events, OomWatch, Watch};
pub use exec::{CgroupHandle, ExecTarget, SubCgroup};
pub use layout::{Layout, LayoutKind};
pub use plan::{ManagerChoice, Place, Plan, Request, Write, plan};
pub use stats::Stats;

use crate::error::{Error, Result};
use file::CgroupDir;
use plan::Write as PlannedWrite;

/// The container's directory in one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The hierarchy's controllers, or `name=systemd`; empty for the unified hierarchy.
    pub controllers: Vec<String>,
    /// Where the hierarchy is mounted.
    pub mount: PathBuf,
    /// The directory.
    pub path: PathBuf,
}

impl Member {
    fn is_unified(&self) -> bool {
        self.controllers.is_empty()
    }

    fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|name| name == controller)
    }

    /// Refuses to take a directory for removed that only can't be seen from here.
    fn expect_hierarchy(&self) -> Result<()> {
        if file::is_cgroup_filesystem(&self.mount) {
            return Ok(());
        }
        Err(Error::new(
            crate::error::Kind::System,
            format!("look at the cgroup {}: no hierarchy is mounted on {}", self.path.display(), self.mount.display()),
        )
        .hint("mount it there again, or do this where it is mounted: in the mount namespace in which the container was created"))
    }
}

/// All that is needed to find a container's cgroups again: kept in `state.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Who made them.
    pub manager: ManagerChoice,
    /// The host's layout when they were made.
    pub layout: LayoutKind,
    /// The directories.
    pub members: Vec<Member>,
    /// The systemd unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<systemd::UnitRecord>,
}

/// A container's cgroups.
#[derive(Debug)]
pub struct Cgroup {
    record: Record,
    paths: BTreeMap<String, PathBuf>,
    unified: Option<CgroupDir>,
    /// What can only be written or done once the container's process exists.
    late: Vec<PlannedWrite>,
    unit: Option<systemd::PendingUnit>,
}

impl Cgroup {
    fn new(record: Record, unified: Option<CgroupDir>) -> Cgroup {
        let mut paths = BTreeMap::new();
        for member in &record.members {
            if member.is_unified() {
                paths.insert(String::new(), member.path.clone());
            }
            for controller in &member.controllers {
                paths.insert(controller.clone(), member.path.clone());
            }
        }
        Cgroup { record, paths, unified, late: Vec::new(), unit: None }
    }

    /// Finds a container's cgroups again. Directories that are gone are no error here: removal
    /// must be possible at any time.
    pub fn open(record: &Record) -> Result<Cgroup> {
        Ok(Cgroup::new(record.clone(), None))
    }

    /// The cgroups that a process is in, whoever made them: to measure or to watch those of another runtime's container.
    pub fn of_process(pid: i32) -> Result<Cgroup> {
        let layout = Layout::detect()?;
        let text = file::read_path(&format!("/proc/{pid}/cgroup"))?;
        let mut members = Vec::new();
        for (controllers, path) in layout::cgroups_of(&text) {
            let mut hierarchies = layout.v1().iter().chain(layout.unified());
            let Some(hierarchy) =
                hierarchies.find(|hierarchy| hierarchy.controllers.join(",") == controllers)
            else {
                continue;
            };
            members.push(Member {
                controllers: hierarchy.controllers.clone(),
                mount: hierarchy.mount.clone(),
                path: hierarchy.mount.join(path.trim_start_matches('/')),
            });
        }
        Cgroup::open(&Record { manager: ManagerChoice::Cgroupfs, layout: layout.kind(), members, unit: None })
    }

    /// What [`Cgroup::open`] needs later.
    pub fn record(&self) -> Record {
        self.record.clone()
    }

    /// Controller, or the empty string for the unified hierarchy, to directory: `cgroup_paths` of
    /// runc's `state.json`.
    pub fn paths(&self) -> &BTreeMap<String, PathBuf> {
        &self.paths
    }

    /// The directory for clone3's `CLONE_INTO_CGROUP`: the unified hierarchy's, on v2 and hybrid.
    /// None with systemd before [`Cgroup::adopt`].
    pub fn clone_into(&self) -> Option<BorrowedFd<'_>> {
        self.unified.as_ref().map(AsFd::as_fd)
    }

    /// Version 1: the open `tasks` files. The new process writes `0` to each itself: a thread that
    /// moves itself alone does not take the kernel's global lock on forks, which costs milliseconds.
    pub fn join_files(&self) -> Result<Vec<OwnedFd>> {
        if self.needs_unit() {
            return Ok(Vec::new());
        }
        let v1 = self.record.members.iter().filter(|member| !member.is_unified());
        v1.map(|member| file::open_path(&member.path.join("tasks"), OFlags::WRONLY)).collect()
    }

    /// Whether [`Cgroup::adopt`] must be called while the new process is still blocked.
    pub fn needs_adopt(&self) -> bool {
        self.needs_unit() || !self.late.is_empty()
    }

    fn needs_unit(&self) -> bool {
        self.unit.is_some()
    }

    /// Does what needs the container's process, which must still be blocked: with systemd, makes
    /// the unit around `pid`; on version 2, forbids forks when `unified` has a `pids.max` of 0 (written before,
    /// it would forbid the process itself). With systemd, [`Cgroup::record`] and
    /// [`Cgroup::paths`] are empty before: there is nothing to find again, for a unit whose
    /// blocked process ends with its creator is collected by systemd.
    pub fn adopt(&mut self, pid: i32) -> Result<()> {
        if let Some(unit) = self.unit.take() {
            *self = unit.start(pid)?;
        }
        let late = std::mem::take(&mut self.late);
        if let Some(dir) = self.unified_dir()? {
            apply::apply(&dir, &late, true)?;
        }
        Ok(())
    }

    /// Gives the container's version 2 cgroup to a user of the host: cgroups(7), "Cgroup delegation". When the
    /// container's process is in it.
    pub fn give_to(&self, uid: u32) -> Result<()> {
        match self.unified_dir()? {
            Some(dir) => create::delegate(&dir, uid),
            None => Ok(()),
        }
    }

    /// The unified directory, if it is there.
    fn unified_dir(&self) -> Result<Option<CgroupDir>> {
        match self.record.members.iter().find(|member| member.is_unified()) {
            Some(member) => CgroupDir::open_if_there(&member.path),
            None => Ok(None),
        }
    }

    /// The directory of a version 1 controller, if the container is in one and it is there.
    fn v1_dir(&self, controller: &str) -> Result<Option<CgroupDir>> {
        match self.record.members.iter().find(|member| member.has(controller)) {
            Some(member) => CgroupDir::open_if_there(&member.path),
            None => Ok(None),
        }
    }

    /// The hierarchy whose list of processes stands for the container. On version 1 a container
    /// that may write its cgroups makes children in any hierarchy; all of them are below.
    fn process_member(&self) -> Option<&Member> {
        let members = &self.record.members;
        let named = ["freezer", "devices", "pids"];
        named
            .iter()
            .find_map(|name| members.iter().find(|member| member.has(name)))
            .or_else(|| members.first())
    }

    /// Refuses an operation on a container without cgroups.
    fn require(&self, what: &str) -> Result<()> {
        if self.record.members.is_empty() {
            return Err(Error::new(
                crate::error::Kind::Unsupported,
                format!("{what}: the container has no cgroup of its own"),
            )
            .hint(
                "it was created with --cgroup-manager=disabled, or by a user who may not make cgroups: create it anew in one that is delegated (systemd-run --user --scope -p Delegate=yes), or with --systemd-cgroup",
            ));
        }
        Ok(())
    }
}
