//! Changing the limits of a container that exists.
//!
//! Only the fields that are given change; devices are untouched unless they are named. When a value
//! is refused, the values written before it are put back, in the files and in systemd's unit.

use std::borrow::Cow;

use oci_spec::runtime::LinuxResources;

use super::devices::{self, Policy};
use super::file::CgroupDir;
use super::plan::Write;
use super::systemd::properties;
use super::{Cgroup, LayoutKind, Member, apply, ebpf, v1, v2};
use crate::error::{Error, Kind, Result};

impl Cgroup {
    /// Writes the fields of `resources` to the container's cgroups.
    ///
    /// # Errors
    /// As [`super::plan()`]; also when a memory limit is below what is used now and
    /// `checkBeforeUpdate` is set.
    pub fn update(&self, resources: &LinuxResources) -> Result<()> {
        self.require("update the container's limits")?;
        let mut warnings = Vec::new();
        let told = self.record.unit.as_ref().map(|_| self.for_unit(resources)).transpose()?;
        let kept =
            told.as_ref().map_or(Cow::Borrowed(resources), |told| Cow::Owned(as_kept(resources, told)));
        let writes = match self.record.layout {
            LayoutKind::V2 => v2::writes(&kept, &mut warnings)?,
            LayoutKind::V1 | LayoutKind::Hybrid => v1::writes(&kept, &mut warnings)?,
        };
        self.check_memory(resources)?;
        let sorted = self.sort(writes, resources)?;
        let before: Vec<Vec<Write>> =
            sorted.iter().map(|(dir, writes)| snapshot(dir, writes)).collect::<Result<_>>()?;
        let result = self.write(resources, told.as_ref(), &sorted);
        if result.is_err() {
            // The first error is the one to tell; these values were accepted before.
            let _ = self.put_back(&sorted, &before);
        }
        result
    }

    /// The unit first: with a property systemd also writes what it knows of the files beside it.
    fn write(
        &self,
        resources: &LinuxResources,
        told: Option<&LinuxResources>,
        sorted: &[(CgroupDir, Vec<Write>)],
    ) -> Result<()> {
        if let (Some(unit), Some(told)) = (&self.record.unit, told) {
            unit.update(told, self.record.layout)?;
        }
        for (dir, writes) in sorted {
            apply::apply(dir, writes, true)?;
        }
        if resources.devices().as_ref().is_some_and(|devices| !devices.is_empty()) {
            self.update_devices(resources)?;
        }
        Ok(())
    }

    fn put_back(&self, sorted: &[(CgroupDir, Vec<Write>)], before: &[Vec<Write>]) -> Result<()> {
        if let Some(unit) = self.record.unit.as_ref().filter(|_| self.record.layout == LayoutKind::V2) {
            let files = before.iter().flatten().map(|write| (write.file.clone(), write.value.clone()));
            let mut resources = LinuxResources::default();
            resources.set_devices(None).set_unified(Some(files.collect()));
            unit.update(&resources, self.record.layout)?;
        }
        for ((dir, _), before) in sorted.iter().zip(before) {
            apply::apply(dir, before, true)?;
        }
        Ok(())
    }

    /// What systemd is told: the update, and what its properties need beside it. A quota is one per
    /// second there, so it depends on the period; and to be idle is a weight, so a cgroup that is idle
    /// no more must name one.
    fn for_unit(&self, resources: &LinuxResources) -> Result<LinuxResources> {
        let mut told = resources.clone();
        let Some(cpu) = told.cpu_mut() else { return Ok(told) };
        let quota = cpu.quota().filter(|&quota| quota != 0);
        let period = cpu.period().filter(|&period| period != 0);
        if quota.is_some() != period.is_some() {
            let (quota_now, period_now) = self.bandwidth()?;
            cpu.set_quota(quota.or(quota_now)).set_period(period.or(period_now));
        }
        if cpu.idle() == Some(0)
            && cpu.shares().is_none_or(|shares| shares == 0)
            && let Some(dir) = self.unified_dir()?
            && dir.read_if_there("cpu.idle")?.is_some_and(|idle| idle.trim() == "1")
        {
            // The kernel gives it the usual weight again.
            cpu.set_shares(Some(1024));
        }
        Ok(told)
    }

