//! `linux.resources` (`config-linux.md`, from "Allowed Device list" to "Unified"): of `config.json` and of `update`.
//!
//! Checked are the ranges that the spec and the kernel give whatever the version of cgroups. What a hierarchy lacks,
//! the cgroup room says. A 0 where the kernel would take none means "not given", as all runtimes read it.

use std::fmt::Display;

use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxDeviceCgroup, LinuxDeviceType, LinuxMemory, LinuxResources,
};

use super::{
    super::{
        id_list::check_cpuset,
        problems::{Problems, has, member_place},
    },
    devices::{MAX_MAJOR, MAX_MINOR},
};

/// What the limits are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Use {
    /// A new cgroup: what is not here is not limited.
    Create,
    /// A cgroup that has limits already.
    Update,
}

/// A `pids` without a `limit`, at `place` of `text`, sets none, where the types make it 0, which would let no process in.
pub(in super::super) fn forget_missing_pids_limit(resources: &mut LinuxResources, text: &[u8], place: &str) {
    let limit = resources.pids().map(|pids| pids.limit());
    if limit == Some(0) && !has(text, place) {
        resources.set_pids(None);
    }
}

pub(in super::super) fn check(resources: &LinuxResources, purpose: Use, problems: &mut Problems) {
    for (index, rule) in resources.devices().iter().flatten().enumerate() {
        check_device_rule(rule, index, problems);
    }
    if let Some(memory) = resources.memory() {
        check_memory(memory, purpose, problems);
    }
    if let Some(cpu) = resources.cpu() {
        check_cpu(cpu, problems);
    }
    if let Some(pids) = resources.pids().filter(|pids| pids.limit() < -1) {
        let limit = pids.limit();
        refuse(
            "pids.limit",
            format!("{limit} is below -1; give a number of tasks, or -1 for no limit"),
            problems,
        );
    }
    if let Some(block_io) = resources.block_io() {
        check_block_io(block_io, problems);
    }
    for (index, limit) in resources.hugepage_limits().iter().flatten().enumerate() {
        if !is_page_size(limit.page_size()) {
            refuse(
                format_args!("hugepageLimits[{index}].pageSize"),
                format!("{:?} is not a page size; write it as 64KB, 2MB or 1GB", limit.page_size()),
                problems,
            );
        }
        if limit.limit() < 0 {
            refuse(
                format_args!("hugepageLimits[{index}].limit"),
                format!("{} is below 0; give bytes", limit.limit()),
                problems,
            );
        }
    }
    let priorities = resources.network().as_ref().and_then(|network| network.priorities().as_ref());
    for (index, priority) in priorities.into_iter().flatten().enumerate() {
        if priority.name().is_empty() || priority.name().contains(char::is_whitespace) {
            refuse(
                format_args!("network.priorities[{index}].name"),
                format!("{:?} is not the name of a network interface", priority.name()),
                problems,
            );
        }
    }
    for (device, limits) in resources.rdma().iter().flatten() {
        if limits.hca_handles().is_none() && limits.hca_objects().is_none() {
            problems.refuse(
                member_place("linux.resources.rdma", device),
                "limits nothing; give hcaHandles, hcaObjects or both",
            );
        }
        if device.is_empty() || device.contains(char::is_whitespace) {
            problems.refuse(
                member_place("linux.resources.rdma", device),
                format!("{device:?} is not the name of an RDMA device"),
            );
        }
    }
    for file in resources.unified().iter().flat_map(|unified| unified.keys()) {
        if matches!(file.as_str(), "" | "." | "..") || file.contains(['/', '\0']) {
            problems.refuse(
                member_place("linux.resources.unified", file),
                format!("unified resource {file:?} must be a file name (no slashes), such as memory.high"),
            );
        }
    }
}

fn refuse(name: impl Display, problem: String, problems: &mut Problems) {
    problems.refuse(format!("linux.resources.{name}"), problem);
}

fn check_device_rule(rule: &LinuxDeviceCgroup, index: usize, problems: &mut Problems) {
    if let Some(kind @ (LinuxDeviceType::P | LinuxDeviceType::U)) = rule.typ() {
        refuse(
            format_args!("devices[{index}].type"),
            format!("invalid cgroup device type {:?}; use a, b or c", kind.as_str()),
            problems,
        );
    }
    for (name, number) in [("major", rule.major()), ("minor", rule.minor())] {
        // The kernel keeps rules with 32-bit numbers.
        if number.is_some_and(|number| !(-1..=i64::from(u32::MAX)).contains(&number)) {
            refuse(
                format_args!("devices[{index}].{name}"),
                format!("{} is not a device number; -1 stands for all", number.unwrap_or_default()),
                problems,
            );
        }
    }
    let access = rule.access().as_deref().unwrap_or_default();
    let known = |letter| matches!(letter, 'r' | 'w' | 'm');
    if access.contains(known) && !access.chars().all(known) {
        // As runc reads it.
        problems.warn(
            format_args!("linux.resources.devices[{index}].access"),
            format_args!("of {access:?} only r (read), w (write) and m (mknod) count"),
        );
    }
    if !access.contains(known) {
        refuse(
            format_args!("devices[{index}].access"),
            format!("{access:?} is not a set of r (read), w (write) and m (mknod); \"rwm\" is all"),
            problems,
        );
    }
}

