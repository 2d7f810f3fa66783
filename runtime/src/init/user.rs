//! The container's side of a user namespace: hiding, what the host side supplies for mounts, the time namespace.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, dumpable_behavior, set_dumpable_behavior};
use rustix::thread::LinkNameSpaceType;

use super::channel::{Channel, Frame};
use super::fd::Fd;
use super::rootfs::Place;
use super::{missing, procfs};
use crate::error::{Doing, Error, Result};
use crate::sys::mount::set_id_map;
use crate::sys::process::{exit_now, unshare};

/// `CLONE_NEWTIME`.
const CLONE_NEWTIME: u64 = 0x80;

/// What the host side supplies for mounts.
#[derive(Default)]
pub struct Supplies {
    trees: Option<VecDeque<OwnedFd>>,
    left: usize,
    id_maps: VecDeque<Rc<OwnedFd>>,
    has_host_network: bool,
}

impl Supplies {
    /// Begins with the user namespaces of id-mapped mounts, and whether the network namespace is the runtime's.
    pub fn new(id_maps: Vec<Rc<OwnedFd>>, has_host_network: bool) -> Self {
        Self { trees: None, left: 0, id_maps: id_maps.into(), has_host_network }
    }

    /// Whether the container's network namespace is the runtime's own.
    pub fn has_host_network(&self) -> bool {
        self.has_host_network
    }

    /// The rootfs, its place, and the sources of bind mounts come from the host side, in the order of the steps: so many
    /// descriptors.
    pub fn expect_trees(&mut self, count: usize) {
        self.trees = Some(VecDeque::new());
        self.left = count;
    }

    /// The next tree, its ids mapped already; nothing when this side opens its sources itself.
    pub fn next_tree(&mut self, channel: &Channel) -> Result<Option<Fd>> {
        // One at a time: a source may lie where a mount before it has put it, and there may be more of them than the limit
        // of open files allows.
        self.next(1, channel).map(|tree| tree.map(Fd::from))
    }

    /// The rootfs and its place; nothing when this side opens them itself.
    pub fn rootfs(&mut self, channel: &Channel) -> Result<Option<Place>> {
        let Some(tree) = self.next(2, channel)? else { return Ok(None) };
        let directory = self.next(1, channel)?.ok_or_else(|| missing("the place of the rootfs"))?;
        Ok(Some(Place { tree, directory }))
    }

    /// The next descriptor; where none is here any more, `count` of them are asked for.
    fn next(&mut self, count: usize, channel: &Channel) -> Result<Option<OwnedFd>> {
        let Some(trees) = &mut self.trees else { return Ok(None) };
        if trees.is_empty() && self.left >= count {
            channel.send(&Frame::Sources(count)).doing(|| "ask for the sources of mounts")?;
            for _ in 0..count {
                match channel.receive()? {
                    Some(Frame::Tree(tree)) => trees.push_back(tree),
                    // The host side has failed or died, and this process is of no use.
                    _ => exit_now(1),
                }
            }
            self.left -= count;
        }
        trees.pop_front().map(Some).ok_or_else(|| missing("a mount's source"))
    }

    /// Maps the ids of a new mount that nobody can see yet: the next id-mapped one in the order of the steps. In a user
    /// namespace only the host side may do it.
    pub fn map_ids(&mut self, mount: Fd, recursive: bool, channel: &Channel) -> Result<Fd> {
        if self.trees.is_none() {
            let namespace = self.id_maps.pop_front().ok_or_else(|| missing("a mount's user namespace"))?;
            return map_ids(&mount, &namespace, recursive).map(|()| mount);
        }
        let copy = mount.as_fd().try_clone_to_owned().doing(|| "duplicate the mount's descriptor")?;
        channel.send(&Frame::MapIds(copy)).doing(|| "ask for the ids of the mount to be mapped")?;
        match channel.receive()? {
            Some(Frame::Go) => Ok(mount),
            // The host side has failed or died, and this process is of no use.
            _ => exit_now(1),
        }
    }
}

/// Maps the ids of a detached mount: mount_setattr(2), "ID-mapped mounts".
pub fn map_ids(mount: impl AsFd, user_namespace: &OwnedFd, recursive: bool) -> Result<()> {
    set_id_map(mount, user_namespace, recursive).doing(|| "map the ids of the mount").map_err(|error| {
        match error.errno() {
            Some(Errno::INVAL) => error.hint(
                "its filesystem doesn't support id-mapped mounts, or is that of the very user namespace whose maps it is to have",
            ),
            Some(Errno::PERM) => error.hint(
                "it is id-mapped already, or its filesystem belongs to a user namespace where the runtime has no CAP_SYS_ADMIN",
            ),
            _ => error,
        }
    })
}

/// Makes this process non-dumpable, where the host side left it dumpable for the maps (CVE-2016-9962).
pub fn hide() -> Result<()> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable).doing(|| "become non-dumpable")
}

/// Makes this process dumpable.
pub fn reveal() -> Result<()> {
    set_dumpable_behavior(DumpableBehavior::Dumpable).doing(|| "become dumpable")
}

/// Makes the time namespace, whose clocks may only be set while nobody is in it, and enters it. The file of the offsets
/// belongs to the namespace's root only while this process is dumpable: proc(5).
pub fn new_time_namespace(proc: &OwnedFd, offsets: &str) -> Result<()> {
    unshare(CLONE_NEWTIME)
        .doing(|| "unshare the time namespace")
        .map_err(|error| error.hint("the kernel needs CONFIG_TIME_NS (Linux 5.6)"))?;
    let before = dumpable_behavior().doing(|| "read whether the process is dumpable")?;
    set_dumpable_behavior(DumpableBehavior::Dumpable).doing(|| "become dumpable")?;
    let written =
        if offsets.is_empty() { Ok(()) } else { procfs::write(proc, "self/timens_offsets", offsets) };
    let namespace = openat(
        CWD,
        Path::new("/proc/self/ns/time_for_children"),
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    );
    set_dumpable_behavior(before).doing(|| "become non-dumpable again")?;
    written?;
    let namespace = namespace.doing(|| "open the new time namespace")?;
    rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Time))
        .map_err(|errno| Error::os(errno, "enter the new time namespace"))
}
