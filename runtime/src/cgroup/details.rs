//! What containerd's metrics have and runc's statistics don't (`io.containerd.cgroups.v1` and `.v2`).

use std::collections::BTreeMap;

use super::file::CgroupDir;
use super::stats::{huge_page_sizes, number, parse_number, table};
use super::{Cgroup, LayoutKind};
use crate::error::Result;

/// Measured beside [`Stats`](super::stats::Stats).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Details {
    /// The container is on pure version 2.
    pub is_v2: bool,
    /// `memory.oom_control` of version 1, `memory.events` of version 2.
    pub memory_events: BTreeMap<String, u64>,
    /// Swap alone, in bytes (version 2).
    pub swap: Swap,
    /// `cpu.stat` (version 2), times in microseconds.
    pub cpu: BTreeMap<String, u64>,
    /// Limits of huge pages in bytes, by page size (version 2); `u64::MAX` for none.
    pub hugetlb_limits: BTreeMap<String, u64>,
    /// Remote direct memory access: what is used, by device.
    pub rdma_current: Vec<Rdma>,
    /// Remote direct memory access: what may be used, by device.
    pub rdma_limit: Vec<Rdma>,
}

/// Swap alone, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swap {
    /// Used now.
    pub usage: u64,
    /// The limit; `u64::MAX` for none.
    pub limit: u64,
    /// The most that was ever used.
    pub peak: u64,
}

/// Resources of one device; `u32::MAX` for no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rdma {
    /// Its name.
    pub device: String,
    /// Handles.
    pub handles: u32,
    /// Objects.
    pub objects: u32,
}

impl Cgroup {
    /// Measures what [`Cgroup::stats`] doesn't.
    pub fn details(&self) -> Result<Details> {
        match self.record.layout {
            LayoutKind::V2 => self.details_v2(),
            LayoutKind::V1 | LayoutKind::Hybrid => self.details_v1(),
        }
    }

    fn details_v1(&self) -> Result<Details> {
        let mut details = Details::default();
        if let Some(dir) = self.v1_dir("memory")? {
            details.memory_events = table(&dir, "memory.oom_control")?;
        }
        if let Some(dir) = self.v1_dir("rdma")? {
            details.rdma_current = rdma(&dir, "rdma.current")?;
            details.rdma_limit = rdma(&dir, "rdma.max")?;
        }
        Ok(details)
    }

    fn details_v2(&self) -> Result<Details> {
        let mut details = Details { is_v2: true, ..Details::default() };
        let Some(dir) = self.unified_dir()? else { return Ok(details) };
        details.memory_events = table(&dir, "memory.events")?;
        details.swap = Swap {
            usage: number(&dir, "memory.swap.current")?,
            limit: number(&dir, "memory.swap.max")?,
            peak: number(&dir, "memory.swap.peak")?,
        };
        details.cpu = table(&dir, "cpu.stat")?;
        for size in huge_page_sizes() {
            if let Some(limit) = dir.read_if_there(&format!("hugetlb.{size}.max"))? {
                details.hugetlb_limits.insert(size, parse_number(&limit));
            }
        }
        details.rdma_current = rdma(&dir, "rdma.current")?;
        details.rdma_limit = rdma(&dir, "rdma.max")?;
        Ok(details)
    }
}

fn rdma(dir: &CgroupDir, file: &str) -> Result<Vec<Rdma>> {
    Ok(dir.read_if_there(file)?.unwrap_or_default().lines().filter_map(rdma_line).collect())
}

/// A line such as `mlx4_0 hca_handle=2 hca_object=max`.
fn rdma_line(line: &str) -> Option<Rdma> {
    let mut parts = line.split_whitespace();
    let mut entry = Rdma { device: parts.next()?.to_owned(), ..Rdma::default() };
    for (key, value) in parts.filter_map(|part| part.split_once('=')) {
        let value = u32::try_from(parse_number(value)).unwrap_or(u32::MAX);
        match key {
            "hca_handle" => entry.handles = value,
            "hca_object" => entry.objects = value,
            _ => {}
        }
    }
    Some(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_rdma_devices_have_numbers_or_no_limit() {
        let entry = rdma_line("mlx4_0 hca_handle=2 hca_object=max").unwrap();
        assert_eq!((entry.device.as_str(), entry.handles, entry.objects), ("mlx4_0", 2, u32::MAX));
        assert_eq!(rdma_line(""), None);
    }
}
