//! Making the planned cgroups.
//!
//! It owns the directories until the container has them: on any failure, what was made is removed.
//! A directory that was there already is used only when it has no processes and is not frozen.

use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::file::{self, CgroupDir};
use super::plan::{ManagerChoice, Place, Plan};
use super::{Cgroup, LayoutKind, Member, Record, apply, ebpf, enable, freezer, procs, systemd};
use crate::error::{Doing, Error, Kind, Result};

impl Plan {
    /// Makes the directories and writes the limits. With systemd only the plan is kept for
    /// [`Cgroup::adopt`], since a unit begins with a process.
    ///
    /// # Errors
    /// When a directory cannot be made, is in use, or a value is refused. What was made is removed.
    pub fn create(&self) -> Result<Cgroup> {
        let record = Record { manager: self.manager, layout: self.layout, members: Vec::new(), unit: None };
        match (self.manager, &self.unit) {
            (ManagerChoice::Disabled, _) => Ok(Cgroup::new(record, None)),
            (ManagerChoice::Systemd, Some(unit)) => {
                // systemd would tell of the unit, and not notice a frozen cgroup.
                self.directories.iter().try_for_each(|place| refuse_in_use(&place.path))?;
                let mut cgroup = Cgroup::new(record, None);
                cgroup.unit = Some(systemd::PendingUnit::new(unit.clone(), self.clone()));
                Ok(cgroup)
            }
            _ => self.make(record),
        }
    }

    /// What will be found again when everything that is planned was made. Kept before it is, it
    /// lets a container be deleted whose creator was killed midway. With systemd the directories
    /// may turn out to be others: keep [`Cgroup::record`] after [`Cgroup::adopt`].
    pub fn record(&self) -> Record {
        Record {
            manager: self.manager,
            layout: self.layout,
            members: self.directories.iter().map(Member::from).collect(),
            unit: self.unit.as_ref().map(systemd::UnitPlan::record),
        }
    }

    fn make(&self, record: Record) -> Result<Cgroup> {
        let mut made = Made::default();
        let result = self.make_all(record, &mut made);
        if result.is_ok() {
            made.keep();
        }
        result
    }

    fn make_all(&self, mut record: Record, made: &mut Made) -> Result<Cgroup> {
        let mut unified = None;
        let mut late = Vec::new();
        for place in &self.directories {
            let existing = match made.make(place).and_then(|existing| check_open_to_us(place, existing)) {
                Ok(existing) => existing,
                Err(error) if self.passes_over(place, &error) => continue,
                Err(error) => return Err(self.not_made(error)),
            };
            if existing {
                refuse_in_use(&place.path)?;
            }
            late.append(&mut self.fill(place, existing, &mut unified)?);
            record.members.push(Member::from(place));
        }
        let mut cgroup = Cgroup::new(record, unified);
        cgroup.late = late;
        Ok(cgroup)
    }

    /// A user who asked for no path may not have a cgroup of every hierarchy. And whoever was given cgroups of version 1
    /// may not have one of the hierarchies that then do nothing but list processes: systemd's, and the unified one.
    fn passes_over(&self, place: &Place, error: &Error) -> bool {
        let limits = place.writes.iter().any(|write| write.controller != "devices");
        let lists_only = self.layout != LayoutKind::V2
            && self.device_program.is_none()
            && place.writes.is_empty()
            && place.controllers.iter().all(|name| name.starts_with("name="));
        ((self.tolerate_unwritable && !limits) || lists_only) && is_forbidden(error)
    }

    /// In runc's words, which its tests look for.
    fn not_made(&self, error: Error) -> Error {
        let error = if self.tolerate_unwritable && is_forbidden(&error) {
            error
                .while_doing("rootless needs no limits + no cgrouppath when no permission is granted for cgroups")
                .hint("drop the limits, or have the cgroup delegated: systemd-run --user --scope -p Delegate=yes")
        } else {
            error
        };
        error.while_doing("unable to apply cgroup configuration")
    }

    /// Writes a directory's values. Gives back those that must wait for the container's process.
    pub(super) fn fill(
        &self,
        place: &Place,
        existing: bool,
        unified: &mut Option<CgroupDir>,
    ) -> Result<Vec<super::PlannedWrite>> {
        if !place.is_unified() {
            if place.controllers.iter().any(|name| name == "cpuset") {
                fill_cpuset(place)?;
            }
            if place.writes.iter().any(|write| existing || !write.only_if_existing) {
                apply::apply(&CgroupDir::open(&place.path)?, &place.writes, existing)?;
            }
            return Ok(Vec::new());
        }
        let dir = CgroupDir::open(&place.path)?;
        // Below systemd's slices too, as with runc: systemd leaves alone what it doesn't know, such as rdma.
        let all = self.layout == LayoutKind::V2;
        if all || !place.needs.is_empty() {
            enable::enable_controllers(&dir, place, all)?;
        }
        // No process could be made in a cgroup that allows none.
        let (late, now): (Vec<_>, Vec<_>) = place
            .writes
            .iter()
            .cloned()
            .partition(|write| write.file == "pids.max" && write.value.trim() == "0");
        apply::apply(&dir, &now, existing)?;
        if let Some(rules) = &self.device_program {
            ebpf::attach(&dir, rules)?;
        }
        *unified = Some(dir);
        Ok(late)
    }
}

