//! `io.containerd.cgroups.v2.Metrics`. Pure.

use std::collections::BTreeMap;

use coracle::cgroup::details::{Details, Rdma};
use coracle::cgroup::stats::{self, Psi, PsiData, Stats};
use protobuf::MessageField;

use crate::proto::metrics_v2::{
    CPUStat, HugeTlbStat, IOEntry, IOStat, MemoryEvents, MemoryStat, Metrics, PSIData, PSIStats, PidsStat,
    RdmaEntry, RdmaStat,
};

/// The message.
pub fn message(stats: &Stats, details: &Details) -> Metrics {
    // Here no limit is the largest number.
    let limit = if stats.pids.limit == 0 { u64::MAX } else { stats.pids.limit };
    let hugetlb = stats.hugetlb.iter().map(|(size, entry)| HugeTlbStat {
        current: entry.usage,
        max: details.hugetlb_limits.get(size).copied().unwrap_or(0),
        pagesize: size.clone(),
        failcnt: entry.failcnt,
        ..HugeTlbStat::default()
    });
    Metrics {
        pids: MessageField::some(PidsStat { current: stats.pids.current, limit, ..PidsStat::default() }),
        cpu: MessageField::some(cpu(&stats.cpu, &details.cpu)),
        memory: MessageField::some(memory(&stats.memory, details)),
        memory_events: events(&details.memory_events),
        io: MessageField::some(IOStat {
            usage: devices(&stats.blkio),
            psi: psi(stats.blkio.psi.as_ref()),
            ..IOStat::default()
        }),
        rdma: MessageField::some(RdmaStat {
            current: rdma(&details.rdma_current),
            limit: rdma(&details.rdma_limit),
            ..RdmaStat::default()
        }),
        hugetlb: hugetlb.collect(),
        ..Metrics::default()
    }
}

fn cpu(cpu: &stats::Cpu, raw: &BTreeMap<String, u64>) -> CPUStat {
    let of = |key: &str| raw.get(key).copied().unwrap_or(0);
    CPUStat {
        usage_usec: of("usage_usec"),
        user_usec: of("user_usec"),
        system_usec: of("system_usec"),
        nr_periods: of("nr_periods"),
        nr_throttled: of("nr_throttled"),
        throttled_usec: of("throttled_usec"),
        nr_bursts: of("nr_bursts"),
        burst_usec: of("burst_usec"),
        psi: psi(cpu.psi.as_ref()),
        ..CPUStat::default()
    }
}

fn memory(memory: &stats::Memory, details: &Details) -> MemoryStat {
    let of = |key: &str| memory.raw.get(key).copied().unwrap_or(0);
    // Since Linux 5.9 these are counted for anonymous memory and files apart.
    let both = |name: &str| match memory.raw.get(name) {
        Some(value) => *value,
        None => of(&format!("{name}_anon")).saturating_add(of(&format!("{name}_file"))),
    };
    MemoryStat {
        anon: of("anon"),
        file: of("file"),
        kernel_stack: of("kernel_stack"),
        slab: of("slab"),
        sock: of("sock"),
        shmem: of("shmem"),
        file_mapped: of("file_mapped"),
        file_dirty: of("file_dirty"),
        file_writeback: of("file_writeback"),
        anon_thp: of("anon_thp"),
        inactive_anon: of("inactive_anon"),
        active_anon: of("active_anon"),
        inactive_file: of("inactive_file"),
        active_file: of("active_file"),
        unevictable: of("unevictable"),
        slab_reclaimable: of("slab_reclaimable"),
        slab_unreclaimable: of("slab_unreclaimable"),
        pgfault: of("pgfault"),
        pgmajfault: of("pgmajfault"),
        workingset_refault: both("workingset_refault"),
        workingset_activate: both("workingset_activate"),
        workingset_nodereclaim: of("workingset_nodereclaim"),
        pgrefill: of("pgrefill"),
        pgscan: of("pgscan"),
        pgsteal: of("pgsteal"),
        pgactivate: of("pgactivate"),
        pgdeactivate: of("pgdeactivate"),
        pglazyfree: of("pglazyfree"),
        pglazyfreed: of("pglazyfreed"),
        thp_fault_alloc: of("thp_fault_alloc"),
        thp_collapse_alloc: of("thp_collapse_alloc"),
        usage: memory.usage.usage,
        usage_limit: memory.usage.limit,
        max_usage: memory.usage.max,
        swap_usage: details.swap.usage,
        swap_limit: details.swap.limit,
        swap_max_usage: details.swap.peak,
        psi: psi(memory.psi.as_ref()),
        ..MemoryStat::default()
    }
}

