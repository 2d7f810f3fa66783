//! Executing mount steps (runtime-spec, config.md "Mounts").
//!
//! A mount is made detached, gets its attributes while nobody can see it, and is moved onto a target that was
//! resolved to a descriptor: there is no moment at which a mount stands with the wrong flags, and no path that
//! is resolved twice. Only the v1 cgroups, which are put together at their place, get theirs there; and the propagation
//! is set last, since what is moved below a shared mount becomes shared.

use std::ffi::CString;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{CWD, Mode, StatVfsMountFlags, mkdirat, readlinkat, symlinkat};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use super::channel::Channel;
use super::copy_up::copy_tree;
use super::fd::Fd;
use super::root::{Make, Root, is_directory};
use super::target::open_target;
use super::user::Supplies;
use super::{filesystem, host_mounts};
use crate::error::{Doing, Error, Kind, Result};
use crate::plan::mounts::classic_options;
use crate::plan::step::{CgroupHierarchy, Mount, NewFilesystem, What};
use crate::sys::mount::{Attributes, set_attributes};

/// Makes one mount inside the root. Gives the mount, where it has a descriptor.
pub fn execute(mount: &Mount, root: &Root, supplies: &mut Supplies, channel: &Channel) -> Result<Option<Fd>> {
    let mounted = match &mount.what {
        What::Bind { source, recursive } => {
            let tree = source_tree(mount, source, *recursive, supplies, channel)?;
            let make = if is_directory(&tree).doing(|| "look at the source")? {
                Make::Directory
            } else {
                Make::File
            };
            bind(tree, make, mount, root, channel)?
        }
        What::CgroupV2 { new, path } => match make_filesystem(mount, new, root, supplies, channel) {
            Ok(Some(mounted)) => mounted,
            Ok(None) => return Ok(None),
            Err(error) if matches!(error.errno(), Some(Errno::PERM | Errno::BUSY)) => {
                bind(clone_cgroup(path)?, Make::Directory, mount, root, channel)?
            }
            Err(error) => return Err(error),
        },
        What::New(new) => match make_filesystem(mount, new, root, supplies, channel)? {
            Some(mounted) => mounted,
            None => return Ok(None),
        },
        What::Remount { flags, data } => {
            let target = root.open(&mount.target).doing(|| "open the target")?;
            rustix::process::fchdir(&target).doing(|| "change to the target")?;
            let flags = MountFlags::from_bits_retain(*flags as u32);
            rustix::mount::mount_remount(".", flags, data.as_str())
                .doing(|| "remount")
                .map_err(explain_remount)?;
            change(&target, mount.recursive, true)?;
            target
        }
        What::Attributes => {
            let target = root.open(&mount.target).doing(|| "open the target")?;
            change_bind(&target, mount).map_err(explain_remount)?;
            change(&target, mount.recursive, true)?;
            target
        }
        What::CgroupV1 { hierarchies, links, attributes } => {
            let tree = cgroup_v1(mount, hierarchies, links, *attributes, root, channel)?;
            change(&tree, mount.recursive, true)?;
            tree
        }
    };
    for propagation in &mount.propagation {
        let wanted = Attributes { propagation: propagation.kind, ..Attributes::default() };
        set_attributes(&mounted, wanted, propagation.recursive)
            .doing(|| format!("make the mount {propagation}"))?;
    }
    Ok(Some(mounted))
}

/// Moves the tree of a bind mount onto its target, once it has all its attributes.
fn bind(tree: Fd, make: Make, mount: &Mount, root: &Root, channel: &Channel) -> Result<Fd> {
    change_bind(&tree, mount)?;
    change(&tree, mount.recursive, true)?;
    let is_proc = filesystem::is_proc_root(&tree).doing(|| "look at the source's filesystem")?;
    let target = open_target(mount, root, make, is_proc)?;
    put(&tree, &target, root, channel)?;
    Ok(tree)
}

fn explain_remount(error: Error) -> Error {
    match error.errno() {
        Some(Errno::INVAL) => error.hint("only what is mounted at that very path already can be remounted"),
        _ => error,
    }
}

/// Moves a detached mount onto a target.
pub fn attach(tree: impl AsFd, target: impl AsFd) -> Result<()> {
    let by_descriptor = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(tree, "", target, "", by_descriptor).doing(|| "move the mount onto its target").map_err(
        |error| match error.errno() {
            Some(Errno::NOTDIR | Errno::INVAL) => {
                error.hint("source and target must both be directories, or neither may be one")
            }
            _ => error,
        },
    )
}

