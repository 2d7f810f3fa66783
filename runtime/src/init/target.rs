//! What is mounted on: resolved to a descriptor, and checked so that no mount fools the runtime or the container's processes.

use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat, readlinkat};
use rustix::io::Errno;

use super::fd::Fd;
use super::filesystem;
use super::root::{Make, Root, is_same};
use crate::error::{Doing, Error, Kind, Result};
use crate::plan::step::{Mount, What};

/// What of procfs may be mounted over, below the mount's root. Other files would change what the runtime or the
/// container's processes believe about themselves (CVE-2019-16884, CVE-2019-19921).
const PROC_OVERLAYS: [&str; 11] = [
    "cpuinfo",
    "diskstats",
    "meminfo",
    "stat",
    "swaps",
    "uptime",
    "loadavg",
    "slabinfo",
    "sys/kernel/ns_last_pid",
    "sys/crypto/fips_enabled",
    "net/dev",
];

/// proc and sysfs must stand where they seem to: a link there would move them, and what is masked later with them.
fn must_not_follow(what: &What) -> Option<&str> {
    match what {
        What::New(new) if matches!(new.fstype.as_str(), "proc" | "sysfs") => Some(&new.fstype),
        _ => None,
    }
}

/// Resolves, and makes where missing, what is mounted on, and refuses targets that would fool the runtime. What is mounted
/// may be a whole procfs.
pub fn open_target(mount: &Mount, root: &Root, make: Make, is_proc: bool) -> Result<Fd> {
    let opened = match must_not_follow(&mount.what) {
        Some(fstype) => match root.open_or_make_without_links(&mount.target) {
            Err(Errno::LOOP) => {
                return Err(Error::new(
                    Kind::Config,
                    format!(
                        "filesystem \"{fstype}\" must be mounted on ordinary directory: {} is, or lies behind, a symbolic link",
                        mount.target.display()
                    ),
                ));
            }
            opened => opened,
        },
        None => root.open_or_make(&mount.target, make),
    };
    let target = opened
        .doing(|| format!("open the target {} in the rootfs", mount.target.display()))
        .map_err(|error| match error.errno() {
            Some(Errno::ROFS) => error
                .hint("the target doesn't exist and the filesystem there is read-only: make it in the image"),
            Some(Errno::LOOP) => {
                error.hint("the path has a loop of symbolic links, or a magic link of procfs")
            }
            _ => error,
        })?;
    if root.is(&target) && root.open_without_links(&mount.target).is_err() {
        return Err(Error::new(
            Kind::Config,
            format!(
                "{} leads to the root of the container, which can't be mounted on",
                mount.target.display()
            ),
        )
        .hint("a symbolic link of the image leads there: mount on another path"));
    }
    if filesystem::is_procfs(&target).doing(|| "look at the target's filesystem")? {
        check_proc_overlay(&target, root, is_proc)?;
    } else {
        check_proc_place(mount, &target, root, is_proc)?;
    }
    Ok(target)
}

/// While no procfs is mounted, /proc of the rootfs is a directory like any other; but what is mounted there is what the
/// container's processes, and the runtime's own checks, take for procfs (CVE-2019-16884).
fn check_proc_place(mount: &Mount, target: &Fd, root: &Root, is_proc: bool) -> Result<()> {
    let is_bind = matches!(mount.what, What::Bind { .. });
    let place = Path::new("/proc");
    let inside = mount.target.strip_prefix(place).ok().map(|inside| inside.to_string_lossy().into_owned());
    let is_place = match &inside {
        Some(inside) => inside.is_empty(),
        // A link may lead there.
        None => is_bind && root.open(place).is_ok_and(|proc| is_same(&proc, target)),
    };
    let refused = match &inside {
        _ if is_place => !is_proc,
        Some(inside) => !PROC_OVERLAYS.contains(&inside.as_str()),
        None => false,
    };
    if !refused {
        return Ok(());
    }
    let why = if is_place { "because it is not of type proc" } else { "because it is inside /proc" };
    Err(Error::new(Kind::Config, format!("{} cannot be mounted {why}", mount.target.display()))
        .hint("only a procfs, or a bind mount of one, may stand on /proc"))
}

/// Only a list of files of procfs may be mounted over, and its root only by another procfs. A procfs that stands elsewhere
/// than at /proc is a directory like any other.
fn check_proc_overlay(target: &Fd, root: &Root, is_proc: bool) -> Result<()> {
    let links =
        openat(CWD, "/proc/self/fd", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .doing(|| "open /proc/self/fd")?;
    let path_of = |fd: &Fd| {
        let number = fd.as_fd().as_raw_fd().to_string();
        let path = readlinkat(&links, number, Vec::new()).doing(|| "find where the target lies in procfs")?;
        Ok(PathBuf::from(OsString::from_vec(path.into_bytes())))
    };
    let proc = match root.open(Path::new("/proc")) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        found => found.doing(|| "open /proc of the rootfs")?,
    };
    let path = path_of(target)?;
    let allowed = match path.strip_prefix(path_of(&proc)?) {
        Ok(inside) if inside.as_os_str().is_empty() => is_proc,
        Ok(inside) => PROC_OVERLAYS.iter().any(|overlay| inside == Path::new(overlay)),
        Err(_) => true,
    };
    if allowed {
        return Ok(());
    }
    let path = path.display();
    Err(Error::new(Kind::Config, format!("{path} lies inside procfs and cannot be mounted over")).hint(
        "a mount there could make the runtime or the container's processes read false facts about themselves",
    ))
}
