//! seccomp(2): loading a filter, asking which flags the kernel takes; seccomp_unotify(2): listening to one.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use coracle_seccomp::{FLAG_NEW_LISTENER, SockFilter};
use rustix::io::Errno;

use super::check;

/// Loads a filter into the calling thread. Gives the listener's descriptor when the flags ask for one.
pub fn load(program: &[SockFilter], flags: u32) -> Result<Option<OwnedFd>, Errno> {
    let length = u16::try_from(program.len()).map_err(|_| Errno::INVAL)?;
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut().cast() };
    // SAFETY: the kernel reads `len` instructions, whose layout SockFilter shares, and writes none; both live until
    // the call returns.
    let value = check(unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program)
    })?;
    if flags & FLAG_NEW_LISTENER == 0 {
        return Ok(None);
    }
    // SAFETY: with this flag the value is a new descriptor that nobody else owns.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(value as i32) }))
}

/// Whether the kernel knows the flags: without a program it complains of an unknown flag first.
pub fn knows_flags(flags: u32) -> bool {
    // SAFETY: a null program is refused, so that nothing is loaded.
    let result = check(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            std::ptr::null::<libc::sock_fprog>(),
        )
    });
    result == Err(Errno::FAULT)
}

/// A system call that waits for its listener's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notified {
    /// Names the notification in the answer to it.
    pub id: u64,
    /// The `AUDIT_ARCH_*` token of the way by which the call came in.
    pub arch: u32,
    /// The call's number.
    pub number: u32,
}

/// Receives the next notification, and waits for it. ENOENT: the caller died, or a signal took the call back.
pub fn receive(listener: BorrowedFd<'_>) -> Result<Notified, Errno> {
    // SAFETY: plain integers, for which zeroes are values; the kernel demands zeroes.
    let mut notification: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the request's number says how large the structure is that the kernel writes; it lives until the call
    // returns.
    check(libc::c_long::from(unsafe {
        libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut notification)
    }))?;
    let libc::seccomp_notif { id, data, .. } = notification;
    Ok(Notified { id, arch: data.arch, number: data.nr.cast_unsigned() })
}

/// Lets a notified call be executed. ENOENT: its caller died, or a signal took the call back.
pub fn let_through(listener: BorrowedFd<'_>, id: u64) -> Result<(), Errno> {
    let mut answer = libc::seccomp_notif_resp {
        id,
        val: 0,
        error: 0,
        flags: libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32,
    };
    // SAFETY: the request's number says how large the structure is that the kernel reads; it lives until the call
    // returns.
    check(libc::c_long::from(unsafe {
        libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut answer)
    }))
    .map(drop)
}
