//! Measuring through version 1 files.

use super::file::CgroupDir;
use super::stats::{
    Blkio, BlkioEntry, Cpu, Cpuset, Hugetlb, Memory, MemoryEntry, Pids, Stats, huge_page_sizes, number, table,
};
use super::{Cgroup, stats_v2};
use crate::error::Result;

/// USER_HZ: the unit of `cpuacct.stat` in every architecture's ABI.
const NANOSECONDS_A_TICK: u64 = 1_000_000_000 / 100;

/// Reads every controller that the container is in.
pub fn read(cgroup: &Cgroup) -> Result<Stats> {
    let mut stats = Stats::default();
    if let Some(dir) = cgroup.v1_dir("cpu")? {
        let table = table(&dir, "cpu.stat")?;
        let of = |key: &str| table.get(key).copied().unwrap_or(0);
        stats.cpu.throttling.periods = of("nr_periods");
        stats.cpu.throttling.throttled_periods = of("nr_throttled");
        stats.cpu.throttling.throttled_time = of("throttled_time");
    }
    if let Some(dir) = cgroup.v1_dir("cpuacct")? {
        cpuacct(&dir, &mut stats.cpu)?;
    }
    if let Some(dir) = cgroup.v1_dir("cpuset")? {
        stats.cpuset = cpuset(&dir)?;
    }
    if let Some(dir) = cgroup.v1_dir("memory")? {
        stats.memory = memory(&dir)?;
    }
    if let Some(dir) = cgroup.v1_dir("pids")? {
        stats.pids = pids(&dir)?;
    }
    if let Some(dir) = cgroup.v1_dir("blkio")? {
        stats.blkio = blkio(&dir)?;
    }
    match cgroup.v1_dir("hugetlb")? {
        Some(dir) => {
            for size in huge_page_sizes() {
                let entry = Hugetlb {
                    usage: number(&dir, &format!("hugetlb.{size}.usage_in_bytes"))?,
                    max: number(&dir, &format!("hugetlb.{size}.max_usage_in_bytes"))?,
                    failcnt: number(&dir, &format!("hugetlb.{size}.failcnt"))?,
                };
                stats.hugetlb.insert(size, entry);
            }
        }
        None => {
            if let Some(dir) = cgroup.unified_dir()? {
                stats.hugetlb = stats_v2::hugetlb(&dir)?;
            }
        }
    }
    Ok(stats)
}

fn cpuacct(dir: &CgroupDir, cpu: &mut Cpu) -> Result<()> {
    let stat = table(dir, "cpuacct.stat")?;
    let ticks = |key: &str| stat.get(key).copied().unwrap_or(0).saturating_mul(NANOSECONDS_A_TICK);
    cpu.usage.user = ticks("user");
    cpu.usage.kernel = ticks("system");
    cpu.usage.total = number(dir, "cpuacct.usage")?;
    let list = |text: String| text.split_whitespace().filter_map(|value| value.parse().ok()).collect();
    cpu.usage.percpu = dir.read_if_there("cpuacct.usage_percpu")?.map(list).unwrap_or_default();
    // A line for each processor: number, user, system.
    for line in dir.read_if_there("cpuacct.usage_all")?.unwrap_or_default().lines().skip(1) {
        let mut values = line.split(' ').skip(1).filter_map(|value| value.parse().ok());
        if let (Some(user), Some(system)) = (values.next(), values.next()) {
            cpu.usage.percpu_user.push(user);
            cpu.usage.percpu_kernel.push(system);
        }
    }
    Ok(())
}

fn cpuset(dir: &CgroupDir) -> Result<Cpuset> {
    let list = |file: &str| Ok(dir.read_if_there(file)?.map(|text| parse_list(&text)).unwrap_or_default());
    let flag = |name: &str| number(dir, &format!("cpuset.{name}"));
    let relax = dir.read_if_there("cpuset.sched_relax_domain_level")?;
    Ok(Cpuset {
        cpus: list("cpuset.cpus")?,
        cpu_exclusive: flag("cpu_exclusive")?,
        mems: list("cpuset.mems")?,
        mem_hardwall: flag("mem_hardwall")?,
        mem_exclusive: flag("mem_exclusive")?,
        memory_migrate: flag("memory_migrate")?,
        memory_spread_page: flag("memory_spread_page")?,
        memory_spread_slab: flag("memory_spread_slab")?,
        memory_pressure: flag("memory_pressure")?,
        sched_load_balance: flag("sched_load_balance")?,
        sched_relax_domain_level: relax.and_then(|text| text.trim().parse().ok()).unwrap_or(0),
    })
}

