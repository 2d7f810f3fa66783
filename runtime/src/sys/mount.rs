//! mount_setattr(2) and pivot_root(2), which `rustix` doesn't wrap.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;

use super::check;

/// A change of a mount's attributes: `struct mount_attr` of mount_setattr(2).
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Attributes {
    /// `MOUNT_ATTR_*` to set.
    pub set: u64,
    /// `MOUNT_ATTR_*` to clear.
    pub clear: u64,
    /// `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE`, `MS_UNBINDABLE`, or 0 to leave the propagation alone.
    pub propagation: u64,
}

/// Changes the attributes of the mount whose root `fd` is; with `recursive`, of those below it too (Linux 5.12).
pub fn set_attributes(fd: impl AsFd, change: Attributes, recursive: bool) -> Result<(), Errno> {
    let attr = libc::mount_attr {
        attr_set: change.set,
        attr_clr: change.clear,
        propagation: change.propagation,
        userns_fd: 0,
    };
    set(fd, &attr, recursive)
}

fn set(fd: impl AsFd, attr: &libc::mount_attr, recursive: bool) -> Result<(), Errno> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a literal with its NUL, `attr` is borrowed for the call and its size is given.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attr),
            std::mem::size_of::<libc::mount_attr>(),
        )
    })
    .map(drop)
}

/// Maps the ids of a detached mount, and with `recursive` of those below it, as the user namespace does (Linux 5.12).
pub fn set_id_map(fd: impl AsFd, user_namespace: impl AsFd, recursive: bool) -> Result<(), Errno> {
    let attr = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: user_namespace.as_fd().as_raw_fd() as u64,
    };
    set(fd, &attr, recursive)
}

/// Makes `new` the root and puts the old one at `old`, both relative to the working directory.
pub fn pivot_root(new: &CStr, old: &CStr) -> Result<(), Errno> {
    // SAFETY: both are NUL-terminated strings that outlive the call.
    check(unsafe { libc::syscall(libc::SYS_pivot_root, new.as_ptr(), old.as_ptr()) }).map(drop)
}
