//! Mounts of a container without a mount namespace: they stand in the host's tree, and somebody must take them away.
//!
//! A path in the rootfs is no name for such a mount. The image may have a link on the way, and where the link leads on
//! the host something else may be mounted. So each mount is told to the host side, with its identity and the path that
//! its target resolved to, before it is put into its place; and only a mount of that identity is ever unmounted.

use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxFlags, openat2, readlinkat, statx};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use serde::{Deserialize, Serialize};

use super::channel::{Channel, Frame};
use super::talk;
use crate::error::{Doing, Result};

/// `STATX_MNT_ID_UNIQUE` (Linux 6.8): the id is never used again.
const UNIQUE_ID: StatxFlags = StatxFlags::from_bits_retain(0x4000);

/// A mount in the host's tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostMount {
    /// Where it stands, without a link in it.
    pub path: PathBuf,
    /// Its identity, as statx(2) gives it.
    pub id: u64,
}

impl HostMount {
    /// The mount `tree`, which stands on `target` or soon will.
    fn new(tree: impl AsFd, target: impl AsFd) -> Result<Self> {
        let link = format!("/proc/self/fd/{}", target.as_fd().as_raw_fd());
        let path = readlinkat(CWD, link, Vec::new()).doing(|| "find where the target lies on the host")?;
        let id = id_of(tree).doing(|| "look at the mount's id")?;
        Ok(Self { path: OsString::from_vec(path.into_bytes()).into(), id })
    }

    /// Unmounts it. That it isn't there (any more) is what is wanted.
    pub fn undo(&self) {
        let links = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let Ok(found) = openat2(CWD, &self.path, flags, Mode::empty(), links) else { return };
        if id_of(&found) == Ok(self.id) {
            let _ = unmount(format!("/proc/self/fd/{}", found.as_raw_fd()), UnmountFlags::DETACH);
        }
    }
}

/// The id of the mount that a descriptor lies on.
fn id_of(fd: impl AsFd) -> Result<u64, Errno> {
    let fd = fd.as_fd();
    let found = statx(fd, "", AtFlags::EMPTY_PATH, UNIQUE_ID)?;
    if found.stx_mask & UNIQUE_ID.bits() != 0 {
        return Ok(found.stx_mnt_id);
    }
    Ok(statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?.stx_mnt_id)
}

/// Tells the host side of a mount and waits until it is written down.
pub fn announce(tree: impl AsFd, target: impl AsFd, channel: &Channel) -> Result<()> {
    let mount = HostMount::new(tree, target)?;
    channel.send(&Frame::HostMount(mount)).doing(|| "tell the runtime of a mount")?;
    talk::await_word(channel)
}
