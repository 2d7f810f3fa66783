//! `io.containerd.cgroups.v1.Metrics`. Pure.

use std::collections::BTreeMap;

use coracle::cgroup::details::{Details, Rdma};
use coracle::cgroup::stats::{self, Stats};
use protobuf::MessageField;

use crate::proto::metrics_v1::{
    BlkIOEntry, BlkIOStat, CPUStat, CPUUsage, HugetlbStat, MemoryEntry, MemoryOomControl, MemoryStat,
    Metrics, PidsStat, RdmaEntry, RdmaStat, Throttle,
};

/// The message. `partitions` is the text of `/proc/partitions`, which has the names of devices.
pub fn message(stats: &Stats, details: &Details, partitions: &str) -> Metrics {
    let hugetlb = stats.hugetlb.iter().map(|(size, entry)| HugetlbStat {
        usage: entry.usage,
        max: entry.max,
        failcnt: entry.failcnt,
        pagesize: size.clone(),
        ..HugetlbStat::default()
    });
    let pids = PidsStat { current: stats.pids.current, limit: stats.pids.limit, ..PidsStat::default() };
    Metrics {
        hugetlb: hugetlb.collect(),
        pids: MessageField::some(pids),
        cpu: MessageField::some(cpu(&stats.cpu)),
        memory: MessageField::some(memory(&stats.memory)),
        memory_oom_control: MessageField::some(oom_control(&details.memory_events)),
        blkio: MessageField::some(blkio(&stats.blkio, &names(partitions))),
        rdma: MessageField::some(RdmaStat {
            current: rdma(&details.rdma_current),
            limit: rdma(&details.rdma_limit),
            ..RdmaStat::default()
        }),
        ..Metrics::default()
    }
}

fn cpu(cpu: &stats::Cpu) -> CPUStat {
    let usage = CPUUsage {
        total: cpu.usage.total,
        kernel: cpu.usage.kernel,
        user: cpu.usage.user,
        per_cpu: cpu.usage.percpu.clone(),
        ..CPUUsage::default()
    };
    let throttling = Throttle {
        periods: cpu.throttling.periods,
        throttled_periods: cpu.throttling.throttled_periods,
        throttled_time: cpu.throttling.throttled_time,
        ..Throttle::default()
    };
    CPUStat {
        usage: MessageField::some(usage),
        throttling: MessageField::some(throttling),
        ..CPUStat::default()
    }
}

fn memory(memory: &stats::Memory) -> MemoryStat {
    let of = |key: &str| memory.raw.get(key).copied().unwrap_or(0);
    MemoryStat {
        cache: memory.cache,
        rss: of("rss"),
        rss_huge: of("rss_huge"),
        mapped_file: of("mapped_file"),
        dirty: of("dirty"),
        writeback: of("writeback"),
        pg_pg_in: of("pgpgin"),
        pg_pg_out: of("pgpgout"),
        pg_fault: of("pgfault"),
        pg_maj_fault: of("pgmajfault"),
        inactive_anon: of("inactive_anon"),
        active_anon: of("active_anon"),
        inactive_file: of("inactive_file"),
        active_file: of("active_file"),
        unevictable: of("unevictable"),
        hierarchical_memory_limit: of("hierarchical_memory_limit"),
        hierarchical_swap_limit: of("hierarchical_memsw_limit"),
        total_cache: of("total_cache"),
        total_rss: of("total_rss"),
        total_rss_huge: of("total_rss_huge"),
        total_mapped_file: of("total_mapped_file"),
        total_dirty: of("total_dirty"),
        total_writeback: of("total_writeback"),
        total_pg_pg_in: of("total_pgpgin"),
        total_pg_pg_out: of("total_pgpgout"),
        total_pg_fault: of("total_pgfault"),
        total_pg_maj_fault: of("total_pgmajfault"),
        total_inactive_anon: of("total_inactive_anon"),
        total_active_anon: of("total_active_anon"),
        total_inactive_file: of("total_inactive_file"),
        total_active_file: of("total_active_file"),
        total_unevictable: of("total_unevictable"),
        usage: entry(&memory.usage),
        swap: entry(&memory.swap),
        kernel: entry(&memory.kernel),
        kernel_tcp: entry(&memory.kernel_tcp),
        ..MemoryStat::default()
    }
}

