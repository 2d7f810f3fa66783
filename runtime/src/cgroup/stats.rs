//! What a container uses: the shape of `events --stats`.
//!
//! It owns the JSON of runc's statistics, field for field, and the reading of the number formats
//! that cgroup files have. Times are nanoseconds, sizes bytes; a number that is 0 is left out where
//! runc leaves it out.

use std::collections::BTreeMap;

use serde::Serialize;

use super::file::CgroupDir;
use super::{Cgroup, LayoutKind, stats_v1, stats_v2};
use crate::error::Result;

/// Everything that is measured.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Stats {
    /// Processor time.
    pub cpu: Cpu,
    /// Processors and memory nodes that may be used (version 1).
    pub cpuset: Cpuset,
    /// Memory.
    pub memory: Memory,
    /// Processes and threads.
    pub pids: Pids,
    /// Block devices.
    pub blkio: Blkio,
    /// Huge pages, by page size (`2MB`).
    pub hugetlb: BTreeMap<String, Hugetlb>,
    /// Cache and memory bandwidth monitoring; empty without resctrl.
    pub intel_rdt: IntelRdt,
    /// Network interfaces: always null, as runc reports those of no container.
    pub network_interfaces: Option<Vec<()>>,
}

/// Cache and memory bandwidth monitoring, which these statistics do not hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct IntelRdt {}

/// Processor time.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Cpu {
    /// Time used.
    pub usage: CpuUsage,
    /// How often the quota held the container back.
    pub throttling: Throttling,
    /// Pressure (version 2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Psi>,
}

/// Time used, in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CpuUsage {
    /// All of it.
    #[serde(skip_serializing_if = "is_zero")]
    pub total: u64,
    /// On each processor (version 1).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu: Vec<u64>,
    /// On each processor in the kernel (version 1).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_kernel: Vec<u64>,
    /// On each processor in user mode (version 1).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_user: Vec<u64>,
    /// In the kernel.
    pub kernel: u64,
    /// In user mode.
    pub user: u64,
}

/// How often the quota held the container back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Throttling {
    /// Periods that have passed.
    #[serde(skip_serializing_if = "is_zero")]
    pub periods: u64,
    /// Periods in which the quota was used up.
    #[serde(skip_serializing_if = "is_zero")]
    pub throttled_periods: u64,
    /// Time held back, in nanoseconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub throttled_time: u64,
}

/// Processors and memory nodes (version 1).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Cpuset {
    /// Processors.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cpus: Vec<u16>,
    /// `cpuset.cpu_exclusive`.
    pub cpu_exclusive: u64,
    /// Memory nodes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mems: Vec<u16>,
    /// `cpuset.mem_hardwall`.
    pub mem_hardwall: u64,
    /// `cpuset.mem_exclusive`.
    pub mem_exclusive: u64,
    /// `cpuset.memory_migrate`.
    pub memory_migrate: u64,
    /// `cpuset.memory_spread_page`.
    pub memory_spread_page: u64,
    /// `cpuset.memory_spread_slab`.
    pub memory_spread_slab: u64,
    /// `cpuset.memory_pressure`.
    pub memory_pressure: u64,
    /// `cpuset.sched_load_balance`.
    pub sched_load_balance: u64,
    /// `cpuset.sched_relax_domain_level`.
    pub sched_relax_domain_level: i64,
}

/// Memory, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Memory {
    /// Page cache.
    #[serde(skip_serializing_if = "is_zero")]
    pub cache: u64,
    /// Memory.
    pub usage: MemoryEntry,
    /// Memory and swap together, as version 1 counts them.
    pub swap: MemoryEntry,
    /// The kernel's memory for the container (version 1).
    pub kernel: MemoryEntry,
    /// Buffers of TCP (version 1).
    #[serde(rename = "kernelTCP")]
    pub kernel_tcp: MemoryEntry,
    /// Every line of `memory.stat`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub raw: BTreeMap<String, u64>,
    /// Pressure (version 2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Psi>,
}

/// One kind of memory, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct MemoryEntry {
    /// The limit.
    pub limit: u64,
    /// Used now.
    #[serde(skip_serializing_if = "is_zero")]
    pub usage: u64,
    /// The most that was ever used.
    #[serde(skip_serializing_if = "is_zero")]
    pub max: u64,
    /// How often the limit was hit.
    pub failcnt: u64,
}

/// Processes and threads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Pids {
    /// There are now.
    #[serde(skip_serializing_if = "is_zero")]
    pub current: u64,
    /// There may be; 0 for no limit.
    #[serde(skip_serializing_if = "is_zero")]
    pub limit: u64,
}

