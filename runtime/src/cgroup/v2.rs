//! `linux.resources` as version 2 cgroup files.
//!
//! Pure: it owns which file each field becomes and how values convert. A value of 0 for a memory,
//! cpu or block I/O number means "not set", as with runc. Sources: runtime-spec config-linux.md,
//! kernel cgroup-v2.rst.

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources};

use super::plan::Write;
use super::v1;
use crate::error::{Error, Result};

/// The controllers that a cgroup is given when its parent can.
pub const CONTROLLERS: [&str; 9] =
    ["cpu", "cpuset", "hugetlb", "io", "memory", "misc", "pids", "rdma", "dmem"];

const PLACE: &str = "linux.resources";

/// Where a period without a quota is asked for.
pub const PERIOD: &str = "linux.resources.cpu.period";

/// The writes for every field but devices, in order, and warnings about fields without effect.
pub fn writes(resources: &LinuxResources, warnings: &mut Vec<String>) -> Result<Vec<Write>> {
    let mut writes = Vec::new();
    if let Some(memory) = resources.memory() {
        self::memory(memory, &mut writes, warnings)?;
    }
    if let Some(cpu) = resources.cpu() {
        self::cpu(cpu, is_idle(resources), &mut writes, warnings)?;
    }
    if let Some(pids) = resources.pids() {
        writes.push(v1::pids_max(*pids)?);
    }
    if let Some(block_io) = resources.block_io() {
        self::block_io(block_io, &mut writes, warnings)?;
    }
    for (index, huge) in resources.hugepage_limits().iter().flatten().enumerate() {
        let place = format!("{PLACE}.hugepageLimits[{index}]");
        v1::check_page_size(huge.page_size(), &place)?;
        let limit = max_or(huge.limit(), &format!("{place}.limit"))?;
        let size = huge.page_size();
        writes.push(Write::new("hugetlb", format!("hugetlb.{size}.max"), limit.clone(), &place));
        // Reservations are a file of their own since kernel 5.7.
        writes.push(Write::new("hugetlb", format!("hugetlb.{size}.rsvd.max"), limit, &place).optional());
    }
    if let Some(network) = resources.network() {
        if network.class_id().is_some_and(|class| class != 0) {
            return Err(Error::config(
                "linux.resources.network.classID",
                "cgroup v2 has no network controllers; mark packets by cgroup path in the firewall instead",
            ));
        }
        if network.priorities().as_ref().is_some_and(|priorities| !priorities.is_empty()) {
            return Err(Error::config(
                "linux.resources.network.priorities",
                "cgroup v2 has no network controllers; set priorities in the firewall instead",
            ));
        }
    }
    writes.extend(v1::rdma(resources));
    unified(resources, &mut writes, warnings)?;
    Ok(writes)
}

/// Bytes, with -1 for none.
fn max_or(value: i64, place: &str) -> Result<String> {
    match value {
        -1 => Ok("max".to_owned()),
        0.. => Ok(value.to_string()),
        _ => Err(Error::config(place, format!("{value} is below -1; give bytes, or -1 for no limit"))),
    }
}

fn memory(memory: &LinuxMemory, writes: &mut Vec<Write>, warnings: &mut Vec<String>) -> Result<()> {
    if let Some(swap) = swap_alone(memory)? {
        let place = if memory.swap().is_some_and(|swap| swap != 0) { "memory.swap" } else { "memory.limit" };
        let write = Write::new("memory", "memory.swap.max", swap.clone(), format!("{PLACE}.{place}"));
        // A kernel without swap accounting keeps a promise not to limit swap, or to have none.
        writes.push(if swap == "max" || swap == "0" { write.optional() } else { write });
    }
    if let Some(limit) = memory.limit().filter(|&limit| limit != 0) {
        let place = "linux.resources.memory.limit";
        writes.push(Write::new("memory", "memory.max", max_or(limit, place)?, place));
    }
    if let Some(reservation) = memory.reservation().filter(|&reservation| reservation != 0) {
        let place = "linux.resources.memory.reservation";
        writes.push(Write::new("memory", "memory.low", max_or(reservation, place)?, place));
    }
    let without_effect = [
        ("swappiness", memory.swappiness().is_some()),
        ("disableOOMKiller", memory.disable_oom_killer() == Some(true)),
    ];
    for (field, _) in without_effect.iter().filter(|(_, given)| *given) {
        warnings.push(format!("{PLACE}.memory.{field} has no effect: cgroup v2 has nothing like it"));
    }
    Ok(())
}

