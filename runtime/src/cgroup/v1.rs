//! `linux.resources` as version 1 cgroup files.
//!
//! Pure: it owns which file each field becomes, the order of the writes and the ranges that the
//! kernel accepts. A value of 0 for a memory, cpu or block I/O number means "not set", as with
//! runc. Sources: runtime-spec config-linux.md, kernel cgroup-v1 documents.

use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources, LinuxThrottleDevice,
};

use super::plan::Write;
use super::v2;
use crate::error::{Error, Result};

const PLACE: &str = "linux.resources";

/// The writes for every field but devices, in order, and warnings about fields that no kernel of
/// today acts on.
pub fn writes(resources: &LinuxResources, warnings: &mut Vec<String>) -> Result<Vec<Write>> {
    let mut writes = Vec::new();
    if resources.unified().as_ref().is_some_and(|unified| !unified.is_empty()) {
        return Err(Error::config(
            "linux.resources.unified",
            "invalid configuration: this host has cgroup v1, and unified names files of cgroup v2; use the fields for each controller",
        ));
    }
    if let Some(memory) = resources.memory() {
        self::memory(memory, &mut writes)?;
    }
    if let Some(cpu) = resources.cpu() {
        self::cpu(cpu, &mut writes, warnings)?;
    }
    if let Some(pids) = resources.pids() {
        writes.push(pids_max(*pids)?);
    }
    if let Some(block_io) = resources.block_io() {
        self::block_io(block_io, &mut writes)?;
    }
    for (index, huge) in resources.hugepage_limits().iter().flatten().enumerate() {
        let place = format!("{PLACE}.hugepageLimits[{index}]");
        let (size, limit) = (huge.page_size(), huge.limit().to_string());
        check_page_size(size, &place)?;
        writes.push(Write::new("hugetlb", format!("hugetlb.{size}.limit_in_bytes"), limit.clone(), &place));
        // Reservations are a file of their own since kernel 5.7.
        writes.push(
            Write::new("hugetlb", format!("hugetlb.{size}.rsvd.limit_in_bytes"), limit, &place).optional(),
        );
    }
    if let Some(network) = resources.network() {
        if let Some(class) = network.class_id().filter(|&class| class != 0) {
            let place = "linux.resources.network.classID";
            writes.push(Write::new("net_cls", "net_cls.classid", class.to_string(), place));
        }
        for (index, priority) in network.priorities().iter().flatten().enumerate() {
            let place = format!("{PLACE}.network.priorities[{index}]");
            let value = format!("{} {}", priority.name(), priority.priority());
            writes.push(Write::new("net_prio", "net_prio.ifpriomap", value, place));
        }
    }
    writes.extend(rdma(resources));
    Ok(writes)
}

fn memory(memory: &LinuxMemory, writes: &mut Vec<Write>) -> Result<()> {
    let limit = memory.limit().filter(|&limit| limit != 0);
    let swap = effective_swap(memory);
    if let (Some(limit), Some(swap)) = (limit, swap)
        && swap >= 0
        && (limit < 0 || swap < limit)
    {
        return Err(Error::config(
            "linux.resources.memory.swap",
            format!(
                "{swap} is below the memory limit ({}); it is the sum of memory and swap, or -1 for no limit",
                if limit < 0 { "none".to_owned() } else { limit.to_string() }
            ),
        ));
    }
    if let Some(limit) = limit {
        let place = "linux.resources.memory.limit";
        writes.push(Write::new("memory", "memory.limit_in_bytes", bytes(limit, place)?, place));
    }
    if let Some(swap) = swap {
        let place = "linux.resources.memory.swap";
        let write = Write::new("memory", "memory.memsw.limit_in_bytes", bytes(swap, place)?, place);
        // Only no limit was asked for, and only because the memory limit was lifted.
        writes.push(if memory.swap().is_none_or(|swap| swap == 0) { write.optional() } else { write });
    }
    if let Some(reservation) = memory.reservation().filter(|&reservation| reservation != 0) {
        let place = "linux.resources.memory.reservation";
        writes.push(Write::new("memory", "memory.soft_limit_in_bytes", bytes(reservation, place)?, place));
    }
    if let Some(disable) = memory.disable_oom_killer() {
        let place = "linux.resources.memory.disableOOMKiller";
        writes.push(Write::new("memory", "memory.oom_control", if disable { "1" } else { "0" }, place));
    }
    if let Some(swappiness) = memory.swappiness() {
        let place = "linux.resources.memory.swappiness";
        if swappiness > 100 {
            return Err(Error::config(place, format!("{swappiness} is above 100; the range is 0 to 100")));
        }
        writes.push(Write::new("memory", "memory.swappiness", swappiness.to_string(), place));
    }
    Ok(())
}