/// Moves a detached mount onto a target in the root. The host side is told first of one that will stand in its tree.
fn put(tree: &Fd, target: &Fd, root: &Root, channel: &Channel) -> Result<()> {
    if root.is_on_host() {
        host_mounts::announce(tree, target, channel)?;
    }
    attach(tree, target)
}

/// A detached copy of the mount that a descriptor lies on, from that point down.
pub fn clone_tree(fd: impl AsFd, recursive: bool) -> Result<Fd, Errno> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    open_tree(fd, "", if recursive { flags | OpenTreeFlags::AT_RECURSIVE } else { flags }).map(Fd::from)
}

/// The detached mount of a source, its ids mapped: from the host side, or made here.
fn source_tree(
    mount: &Mount,
    source: &Path,
    recursive: bool,
    supplies: &mut Supplies,
    channel: &Channel,
) -> Result<Fd> {
    if let Some(tree) = supplies.next_tree(channel)? {
        return Ok(tree);
    }
    let tree = clone_source(source, recursive)?;
    match &mount.idmap {
        Some(idmap) => supplies.map_ids(tree, idmap.recursive, channel),
        None => Ok(tree),
    }
}

/// Gives a bind mount its attributes. A flag that the source has locked, since its mount came from a user namespace with
/// more power, stays; that is an error only where the mount's options name it.
fn change_bind(tree: &Fd, mount: &Mount) -> Result<()> {
    let wanted = mount.attributes;
    let times = wanted.clear & libc::MOUNT_ATTR__ATIME;
    let never_locked = wanted.clear & libc::MOUNT_ATTR_NOSYMFOLLOW;
    let kept = Attributes { clear: (wanted.clear & mount.named_clear) | times | never_locked, ..wanted };
    match change(tree, wanted, false) {
        Err(error) if error.errno() == Some(Errno::PERM) && kept != wanted => change(tree, kept, false),
        changed => changed,
    }
}

fn clone_source(source: &Path, recursive: bool) -> Result<Fd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    open_tree(CWD, source, if recursive { flags | OpenTreeFlags::AT_RECURSIVE } else { flags })
        .map(Fd::from)
        .doing(|| format!("open the source {}", source.display()))
        .map_err(|error| match error.errno() {
            Some(Errno::NOENT) => error.hint("the source of a bind mount must exist on the host"),
            Some(Errno::INVAL) => {
                error.hint("a mount that is unbindable, or has locked mounts below it, can't be bound")
            }
            _ => error,
        })
}

/// Changes the attributes of a mount; no change is no call.
pub fn change(mount: &Fd, attributes: Attributes, recursive: bool) -> Result<()> {
    if attributes == Attributes::default() {
        return Ok(());
    }
    set_attributes(mount, attributes, recursive).doing(|| "set the mount's attributes").map_err(|error| {
        match error.errno() {
            Some(Errno::PERM) => error.hint(match locked_flags(mount, attributes.clear).as_slice() {
                [] => "a mount below the source carries flags (ro, nosuid, nodev, noexec, atime) that are locked and can't be cleared".to_owned(),
                locked => format!(
                    "the source carries {} from outside of the user namespace: locked, it can't be cleared in here",
                    locked.join(",")
                ),
            }),
            Some(Errno::NOSYS) => error.hint("Linux 5.12 or newer is needed"),
            _ => error,
        }
    })
}

/// Which of the attributes that were to be cleared a mount has: mount_namespaces(7), "Restrictions on mount namespaces".
fn locked_flags(mount: &Fd, clear: u64) -> Vec<&'static str> {
    let Ok(found) = rustix::fs::fstatvfs(mount) else { return Vec::new() };
    let atime = libc::MOUNT_ATTR__ATIME;
    [
        (StatVfsMountFlags::RDONLY, libc::MOUNT_ATTR_RDONLY, "ro"),
        (StatVfsMountFlags::NOSUID, libc::MOUNT_ATTR_NOSUID, "nosuid"),
        (StatVfsMountFlags::NODEV, libc::MOUNT_ATTR_NODEV, "nodev"),
        (StatVfsMountFlags::NOEXEC, libc::MOUNT_ATTR_NOEXEC, "noexec"),
        (StatVfsMountFlags::NODIRATIME, libc::MOUNT_ATTR_NODIRATIME, "nodiratime"),
        (StatVfsMountFlags::NOATIME, atime, "noatime"),
        (StatVfsMountFlags::RELATIME, atime, "relatime"),
    ]
    .into_iter()
    .filter(|(flag, attribute, _)| found.f_flag.contains(*flag) && clear & attribute != 0)
    .map(|(_, _, name)| name)
    .collect()
}