/// A list such as `0-3,7`.
pub fn parse_list(text: &str) -> Vec<u16> {
    let mut numbers = Vec::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<u16>(), last.parse::<u16>()) {
            numbers.extend(first..=last);
        }
    }
    numbers
}

fn memory(dir: &CgroupDir) -> Result<Memory> {
    let entry = |kind: &str| -> Result<MemoryEntry> {
        Ok(MemoryEntry {
            limit: number(dir, &format!("memory.{kind}limit_in_bytes"))?,
            usage: number(dir, &format!("memory.{kind}usage_in_bytes"))?,
            max: number(dir, &format!("memory.{kind}max_usage_in_bytes"))?,
            failcnt: number(dir, &format!("memory.{kind}failcnt"))?,
        })
    };
    let raw = table(dir, "memory.stat")?;
    Ok(Memory {
        cache: raw.get("cache").copied().unwrap_or(0),
        usage: entry("")?,
        swap: entry("memsw.")?,
        kernel: entry("kmem.")?,
        kernel_tcp: entry("kmem.tcp.")?,
        raw,
        psi: None,
    })
}

/// The number of tasks and its limit: the same files in both versions.
pub fn pids(dir: &CgroupDir) -> Result<Pids> {
    let limit = number(dir, "pids.max")?;
    Ok(Pids { current: number(dir, "pids.current")?, limit: if limit == u64::MAX { 0 } else { limit } })
}

fn blkio(dir: &CgroupDir) -> Result<Blkio> {
    let first = |files: &[&str]| -> Result<Vec<BlkioEntry>> {
        for file in files {
            let entries = blkio_entries(&dir.read_if_there(file)?.unwrap_or_default());
            if !entries.is_empty() {
                return Ok(entries);
            }
        }
        Ok(Vec::new())
    };
    Ok(Blkio {
        io_service_bytes_recursive: first(&[
            "blkio.bfq.io_service_bytes_recursive",
            "blkio.io_service_bytes_recursive",
            "blkio.throttle.io_service_bytes_recursive",
        ])?,
        io_serviced_recursive: first(&[
            "blkio.bfq.io_serviced_recursive",
            "blkio.io_serviced_recursive",
            "blkio.throttle.io_serviced_recursive",
        ])?,
        io_queued_recursive: first(&["blkio.bfq.io_queued_recursive", "blkio.io_queued_recursive"])?,
        io_service_time_recursive: first(&[
            "blkio.bfq.io_service_time_recursive",
            "blkio.io_service_time_recursive",
        ])?,
        io_wait_time_recursive: first(&["blkio.bfq.io_wait_time_recursive", "blkio.io_wait_time_recursive"])?,
        io_merged_recursive: first(&["blkio.bfq.io_merged_recursive", "blkio.io_merged_recursive"])?,
        io_time_recursive: first(&["blkio.bfq.time_recursive", "blkio.time_recursive"])?,
        sectors_recursive: first(&["blkio.bfq.sectors_recursive", "blkio.sectors_recursive"])?,
        psi: None,
    })
}

/// Lines such as `8:0 Read 4096`, or `8:0 4096`; the sum at the end belongs to no device.
fn blkio_entries(text: &str) -> Vec<BlkioEntry> {
    let entry = |line: &str| {
        let mut parts = line.split_whitespace();
        let (major, minor) = parts.next()?.split_once(':')?;
        let second = parts.next()?;
        let (op, value) = match parts.next() {
            Some(value) => (second, value),
            None => ("", second),
        };
        Some(BlkioEntry {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
            op: op.to_owned(),
            value: value.parse().ok()?,
        })
    };
    text.lines().filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_processors_are_spelled_out() {
        assert_eq!(parse_list("0-2,5\n"), [0, 1, 2, 5]);
        assert!(parse_list("\n").is_empty());
    }

    #[test]
    fn block_device_lines_have_an_operation_or_none() {
        let entries = blkio_entries("8:0 Read 4096\n8:16 12\nTotal 4108\n");
        assert_eq!(entries.len(), 2);
        assert_eq!((entries[0].op.as_str(), entries[0].value), ("Read", 4096));
        assert_eq!((entries[1].minor, entries[1].value), (16, 12));
    }
}
