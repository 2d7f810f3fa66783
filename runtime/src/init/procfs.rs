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

use super::filesystem::expect_procfs;
use crate::error::{Doing, Result};

/// Opens the host's /proc and makes sure that it is one.
pub fn open_host() -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let proc = rustix::fs::openat(CWD, "/proc", flags, Mode::empty()).doing(|| "open /proc")?;
    expect_procfs(&proc)?;
    Ok(proc)
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