/// Makes a filesystem, and mounts it.
fn make_filesystem(
    mount: &Mount,
    new: &NewFilesystem,
    root: &Root,
    supplies: &mut Supplies,
    channel: &Channel,
) -> Result<Option<Fd>> {
    let too_long =
        |value: &Option<String>| value.as_ref().is_some_and(|value| value.len() > filesystem::LONGEST_VALUE);
    if let Some((name, _)) = new.options.iter().find(|(_, value)| too_long(value)) {
        if mount.idmap.is_some() {
            return Err(Error::new(
                Kind::Unsupported,
                format!(
                    "an id-mapped mount can't have the option {name} with more than {} bytes",
                    filesystem::LONGEST_VALUE
                ),
            ));
        }
        return classic_mount(mount, new, root, channel);
    }
    let mode = mode_to_keep(mount, new, root)?;
    let target = open_target(mount, root, Make::Directory, new.fstype == "proc")?;
    let tree = match mode {
        Some(mode) => {
            let mut new = new.clone();
            new.options.push(("mode".to_owned(), Some(mode)));
            filesystem::make(&new)?
        }
        None => filesystem::make(new).or_else(|error| host_view(new, error, supplies))?,
    };
    if mount.copy_up {
        copy_tree(&target, &tree).map_err(|error| {
            error.while_doing(format_args!("copy {} into the tmpfs", mount.target.display()))
        })?;
    }
    change(&tree, mount.attributes, false)?;
    change(&tree, mount.recursive, true)?;
    let tree = match &mount.idmap {
        Some(_) => supplies.map_ids(tree, false, channel)?,
        None => tree,
    };
    put(&tree, &target, root, channel)?;
    Ok(Some(tree))
}

/// Where the kernel refuses a new sysfs, since the network namespace isn't the user namespace's own, the host's stands
/// in, read-only; the host's proc too, where the container has the host's processes. Each only where it shows what is the
/// container's: the runtime's own network devices and processes.
fn host_view(new: &NewFilesystem, error: Error, supplies: &Supplies) -> Result<Fd> {
    let path = match (error.errno(), new.fstype.as_str()) {
        (Some(Errno::PERM), "sysfs") if supplies.has_host_network() => "/sys",
        (Some(Errno::PERM), "sysfs") => {
            return Err(error.hint(
                "in a user namespace a new sysfs needs a network namespace that belongs to it: join both of a container, make both, or leave the sysfs out",
            ));
        }
        (Some(Errno::PERM), "proc") if proc_is_ours() => "/proc",
        (Some(Errno::PERM), "proc") => {
            return Err(error.hint(
                "in a user namespace a new proc needs a pid namespace of its own, and a /proc outside of which nothing is hidden by mounts",
            ));
        }
        _ => return Err(error),
    };
    let tree = clone_source(Path::new(path), true)?;
    let plain = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
    let set = plain | libc::MOUNT_ATTR_NOEXEC;
    change(&tree, Attributes { set, ..Attributes::default() }, true)?;
    Ok(tree)
}

/// Whether the proc at /proc is that of this process's pid namespace: it knows it by the same number.
fn proc_is_ours() -> bool {
    let own = rustix::process::getpid().as_raw_nonzero().get().to_string();
    readlinkat(CWD, "/proc/self", Vec::new()).is_ok_and(|number| number.to_bytes() == own.as_bytes())
}

/// A tmpfs without a mode gets that of the directory it hides, as with runc; where there is none, the kernel's own.
fn mode_to_keep(mount: &Mount, new: &NewFilesystem, root: &Root) -> Result<Option<String>> {
    if new.fstype != "tmpfs" || new.options.iter().any(|(name, _)| name == "mode") {
        return Ok(None);
    }
    let Ok(hidden) = root.open(&mount.target) else { return Ok(None) };
    let mode = rustix::fs::fstat(&hidden).doing(|| "look at the target")?.st_mode;
    Ok(Some(format!("{:o}", mode & 0o7777)))
}

