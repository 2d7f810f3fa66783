//! The root filesystem of a container: the mounts that Create brings, made in their order.
//!
//! It owns every type that containerd sends: overlays, bind mounts, images behind loop devices, filesystems in user
//! space, and any other that the kernel knows; with mapped ids where that is asked for. It promises that a mount is made
//! whole before anybody sees it, where the kernel allows that, and that after a failure none stays.

mod image;
mod overlay;
mod wanted;

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::process::{Command, Stdio};

use coracle::bundle::Bind;
use coracle::container::id_map_namespace;
use coracle::error::{Doing, Error, Kind, Result};
use coracle::init::filesystem::{Context, LONGEST_VALUE};
use coracle::init::{attach, map_ids};
use coracle::plan::mounts::bind_attributes;
use coracle::sys::mount::{Attributes, set_attributes};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxFlags, openat, openat2, statx};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, OpenTreeFlags, UnmountFlags, open_tree, unmount as unmount_one,
};

use crate::proto::types::Mount;
use crate::reaper::Reaper;
use crate::worker::{self, Streams};
use image::LoopDevice;
pub use overlay::Way;
use wanted::Wanted;

/// Makes the mounts on `target`, which is made where it isn't there. Mounting may take long (a network filesystem), so a
/// worker does it.
pub(crate) async fn mount(reaper: &Reaper, mounts: &[Mount], target: &Path) -> Result<()> {
    if mounts.is_empty() {
        return Ok(());
    }
    let job = || mount_here(mounts, target, Way::Descriptors).map(|()| ((), None));
    worker::run(reaper, Streams::default(), job).await.map(drop)
}

/// Takes away what [`mount`] has made. What can't be done is logged.
pub(crate) async fn unmount(reaper: &Reaper, mounts: &[Mount], target: &Path) {
    if !mounts.is_empty() {
        unmount_all(reaper, target).await;
    }
}

/// Takes away every mount on `target`, and those below. What can't be done is logged.
pub(crate) async fn unmount_all(reaper: &Reaper, target: &Path) {
    // The usual answer of a bundle whose mounts containerd made itself, without a worker.
    if !is_mounted(target) {
        return;
    }
    let job = || unmount_here(target).map(|()| ((), None));
    if let Err(error) = worker::run(reaper, Streams::default(), job).await {
        log::warn!("{error}");
    }
}

/// Makes the mounts, in this process, which must have one thread and is to end soon: descriptors are left open. `way`
/// is the newest way to be used for overlays.
pub fn mount_here(mounts: &[Mount], target: &Path, way: Way) -> Result<()> {
    let wanted = mounts
        .iter()
        .enumerate()
        .map(|(index, mount)| wanted::parse(index, mount))
        .collect::<Result<Vec<_>>>()?;
    match std::fs::DirBuilder::new().mode(0o711).create(target) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(error).doing(|| format!("make the directory {}", target.display()));
        }
        _ => {}
    }
    for (index, mount) in wanted.iter().enumerate() {
        let made = make(mount, target, way).map_err(|error| {
            let what = format!("rootfs[{index}], {} {}", mount.fstype, mount.source);
            error.while_doing(format_args!("mount {what} on {}", target.display()))
        });
        if let Err(error) = made {
            for done in wanted.iter().take(index).rev() {
                undo(done, target);
            }
            return Err(error);
        }
    }
    Ok(())
}

/// Takes one mount away again.
fn undo(mount: &Wanted, target: &Path) {
    let undone = place(mount, target)
        .and_then(|place| unmount_one(by_descriptor(&place), UnmountFlags::DETACH).doing(|| "unmount it"));
    if let Err(error) = undone {
        log::warn!("take the mount of {} on {} away: {error}", mount.source, target.display());
    }
}

/// Takes every mount on `target` away, in this process. One that is in use goes when it isn't any more.
pub fn unmount_here(target: &Path) -> Result<()> {
    loop {
        let unmounted = match unmount_one(target, UnmountFlags::NOFOLLOW) {
            Err(Errno::BUSY) => unmount_one(target, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH),
            unmounted => unmounted,
        };
        match unmounted {
            Ok(()) => {}
            // Nothing is mounted there any more.
            Err(Errno::INVAL | Errno::NOENT | Errno::NOTDIR) => return Ok(()),
            Err(errno) => return Err(Error::os(errno, format!("unmount {}", target.display()))),
        }
    }
}

/// Whether something is mounted on the path.
fn is_mounted(path: &Path) -> bool {
    /// `STATX_ATTR_MOUNT_ROOT`.
    const MOUNT_ROOT: u64 = 0x2000;
    match statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT, StatxFlags::empty()) {
        Ok(found) => found.stx_attributes.bits() & MOUNT_ROOT != 0,
        // A filesystem whose server has gone can't be looked at, but unmounted.
        Err(errno) => !matches!(errno, Errno::NOENT | Errno::NOTDIR),
    }
}

/// Where a mount goes: as the container would see its path, with all that was mounted before.
fn place(mount: &Wanted, target: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let root = openat(CWD, target, flags | OFlags::NOFOLLOW | OFlags::DIRECTORY, Mode::empty())
        .doing(|| format!("open {}", target.display()))?;
    if mount.target.is_empty() {
        return Ok(root);
    }
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    openat2(&root, mount.target.as_str(), flags, Mode::empty(), resolve)
        .doing(|| format!("open {} in the root filesystem", mount.target))
}

