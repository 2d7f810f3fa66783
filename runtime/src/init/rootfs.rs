//! Entering the rootfs: from the host's mount tree to the container's.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxAttributes, StatxFlags, openat2, statx};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, OpenTreeFlags, UnmountFlags, mount_change, open_tree, unmount};

use super::mounts::attach;
use super::root::Root;
use crate::error::{Doing, Error, Kind, Result};
use crate::plan::step::Propagation;
use crate::sys::mount::{Attributes, pivot_root, set_attributes};

/// Changes the propagation of every mount of this namespace, before anything is mounted in it.
pub fn set_tree_propagation(propagation: Propagation) -> Result<()> {
    let kind = MountPropagationFlags::from_bits_retain(propagation.kind as u32);
    let flags = if propagation.recursive { kind | MountPropagationFlags::REC } else { kind };
    mount_change("/", flags).doing(|| format!("make the mounts {propagation}"))
}

/// A copy of the rootfs, and where it is attached to be a mount of its own, as pivot_root(2) wants it.
pub struct Place {
    /// The rootfs and what is mounted below it, as a detached mount.
    pub tree: OwnedFd,
    /// The directory of the rootfs.
    pub directory: OwnedFd,
}

impl Place {
    /// Opens the rootfs. In a mount namespace that somebody else made no magic link of procfs is followed: with the
    /// host's power it could lead anywhere on the host.
    pub fn open(path: &Path, private_parent: bool, is_foreign: bool) -> Result<Self> {
        if private_parent {
            make_parent_private(path)?;
        }
        let resolve = if is_foreign { ResolveFlags::NO_MAGICLINKS } else { ResolveFlags::empty() };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let doing = || format!("open the rootfs {}", path.display());
        let directory =
            openat2(CWD, path, flags, Mode::empty(), resolve).doing(doing).map_err(explain_link)?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_RECURSIVE
            | OpenTreeFlags::AT_EMPTY_PATH;
        let tree =
            open_tree(&directory, "", flags).doing(|| format!("bind the rootfs {}", path.display()))?;
        Ok(Self { tree, directory })
    }

    /// Attaches the rootfs. It stands at its path on the host, so that hooks which enter this mount namespace find the
    /// host's tree, until it is pivoted to.
    pub fn attach(self) -> Result<Root> {
        attach(&self.tree, &self.directory)?;
        Ok(Root::new(self.tree))
    }
}

/// What it means that a path has a loop of links, or led over a magic link.
pub fn explain_link(error: Error) -> Error {
    match error.errno() {
        Some(Errno::LOOP) => error.hint(
            "the path has a loop of links, or a magic link of procfs, which isn't followed in a mount namespace that is joined",
        ),
        _ => error,
    }
}

/// Opens the rootfs where it is, in the host's tree.
pub fn open(path: &Path) -> Result<Root> {
    open_directory(path).map(Root::on_host)
}

fn open_directory(path: &Path) -> Result<OwnedFd> {
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .doing(|| format!("open the rootfs {}", path.display()))
}

/// pivot_root(2) refuses a new root whose parent mount is shared: finds that mount, by walking up to the first
/// directory that is a mount's root, and makes it private.
fn make_parent_private(path: &Path) -> Result<()> {
    let mut path: PathBuf = path.to_owned();
    loop {
        let directory = open_directory(&path)?;
        let info = statx(&directory, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)
            .doing(|| format!("find the mount of {}", path.display()))?;
        let known = info.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT);
        if known && info.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) || path == Path::new("/") {
            let private = Attributes { propagation: libc::MS_PRIVATE, ..Attributes::default() };
            return set_attributes(&directory, private, false)
                .doing(|| format!("make the mount {} private", path.display()));
        }
        if !path.pop() {
            return Err(Error::new(Kind::System, "the rootfs lies on no mount"));
        }
    }
}

/// Makes the rootfs the root of this namespace. The old root is put on top of the new one and detached from
/// there, so no directory is needed for it: pivot_root(2), "pivot_root(\".\", \".\")".
pub fn pivot(root: &Root) -> Result<()> {
    let old = open_directory(Path::new("/"))?;
    rustix::process::fchdir(root).doing(|| "change to the rootfs")?;
    pivot_root(c".", c".")
        .doing(|| "pivot_root into the rootfs")
        .map_err(|error| error.hint("where the rootfs lies on the initial ramfs, use --no-pivot"))?;
    // The old root lies on top of the new one now, so "." from inside it is the one to detach. It may hold mounts
    // that propagate: the detaching must not reach the host.
    rustix::process::fchdir(&old).doing(|| "change to the old root")?;
    mount_change(".", MountPropagationFlags::REC | MountPropagationFlags::DOWNSTREAM)
        .doing(|| "make the old root a slave")?;
    unmount(".", UnmountFlags::DETACH).doing(|| "detach the old root")?;
    rustix::process::chdir("/").doing(|| "change to the new root")
}

/// Moves the rootfs over the root and changes the root: for a rootfs on the initial ramfs, which can't be pivoted
/// away from.
pub fn move_over_root(root: &Root) -> Result<()> {
    rustix::process::fchdir(root).doing(|| "change to the rootfs")?;
    rustix::mount::mount_move(".", "/").doing(|| "move the rootfs over the root")?;
    chroot_here()
}

/// chroot(2) into the rootfs.
pub fn chroot(root: &Root) -> Result<()> {
    rustix::process::fchdir(root).doing(|| "change to the rootfs")?;
    chroot_here()
}

fn chroot_here() -> Result<()> {
    rustix::process::chroot(".").doing(|| "chroot into the rootfs")?;
    rustix::process::chdir("/").doing(|| "change to the new root")
}

/// The root as it is seen after the root was changed.
pub fn reopen() -> Result<Root> {
    openat2(
        CWD,
        "/",
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::empty(),
    )
    .map(Root::new)
    .doing(|| "open the new root")
}

/// Sets the propagation of the container's root mount.
pub fn set_root_propagation(root: &Root, propagation: Propagation) -> Result<()> {
    let change = Attributes { propagation: propagation.kind, ..Attributes::default() };
    set_attributes(root, change, propagation.recursive).doing(|| format!("make the root mount {propagation}"))
}
