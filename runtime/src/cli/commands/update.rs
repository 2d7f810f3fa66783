//! `coracle update`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources};

use super::{Arguments, ID, Subcommand};
use crate::bundle::read_all;
use crate::cli::globals::Context;
use crate::cli::options::text;
use crate::cli::values::size;
use crate::container;
use crate::error::{Doing, Error, Kind, Result};

/// The flags and arguments of `update`.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Update {
    /// Read the resources from FILE, or from standard input when it is -: a `linux.resources` object of config.json,
    /// with what is to change
    #[arg(long, short, value_name = "FILE",
          conflicts_with_all = ["blkio_weight", "cpu_period", "cpu_quota", "cpu_burst", "cpu_share", "cpu_rt_period", "cpu_rt_runtime",
                                "cpuset_cpus", "cpuset_mems", "memory", "cpu_idle", "memory_reservation", "memory_swap", "pids_limit"])]
    resources: Option<PathBuf>,

    /// The weight of block I/O, 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    blkio_weight: Option<u16>,

    /// The period in which the CPU quota counts, in microseconds
    #[arg(long, value_name = "USECS", value_parser = number::<u64>)]
    cpu_period: Option<OrEmpty<u64>>,

    /// The CPU time allowed in a period, in microseconds; -1 for no limit
    #[arg(long, value_name = "USECS", value_parser = number::<i64>)]
    cpu_quota: Option<OrEmpty<i64>>,

    /// The CPU time beyond the quota that may be saved up, in microseconds
    #[arg(long, value_name = "USECS", value_parser = number::<u64>)]
    cpu_burst: Option<OrEmpty<u64>>,

    /// CPU shares, in relation to other containers
    #[arg(long, value_name = "SHARES", value_parser = number::<u64>)]
    cpu_share: Option<OrEmpty<u64>>,

    /// The period in which the realtime CPU time counts, in microseconds
    #[arg(long, value_name = "USECS", value_parser = number::<u64>)]
    cpu_rt_period: Option<OrEmpty<u64>>,

    /// The realtime CPU time allowed in a period, in microseconds
    #[arg(long, value_name = "USECS", value_parser = number::<i64>)]
    cpu_rt_runtime: Option<OrEmpty<i64>>,

    /// The CPUs to use, as in 0-3,7
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,

    /// The memory nodes to use, as in 0,1
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,

    /// The memory limit in bytes, or as in 512m; -1 for no limit
    #[arg(long, value_name = "SIZE", value_parser = amount)]
    memory: Option<OrEmpty<i64>>,

    /// 1 to run only when nothing else wants the CPU (SCHED_IDLE), 0 not to
    #[arg(long, value_name = "0|1", value_parser = number::<i64>)]
    cpu_idle: Option<OrEmpty<i64>>,

    /// The memory to protect under pressure (the soft limit), in bytes, or as in 512m
    #[arg(long, value_name = "SIZE", value_parser = amount)]
    memory_reservation: Option<OrEmpty<i64>>,

    /// The limit of memory and swap together, in bytes, or as in 1g; -1 for no limit
    #[arg(long, value_name = "SIZE", value_parser = amount)]
    memory_swap: Option<OrEmpty<i64>>,

    /// The highest number of processes; -1 for no limit
    #[arg(long, value_name = "N")]
    pids_limit: Option<i64>,

    /// Ignored: kernels since 5.16 have no such limit
    #[arg(long, value_name = "SIZE", hide = true)]
    kernel_memory: Option<String>,

    /// Ignored, as is --kernel-memory
    #[arg(long, value_name = "SIZE", hide = true)]
    kernel_memory_tcp: Option<String>,

    /// The L3 cache schema of Intel RDT/CAT
    #[arg(long, value_name = "SCHEMA")]
    l3_cache_schema: Option<String>,

    /// The memory bandwidth schema of Intel RDT/MBA
    #[arg(long, value_name = "SCHEMA")]
    mem_bw_schema: Option<String>,

    /// The container
    #[arg(value_name = ID)]
    id: String,
}

/// The value of a flag; none when it is empty, which is as if the flag weren't there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct OrEmpty<T>(Option<T>);

fn number<T: FromStr<Err: ToString>>(text: &str) -> Result<OrEmpty<T>, String> {
    or_empty(text, |text| text.parse().map_err(|error: T::Err| error.to_string()))
}

fn amount(text: &str) -> Result<OrEmpty<i64>, String> {
    or_empty(text, size::parse)
}