/// Block devices.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Blkio {
    /// Bytes moved.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_service_bytes_recursive: Vec<BlkioEntry>,
    /// Operations.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_serviced_recursive: Vec<BlkioEntry>,
    /// Operations that wait.
    #[serde(rename = "ioQueueRecursive", skip_serializing_if = "Vec::is_empty")]
    pub io_queued_recursive: Vec<BlkioEntry>,
    /// Nanoseconds in service.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_service_time_recursive: Vec<BlkioEntry>,
    /// Nanoseconds waiting.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_wait_time_recursive: Vec<BlkioEntry>,
    /// Operations merged.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_merged_recursive: Vec<BlkioEntry>,
    /// Milliseconds of device time.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_time_recursive: Vec<BlkioEntry>,
    /// Sectors moved.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sectors_recursive: Vec<BlkioEntry>,
    /// Pressure (version 2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Psi>,
}

/// One number of one device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct BlkioEntry {
    /// Major number.
    #[serde(skip_serializing_if = "is_zero")]
    pub major: u64,
    /// Minor number.
    #[serde(skip_serializing_if = "is_zero")]
    pub minor: u64,
    /// `Read`, `Write`, `Total` …
    #[serde(skip_serializing_if = "String::is_empty")]
    pub op: String,
    /// The number.
    #[serde(skip_serializing_if = "is_zero")]
    pub value: u64,
}

/// Huge pages of one size, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Hugetlb {
    /// Used now.
    #[serde(skip_serializing_if = "is_zero")]
    pub usage: u64,
    /// The most that was ever used (version 1).
    #[serde(skip_serializing_if = "is_zero")]
    pub max: u64,
    /// How often the limit was hit.
    pub failcnt: u64,
}

/// Pressure stall information, proc_pressure(5).
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Psi {
    /// Some process waited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub some: Option<PsiData>,
    /// Every process waited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub full: Option<PsiData>,
}

/// Shares of time, in percent, and the sum, in microseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct PsiData {
    /// Over 10 seconds.
    pub avg10: f64,
    /// Over 60 seconds.
    pub avg60: f64,
    /// Over 300 seconds.
    pub avg300: f64,
    /// Since the cgroup was made.
    pub total: u64,
}

// serde's skip_serializing_if hands a reference over.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

impl Cgroup {
    /// Measures the container.
    pub fn stats(&self) -> Result<Stats> {
        self.require("measure the container")?;
        match self.record.layout {
            LayoutKind::V2 => stats_v2::read(self),
            LayoutKind::V1 | LayoutKind::Hybrid => stats_v1::read(self),
        }
    }
}

/// The number in a file of one; 0 when the kernel does not have it, `u64::MAX` for `max`.
pub fn number(dir: &CgroupDir, file: &str) -> Result<u64> {
    Ok(dir.read_if_there(file)?.map_or(0, |text| parse_number(&text)))
}

/// A number as cgroup files write it.
pub fn parse_number(text: &str) -> u64 {
    match text.trim() {
        "max" => u64::MAX,
        text => text.parse().unwrap_or(0),
    }
}

/// A file of lines with a key and a number.
pub fn table(dir: &CgroupDir, file: &str) -> Result<BTreeMap<String, u64>> {
    let text = dir.read_if_there(file)?.unwrap_or_default();
    Ok(text
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(key, value)| (key.to_owned(), parse_number(value)))
        .collect())
}

/// The page sizes of `hugetlb.<size>.<suffix>` files that the cgroup may have.
pub fn huge_page_sizes() -> Vec<String> {
    let entries = std::fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten();
    let kilobytes = entries.filter_map(|entry| {
        entry.file_name().to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse::<u64>().ok()
    });
    kilobytes.map(page_size_name).collect()
}

/// A page size in KiB as the kernel's file names have it.
fn page_size_name(kilobytes: u64) -> String {
    match kilobytes {
        size if size >= 1 << 20 => format!("{}GB", size >> 20),
        size if size >= 1 << 10 => format!("{}MB", size >> 10),
        size => format!("{size}KB"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_container_has_the_fields_that_runc_always_writes() {
        let json = serde_json::to_string(&Stats::default()).unwrap();
        assert_eq!(
            json,
            concat!(
                r#"{"cpu":{"usage":{"kernel":0,"user":0},"throttling":{}},"#,
                r#""cpuset":{"cpu_exclusive":0,"mem_hardwall":0,"mem_exclusive":0,"memory_migrate":0,"#,
                r#""memory_spread_page":0,"memory_spread_slab":0,"memory_pressure":0,"sched_load_balance":0,"#,
                r#""sched_relax_domain_level":0},"memory":{"usage":{"limit":0,"failcnt":0},"#,
                r#""swap":{"limit":0,"failcnt":0},"kernel":{"limit":0,"failcnt":0},"#,
                r#""kernelTCP":{"limit":0,"failcnt":0}},"pids":{},"blkio":{},"hugetlb":{},"intel_rdt":{},"#,
                r#""network_interfaces":null}"#
            )
        );
    }

    #[test]
    fn page_sizes_are_named_as_the_kernel_names_them() {
        assert_eq!([64, 2048, 1_048_576].map(page_size_name), ["64KB", "2MB", "1GB"]);
    }
}
