//! CPU affinity for any number of CPUs: `rustix` and `nix` stop at 1024.

use rustix::io::Errno;

use super::check;

/// Lets the calling thread run on the CPUs whose bits are set in `mask`, lowest CPU first.
pub fn set(mask: &[u64]) -> Result<(), Errno> {
    // SAFETY: the mask is as long as is told and outlives the call.
    check(unsafe {
        libc::syscall(libc::SYS_sched_setaffinity, 0, std::mem::size_of_val(mask), mask.as_ptr())
    })
    .map(drop)
}

/// Lets the calling thread run on every CPU that its cpuset allows, whatever it inherited.
///
/// The kernel cuts the mask to what exists and is allowed, so one that is longer than any machine is asked for.
pub fn reset() -> Result<(), Errno> {
    set(&[u64::MAX; 128])
}
