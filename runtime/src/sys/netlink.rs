//! Options of netlink sockets, which `rustix` doesn't wrap: netlink(7).

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;

use super::check;

/// Asks the kernel to explain what it refuses (`NETLINK_EXT_ACK`, Linux 4.12), without repeating the request
/// (`NETLINK_CAP_ACK`).
pub fn want_explanations(socket: impl AsFd) -> Result<(), Errno> {
    let on: libc::c_int = 1;
    for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK] {
        // SAFETY: the value is an int that outlives the call, and its size is given.
        check(libc::c_long::from(unsafe {
            libc::setsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_NETLINK,
                option,
                (&raw const on).cast(),
                std::mem::size_of::<libc::c_int>() as libc::socklen_t,
            )
        }))?;
    }
    Ok(())
}