/// The limit on memory and swap together: no limit on memory means none on swap, unless one is set.
pub fn effective_swap(memory: &LinuxMemory) -> Option<i64> {
    match (memory.limit(), memory.swap().filter(|&swap| swap != 0)) {
        (Some(-1), None) => Some(-1),
        (_, swap) => swap,
    }
}

fn bytes(value: i64, place: &str) -> Result<String> {
    match value {
        -1.. => Ok(value.to_string()),
        _ => Err(Error::config(place, format!("{value} is below -1; give bytes, or -1 for no limit"))),
    }
}

fn cpu(cpu: &LinuxCpu, writes: &mut Vec<Write>, warnings: &mut Vec<String>) -> Result<()> {
    let place = |field: &str| format!("{PLACE}.cpu.{field}");
    let mut push = |controller, file: &'static str, value: Option<String>, field: &str| {
        if let Some(value) = value {
            writes.push(Write::new(controller, file, value, place(field)));
        }
    };
    // An idle cgroup takes no shares, and one that is idle no more has the usual ones: leave idleness first.
    let idle = cpu.idle();
    if let Some(idle) = idle
        && !(0..=1).contains(&idle)
    {
        return Err(Error::config(place("idle"), format!("{idle} is neither 0 nor 1")));
    }
    push("cpu", "cpu.idle", idle.filter(|&idle| idle == 0).map(|_| "0".to_owned()), "idle");
    if let Some(shares) = cpu.shares().filter(|&shares| shares != 0)
        && !(2..=262_144).contains(&shares)
    {
        return Err(Error::config(
            place("shares"),
            format!("{shares} is out of range; the range is 2 to 262144"),
        ));
    }
    let shares = cpu.shares().filter(|&shares| shares != 0);
    if idle == Some(1) && shares.is_some() {
        warnings.push(v2::weight_of_idle(&place("shares"), "cpu.idle"));
    }
    let shares = shares.filter(|_| idle != Some(1));
    push("cpu", "cpu.shares", shares.map(|shares| shares.to_string()), "shares");
    push("cpu", "cpu.cfs_period_us", positive(cpu.period()), "period");
    push("cpu", "cpu.cfs_quota_us", quota(cpu.quota(), &place("quota"))?, "quota");
    push("cpu", "cpu.cfs_burst_us", cpu.burst().map(|burst| burst.to_string()), "burst");
    push("cpu", "cpu.rt_period_us", positive(cpu.realtime_period()), "realtimePeriod");
    let runtime = cpu.realtime_runtime().filter(|&runtime| runtime != 0);
    push("cpu", "cpu.rt_runtime_us", runtime.map(|runtime| runtime.to_string()), "realtimeRuntime");
    push("cpu", "cpu.idle", idle.filter(|&idle| idle == 1).map(|_| "1".to_owned()), "idle");
    push("cpuset", "cpuset.cpus", non_empty(cpu.cpus().as_deref()), "cpus");
    push("cpuset", "cpuset.mems", non_empty(cpu.mems().as_deref()), "mems");
    Ok(())
}

fn positive(value: Option<u64>) -> Option<String> {
    value.filter(|&value| value != 0).map(|value| value.to_string())
}

fn non_empty(text: Option<&str>) -> Option<String> {
    text.filter(|text| !text.is_empty()).map(str::to_owned)
}

/// A CPU quota in microseconds; any negative number means none.
fn quota(quota: Option<i64>, place: &str) -> Result<Option<String>> {
    match quota.filter(|&quota| quota != 0) {
        None => Ok(None),
        Some(quota) if quota < 0 => Ok(Some("-1".to_owned())),
        Some(quota) if quota < 1000 => Err(Error::config(
            place,
            format!("{quota} µs is too short; the shortest quota is 1000 µs, -1 is none"),
        )),
        Some(quota) => Ok(Some(quota.to_string())),
    }
}

