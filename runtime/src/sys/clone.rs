//! clone3(2): a new process in its namespaces, and in its cgroup, by one call.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

use super::check;

/// Reset the signal handlers (Linux 5.5). `libc`'s constants of these two are 32 bits wide, which they don't fit in.
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
/// Be born in a cgroup (Linux 5.7).
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// What the new process is to be born into.
#[derive(Default, Clone, Copy)]
pub struct Clone3<'fd> {
    /// `CLONE_NEW*` flags of the namespaces to make.
    pub namespaces: u64,
    /// The cgroup v2 directory the process is born in (`CLONE_INTO_CGROUP`, Linux 5.7).
    pub into_cgroup: Option<BorrowedFd<'fd>>,
    /// The process is to be the child of the caller's parent (`CLONE_PARENT`), and its end that parent's to see.
    pub sibling: bool,
}

/// Who returns from [`Clone3::spawn`].
pub enum Forked {
    /// The caller: the new process's id, in the caller's pid namespace, and its pidfd (close-on-exec).
    Parent {
        /// The process id.
        pid: i32,
        /// The pidfd.
        pidfd: OwnedFd,
    },
    /// The new process, with a copy of the caller's memory and descriptors.
    Child,
}

impl Clone3<'_> {
    /// Makes the process. Its signal handlers are reset (`CLONE_CLEAR_SIGHAND`); its death sends `SIGCHLD`.
    ///
    /// # Panics
    ///
    /// Never; but the caller must have one thread only, which the runtime guarantees: a second thread's
    /// locks (the allocator's, say) would stay locked for ever in the copy.
    pub fn spawn(&self) -> Result<Forked, Errno> {
        let mut pidfd: libc::c_int = -1;
        // SAFETY: clone_args is a plain C struct for which all zeroes means "nothing asked for".
        let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
        args.flags = self.namespaces | libc::CLONE_PIDFD as u64 | CLONE_CLEAR_SIGHAND;
        args.pidfd = (&raw mut pidfd) as u64;
        if self.sibling {
            // Its signal is the caller's own: clone(2).
            args.flags |= libc::CLONE_PARENT as u64;
        } else {
            args.exit_signal = libc::SIGCHLD as u64;
        }
        if let Some(cgroup) = self.into_cgroup {
            args.flags |= CLONE_INTO_CGROUP;
            args.cgroup = cgroup.as_raw_fd() as u64;
        }
        // SAFETY: without CLONE_VM and without a stack the child continues here on a copy of everything,
        // like fork(2). `args` and `pidfd` outlive the call. The process has one thread (see above), so
        // the copy's locks are in a sane state.
        let pid = check(unsafe {
            libc::syscall(libc::SYS_clone3, &raw mut args, std::mem::size_of::<libc::clone_args>())
        })?;
        if pid == 0 {
            return Ok(Forked::Child);
        }
        // SAFETY: the kernel stored a new descriptor, which nobody else owns, in `pidfd`.
        let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
        Ok(Forked::Parent { pid: pid as i32, pidfd })
    }
}
