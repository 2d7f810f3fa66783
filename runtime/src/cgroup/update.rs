//! Changing the limits of a container that exists.
//!
//! Only the fields that are given change; devices are untouched unless they are named. When a value
//! is refused, the values written before it are put back, in the files and in systemd's unit.

use std::borrow::Cow;

use oci_spec::runtime::LinuxResources;

use super::devices::{self, DeviceRule, Policy};
use super::file::CgroupDir;
use super::plan::Write;
use super::snapshot::Snapshot;
use super::systemd::{UnitRecord, properties};
use super::{Cgroup, LayoutKind, Member, apply, ebpf, v1, v2};
use crate::error::{Error, Kind, Result};

impl Cgroup {
    /// Writes the fields of `resources` to the container's cgroups; `before` has the device rules that hold now.
    /// Gives what to warn of: fields without effect.
    ///
    /// # Errors
    /// As [`super::plan()`]; also when a memory limit is not above what is used now and
    /// `checkBeforeUpdate` is set.
    pub fn update(&self, resources: &LinuxResources, before: &LinuxResources) -> Result<Vec<String>> {
        self.require("update the container's limits")?;
        let mut warnings = Vec::new();
        let whole = self.completed(resources)?;
        let told = self.record.unit.as_ref().map(|_| self.for_unit(&whole)).transpose()?;
        let kept = told.as_ref().map_or(Cow::Borrowed(&whole), |told| Cow::Owned(as_kept(&whole, told)));
        let writes = match self.record.layout {
            LayoutKind::V2 => v2::writes(&kept, &mut warnings)?,
            LayoutKind::V1 | LayoutKind::Hybrid => v1::writes(&kept, &mut warnings)?,
        };
        self.check_memory(resources)?;
        let sorted = self.sort(writes, &kept)?;
        let snapshots: Vec<Snapshot> =
            sorted.iter().map(|(dir, writes)| Snapshot::before(dir, writes)).collect();
        let mut unit_told = None;
        let result = self.write(resources, told.as_ref(), &sorted, &mut unit_told);
        if result.is_err() {
            // The first error is the one to tell; these values were accepted before.
            if let Some(unit) = unit_told {
                let _ = self.tell(unit, &as_it_was(resources, before, &snapshots));
            }
            for ((dir, _), snapshot) in sorted.iter().zip(&snapshots) {
                let _ = snapshot.put_back(dir);
            }
        }
        result.map(|()| warnings)
    }

    /// The files first: the kernel refuses more than systemd does, and systemd takes or refuses all that it is told.
    /// `told` becomes the unit once that has taken it.
    fn write<'a>(
        &'a self,
        resources: &LinuxResources,
        properties: Option<&LinuxResources>,
        sorted: &[(CgroupDir, Vec<Write>)],
        told: &mut Option<&'a UnitRecord>,
    ) -> Result<()> {
        for (dir, writes) in sorted {
            apply::apply(dir, writes, true)?;
        }
        if let (Some(unit), Some(properties)) = (&self.record.unit, properties) {
            self.tell(unit, properties)?;
            *told = Some(unit);
        }
        if resources.devices().as_ref().is_some_and(|devices| !devices.is_empty()) {
            self.update_devices(resources)?;
        }
        Ok(())
    }

    /// Tells systemd of the change. With a property it also writes what it knows of the files beside it, and that is
    /// not all: what it changes is put back.
    fn tell(&self, unit: &UnitRecord, properties: &LinuxResources) -> Result<()> {
        let dirs = self.record.members.iter().map(|member| CgroupDir::open_if_there(&member.path));
        let dirs: Vec<CgroupDir> = dirs.filter_map(Result::transpose).collect::<Result<_>>()?;
        let snapshots: Vec<Snapshot> = dirs.iter().map(Snapshot::of_systemd).collect();
        unit.update(properties, self.record.layout)?;
        dirs.iter().zip(&snapshots).try_for_each(|(dir, snapshot)| snapshot.put_back(dir))
    }

    /// The writes of each directory.
    fn sort(&self, writes: Vec<Write>, resources: &LinuxResources) -> Result<Vec<(CgroupDir, Vec<Write>)>> {
        let mut sorted: Vec<(&Member, Vec<Write>)> = Vec::new();
        let members = &self.record.members;
        let pure_v2 = self.record.layout == LayoutKind::V2;
        let mut elsewhere = None;
        for write in writes {
            let holder = members
                .iter()
                .find(|member| if pure_v2 { member.is_unified() } else { member.has(&write.controller) });
            match (holder, members.iter().any(Member::is_unified)) {
                (Some(member), _) => push(&mut sorted, member, write),
                (None, true) if v2::CONTROLLERS.contains(&write.controller.as_str()) => {
                    elsewhere = Some(write.controller);
                }
                (None, _) => {
                    return Err(Error::new(
                        Kind::System,
                        format!(
                            "cannot write {}: the container is in no {} cgroup",
                            write.file, write.controller
                        ),
                    )
                    .at(write.place));
                }
            }
        }
        if let (Some(controller), Some(unified)) =
            (elsewhere, members.iter().find(|member| member.is_unified()))
        {
            for write in v2::writes(resources, &mut Vec::new())? {
                if write.controller == controller {
                    push(&mut sorted, unified, write);
                }
            }
        }
        sorted
            .into_iter()
            .map(|(member, mut writes)| {
                let dir = CgroupDir::open(&member.path)?;
                if member.is_unified() {
                    keep_quota(&dir, &mut writes)?;
                }
                Ok((dir, writes))
            })
            .collect()
    }

    fn update_devices(&self, resources: &LinuxResources) -> Result<()> {
        let mut rules = devices::spec_rules(Some(resources))?;
        rules.extend_from_slice(devices::default_rules());
        match (self.v1_dir("devices")?, self.unified_dir()?) {
            (Some(dir), _) => update_device_list(&dir, &rules),
            (None, Some(unified)) => ebpf::attach(&unified, &rules),
            (None, None) => Err(Error::new(Kind::System, "the container is in no devices cgroup")
                .at("linux.resources.devices")),
        }
    }
}