fn by_descriptor(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

fn make(mount: &Wanted, target: &Path, way: Way) -> Result<()> {
    let place = place(mount, target)?;
    if let Some((helper, fstype)) = mount.helper() {
        return run_helper(helper, fstype, mount, &place);
    }
    if mount.options.remount {
        let data = mount.options.data.join(",");
        let data = std::ffi::CString::new(data).map_err(|_| nul())?;
        return rustix::mount::mount_remount(by_descriptor(&place), mount.options.set, data.as_c_str())
            .doing(|| "change the mount");
    }
    if mount.is_bind() {
        return bind(mount, &place);
    }
    let device = match mount.image {
        Some(image) => {
            let read_only = mount.options.set.contains(MountFlags::RDONLY);
            Some(LoopDevice::over(&mount.source, read_only, image.direct_io)?)
        }
        None => None,
    };
    let source = device.as_ref().map_or(mount.source.as_str(), |device| device.path.as_str());
    let new = mount.filesystem(source);
    if mount.fstype == "overlay" {
        overlay::mount(new, mount.maps.as_ref(), mount.options.set, &place, way)?;
    } else if new
        .options
        .iter()
        .any(|(_, value)| value.as_ref().is_some_and(|value| value.len() > LONGEST_VALUE))
    {
        if mount.maps.is_some() {
            return Err(Error::new(Kind::Unsupported, "an option is too long for a mount with mapped ids")
                .hint(format!("fsconfig(2) takes {LONGEST_VALUE} bytes")));
        }
        let data = std::ffi::CString::new(mount.options.data.join(",")).map_err(|_| nul())?;
        let (fstype, flags) = (mount.fstype.as_str(), mount.options.set);
        rustix::mount::mount(source, by_descriptor(&place), fstype, flags, Some(data.as_c_str()))
            .doing(|| format!("mount {fstype}"))?;
    } else {
        let context = Context::open(&new.fstype)?;
        context.configure(&new)?;
        let tree = context.mount(new.attributes)?;
        if let Some(maps) = &mount.maps {
            map_ids(&tree, &id_map_namespace(maps)?, false)?;
        }
        attach(tree, &place)?;
    }
    // What was mounted lies over the place that was opened before.
    finish(mount, &self::place(mount, target)?)
}

fn nul() -> Error {
    Error::new(Kind::Config, "an option has a NUL byte in it")
}

fn bind(mount: &Wanted, place: &OwnedFd) -> Result<()> {
    let recursive = mount.options.bind == Bind::Recursive;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let flags = if recursive { flags | OpenTreeFlags::AT_RECURSIVE } else { flags };
    let tree = open_tree(CWD, mount.source.as_str(), flags)
        .doing(|| format!("open the source {}", mount.source))
        .map_err(|error| match error.errno() {
            Some(Errno::NOENT) => error.hint("the source of a bind mount must exist"),
            _ => error,
        })?;
    if let Some(maps) = &mount.maps {
        map_ids(&tree, &id_map_namespace(maps)?, recursive)?;
    }
    change(&tree, bind_attributes(&mount.options), false)?;
    finish(mount, &tree)?;
    attach(tree, place)
}

/// What comes last: attributes of all mounts below, and propagation.
fn finish(mount: &Wanted, tree: &OwnedFd) -> Result<()> {
    if let Some(recursive) = mount.options.recursive {
        let change_all = Attributes { set: recursive.set, clear: recursive.clear, propagation: 0 };
        change(tree, change_all, true)?;
    }
    for propagation in &mount.options.propagation {
        let kind = u64::from((*propagation - MountPropagationFlags::REC).bits());
        let wanted = Attributes { propagation: kind, ..Attributes::default() };
        change(tree, wanted, propagation.contains(MountPropagationFlags::REC))?;
    }
    Ok(())
}

fn change(tree: &OwnedFd, wanted: Attributes, recursive: bool) -> Result<()> {
    if wanted == Attributes::default() {
        return Ok(());
    }
    set_attributes(tree, wanted, recursive).doing(|| "set the attributes of the mount")
}

/// mount.fuse(8) and its like, which stay behind as servers of the filesystem.
fn run_helper(helper: &str, fstype: &str, mount: &Wanted, place: &OwnedFd) -> Result<()> {
    // The server opens nothing below this process: the place is told by its real name.
    let target = std::fs::read_link(by_descriptor(place)).doing(|| "find the name of the target")?;
    let mut command = Command::new(helper);
    command.arg(&mount.source).arg(&target).stdin(Stdio::null());
    for option in &mount.raw {
        command.args(["-o", option]);
    }
    let output = command.args(["-t", fstype]).output().map_err(|error| {
        let told = Error::new(Kind::System, format!("run {helper}: {error}"));
        if error.kind() == std::io::ErrorKind::NotFound {
            told.hint("install it (package fuse3)")
        } else {
            told
        }
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::new(Kind::System, format!("{helper} failed ({}): {}", output.status, said.trim())))
}