fn events(events: &BTreeMap<String, u64>) -> MessageField<MemoryEvents> {
    if events.is_empty() {
        return MessageField::none();
    }
    let of = |key: &str| events.get(key).copied().unwrap_or(0);
    MessageField::some(MemoryEvents {
        low: of("low"),
        high: of("high"),
        max: of("max"),
        oom: of("oom"),
        oom_kill: of("oom_kill"),
        oom_group_kill: of("oom_group_kill"),
        ..MemoryEvents::default()
    })
}

/// The statistics have an entry for each number, the message one for each device.
fn devices(blkio: &stats::Blkio) -> Vec<IOEntry> {
    let mut devices: BTreeMap<(u64, u64), IOEntry> = BTreeMap::new();
    let lists = [(&blkio.io_service_bytes_recursive, true), (&blkio.io_serviced_recursive, false)];
    for (entries, is_bytes) in lists {
        for entry in entries {
            let device = devices.entry((entry.major, entry.minor)).or_default();
            (device.major, device.minor) = (entry.major, entry.minor);
            match (entry.op.as_str(), is_bytes) {
                ("Read", true) => device.rbytes = entry.value,
                ("Write", true) => device.wbytes = entry.value,
                ("Read", false) => device.rios = entry.value,
                ("Write", false) => device.wios = entry.value,
                _ => {}
            }
        }
    }
    devices.into_values().collect()
}

fn psi(psi: Option<&Psi>) -> MessageField<PSIStats> {
    let data = |data: &PsiData| PSIData {
        avg10: data.avg10,
        avg60: data.avg60,
        avg300: data.avg300,
        total: data.total,
        ..PSIData::default()
    };
    let stats = |psi: &Psi| PSIStats {
        some: psi.some.as_ref().map(data).into(),
        full: psi.full.as_ref().map(data).into(),
        ..PSIStats::default()
    };
    psi.map(stats).into()
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
    fn a_device_has_one_entry_with_all_its_numbers() {
        let entry = |op: &str, value| stats::BlkioEntry { major: 8, minor: 0, op: op.to_owned(), value };
        let blkio = stats::Blkio {
            io_service_bytes_recursive: vec![entry("Read", 1), entry("Write", 2), entry("Discard", 3)],
            io_serviced_recursive: vec![entry("Read", 4), entry("Write", 5)],
            ..stats::Blkio::default()
        };
        let devices = devices(&blkio);
        assert_eq!(devices.len(), 1);
        let device = &devices[0];
        assert_eq!((device.major, device.rbytes, device.wbytes, device.rios, device.wios), (8, 1, 2, 4, 5));
    }

    #[test]
    fn no_limit_is_the_largest_number_and_no_events_are_no_message() {
        let message = message(&Stats::default(), &Details::default());
        assert_eq!(message.pids.limit, u64::MAX);
        assert!(message.memory_events.is_none());
    }

    #[test]
    fn refaults_that_are_counted_apart_are_added_up() {
        let mut stats = Stats::default();
        stats.memory.raw = BTreeMap::from([
            ("workingset_refault_anon".to_owned(), 1),
            ("workingset_refault_file".to_owned(), 2),
        ]);
        assert_eq!(memory(&stats.memory, &Details::default()).workingset_refault, 3);
    }
}
