//! Writing planned values to a cgroup's files.
//!
//! It owns the order problem: a value that the kernel refuses only because another one is still the
//! old one (a memory limit above the swap limit, a quota below the burst) is written again after
//! the others, so no value has to be read first.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::file::{self, CgroupDir};
use super::plan::Write;
use crate::error::{Error, Kind, Result};

/// Writes in order; `existing` says whether the cgroup may hold other values than a new one.
pub fn apply(dir: &CgroupDir, writes: &[Write], existing: bool) -> Result<()> {
    let mut open = OpenFile::default();
    let mut refused: Vec<(&Write, Error)> = Vec::new();
    for write in writes.iter().filter(|write| existing || !write.only_if_existing) {
        match open.write(dir, write) {
            Err(error) if error.errno() == Some(Errno::INVAL) => refused.push((write, error)),
            result => result?,
        }
    }
    while !refused.is_empty() {
        let before = refused.len();
        let mut still = Vec::new();
        for (write, _) in refused {
            match open.write(dir, write) {
                Err(error) if error.errno() == Some(Errno::INVAL) => still.push((write, error)),
                result => result?,
            }
        }
        refused = still;
        if refused.len() == before {
            break;
        }
    }
    refused.into_iter().next().map_or(Ok(()), |(_, error)| Err(error))
}

/// The file written last stays open: device rules go to one file a dozen times.
#[derive(Default)]
struct OpenFile {
    name: String,
    fd: Option<OwnedFd>,
}

impl OpenFile {
    fn write(&mut self, dir: &CgroupDir, write: &Write) -> Result<()> {
        match self.write_to(dir, &write.file, &write.value) {
            Ok(()) => Ok(()),
            Err(Errno::NOENT) => match &write.otherwise {
                Some((file, value)) => {
                    self.write_to(dir, file, value).map_err(|errno| explain(dir, write, file, value, errno))
                }
                None if write.optional => Ok(()),
                None => Err(explain(dir, write, &write.file, &write.value, Errno::NOENT)),
            },
            Err(errno) => Err(explain(dir, write, &write.file, &write.value, errno)),
        }
    }

    fn write_to(&mut self, dir: &CgroupDir, name: &str, value: &str) -> Result<(), Errno> {
        let fd = match self.fd.take().filter(|_| self.name == name) {
            Some(fd) => fd,
            None => dir.open_file(name, OFlags::WRONLY)?,
        };
        name.clone_into(&mut self.name);
        file::write_once(self.fd.insert(fd).as_fd(), value)
    }
}

/// The error of a write, with what would help.
fn explain(dir: &CgroupDir, write: &Write, file: &str, value: &str, errno: Errno) -> Error {
    let error =
        if errno == Errno::NOENT { missing(dir, write, file) } else { dir.write_error(file, value, errno) };
    let error = if write.place.is_empty() { error } else { error.at(write.place.clone()) };
    match advice(dir, file, errno) {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

fn missing(dir: &CgroupDir, write: &Write, file: &str) -> Error {
    let path = dir.path().join(file);
    let enabled = dir.read_if_there("cgroup.controllers").ok().flatten();
    match enabled {
        Some(enabled) if !enabled.split_whitespace().any(|name| name == write.controller) => {
            let parent = dir.path().parent().unwrap_or(dir.path()).display();
            Error::new(
                Kind::System,
                format!(
                    "cannot write {}: the {} controller is not enabled there",
                    path.display(),
                    write.controller
                ),
            )
            .hint(format!(
                "it must be in {parent}/cgroup.controllers and in {parent}/cgroup.subtree_control; \
                 a cgroup that has processes of its own cannot enable it for its children"
            ))
        }
        _ => Error::new(Kind::System, format!("this kernel has no {}", path.display())),
    }
}

fn advice(dir: &CgroupDir, file: &str, errno: Errno) -> Option<String> {
    match (file, errno) {
        ("memory.limit_in_bytes" | "memory.memsw.limit_in_bytes", Errno::BUSY) => {
            let usage = dir.read_value("memory.usage_in_bytes").ok()?;
            Some(format!("the container uses {usage} bytes now, and the kernel could not take enough of them back"))
        }
        ("memory.memsw.limit_in_bytes", Errno::INVAL) => {
            Some("the limit on memory and swap together may not be below the memory limit".to_owned())
        }
        ("memory.limit_in_bytes", Errno::INVAL) => {
            Some("the memory limit may not be above the limit on memory and swap together".to_owned())
        }
        ("cpuset.cpus" | "cpuset.mems", Errno::ACCESS | Errno::INVAL | Errno::RANGE | Errno::NOSPC) => {
            Some("every CPU or node of the list must be online and be the parent cgroup's too".to_owned())
        }
        ("cpu.cfs_quota_us" | "cpu.cfs_period_us" | "cpu.max", Errno::INVAL) => Some(
            "periods are 1000 to 1000000 µs, quotas at least 1000 µs, and no cgroup may have a larger share than its parent"
                .to_owned(),
        ),
        ("cpu.cfs_burst_us" | "cpu.max.burst", Errno::INVAL) => {
            Some("the burst may not be above the quota".to_owned())
        }
        ("cpu.rt_runtime_us" | "cpu.rt_period_us", Errno::INVAL) => {
            Some("the parent cgroup must have as much realtime runtime to give".to_owned())
        }
        ("cpu.shares" | "cpu.weight", Errno::INVAL) => Some("unable to apply both a weight and cpu.idle: an idle cgroup takes no other weight".to_owned()),
        ("devices.allow" | "devices.deny", Errno::PERM) => {
            Some("the parent cgroup does not allow this device itself".to_owned())
        }
        ("net_prio.ifpriomap", Errno::NODEV) => Some("there is no such network interface on the host".to_owned()),
        (_, Errno::NODEV | Errno::NXIO) if file.starts_with("blkio.") || file.starts_with("io.") => {
            Some("there is no block device of that number; partitions cannot be throttled".to_owned())
        }
        (_, Errno::PERM | Errno::ACCESS) => Some("this user may not write there: is the cgroup delegated?".to_owned()),
        _ => None,
    }
}
