//! What stays of the host's tree below a root that was moved over it.
//!
//! A user namespace may mount a new procfs or sysfs wherever its mount namespace has a full view of one
//! (mount_namespaces(7), "mount_too_revealing" of the kernel): one that stays in the host's tree would make void what is
//! masked in the container. So those outside of the rootfs are taken away, or covered where they may not be.

use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxFlags, openat2, statx};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

use super::mounts::attach;
use super::root::Root;
use super::{filesystem, procfs};
use crate::error::{Doing, Result};
use crate::mountinfo::{self, Mount};
use crate::plan::step::NewFilesystem;
use crate::sys::mount::{Attributes, set_attributes};

/// Takes every full view of procfs and sysfs outside of the rootfs out of this mount namespace.
pub fn take_views_away(proc: &OwnedFd, root: &Root) -> Result<()> {
    let table = procfs::read(proc, "self/mountinfo")?;
    let mounts = mountinfo::parse(&table);
    let rootfs = mount_of(root).doing(|| "find the mount of the rootfs")?;
    // What stands on another comes after it, and must go before it.
    for view in views(&mounts, rootfs).into_iter().rev() {
        let path = view.target.display();
        let Some(mounted) = open(view).doing(|| format!("open {path} of the old root"))? else { continue };
        // Nothing of this may reach the host.
        if let Some(parent) = mounts.iter().find(|mount| mount.id == view.parent)
            && let Some(parent) = open(parent).doing(|| format!("open the mount below {path}"))?
        {
            enslave(&parent, false).doing(|| format!("make the mount below {path} a slave"))?;
        }
        enslave(&mounted, true).doing(|| format!("make {path} of the old root a slave"))?;
        rustix::process::fchdir(&mounted).doing(|| format!("change to {path}"))?;
        match unmount(".", UnmountFlags::DETACH) {
            // It is locked, since it came from the user namespace above.
            Err(Errno::INVAL | Errno::PERM) => cover(&mounted)
                .map_err(|error| error.while_doing(format_args!("cover {path} of the old root")))?,
            unmounted => unmounted.doing(|| format!("unmount {path} of the old root"))?,
        }
    }
    Ok(())
}

/// Full mounts of procfs and sysfs that are not in the tree of the rootfs.
fn views(mounts: &[Mount], rootfs: u64) -> Vec<&Mount> {
    let mut inside = HashSet::from([rootfs]);
    // A mount may stand in the table before the one that it stands on, where that was moved.
    while mounts.iter().any(|mount| inside.contains(&mount.parent) && inside.insert(mount.id)) {}
    mounts
        .iter()
        .filter(|mount| mount.is_whole && matches!(mount.fstype.as_str(), "proc" | "sysfs"))
        .filter(|mount| !inside.contains(&mount.id))
        .collect()
}

/// Opens a mount's root; nothing where something else covers it.
fn open(mount: &Mount) -> Result<Option<OwnedFd>, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_SYMLINKS;
    match openat2(CWD, &mount.target, flags, Mode::empty(), resolve) {
        Ok(found) if mount_of(&found)? == mount.id => Ok(Some(found)),
        Ok(_) | Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn mount_of(fd: impl AsFd) -> Result<u64, Errno> {
    statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).map(|info| info.stx_mnt_id)
}

fn enslave(mount: &OwnedFd, recursive: bool) -> Result<(), Errno> {
    let slave = Attributes { propagation: libc::MS_SLAVE, ..Attributes::default() };
    set_attributes(mount, slave, recursive)
}

fn cover(mounted: &OwnedFd) -> Result<()> {
    let empty = filesystem::make(&NewFilesystem {
        fstype: "tmpfs".to_owned(),
        source: "tmpfs".to_owned(),
        options: Vec::new(),
        attributes: 0,
    })?;
    attach(&empty, mounted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_is_a_full_mount_outside_of_the_rootfs() {
        let mounts = mountinfo::parse(
            "1 0 8:1 / / rw - ext4 a rw\n2 1 0:2 / /proc rw - proc proc rw\n3 2 0:2 /sys /proc/sys ro - proc proc rw\n\
             4 1 8:1 /r /r rw - ext4 a rw\n5 6 0:3 / /r/a/proc rw - proc proc rw\n6 4 0:4 / /r/a rw - tmpfs t rw\n\
             7 1 0:5 / /sys ro - sysfs sysfs rw\n",
        );
        let found: Vec<_> = views(&mounts, 4).iter().map(|mount| mount.id).collect();
        assert_eq!(found, [2, 7]);
    }
}
