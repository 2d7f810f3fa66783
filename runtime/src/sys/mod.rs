//! The system calls that no crate wraps well: the one place where `unsafe` lives.
//!
//! Each function is one call, takes descriptors rather than paths where the kernel allows it, and
//! returns the kernel's errno untouched. What `rustix` and `nix` wrap well is called through them directly.

pub mod affinity;
pub mod bpf;
pub mod clone;
pub mod exec;
pub mod keyring;
pub mod memory;
pub mod mount;
pub mod netlink;
pub mod network;
pub mod policy;
pub mod process;
pub mod seccomp;
pub mod signal;

use rustix::io::Errno;

/// Turns the return value of a raw system call (-1 and `errno`) into a result.
fn check(value: libc::c_long) -> Result<libc::c_long, Errno> {
    if value < 0 {
        Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
    } else {
        Ok(value)
    }
}
