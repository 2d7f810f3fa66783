//! Measuring through version 2 files.

use std::collections::BTreeMap;

use super::file::CgroupDir;
use super::stats::{
    Blkio, BlkioEntry, Cpu, Hugetlb, Memory, MemoryEntry, Psi, PsiData, Stats, huge_page_sizes, number, table,
};
use super::{Cgroup, stats_v1};
use crate::error::Result;

/// Reads every controller that is enabled.
pub fn read(cgroup: &Cgroup) -> Result<Stats> {
    let mut stats = Stats::default();
    let Some(dir) = cgroup.unified_dir()? else { return Ok(stats) };
    stats.cpu = cpu(&dir)?;
    stats.memory = memory(&dir)?;
    stats.pids = stats_v1::pids(&dir)?;
    stats.blkio = Blkio { psi: psi(&dir, "io.pressure")?, ..blkio(&dir)? };
    stats.hugetlb = hugetlb(&dir)?;
    Ok(stats)
}

fn cpu(dir: &CgroupDir) -> Result<Cpu> {
    let table = table(dir, "cpu.stat")?;
    let nanoseconds = |key: &str| table.get(key).copied().unwrap_or(0).saturating_mul(1000);
    let mut cpu = Cpu { psi: psi(dir, "cpu.pressure")?, ..Cpu::default() };
    cpu.usage.total = nanoseconds("usage_usec");
    cpu.usage.user = nanoseconds("user_usec");
    cpu.usage.kernel = nanoseconds("system_usec");
    cpu.throttling.periods = table.get("nr_periods").copied().unwrap_or(0);
    cpu.throttling.throttled_periods = table.get("nr_throttled").copied().unwrap_or(0);
    cpu.throttling.throttled_time = nanoseconds("throttled_usec");
    Ok(cpu)
}

fn memory(dir: &CgroupDir) -> Result<Memory> {
    let raw = table(dir, "memory.stat")?;
    let events = table(dir, "memory.events")?;
    let swap_events = table(dir, "memory.swap.events")?;
    let of = |table: &BTreeMap<String, u64>, key: &str| table.get(key).copied().unwrap_or(0);
    let usage = MemoryEntry {
        limit: number(dir, "memory.max")?,
        usage: number(dir, "memory.current")?,
        max: number(dir, "memory.peak")?,
        failcnt: of(&events, "max"),
    };
    // As version 1 counts, and as runc reports: memory and swap together.
    let swap_limit = number(dir, "memory.swap.max")?;
    let swap = MemoryEntry {
        limit: if swap_limit == u64::MAX { u64::MAX } else { swap_limit.saturating_add(usage.limit) },
        usage: number(dir, "memory.swap.current")?.saturating_add(usage.usage),
        max: 0,
        failcnt: of(&swap_events, "fail"),
    };
    Ok(Memory {
        cache: of(&raw, "file"),
        usage,
        swap,
        raw,
        psi: psi(dir, "memory.pressure")?,
        ..Memory::default()
    })
}

fn blkio(dir: &CgroupDir) -> Result<Blkio> {
    let text = dir.read_if_there("io.stat")?.unwrap_or_default();
    let mut blkio = Blkio::default();
    // Lines such as `8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0`.
    for line in text.lines() {
        let mut parts = line.split_whitespace();
        let Some((major, minor)) = parts.next().and_then(|device| device.split_once(':')) else { continue };
        let (Ok(major), Ok(minor)) = (major.parse(), minor.parse()) else { continue };
        for (key, value) in parts.filter_map(|part| part.split_once('=')) {
            let (list, op) = match key {
                "rbytes" => (&mut blkio.io_service_bytes_recursive, "Read"),
                "wbytes" => (&mut blkio.io_service_bytes_recursive, "Write"),
                "dbytes" => (&mut blkio.io_service_bytes_recursive, "Discard"),
                "rios" => (&mut blkio.io_serviced_recursive, "Read"),
                "wios" => (&mut blkio.io_serviced_recursive, "Write"),
                "dios" => (&mut blkio.io_serviced_recursive, "Discard"),
                _ => continue,
            };
            list.push(BlkioEntry { major, minor, op: op.to_owned(), value: value.parse().unwrap_or(0) });
        }
    }
    Ok(blkio)
}

/// Huge pages by size.
pub fn hugetlb(dir: &CgroupDir) -> Result<BTreeMap<String, Hugetlb>> {
    let mut sizes = BTreeMap::new();
    for size in huge_page_sizes() {
        if let Some(usage) = dir.read_if_there(&format!("hugetlb.{size}.current"))? {
            let events = table(dir, &format!("hugetlb.{size}.events"))?;
            let failcnt = events.get("max").copied().unwrap_or(0);
            sizes.insert(size, Hugetlb { usage: super::stats::parse_number(&usage), max: 0, failcnt });
        }
    }
    Ok(sizes)
}

/// Pressure; none on a kernel without it.
fn psi(dir: &CgroupDir, file: &str) -> Result<Option<Psi>> {
    let text = dir.read_if_there(file)?.unwrap_or_default();
    let mut psi = Psi::default();
    for line in text.lines() {
        match line.split_once(' ') {
            Some(("some", values)) => psi.some = Some(psi_data(values)),
            Some(("full", values)) => psi.full = Some(psi_data(values)),
            _ => {}
        }
    }
    Ok((psi != Psi::default()).then_some(psi))
}

fn psi_data(values: &str) -> PsiData {
    let mut data = PsiData::default();
    for (key, value) in values.split(' ').filter_map(|part| part.split_once('=')) {
        match key {
            "avg10" => data.avg10 = value.parse().unwrap_or(0.0),
            "avg60" => data.avg60 = value.parse().unwrap_or(0.0),
            "avg300" => data.avg300 = value.parse().unwrap_or(0.0),
            "total" => data.total = value.parse().unwrap_or(0),
            _ => {}
        }
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_lines_give_shares_and_a_sum() {
        let data = psi_data("avg10=1.50 avg60=0.25 avg300=0.00 total=4242");
        assert_eq!(data, PsiData { avg10: 1.5, avg60: 0.25, avg300: 0.0, total: 4242 });
    }
}
