//! Writes to procfs.
//!
//! The directory was opened by the host side, on the host's procfs, before anything of the container could be
//! mounted; a file is resolved below it without crossing a mount and without magic links, so that what is
//! written is what is meant (CVE-2019-19921, CVE-2025-52881).

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};

use super::filesystem::{self, expect_procfs};
use crate::error::{Doing, Error, Kind, Result};
use crate::plan::step::{Action, Step};

/// Opens the host's /proc and makes sure that it is one.
pub fn open_host() -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let proc = rustix::fs::openat(CWD, "/proc", flags, Mode::empty()).doing(|| "open /proc")?;
    expect_procfs(&proc)?;
    Ok(proc)
}

/// As [`open_host`], for a container with these steps. Where the host has mounts over the sysctls that they write, as in
/// a container of LXC, it is the procfs below them.
pub fn open_host_for(steps: &[Step]) -> Result<OwnedFd> {
    let proc = open_host()?;
    let is_covered = steps.iter().any(|step| match &step.action {
        Action::Sysctl { file, .. } => {
            open(&proc, &Path::new("sys").join(file), OFlags::PATH).err() == Some(Errno::XDEV)
        }
        _ => false,
    });
    if !is_covered {
        return Ok(proc);
    }
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    // What is locked there can't be uncovered; then it takes a new procfs.
    open_tree(&proc, "", flags).or_else(|_| {
        filesystem::Context::open("proc")?.mount(0).and_then(|proc| {
            proc.into_owned().ok_or_else(|| Error::new(Kind::System, "the new procfs is gone"))
        })
    })
}

/// Opens a file below the host's /proc.
pub fn open(proc: impl AsFd, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
    openat2(proc, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
}

/// Reads a file below the host's /proc.
pub fn read(proc: impl AsFd, path: &str) -> Result<String> {
    let file = open(proc, Path::new(path), OFlags::RDONLY).doing(|| format!("open /proc/{path}"))?;
    let mut text = String::new();
    std::fs::File::from(file).read_to_string(&mut text).map(|_| text).doing(|| format!("read /proc/{path}"))
}

/// Writes `value` to a file below the host's /proc, in one write.
pub fn write(proc: impl AsFd, path: &str, value: &str) -> Result<()> {
    let file = open(proc, Path::new(path), OFlags::WRONLY | OFlags::NOFOLLOW)
        .doing(|| format!("open /proc/{path}"))
        .map_err(|error| match error.errno() {
            Some(Errno::XDEV) => error.hint("something is mounted over a part of /proc on the host"),
            _ => error,
        })?;
    rustix::io::write(&file, value.as_bytes()).doing(|| format!("write {value:?} to /proc/{path}")).map(drop)
}
