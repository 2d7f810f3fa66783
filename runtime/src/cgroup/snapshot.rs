//! What files of a cgroup held, to put it back.
//!
//! It owns which values, written, make a file say again what it said: a file of one value takes that value; one with a
//! line for each device takes lines, and a device that had none is told so in the words of that file. Sources: kernel
//! cgroup-v2.rst and the cgroup-v1 documents.

use super::apply;
use super::file::CgroupDir;
use super::plan::Write;
use crate::error::Result;

/// The files that systemd writes when a property of the unit changes, in both versions.
const WRITTEN_BY_SYSTEMD: [&str; 22] = [
    "memory.min",
    "memory.low",
    "memory.high",
    "memory.max",
    "memory.swap.max",
    "memory.zswap.max",
    "memory.zswap.writeback",
    "memory.oom.group",
    "cpu.idle",
    "cpu.weight",
    "cpu.max",
    "cpuset.cpus",
    "cpuset.mems",
    "io.bfq.weight",
    "io.weight",
    "io.max",
    "io.latency",
    "pids.max",
    "memory.limit_in_bytes",
    "cpu.shares",
    "cpu.cfs_period_us",
    "cpu.cfs_quota_us",
];

/// Files of one cgroup and their contents.
#[derive(Debug)]
pub struct Snapshot(Vec<(String, String)>);

impl Snapshot {
    /// Of every file that `writes` go to. One that can't be read can't be put back either.
    pub fn before(dir: &CgroupDir, writes: &[Write]) -> Snapshot {
        let otherwise = |write: &Write| write.otherwise.as_ref().map(|(file, _)| file.clone());
        let mut files: Vec<String> =
            writes.iter().flat_map(|write| [Some(write.file.clone()), otherwise(write)]).flatten().collect();
        files.sort();
        files.dedup();
        Snapshot::read(dir, files)
    }

    /// Of the files that systemd writes beside those it was told of.
    pub fn of_systemd(dir: &CgroupDir) -> Snapshot {
        Snapshot::read(dir, WRITTEN_BY_SYSTEMD.map(str::to_owned))
    }

    fn read(dir: &CgroupDir, files: impl IntoIterator<Item = String>) -> Snapshot {
        let read = |file: String| dir.read_if_there(&file).ok().flatten().map(|content| (file, content));
        Snapshot(files.into_iter().filter_map(read).collect())
    }

    /// Files and contents, as `linux.resources.unified` would have them.
    pub fn files(&self) -> impl Iterator<Item = (String, String)> + '_ {
        self.0.iter().map(|(file, content)| (file.clone(), content.trim_end().to_owned()))
    }

    /// Writes what has changed since, back to what it was.
    pub fn put_back(&self, dir: &CgroupDir) -> Result<()> {
        let mut writes = Vec::new();
        for (file, before) in &self.0 {
            let now = dir.read_if_there(file)?.unwrap_or_default();
            writes.extend(back(file, before, &now).into_iter().map(|value| Write::new("", file, value, "")));
        }
        apply::apply(dir, &writes, true)
    }
}

/// The values that, written in this order, turn a file that says `now` into one that says `before`.
fn back(file: &str, before: &str, now: &str) -> Vec<String> {
    if before == now {
        return Vec::new();
    }
    if file == "memory.oom_control" {
        let disabled = before.lines().find_map(|line| line.strip_prefix("oom_kill_disable "));
        return disabled.map(str::to_owned).into_iter().collect();
    }
    let Some(none) = none_of_a_device(file) else {
        let value = before.trim_end();
        return match (value.is_empty(), value.contains('\n')) {
            (true, _) => vec!["\n".to_owned()],
            (false, false) => vec![value.to_owned()],
            // Nothing that is set is told in several lines without keys.
            (false, true) => Vec::new(),
        };
    };
    let key = |line: &str| line.split_whitespace().next().unwrap_or_default().to_owned();
    let known: Vec<String> = before.lines().map(key).collect();
    let gone = now.lines().map(key).filter(|key| !known.contains(key)).map(|key| format!("{key} {none}"));
    let changed = before.lines().filter(|line| !now.lines().any(|other| other == *line)).map(str::to_owned);
    gone.chain(changed).collect()
}

/// For a file with a line for each device (or network interface, or resource): what is written of one to have no line.
fn none_of_a_device(file: &str) -> Option<&'static str> {
    match file {
        "io.max" => Some("rbps=max wbps=max riops=max wiops=max"),
        "io.weight" | "io.bfq.weight" => Some("default"),
        "io.latency" => Some("target=0"),
        "net_prio.ifpriomap" => Some("0"),
        "rdma.max" | "misc.max" | "dmem.max" | "dmem.low" | "dmem.min" => Some("max"),
        file if file.starts_with("blkio.") && file.ends_with("_device") => Some("0"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_one_value_gets_it_back() {
        assert_eq!(back("memory.max", "max\n", "4096\n"), ["max"]);
        assert_eq!(back("cpu.max", "max 100000\n", "5000 100000\n"), ["max 100000"]);
        assert_eq!(back("cpuset.cpus", "\n", "0-1\n"), ["\n"]);
        assert!(back("pids.max", "5\n", "5\n").is_empty());
        assert_eq!(
            back("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\n", "oom_kill_disable 1\n"),
            ["0"]
        );
    }

    #[test]
    fn a_file_of_devices_gets_the_lines_that_changed_and_loses_the_new_ones() {
        assert_eq!(
            back(
                "io.max",
                "8:0 rbps=1 wbps=max riops=max wiops=max\n8:32 rbps=7 wbps=max riops=max wiops=max\n",
                "8:0 rbps=2 wbps=max riops=max wiops=max\n8:16 rbps=max wbps=3 riops=max wiops=max\n8:32 rbps=7 wbps=max riops=max wiops=max\n"
            ),
            ["8:16 rbps=max wbps=max riops=max wiops=max", "8:0 rbps=1 wbps=max riops=max wiops=max"]
        );
        assert_eq!(
            back("io.weight", "default 100\n", "default 500\n8:0 50\n"),
            ["8:0 default", "default 100"]
        );
        assert_eq!(back("blkio.throttle.read_bps_device", "", "8:0 9\n"), ["8:0 0"]);
    }
}