fn block_io(block_io: &LinuxBlockIo, writes: &mut Vec<Write>) -> Result<()> {
    let place = |field: &str| format!("{PLACE}.blockIO.{field}");
    let check = |weight: u16, place: String| match weight {
        10..=1000 => Ok(weight.to_string()),
        _ => Err(Error::config(place, format!("{weight} is out of range; the range is 10 to 1000"))),
    };
    if let Some(weight) = block_io.weight().filter(|&weight| weight != 0) {
        let value = check(weight, place("weight"))?;
        writes.push(Write::new("blkio", "blkio.weight", value, place("weight")).or("blkio.bfq.weight"));
    }
    if let Some(weight) = block_io.leaf_weight().filter(|&weight| weight != 0) {
        let value = check(weight, place("leafWeight"))?;
        writes.push(Write::new("blkio", "blkio.leaf_weight", value, place("leafWeight")));
    }
    for (index, device) in block_io.weight_device().iter().flatten().enumerate() {
        let at = |field: &str| place(&format!("weightDevice[{index}].{field}"));
        let number = format!("{}:{}", device.major(), device.minor());
        if let Some(weight) = device.weight().filter(|&weight| weight != 0) {
            let value = format!("{number} {}", check(weight, at("weight"))?);
            let write = Write::new("blkio", "blkio.weight_device", value, at("weight"));
            writes.push(write.or("blkio.bfq.weight_device"));
        }
        if let Some(weight) = device.leaf_weight().filter(|&weight| weight != 0) {
            let value = format!("{number} {}", check(weight, at("leafWeight"))?);
            writes.push(Write::new("blkio", "blkio.leaf_weight_device", value, at("leafWeight")));
        }
    }
    for (field, file, devices) in throttles(block_io) {
        for (index, device) in devices.iter().enumerate() {
            let value = format!("{}:{} {}", device.major(), device.minor(), device.rate());
            writes.push(Write::new("blkio", file, value, place(&format!("{field}[{index}]"))));
        }
    }
    Ok(())
}

type Throttle<'a> = (&'static str, &'static str, &'a [LinuxThrottleDevice]);

/// The four lists of throttled devices: field, version 1 file, devices.
pub fn throttles(block_io: &LinuxBlockIo) -> [Throttle<'_>; 4] {
    [
        (
            "throttleReadBpsDevice",
            "blkio.throttle.read_bps_device",
            block_io.throttle_read_bps_device().as_deref().unwrap_or_default(),
        ),
        (
            "throttleWriteBpsDevice",
            "blkio.throttle.write_bps_device",
            block_io.throttle_write_bps_device().as_deref().unwrap_or_default(),
        ),
        (
            "throttleReadIOPSDevice",
            "blkio.throttle.read_iops_device",
            block_io.throttle_read_iops_device().as_deref().unwrap_or_default(),
        ),
        (
            "throttleWriteIOPSDevice",
            "blkio.throttle.write_iops_device",
            block_io.throttle_write_iops_device().as_deref().unwrap_or_default(),
        ),
    ]
}

/// A huge page size is part of a file's name: `64KB`, `2MB`, `1GB`.
pub fn check_page_size(size: &str, place: &str) -> Result<()> {
    let number = ["KB", "MB", "GB"].iter().find_map(|unit| size.strip_suffix(unit));
    match number {
        Some(number) if !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) => Ok(()),
        _ => Err(Error::config(
            format!("{place}.pageSize"),
            format!("{size:?} is not a page size; write it as the kernel does: 64KB, 2MB, 1GB"),
        )),
    }
}

/// RDMA limits: the same file in both versions.
pub fn rdma(resources: &LinuxResources) -> Vec<Write> {
    let mut devices: Vec<_> = resources.rdma().iter().flatten().collect();
    devices.sort_by_key(|(name, _)| name.as_str());
    devices
        .into_iter()
        .map(|(name, limits)| {
            let handles =
                limits.hca_handles().map(|limit| format!(" hca_handle={limit}")).unwrap_or_default();
            let objects =
                limits.hca_objects().map(|limit| format!(" hca_object={limit}")).unwrap_or_default();
            let value = format!("{name}{handles}{objects}");
            Write::new("rdma", "rdma.max", value, format!("{PLACE}.rdma.{name}"))
        })
        .collect()
}

