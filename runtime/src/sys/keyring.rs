//! keyctl(2): a session keyring per container.

use std::ffi::CStr;

use rustix::io::Errno;

use super::check;

/// What the kernel lets others do with a new session keyring: all to who possesses it, and view, read and link to its
/// user.
const OF_A_NEW_ONE: libc::c_long = 0x3f13_0000;

/// `KEY_USR_SEARCH`, which runc adds, so that a process that changed its uid can still use it.
const USER_SEARCH: libc::c_long = 0x0008_0000;

/// Joins a new session keyring called `name`, and lets the user who owns it search it.
pub fn join_session(name: &CStr) -> Result<(), Errno> {
    // SAFETY: `name` is NUL-terminated and outlives the call.
    let id = check(unsafe {
        libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING as libc::c_long, name.as_ptr())
    })?;
    // SAFETY: only integers are passed.
    check(unsafe {
        libc::syscall(libc::SYS_keyctl, libc::KEYCTL_SETPERM as libc::c_long, id, OF_A_NEW_ONE | USER_SEARCH)
    })
    .map(drop)
}