fn or_empty<T>(text: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<OrEmpty<T>, String> {
    if text.is_empty() { Ok(OrEmpty(None)) } else { parse(text).map(|value| OrEmpty(Some(value))) }
}

fn given<T>(flag: Option<OrEmpty<T>>) -> Option<T> {
    flag.and_then(|OrEmpty(value)| value)
}

impl Subcommand for Update {
    const NAME: &'static str = "update";
    const ABOUT: &'static str = "Change the resource limits of a container";
    const DETAILS: &'static str = "What isn't named stays as it is.";
    const ARGUMENTS: Arguments = Arguments::Exactly(1);

    fn run(self, context: &Context) -> Result<i32> {
        if self.kernel_memory.is_some() || self.kernel_memory_tcp.is_some() {
            // runc's words.
            log::warn!("Kernel memory settings are ignored and will be removed");
        }
        let resources = match &self.resources {
            Some(path) => read(path)?,
            None => self.given(),
        };
        let update = container::Update {
            resources,
            l3_cache_schema: text(self.l3_cache_schema),
            mem_bw_schema: text(self.mem_bw_schema),
        };
        container::update(&context.store, &self.id, &update)?;
        Ok(0)
    }
}

impl Update {
    /// The resources that the flags name; a group without any is absent.
    fn given(&self) -> LinuxResources {
        let mut memory = LinuxMemory::default();
        memory
            .set_limit(given(self.memory))
            .set_reservation(given(self.memory_reservation))
            .set_swap(given(self.memory_swap));
        let mut cpu = LinuxCpu::default();
        cpu.set_shares(given(self.cpu_share))
            .set_quota(given(self.cpu_quota))
            .set_idle(given(self.cpu_idle))
            .set_burst(given(self.cpu_burst))
            .set_period(given(self.cpu_period))
            .set_realtime_runtime(given(self.cpu_rt_runtime))
            .set_realtime_period(given(self.cpu_rt_period))
            .set_cpus(text(self.cpuset_cpus.clone()))
            .set_mems(text(self.cpuset_mems.clone()));
        let mut block_io = LinuxBlockIo::default();
        block_io.set_weight(self.blkio_weight);
        let pids = self.pids_limit.map(|limit| {
            let mut pids = LinuxPids::default();
            pids.set_limit(limit);
            pids
        });
        let mut resources = LinuxResources::default();
        // Without this, a device list that nobody named would be set to the crate's default.
        resources.set_devices(None);
        resources
            .set_memory((memory != LinuxMemory::default()).then_some(memory))
            .set_cpu((cpu != LinuxCpu::default()).then_some(cpu))
            .set_block_io((block_io != LinuxBlockIo::default()).then_some(block_io))
            .set_pids(pids);
        resources
    }
}

/// The resources that a file describes.
fn read(path: &Path) -> Result<LinuxResources> {
    let (name, bytes) = if path == Path::new("-") {
        let bytes = read_all(std::io::stdin().lock()).doing(|| "read the resources from standard input")?;
        ("standard input".to_owned(), bytes)
    } else {
        let name = path.display().to_string();
        let bytes =
            File::open(path).and_then(read_all).doing(|| format!("read the resources from {name}"))?;
        (name, bytes)
    };
    container::resources_from_json(&bytes)
        .map_err(|error| Error::new(Kind::Config, format!("read the resources from {name}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_flag_names_is_absent() {
        let resources = Update::default().given();
        assert_eq!(serde_json::to_value(&resources).unwrap(), serde_json::json!({}));
    }

    #[test]
    fn an_empty_flag_is_as_none() {
        let update = Update {
            memory: Some(amount("").unwrap()),
            cpu_quota: Some(number("").unwrap()),
            ..Update::default()
        };
        assert_eq!(serde_json::to_value(update.given()).unwrap(), serde_json::json!({}));
        assert_eq!(number("5"), Ok(OrEmpty(Some(5))));
        assert!(number::<u64>("-1").is_err() && amount("5q").is_err());
    }

    #[test]
    fn each_flag_reaches_its_resource() {
        let update = Update {
            memory: Some(OrEmpty(Some(1))),
            memory_reservation: Some(OrEmpty(Some(2))),
            memory_swap: Some(OrEmpty(Some(-1))),
            cpu_share: Some(OrEmpty(Some(4))),
            cpu_quota: Some(OrEmpty(Some(5))),
            cpu_period: Some(OrEmpty(Some(6))),
            cpu_burst: Some(OrEmpty(Some(7))),
            cpu_idle: Some(OrEmpty(Some(1))),
            cpu_rt_period: Some(OrEmpty(Some(8))),
            cpu_rt_runtime: Some(OrEmpty(Some(9))),
            cpuset_cpus: Some("0-1".into()),
            cpuset_mems: Some("0".into()),
            blkio_weight: Some(10),
            pids_limit: Some(11),
            ..Update::default()
        };
        assert_eq!(
            serde_json::to_value(update.given()).unwrap(),
            serde_json::json!({
                "memory": {"limit": 1, "reservation": 2, "swap": -1},
                "cpu": {"shares": 4, "quota": 5, "period": 6, "burst": 7, "idle": 1, "realtimePeriod": 8,
                        "realtimeRuntime": 9, "cpus": "0-1", "mems": "0"},
                "blockIO": {"weight": 10},
                "pids": {"limit": 11},
            })
        );
    }
}