/// The same file on both versions. A new cgroup has no limit.
pub fn pids_max(pids: LinuxPids) -> Result<Write> {
    let place = "linux.resources.pids.limit";
    let value = match pids.limit() {
        -1 => "max".to_owned(),
        // TasksMax=0 is no number of tasks for systemd, which writes its own to the file at any time; and with 1 the
        // container's first process may not fork either. runc since 1.4 has 1 with every manager.
        limit @ 0.. => limit.max(1).to_string(),
        limit => return Err(Error::config(place, format!("{limit} is below -1 (no limit)"))),
    };
    Ok(Write::new("pids", "pids.max", value, place))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(json: &str) -> Vec<String> {
        let resources: LinuxResources = serde_json::from_str(json).unwrap();
        let writes = writes(&resources, &mut Vec::new()).unwrap();
        writes.iter().map(|write| format!("{} {}", write.file, write.value)).collect()
    }

    fn fails_at(json: &str) -> String {
        let resources: LinuxResources = serde_json::from_str(json).unwrap();
        writes(&resources, &mut Vec::new()).unwrap_err().place().unwrap().to_owned()
    }

    #[test]
    fn memory_comes_before_swap_and_zero_means_not_set() {
        assert_eq!(
            lines(r#"{"memory":{"limit":1048576,"swap":2097152,"reservation":4096,"swappiness":0}}"#),
            [
                "memory.limit_in_bytes 1048576",
                "memory.memsw.limit_in_bytes 2097152",
                "memory.soft_limit_in_bytes 4096",
                "memory.swappiness 0"
            ]
        );
        assert!(
            lines(r#"{"memory":{"limit":0,"swap":0},"cpu":{"shares":0,"quota":0,"period":0}}"#).is_empty()
        );
    }

    #[test]
    fn lifting_the_memory_limit_lifts_that_on_swap() {
        assert_eq!(
            lines(r#"{"memory":{"limit":-1}}"#),
            ["memory.limit_in_bytes -1", "memory.memsw.limit_in_bytes -1"]
        );
    }

    #[test]
    fn a_swap_limit_below_the_memory_limit_is_refused() {
        assert_eq!(fails_at(r#"{"memory":{"limit":2097152,"swap":1048576}}"#), "linux.resources.memory.swap");
    }

    #[test]
    fn idleness_is_left_before_shares_and_has_none() {
        assert_eq!(lines(r#"{"cpu":{"shares":512,"idle":0}}"#), ["cpu.idle 0", "cpu.shares 512"]);
        assert_eq!(lines(r#"{"cpu":{"shares":512,"idle":1}}"#), ["cpu.idle 1"]);
    }

    #[test]
    fn the_oom_killer_can_be_switched_both_ways() {
        assert_eq!(lines(r#"{"memory":{"disableOOMKiller":true}}"#), ["memory.oom_control 1"]);
        assert_eq!(lines(r#"{"memory":{"disableOOMKiller":false}}"#), ["memory.oom_control 0"]);
    }

    #[test]
    fn limits_on_kernel_memory_are_left_out() {
        assert!(lines(r#"{"memory":{"kernel":4096,"kernelTCP":4096}}"#).is_empty());
    }

    #[test]
    fn pids_zero_is_one_as_for_systemd_and_minus_one_is_none() {
        assert_eq!(lines(r#"{"pids":{"limit":0}}"#), ["pids.max 1"]);
        assert_eq!(lines(r#"{"pids":{"limit":2}}"#), ["pids.max 2"]);
        assert_eq!(lines(r#"{"pids":{"limit":-1}}"#), ["pids.max max"]);
        assert_eq!(fails_at(r#"{"pids":{"limit":-2}}"#), "linux.resources.pids.limit");
    }

    #[test]
    fn unified_is_refused_and_values_out_of_range_name_their_place() {
        assert_eq!(fails_at(r#"{"unified":{"memory.high":"1"}}"#), "linux.resources.unified");
        assert_eq!(fails_at(r#"{"memory":{"swappiness":101}}"#), "linux.resources.memory.swappiness");
        assert_eq!(fails_at(r#"{"cpu":{"shares":1}}"#), "linux.resources.cpu.shares");
        assert_eq!(
            fails_at(r#"{"hugepageLimits":[{"pageSize":"../x","limit":1}]}"#),
            "linux.resources.hugepageLimits[0].pageSize"
        );
    }
}