    /// The quota (-1 for none) and the period that hold now, in microseconds.
    fn bandwidth(&self) -> Result<(Option<i64>, Option<u64>)> {
        let (quota, period) = if self.record.layout == LayoutKind::V2 {
            let text = match self.unified_dir()? {
                Some(dir) => dir.read_if_there("cpu.max")?.unwrap_or_default(),
                None => return Ok((None, None)),
            };
            let mut parts = text.split_whitespace().map(str::to_owned);
            (parts.next(), parts.next())
        } else {
            let Some(dir) = self.v1_dir("cpu")? else { return Ok((None, None)) };
            (dir.read_if_there("cpu.cfs_quota_us")?, dir.read_if_there("cpu.cfs_period_us")?)
        };
        let quota = quota.map(|quota| quota.trim().parse().unwrap_or(-1));
        Ok((quota, period.and_then(|period| period.trim().parse().ok())))
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

    /// The kernel of version 2 would take a limit below the usage and kill until it holds.
    fn check_memory(&self, resources: &LinuxResources) -> Result<()> {
        let Some(memory) =
            resources.memory().as_ref().filter(|memory| memory.check_before_update() == Some(true))
        else {
            return Ok(());
        };
        let Some(limit) =
            memory.limit().and_then(|limit| u64::try_from(limit).ok()).filter(|&limit| limit > 0)
        else {
            return Ok(());
        };
        let (dir, file) = match self.record.layout {
            LayoutKind::V2 => (self.unified_dir()?, "memory.current"),
            LayoutKind::V1 | LayoutKind::Hybrid => (self.v1_dir("memory")?, "memory.usage_in_bytes"),
        };
        let usage =
            dir.map(|dir| dir.read_value(file)).transpose()?.and_then(|usage| usage.parse::<u64>().ok());
        match usage {
            Some(usage) if usage > limit => Err(Error::new(
                Kind::State,
                format!("set the memory limit to {limit} bytes: the container uses {usage} bytes now"),
            )
            .at("linux.resources.memory.limit")
            .hint("raise the limit, or leave checkBeforeUpdate out to have the kernel reclaim and kill")),
            _ => Ok(()),
        }
    }

    fn update_devices(&self, resources: &LinuxResources) -> Result<()> {
        let mut rules = devices::spec_rules(Some(resources))?;
        rules.extend_from_slice(devices::default_rules());
        let dir = match (self.v1_dir("devices")?, self.unified_dir()?) {
            (Some(dir), _) => dir,
            (None, Some(unified)) => return ebpf::attach(&unified, &rules),
            (None, None) => {
                return Err(Error::new(Kind::System, "the container is in no devices cgroup")
                    .at("linux.resources.devices"));
            }
        };
        let wanted = Policy::of(&rules)?;
        let current = Policy::parse_list(&dir.read("devices.list")?);
        let writes: Vec<Write> = wanted
            .v1_writes(current.as_ref())
            .into_iter()
            .map(|(file, value)| Write::new("devices", file, value, "linux.resources.devices"))
            .collect();
        apply::apply(&dir, &writes, true)
    }
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
    if let (Some(cpu), Some(told)) = (kept.cpu_mut(), properties::as_kept(told).cpu()) {
        cpu.set_quota(told.quota()).set_period(told.period());
    }
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

/// What the files of `writes` hold now, for those that can be written back as they are read.
fn snapshot(dir: &CgroupDir, writes: &[Write]) -> Result<Vec<Write>> {
    const READ_AS_WRITTEN: [&str; 20] = [
        "memory.limit_in_bytes",
        "memory.memsw.limit_in_bytes",
        "memory.soft_limit_in_bytes",
        "memory.swappiness",
        "memory.max",
        "memory.swap.max",
        "memory.low",
        "memory.min",
        "memory.high",
        "cpu.shares",
        "cpu.weight",
        "cpu.cfs_period_us",
        "cpu.cfs_quota_us",
        "cpu.max",
        "cpu.idle",
        "cpu.cfs_burst_us",
        "cpu.max.burst",
        "cpuset.cpus",
        "cpuset.mems",
        "pids.max",
    ];
    let mut before = Vec::new();
    for write in writes.iter().filter(|write| READ_AS_WRITTEN.contains(&write.file.as_str())) {
        if let Some(value) = dir.read_if_there(&write.file)? {
            before.push(Write::new(write.controller.clone(), write.file.clone(), value.trim_end(), ""));
        }
    }
    Ok(before)
}