/// mount(2), for options that are too long for fsconfig(2). It acts on the working directory, which was
/// resolved as a descriptor, and gives the mount its flags at once. Gives the mount only where more is to be done with it,
/// which takes resolving it again.
fn classic_mount(mount: &Mount, new: &NewFilesystem, root: &Root, channel: &Channel) -> Result<Option<Fd>> {
    let target = open_target(mount, root, Make::Directory, false)?;
    rustix::process::fchdir(&target).doing(|| "change to the target")?;
    let (flags, data) = classic_options(&new.options);
    let flags = flags | classic_flags(new.attributes | mount.attributes.set);
    let data = CString::new(data).map_err(|_| Error::new(Kind::Config, "an option has a NUL byte in it"))?;
    rustix::mount::mount(&new.source, ".", &new.fstype, flags, Some(data.as_c_str()))
        .doing(|| format!("mount {}", new.fstype))?;
    if !root.is_on_host() && mount.recursive == Attributes::default() && mount.propagation.is_empty() {
        return Ok(None);
    }
    let mounted = root.open(&mount.target).doing(|| "open the new mount")?;
    if root.is_on_host() {
        // This one can't be told of before it is there.
        host_mounts::announce(&mounted, &mounted, channel)?;
    }
    change(&mounted, mount.recursive, true)?;
    Ok(Some(mounted))
}

/// Attributes of a new mount (`MOUNT_ATTR_*`) as flags of mount(2).
fn classic_flags(attributes: u64) -> MountFlags {
    let atime = attributes & libc::MOUNT_ATTR__ATIME;
    [
        (attributes & libc::MOUNT_ATTR_RDONLY != 0, MountFlags::RDONLY),
        (attributes & libc::MOUNT_ATTR_NOSUID != 0, MountFlags::NOSUID),
        (attributes & libc::MOUNT_ATTR_NODEV != 0, MountFlags::NODEV),
        (attributes & libc::MOUNT_ATTR_NOEXEC != 0, MountFlags::NOEXEC),
        (attributes & libc::MOUNT_ATTR_NODIRATIME != 0, MountFlags::NODIRATIME),
        (
            attributes & libc::MOUNT_ATTR_NOSYMFOLLOW != 0,
            MountFlags::from_bits_retain(libc::MS_NOSYMFOLLOW as u32),
        ),
        (atime == libc::MOUNT_ATTR_NOATIME, MountFlags::NOATIME),
        (atime == libc::MOUNT_ATTR_STRICTATIME, MountFlags::STRICTATIME),
    ]
    .into_iter()
    .filter(|(set, _)| *set)
    .fold(MountFlags::empty(), |flags, (_, flag)| flags | flag)
}

/// The v1 hierarchies as the container sees them: a tmpfs with one mount for each.
fn cgroup_v1(
    mount: &Mount,
    hierarchies: &[CgroupHierarchy],
    links: &[(String, String)],
    attributes: u64,
    root: &Root,
    channel: &Channel,
) -> Result<Fd> {
    let tmpfs = filesystem::make(&NewFilesystem {
        fstype: "tmpfs".to_owned(),
        source: "tmpfs".to_owned(),
        options: vec![("mode".to_owned(), Some("755".to_owned()))],
        attributes: 0,
    })?;
    let target = open_target(mount, root, Make::Directory, false)?;
    put(&tmpfs, &target, root, channel)?;
    for hierarchy in hierarchies {
        let name = hierarchy.name.as_str();
        mkdirat(&tmpfs, name, Mode::from_raw_mode(0o755)).doing(|| format!("make the directory {name}"))?;
        let tree = match &hierarchy.bind {
            Some(path) => clone_cgroup(path)?,
            None => filesystem::make(&NewFilesystem {
                fstype: "cgroup".to_owned(),
                source: "cgroup".to_owned(),
                options: cgroup_options(&hierarchy.option),
                attributes: 0,
            })?,
        };
        move_mount(&tree, "", &tmpfs, name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .doing(|| format!("move the {name} hierarchy to its place"))?;
    }
    for (link, target) in links {
        symlinkat(target, &tmpfs, link).doing(|| format!("link {link} to {target}"))?;
    }
    // All of them at once, when nothing is to be made in the tmpfs any more.
    change(&tmpfs, Attributes { set: attributes, ..Attributes::default() }, true)?;
    Ok(tmpfs)
}

/// The container's cgroup. A user may not be able to make one, in every hierarchy or at all: there the process stays where
/// the runtime is, and sees the directory above.
fn clone_cgroup(path: &Path) -> Result<Fd> {
    match (clone_source(path, false), path.parent()) {
        (Err(error), Some(parent)) if error.errno() == Some(Errno::NOENT) => clone_source(parent, false),
        (cloned, _) => cloned,
    }
}

/// `cpu,cpuacct` is two flags, `name=systemd` a name with a value.
fn cgroup_options(option: &str) -> Vec<(String, Option<String>)> {
    match option.split_once('=') {
        Some((name, value)) => {
            vec![("none".to_owned(), None), (name.to_owned(), Some(value.to_owned()))]
        }
        None => option.split(',').map(|controller| (controller.to_owned(), None)).collect(),
    }
}