/// `memory.swap.max` counts swap alone, where the field is memory and swap together.
fn swap_alone(memory: &LinuxMemory) -> Result<Option<String>> {
    let place = "linux.resources.memory.swap";
    let limit = memory.limit().filter(|&limit| limit != 0);
    match (v1::effective_swap(memory), limit) {
        (None, _) => Ok(None),
        (Some(-1), _) => Ok(Some("max".to_owned())),
        (Some(swap), _) if swap < -1 => {
            Err(Error::config(place, format!("{swap} is below -1; give bytes, or -1 for no limit")))
        }
        (Some(_), None | Some(..=-1)) => Err(Error::config(
            place,
            "a limit on memory and swap together needs linux.resources.memory.limit too: \
             cgroup v2 limits swap alone, which is the difference of the two",
        )),
        (Some(swap), Some(limit)) if swap < limit => Err(Error::config(
            place,
            format!("{swap} is below the memory limit ({limit}); it is the sum of memory and swap"),
        )),
        (Some(swap), Some(limit)) => Ok(Some((swap - limit).to_string())),
    }
}

/// Whether the cgroup is to run only when nothing else wants the CPU. Then it has no weight: the kernel takes none, and
/// systemd says idle by a weight of 0.
pub fn is_idle(resources: &LinuxResources) -> bool {
    match resources.unified().as_ref().and_then(|unified| unified.get("cpu.idle")) {
        Some(idle) => idle.trim() == "1",
        None => resources.cpu().as_ref().is_some_and(|cpu| cpu.idle() == Some(1)),
    }
}

/// Of a weight that an idle cgroup can't have. The first words are runc's.
pub fn weight_of_idle(weight: &str, idle: &str) -> String {
    format!("unable to apply both {weight} and {idle}: an idle cgroup has no weight, so {weight} is ignored")
}

fn cpu(cpu: &LinuxCpu, is_idle: bool, writes: &mut Vec<Write>, warnings: &mut Vec<String>) -> Result<()> {
    let place = |field: &str| format!("{PLACE}.cpu.{field}");
    for (field, given) in [
        ("realtimeRuntime", cpu.realtime_runtime().is_some_and(|runtime| runtime != 0)),
        ("realtimePeriod", cpu.realtime_period().is_some_and(|period| period != 0)),
    ] {
        if given {
            return Err(Error::config(place(field), "cgroup v2 has no realtime limits; drop the field"));
        }
    }
    let idle = cpu.idle();
    if let Some(idle) = idle
        && !(0..=1).contains(&idle)
    {
        return Err(Error::config(place("idle"), format!("{idle} is neither 0 nor 1")));
    }
    if idle == Some(0) {
        writes.push(Write::new("cpu", "cpu.idle", "0", place("idle")));
    }
    let shares = cpu.shares().filter(|&shares| shares != 0);
    if is_idle && shares.is_some() {
        warnings.push(weight_of_idle(&place("shares"), "cpu.idle"));
    }
    if let Some(shares) = shares.filter(|_| !is_idle) {
        writes.push(Write::new("cpu", "cpu.weight", shares_to_weight(shares).to_string(), place("shares")));
    }
    if let Some(max) = cpu_max(cpu)? {
        let quota = cpu.quota().is_some_and(|quota| quota != 0);
        let asked = if quota { place("quota") } else { PERIOD.to_owned() };
        writes.push(Write::new("cpu", "cpu.max", max, asked));
    }
    if let Some(burst) = cpu.burst() {
        writes.push(Write::new("cpu", "cpu.max.burst", burst.to_string(), place("burst")));
    }
    if idle == Some(1) {
        writes.push(Write::new("cpu", "cpu.idle", "1", place("idle")));
    }
    for (file, field, list) in [("cpuset.cpus", "cpus", cpu.cpus()), ("cpuset.mems", "mems", cpu.mems())] {
        if let Some(list) = list.as_deref().filter(|list| !list.is_empty()) {
            writes.push(Write::new("cpuset", file, list, place(field)));
        }
    }
    Ok(())
}