fn check_memory(memory: &LinuxMemory, purpose: Use, problems: &mut Problems) {
    let (limit, swap) = (memory.limit().unwrap_or_default(), memory.swap().unwrap_or_default());
    let reservation = memory.reservation().unwrap_or_default();
    for (name, value) in [("limit", limit), ("reservation", reservation), ("swap", swap)] {
        if value < -1 {
            refuse(
                format_args!("memory.{name}"),
                format!("{value} is below -1; give bytes, or -1 for no limit"),
                problems,
            );
        }
    }
    if swap > 0 && limit > 0 && swap < limit {
        refuse(
            "memory.swap",
            format!("{swap} is less than memory.limit, {limit}; swap counts memory and swap together"),
            problems,
        );
    }
    if swap > 0 && limit <= 0 && purpose == Use::Create {
        refuse(
            "memory.swap",
            "unable to set swap limit without memory limit; give memory.limit too".into(),
            problems,
        );
    }
    if let Some(swappiness) = memory.swappiness().filter(|swappiness| *swappiness > 100) {
        refuse("memory.swappiness", format!("{swappiness} is not from 0 to 100"), problems);
    }
    // The spec still has the two, the kernel does not.
    #[allow(deprecated)]
    let kernel = memory.kernel();
    for (name, value) in [("kernel", kernel), ("kernelTCP", memory.kernel_tcp())] {
        if value.is_some_and(|value| value > 0) {
            problems.warn(
                format_args!("linux.resources.memory.{name}"),
                "kernel memory limits are gone from Linux; this one is ignored",
            );
        }
    }
}

fn check_cpu(cpu: &LinuxCpu, problems: &mut Problems) {
    let (quota, period) = (cpu.quota().unwrap_or_default(), cpu.period().unwrap_or_default());
    let burst = cpu.burst().unwrap_or_default();
    if (1..1000).contains(&quota) {
        refuse(
            "cpu.quota",
            format!("{quota} µs is less than 1000 µs, the least that the kernel takes"),
            problems,
        );
    }
    if period != 0 && !(1000..=1_000_000).contains(&period) {
        refuse("cpu.period", format!("{period} µs is not from 1000 to 1000000 µs"), problems);
    }
    if quota > 0 && i64::try_from(burst).map_or(true, |burst| burst > quota) {
        refuse("cpu.burst", format!("{burst} µs is larger than cpu.quota, {quota} µs"), problems);
    }
    let (runtime, rt_period) =
        (cpu.realtime_runtime().unwrap_or_default(), cpu.realtime_period().unwrap_or_default());
    if runtime < -1 {
        refuse(
            "cpu.realtimeRuntime",
            format!("{runtime} is below -1, which means no limit; give µs"),
            problems,
        );
    }
    if rt_period != 0 && u64::try_from(runtime).is_ok_and(|runtime| runtime > rt_period) {
        refuse(
            "cpu.realtimeRuntime",
            format!("{runtime} µs is longer than cpu.realtimePeriod, {rt_period} µs"),
            problems,
        );
    }
    if let Some(idle) = cpu.idle().filter(|idle| !matches!(idle, 0 | 1)) {
        refuse("cpu.idle", format!("{idle} is neither 0 nor 1"), problems);
    }
    for (name, list) in [("cpus", cpu.cpus()), ("mems", cpu.mems())] {
        if let Some(Err(problem)) = list.as_deref().map(check_cpuset) {
            refuse(format_args!("cpu.{name}"), problem, problems);
        }
    }
}

fn check_block_io(block_io: &LinuxBlockIo, problems: &mut Problems) {
    check_weight("weight", block_io.weight(), problems);
    check_weight("leafWeight", block_io.leaf_weight(), problems);
    for (index, device) in block_io.weight_device().iter().flatten().enumerate() {
        let place = format_args!("weightDevice[{index}]");
        check_block_device(place, device.major(), device.minor(), problems);
        if device.weight().is_none() && device.leaf_weight().is_none() {
            refuse(
                format_args!("blockIO.{place}"),
                "gives neither weight nor leafWeight".to_owned(),
                problems,
            );
        }
        check_weight(format_args!("{place}.weight"), device.weight(), problems);
        check_weight(format_args!("{place}.leafWeight"), device.leaf_weight(), problems);
    }
    for (name, devices) in [
        ("throttleReadBpsDevice", block_io.throttle_read_bps_device()),
        ("throttleWriteBpsDevice", block_io.throttle_write_bps_device()),
        ("throttleReadIOPSDevice", block_io.throttle_read_iops_device()),
        ("throttleWriteIOPSDevice", block_io.throttle_write_iops_device()),
    ] {
        for (index, device) in devices.iter().flatten().enumerate() {
            check_block_device(format_args!("{name}[{index}]"), device.major(), device.minor(), problems);
        }
    }
}

fn check_weight(name: impl Display, weight: Option<u16>, problems: &mut Problems) {
    if let Some(weight) = weight.filter(|weight| *weight != 0 && !(10..=1000).contains(weight)) {
        refuse(format_args!("blockIO.{name}"), format!("{weight} is not from 10 to 1000"), problems);
    }
}

fn check_block_device(place: impl Display, major: i64, minor: i64, problems: &mut Problems) {
    for (name, number, max) in [("major", major, MAX_MAJOR), ("minor", minor, MAX_MINOR)] {
        if !(0..=max).contains(&number) {
            refuse(
                format_args!("blockIO.{place}.{name}"),
                format!("{number} is not from 0 to {max}"),
                problems,
            );
        }
    }
}

/// Whether a text is `<size><unit-prefix>B`, as the files of the hugetlb controller have it.
fn is_page_size(text: &str) -> bool {
    let Some(number) = text.strip_suffix('B').and_then(|text| text.strip_suffix(['K', 'M', 'G'])) else {
        return false;
    };
    !number.is_empty() && !number.starts_with('0') && number.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
#[path = "resources_tests.rs"]
mod tests;
