//! The few calls of the shim that the type system can't vouch for: the one place with `unsafe`.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use tokio::io::Interest;
use tokio::io::unix::{AsyncFd, AsyncFdRegisterError};

/// The descriptor on which the daemon inherits its listening socket.
pub const LISTENER: RawFd = 3;

/// The descriptor on which the daemon inherits the socket to `start`.
pub const STARTER: RawFd = 4;

/// Takes over what `start` left at [`LISTENER`] and [`STARTER`]: two sockets. To be called once.
///
/// # Errors
/// Nothing is open there, or not a socket.
pub fn take_inherited() -> Result<(OwnedFd, OwnedFd), rustix::io::Errno> {
    let take = |number| {
        if !coracle::sys::process::is_open(number) {
            return Err(rustix::io::Errno::BADF);
        }
        // SAFETY: it is open, it was handed to this process by its number, and the daemon's main function calls this
        // once, before any other descriptor is opened: nobody else owns it.
        let socket = unsafe { OwnedFd::from_raw_fd(number) };
        rustix::net::sockopt::socket_type(&socket)?;
        rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
        Ok(socket)
    };
    Ok((take(LISTENER)?, take(STARTER)?))
}

/// Borrows a descriptor that stays open as long as the process lives: that of the log.
pub fn borrow_for_ever(number: RawFd) -> BorrowedFd<'static> {
    // SAFETY: only logger.rs calls this, for a descriptor that it took over and never closes; in a worker, for one that
    // was handed over there likewise.
    unsafe { BorrowedFd::borrow_raw(number) }
}

/// Gives freed memory back to the kernel: malloc_trim(3).
pub fn trim_memory() {
    // SAFETY: it only looks at the allocator's own free lists.
    unsafe { libc::malloc_trim(0) };
}

/// Ignores SIGPIPE: signal(7).
pub fn ignore_broken_pipes() -> io::Result<()> {
    // SAFETY: ignoring a signal installs no handler.
    if unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) } == libc::SIG_ERR {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// A core scheduling group of its own for the calling process's group: prctl(2), `PR_SCHED_CORE`.
pub fn make_core_group() -> Result<(), rustix::io::Errno> {
    const CREATE: libc::c_ulong = 1;
    const PROCESS_GROUP: libc::c_ulong = 2;
    // SAFETY: the operation takes numbers only.
    match unsafe { libc::prctl(libc::PR_SCHED_CORE, CREATE, 0, PROCESS_GROUP, 0) } {
        0 => Ok(()),
        _ => Err(last_errno()),
    }
}

fn last_errno() -> rustix::io::Errno {
    rustix::io::Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(rustix::io::Errno::IO)
}

/// Puts a descriptor into the event loop. What epoll(7) refuses, regular files above all, comes back with the error.
pub fn try_watch(fd: OwnedFd, interest: Interest) -> Result<AsyncFd<OwnedFd>, AsyncFdRegisterError<OwnedFd>> {
    // SAFETY: an OwnedFd always has the same number, is open, and is closed by nobody but its owner, which is the
    // AsyncFd from here on.
    unsafe { AsyncFd::register_with_interest(fd, interest) }
}

/// As [`try_watch`], where the descriptor isn't needed after a failure.
pub fn watch(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    Ok(try_watch(fd, interest)?)
}

/// The number of a loop device that nobody uses, made if there is none: loop(4), `LOOP_CTL_GET_FREE`.
pub fn free_loop_device(control: &OwnedFd) -> Result<u32, rustix::io::Errno> {
    const GET_FREE: libc::c_ulong = 0x4C82;
    // SAFETY: the request takes no argument.
    let number = unsafe { libc::ioctl(control.as_raw_fd(), GET_FREE) };
    u32::try_from(number).map_err(|_| last_errno())
}

/// `struct loop_info64` of loop(4).
#[repr(C)]
struct LoopInfo {
    device: [u64; 3],
    offset: u64,
    size_limit: u64,
    number: u32,
    encryption: [u32; 2],
    flags: u32,
    file_name: [u8; 64],
    encryption_name: [u8; 64],
    encryption_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config` of loop(4).
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

/// Puts a file behind a loop device, which frees itself when nobody uses it any more: loop(4), `LOOP_CONFIGURE` (Linux
/// 5.8).
pub fn configure_loop_device(
    device: &OwnedFd,
    file: &OwnedFd,
    read_only: bool,
    direct_io: bool,
) -> Result<(), rustix::io::Errno> {
    const CONFIGURE: libc::c_ulong = 0x4C0A;
    const READ_ONLY: u32 = 1;
    const AUTOCLEAR: u32 = 4;
    const DIRECT_IO: u32 = 16;
    // SAFETY: it has numbers and arrays of numbers only, for which zero is a value.
    let mut config: LoopConfig = unsafe { std::mem::zeroed() };
    config.fd = file.as_raw_fd() as u32;
    config.info.flags =
        AUTOCLEAR | if read_only { READ_ONLY } else { 0 } | if direct_io { DIRECT_IO } else { 0 };
    // SAFETY: the request reads a `struct loop_config`, which this is, and which outlives the call.
    match unsafe { libc::ioctl(device.as_raw_fd(), CONFIGURE, &raw const config) } {
        0 => Ok(()),
        _ => Err(last_errno()),
    }
}