/// `cpu.max` is `$MAX $PERIOD`; a missing period keeps the one that is there.
fn cpu_max(cpu: &LinuxCpu) -> Result<Option<String>> {
    let quota = match cpu.quota().filter(|&quota| quota != 0) {
        Some(quota @ 1..1000) => {
            return Err(Error::config(
                "linux.resources.cpu.quota",
                format!("{quota} µs is too short; the shortest quota is 1000 µs, -1 is none"),
            ));
        }
        quota => quota,
    };
    let period = cpu.period().filter(|&period| period != 0);
    let quota = match (quota, period) {
        (None, None) => return Ok(None),
        (None | Some(..0), _) => "max".to_owned(),
        (Some(quota), _) => quota.to_string(),
    };
    Ok(Some(match period {
        Some(period) => format!("{quota} {period}"),
        None => quota,
    }))
}

/// CPU shares (2 to 262144, 1024 is usual) as a weight (1 to 10000, 100 is usual).
///
/// The curve passes through all three points: 2 is 1, 1024 is 100 and 262144 is 10000, with
/// `10^((log2(shares)^2 + 125 * log2(shares)) / 612 - 7/34)`, rounded up, as runc 1.3.2 and crun
/// 1.23 have it.
pub fn shares_to_weight(shares: u64) -> u64 {
    match shares {
        0 => 0,
        1..=2 => 1,
        262_144.. => 10_000,
        shares => {
            let log = f64::from(shares as u32).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            10f64.powf(exponent).ceil() as u64
        }
    }
}

/// A block I/O weight (10 to 1000) as `io.weight` (1 to 10000).
pub fn blkio_to_io_weight(weight: u16) -> u64 {
    1 + (u64::from(weight).max(10) - 10) * 9999 / 990
}

fn block_io(block_io: &LinuxBlockIo, writes: &mut Vec<Write>, warnings: &mut Vec<String>) -> Result<()> {
    let place = |field: &str| format!("{PLACE}.blockIO.{field}");
    let check = |weight: u16, place: String| match weight {
        10..=1000 => Ok(weight),
        _ => Err(Error::config(place, format!("{weight} is out of range; the range is 10 to 1000"))),
    };
    let mut leaf = block_io.leaf_weight().is_some_and(|weight| weight != 0);
    if let Some(weight) = block_io.weight().filter(|&weight| weight != 0) {
        let weight = check(weight, place("weight"))?;
        // BFQ takes the weight as it is; without it, io.weight has another scale.
        let write = Write::new("io", "io.bfq.weight", weight.to_string(), place("weight"));
        writes.push(write.or_value("io.weight", format!("default {}", blkio_to_io_weight(weight))));
    }
    for (index, device) in block_io.weight_device().iter().flatten().enumerate() {
        leaf |= device.leaf_weight().is_some_and(|weight| weight != 0);
        let at = place(&format!("weightDevice[{index}].weight"));
        let number = format!("{}:{}", device.major(), device.minor());
        if let Some(weight) = device.weight().filter(|&weight| weight != 0) {
            let weight = check(weight, at.clone())?;
            let write = Write::new("io", "io.bfq.weight", format!("{number} {weight}"), at);
            writes.push(write.or_value("io.weight", format!("{number} {}", blkio_to_io_weight(weight))));
        }
    }
    if leaf {
        warnings.push(format!("{PLACE}.blockIO.leafWeight has no effect: cgroup v2 has nothing like it"));
    }
    for ((field, _, devices), key) in
        v1::throttles(block_io).into_iter().zip(["rbps", "wbps", "riops", "wiops"])
    {
        for (index, device) in devices.iter().enumerate() {
            let rate = if device.rate() == 0 { "max".to_owned() } else { device.rate().to_string() };
            let value = format!("{}:{} {key}={rate}", device.major(), device.minor());
            writes.push(Write::new("io", "io.max", value, place(&format!("{field}[{index}]"))));
        }
    }
    Ok(())
}