/// Version 1: a list that is changed rule by rule, and put back when the kernel refuses one.
fn update_device_list(dir: &CgroupDir, rules: &[DeviceRule]) -> Result<()> {
    let wanted = Policy::of(rules)?;
    let change = |wanted: &Policy, current: Option<&Policy>| {
        let writes: Vec<Write> = wanted
            .v1_writes(current)
            .into_iter()
            .map(|(file, value)| Write::new("devices", file, value, "linux.resources.devices"))
            .collect();
        apply::apply(dir, &writes, true)
    };
    let before = Policy::parse_list(&dir.read("devices.list")?);
    let result = change(&wanted, before.as_ref());
    if let (Err(_), Some(before)) = (&result, &before) {
        let now = Policy::parse_list(&dir.read("devices.list")?);
        // The first error is the one to tell.
        let _ = change(before, now.as_ref());
    }
    result
}

/// What the unit is told when the update has failed: what the files held, and the devices if they were named.
fn as_it_was(resources: &LinuxResources, before: &LinuxResources, snapshots: &[Snapshot]) -> LinuxResources {
    let mut was = LinuxResources::default();
    let devices = resources.devices().as_ref().and(before.devices().clone());
    was.set_devices(devices).set_unified(Some(snapshots.iter().flat_map(Snapshot::files).collect()));
    was
}

fn push<'a>(sorted: &mut Vec<(&'a Member, Vec<Write>)>, member: &'a Member, write: Write) {
    match sorted.iter_mut().find(|(known, _)| *known == member) {
        Some((_, writes)) => writes.push(write),
        None => sorted.push((member, vec![write])),
    }
}

/// What the files get: the update, with the CPU quota and period that the unit is told, as it keeps them.
fn as_kept(resources: &LinuxResources, told: &LinuxResources) -> LinuxResources {
    let mut kept = resources.clone();
    let told = properties::as_kept(told);
    if let (Some(cpu), Some(told)) = (kept.cpu_mut(), told.cpu()) {
        cpu.set_quota(told.quota()).set_period(told.period());
    }
    kept.set_unified(told.unified().clone());
    kept
}

/// A new period alone keeps the quota: version 2 has both in one file, quota first.
fn keep_quota(dir: &CgroupDir, writes: &mut [Write]) -> Result<()> {
    let is_period = |write: &&mut Write| write.file == "cpu.max" && write.place == v2::PERIOD;
    for write in writes.iter_mut().filter(is_period) {
        let current = dir.read_if_there("cpu.max")?.unwrap_or_default();
        if let (Some(quota), Some(period)) =
            (current.split_whitespace().next(), write.value.strip_prefix("max "))
        {
            write.value = format!("{quota} {period}");
        }
    }
    Ok(())
}