fn entry(entry: &stats::MemoryEntry) -> MessageField<MemoryEntry> {
    MessageField::some(MemoryEntry {
        limit: entry.limit,
        usage: entry.usage,
        max: entry.max,
        failcnt: entry.failcnt,
        ..MemoryEntry::default()
    })
}

fn oom_control(control: &BTreeMap<String, u64>) -> MemoryOomControl {
    let of = |key: &str| control.get(key).copied().unwrap_or(0);
    MemoryOomControl {
        oom_kill_disable: of("oom_kill_disable"),
        under_oom: of("under_oom"),
        oom_kill: of("oom_kill"),
        ..MemoryOomControl::default()
    }
}

fn blkio(blkio: &stats::Blkio, names: &BTreeMap<(u64, u64), String>) -> BlkIOStat {
    let list = |entries: &[stats::BlkioEntry]| {
        let entry = |entry: &stats::BlkioEntry| BlkIOEntry {
            op: entry.op.clone(),
            device: names.get(&(entry.major, entry.minor)).cloned().unwrap_or_default(),
            major: entry.major,
            minor: entry.minor,
            value: entry.value,
            ..BlkIOEntry::default()
        };
        entries.iter().map(entry).collect()
    };
    BlkIOStat {
        io_service_bytes_recursive: list(&blkio.io_service_bytes_recursive),
        io_serviced_recursive: list(&blkio.io_serviced_recursive),
        io_queued_recursive: list(&blkio.io_queued_recursive),
        io_service_time_recursive: list(&blkio.io_service_time_recursive),
        io_wait_time_recursive: list(&blkio.io_wait_time_recursive),
        io_merged_recursive: list(&blkio.io_merged_recursive),
        io_time_recursive: list(&blkio.io_time_recursive),
        sectors_recursive: list(&blkio.sectors_recursive),
        ..BlkIOStat::default()
    }
}

/// The paths of block devices by their numbers, from lines such as `8 0 1024 sda`.
fn names(partitions: &str) -> BTreeMap<(u64, u64), String> {
    let line = |line: &str| {
        let mut parts = line.split_whitespace();
        let number = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        Some((number, format!("/dev/{}", parts.nth(1)?)))
    };
    partitions.lines().filter_map(line).collect()
}

fn rdma(entries: &[Rdma]) -> Vec<RdmaEntry> {
    let entry = |entry: &Rdma| RdmaEntry {
        device: entry.device.clone(),
        hca_handles: entry.handles,
        hca_objects: entry.objects,
        ..RdmaEntry::default()
    };
    entries.iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_reach_the_fields_of_the_same_meaning() {
        let mut stats = Stats::default();
        stats.cpu.usage.percpu = vec![1, 2];
        stats.memory.raw = BTreeMap::from([("total_pgpgin".to_owned(), 7), ("rss".to_owned(), 8)]);
        stats.memory.swap.limit = u64::MAX;
        stats.blkio.io_serviced_recursive =
            vec![stats::BlkioEntry { major: 8, minor: 1, op: "Read".to_owned(), value: 9 }];
        let details =
            Details { memory_events: BTreeMap::from([("oom_kill".to_owned(), 3)]), ..Details::default() };
        let message = message(&stats, &details, "major minor  #blocks  name\n\n   8        1    1024 sda1\n");
        assert_eq!(message.cpu.usage.per_cpu, [1, 2]);
        assert_eq!((message.memory.total_pg_pg_in, message.memory.rss), (7, 8));
        assert_eq!(message.memory.swap.limit, u64::MAX);
        assert_eq!(message.memory_oom_control.oom_kill, 3);
        let entry = message.blkio.io_serviced_recursive.first().unwrap();
        assert_eq!((entry.device.as_str(), entry.op.as_str(), entry.value), ("/dev/sda1", "Read", 9));
    }
}
