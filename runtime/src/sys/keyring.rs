//! keyctl(2): a session keyring per container.

use std::ffi::CStr;

use rustix::io::Errno;

use super::check;

/// `KEY_POS_ALL` and `KEY_USR_ALL` minus setattr, plus search: what runc gives the keyring's users, so that
/// a process that changed its uid can still use it.
const USER_SEARCH: libc::c_long = 0x0008_0000;

/// Joins a new session keyring called `name`, and lets the user who owns it search it.
pub fn join_session(name: &CStr) -> Result<(), Errno> {
    // SAFETY: `name` is NUL-terminated and outlives the call.
    let id = check(unsafe {
        libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING as libc::c_long, name.as_ptr())
    })?;
    let possessor_all: libc::c_long = 0x3f00_0000;
    // SAFETY: only integers are passed.
    check(unsafe {
        libc::syscall(libc::SYS_keyctl, libc::KEYCTL_SETPERM as libc::c_long, id, possessor_all | USER_SEARCH)
    })
    .map(drop)
}