/// `unified` is the last word on every file; lines of one value are written one by one, since a
/// file such as `io.max` takes one device a write.
fn unified(resources: &LinuxResources, writes: &mut Vec<Write>, warnings: &mut Vec<String>) -> Result<()> {
    let is_idle = is_idle(resources);
    let mut entries: Vec<_> = resources.unified().iter().flatten().collect();
    entries.sort();
    for (file, value) in entries {
        let place = format!("{PLACE}.unified[{file:?}]");
        if is_idle && matches!(file.as_str(), "cpu.weight" | "cpu.weight.nice") {
            warnings.push(weight_of_idle(file, "cpu.idle"));
            continue;
        }
        let Some((controller, rest)) = file.split_once('.') else {
            return Err(Error::config(place, "is not a cgroup file; a name looks like memory.high"));
        };
        if controller.is_empty() || rest.is_empty() || file.contains(['/', '\0']) {
            return Err(Error::config(place, "is not the name of a cgroup file; it may hold no slash"));
        }
        // The core's files belong to no controller.
        let controller = if controller == "cgroup" { "" } else { controller };
        for line in value.lines().filter(|line| !line.trim().is_empty()) {
            writes.push(Write { only_if_existing: false, ..Write::new(controller, file, line, &place) });
        }
        if value.trim().is_empty() {
            // cpuset files are emptied by an empty line.
            writes.push(Write { only_if_existing: false, ..Write::new(controller, file, "\n", &place) });
        }
    }
    Ok(())
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
    fn shares_convert_as_in_runc_1_3_2() {
        let expected = [(0, 0), (1, 1), (2, 1), (1024, 100), (262_144, 10_000), (500_000, 10_000), (512, 59)];
        for (shares, weight) in expected {
            assert_eq!(shares_to_weight(shares), weight, "{shares}");
        }
    }

    #[test]
    fn block_io_weights_span_the_whole_range() {
        assert_eq!([10, 500, 1000].map(blkio_to_io_weight), [1, 4950, 10_000]);
    }

    #[test]
    fn swap_is_the_difference_to_memory_and_written_before_it() {
        assert_eq!(
            lines(r#"{"memory":{"limit":1048576,"swap":3145728,"reservation":4096}}"#),
            ["memory.swap.max 2097152", "memory.max 1048576", "memory.low 4096"]
        );
        assert_eq!(lines(r#"{"memory":{"limit":-1}}"#), ["memory.swap.max max", "memory.max max"]);
        assert_eq!(fails_at(r#"{"memory":{"swap":3145728}}"#), "linux.resources.memory.swap");
        assert_eq!(fails_at(r#"{"memory":{"limit":2,"swap":1}}"#), "linux.resources.memory.swap");
    }

    #[test]
    fn quota_and_period_are_one_file() {
        assert_eq!(lines(r#"{"cpu":{"quota":50000,"period":100000}}"#), ["cpu.max 50000 100000"]);
        assert_eq!(lines(r#"{"cpu":{"quota":50000}}"#), ["cpu.max 50000"]);
        assert_eq!(lines(r#"{"cpu":{"period":50000}}"#), ["cpu.max max 50000"]);
        assert_eq!(lines(r#"{"cpu":{"quota":-1}}"#), ["cpu.max max"]);
    }

    #[test]
    fn unified_is_written_line_by_line_and_last() {
        assert_eq!(
            lines(
                r#"{"unified":{"io.max":"8:0 rbps=1\n8:16 wbps=2\n","cgroup.max.depth":"3"},"pids":{"limit":5}}"#
            ),
            ["pids.max 5", "cgroup.max.depth 3", "io.max 8:0 rbps=1", "io.max 8:16 wbps=2"]
        );
        assert_eq!(
            fails_at(r#"{"unified":{"../memory.max":"1"}}"#),
            r#"linux.resources.unified["../memory.max"]"#
        );
        assert_eq!(fails_at(r#"{"unified":{"memory":"1"}}"#), r#"linux.resources.unified["memory"]"#);
    }

    #[test]
    fn fields_that_v2_has_not_are_refused_or_warned_of() {
        assert_eq!(fails_at(r#"{"cpu":{"realtimeRuntime":5}}"#), "linux.resources.cpu.realtimeRuntime");
        assert_eq!(fails_at(r#"{"network":{"classID":5}}"#), "linux.resources.network.classID");
        let resources: LinuxResources = serde_json::from_str(r#"{"memory":{"swappiness":5}}"#).unwrap();
        let mut warnings = Vec::new();
        assert!(writes(&resources, &mut warnings).unwrap().is_empty());
        assert_eq!(warnings.len(), 1);
    }
}