/// A cgroup that was there may be another user's, whose container has the same name.
fn check_open_to_us(place: &Place, existing: bool) -> Result<bool> {
    if existing {
        file::open_path(&place.path.join("cgroup.procs"), OFlags::WRONLY)?;
    }
    Ok(existing)
}

fn is_forbidden(error: &Error) -> bool {
    matches!(error.errno(), Some(Errno::ACCESS | Errno::PERM | Errno::ROFS))
}

impl From<&Place> for Member {
    fn from(place: &Place) -> Member {
        Member {
            controllers: place.controllers.clone(),
            mount: place.mount.clone(),
            path: place.path.clone(),
        }
    }
}

/// The directories made so far; dropped, they are removed again.
#[derive(Default)]
struct Made {
    paths: Vec<PathBuf>,
}

impl Made {
    /// Makes a directory; whether it was there already.
    fn make(&mut self, place: &Place) -> Result<bool> {
        match file::make(&place.mount, &place.path) {
            Ok(paths) => {
                let existing = paths.last() != Some(&place.path);
                self.paths.extend(paths);
                Ok(existing)
            }
            Err((paths, error)) => {
                self.paths.extend(paths);
                Err(error)
            }
        }
    }

    fn keep(&mut self) {
        self.paths.clear();
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for path in self.paths.iter().rev() {
            // Another runtime may have made its cgroup below a parent of ours meanwhile.
            let _ = file::remove(path);
        }
    }
}

fn refuse_in_use(path: &Path) -> Result<()> {
    match CgroupDir::open_if_there(path)?.map_or(Ok(()), |dir| refuse_processes(&dir)) {
        // It is being removed.
        Err(error) if matches!(error.errno(), Some(Errno::NOENT | Errno::NODEV)) => Ok(()),
        checked => checked,
    }
}

fn refuse_processes(dir: &CgroupDir) -> Result<()> {
    let path = dir.path();
    let pids = procs::below(dir)?;
    if !pids.is_empty() {
        return Err(Error::new(
            Kind::Exists,
            format!(
                "container's cgroup is not empty: {} process(es) found in {}",
                pids.len(),
                path.display()
            ),
        )
        .at("linux.cgroupsPath")
        .hint("choose another path, or end the processes that are there"));
    }
    if freezer::is_frozen_dir(dir)? {
        return Err(Error::new(
            Kind::State,
            format!("container's cgroup unexpectedly frozen: {}", path.display()),
        )
        .at("linux.cgroupsPath")
        .hint("choose another path, or thaw it"));
    }
    Ok(())
}

/// A version 1 cpuset is born empty, and no process can join an empty one: what the parents have is
/// copied down.
fn fill_cpuset(place: &Place) -> Result<()> {
    let parent = place.path.parent().unwrap_or(&place.mount);
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let inherited = cpuset_value(&place.mount, parent, file)?;
        if !place.writes.iter().any(|write| write.file == file) {
            file::write_value_at(&place.path.join(file), &inherited)?;
        }
    }
    Ok(())
}

/// What a cpuset has in `file`, filled from its parents when it is empty.
fn cpuset_value(mount: &Path, path: &Path, file: &str) -> Result<String> {
    let value = file::read_value_at(&path.join(file))?;
    if !value.is_empty() || path == mount {
        return Ok(value);
    }
    let inherited = cpuset_value(mount, path.parent().unwrap_or(mount), file)?;
    file::write_value_at(&path.join(file), &inherited)?;
    Ok(inherited)
}

/// Gives a version 2 cgroup to a user: the directory and the files that the kernel says a delegate
/// needs. Its group stays.
pub(super) fn delegate(dir: &CgroupDir, user: u32) -> Result<()> {
    let doing = |name: &str| format!("give {} to user {user}", dir.path().join(name).display());
    let list = match file::read_path("/sys/kernel/cgroup/delegate") {
        Ok(list) => list,
        // Kernels before 4.15 have no list.
        Err(error) if error.errno() == Some(Errno::NOENT) => {
            "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n".to_owned()
        }
        Err(error) => return Err(error),
    };
    dir.chown(".", user).doing(|| doing("."))?;
    for name in list.lines().filter(|name| !name.is_empty() && !name.contains('/')) {
        match dir.chown(name, user) {
            // Files of controllers that are not enabled here.
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(Error::os(errno, doing(name))),
        }
    }
    Ok(())
}
