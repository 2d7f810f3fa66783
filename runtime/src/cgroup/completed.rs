//! What an update leans on: the limits that hold now.
//!
//! Some fields of `linux.resources` are two halves of one thing in the kernel or in systemd: memory and swap, quota and
//! period, weight and idleness. When an update has one half, the other is read from the container's cgroup.

use oci_spec::runtime::LinuxResources;

use super::{Cgroup, LayoutKind, v1};
use crate::error::{Error, Kind, Result};

impl Cgroup {
    /// The update, with the other halves that the files need.
    pub(super) fn completed(&self, resources: &LinuxResources) -> Result<LinuxResources> {
        let mut whole = resources.clone();
        self.complete_memory(&mut whole)?;
        // Told of a weight, systemd ends idleness; the file takes no weight before that.
        if self.record.unit.is_some() && self.is_idle()? {
            if let Some(cpu) = whole.cpu_mut()
                && cpu.shares().is_some_and(|shares| shares != 0)
                && cpu.idle().is_none()
            {
                cpu.set_idle(Some(0));
            }
            if let Some(unified) = whole.unified_mut()
                && unified.contains_key("cpu.weight")
            {
                unified.entry("cpu.idle".to_owned()).or_insert_with(|| "0".to_owned());
            }
        }
        Ok(whole)
    }

    /// Version 2 limits swap alone, where the fields have the sum of memory and swap.
    fn complete_memory(&self, whole: &mut LinuxResources) -> Result<()> {
        let Some(memory) = whole.memory_mut() else { return Ok(()) };
        let limit = memory.limit().filter(|&limit| limit != 0);
        let swap = v1::effective_swap(memory);
        if limit.is_some() == swap.is_some() || self.v1_dir("memory")?.is_some() {
            return Ok(());
        }
        let Some(dir) = self.unified_dir()? else { return Ok(()) };
        // "max" is no number.
        let now = |file: &str| -> Result<Option<i64>> {
            Ok(dir.read_if_there(file)?.and_then(|value| value.trim().parse().ok()))
        };
        let Some(limit_now) = now("memory.max")? else { return Ok(()) };
        if limit.is_none() {
            memory.set_limit(Some(limit_now));
        } else if let Some(swap_now) = now("memory.swap.max")? {
            memory.set_swap(limit_now.checked_add(swap_now));
        }
        Ok(())
    }

    /// What systemd is told: the update, and what its properties need beside it. A quota is one per
    /// second there, so it depends on the period; and to be idle is a weight, so a cgroup that is idle
    /// no more must name one.
    pub(super) fn for_unit(&self, resources: &LinuxResources) -> Result<LinuxResources> {
        let mut told = resources.clone();
        if let Some(max) = told.unified_mut().as_mut().and_then(|unified| unified.get_mut("cpu.max"))
            && max.split_whitespace().count() == 1
            && let (_, Some(period)) = self.bandwidth()?
        {
            *max = format!("{} {period}", max.trim());
        }
        let Some(cpu) = told.cpu_mut() else { return Ok(told) };
        let quota = cpu.quota().filter(|&quota| quota != 0);
        let period = cpu.period().filter(|&period| period != 0);
        if quota.is_some() != period.is_some() {
            let (quota_now, period_now) = self.bandwidth()?;
            cpu.set_quota(quota.or(quota_now)).set_period(period.or(period_now));
        }
        if cpu.idle() == Some(0) && cpu.shares().is_none_or(|shares| shares == 0) && self.is_idle()? {
            // The kernel gives it the usual weight again.
            cpu.set_shares(Some(1024));
        }
        Ok(told)
    }

    /// Whether the container's processes run only when nothing else wants the CPU.
    fn is_idle(&self) -> Result<bool> {
        let Some(dir) = self.unified_dir()? else { return Ok(false) };
        Ok(dir.read_if_there("cpu.idle")?.is_some_and(|idle| idle.trim() == "1"))
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

    /// The kernel of version 2 would take a limit below the usage and kill until it holds.
    pub(super) fn check_memory(&self, resources: &LinuxResources) -> Result<()> {
        let Some(memory) =
            resources.memory().as_ref().filter(|memory| memory.check_before_update() == Some(true))
        else {
            return Ok(());
        };
        let positive =
            |limit: Option<i64>| limit.and_then(|limit| u64::try_from(limit).ok()).filter(|&limit| limit > 0);
        let limits = [("memory+swap", "swap", memory.swap()), ("memory", "limit", memory.limit())];
        if limits.iter().all(|(_, _, limit)| positive(*limit).is_none()) {
            return Ok(());
        }
        let (dir, file) = match self.v1_dir("memory")? {
            Some(dir) => (Some(dir), "memory.usage_in_bytes"),
            None => (self.unified_dir()?, "memory.current"),
        };
        let usage = dir.map(|dir| dir.read_value(file)).transpose()?;
        let Some(usage) = usage.and_then(|usage| usage.parse::<u64>().ok()) else { return Ok(()) };
        for (what, field, limit) in limits {
            // In runc's words.
            if let Some(limit) = positive(limit).filter(|&limit| limit <= usage) {
                return Err(Error::new(
                    Kind::State,
                    format!("rejecting {what} limit {limit} <= usage {usage} (in bytes)"),
                )
                .at(format!("linux.resources.memory.{field}"))
                .hint(
                    "raise the limit, or set checkBeforeUpdate to false to have the kernel reclaim and kill",
                ));
            }
        }
        Ok(())
    }
}
