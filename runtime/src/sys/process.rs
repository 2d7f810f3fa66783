//! Small calls on the calling process.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::Errno;

use super::check;

/// Marks every descriptor from `first` up to be closed at the next execve(2) (Linux 5.11).
pub fn close_on_exec_from(first: u32) -> Result<(), Errno> {
    // SAFETY: with CLOSE_RANGE_CLOEXEC nothing is closed now, so no descriptor that is in use goes away.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) })
        .map(drop)
}

/// Makes sure that descriptors 0, 1 and 2 are open: the next file that is opened would otherwise become a standard
/// stream, be written to as one, and be passed on to a container.
pub fn fill_standard_streams() -> Result<(), Errno> {
    let mut streams = [0, 1, 2].map(|fd| libc::pollfd { fd, events: 0, revents: 0 });
    // SAFETY: the array has three entries, as is told, and outlives the call.
    while unsafe { libc::poll(streams.as_mut_ptr(), 3, 0) } < 0 {}
    if streams.iter().all(|stream| stream.revents & libc::POLLNVAL == 0) {
        return Ok(());
    }
    loop {
        // SAFETY: the path is a literal with its NUL.
        let fd = check(libc::c_long::from(unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) }))?;
        if fd > 2 {
            // SAFETY: it was opened just now, and nobody owns it.
            unsafe { libc::close(fd as RawFd) };
            return Ok(());
        }
    }
}

/// Whether descriptor `number` is open.
pub fn is_open(number: RawFd) -> bool {
    // SAFETY: fcntl on any number is harmless: one that isn't open is EBADF.
    unsafe { libc::fcntl(number, libc::F_GETFD) >= 0 }
}

/// Keeps descriptor `number` open across execve(2).
pub fn keep_on_exec(number: RawFd) -> Result<(), Errno> {
    // SAFETY: fcntl on any number is harmless: one that isn't open is EBADF.
    check(libc::c_long::from(unsafe { libc::fcntl(number, libc::F_SETFD, 0) })).map(drop)
}

/// Borrows a descriptor that the caller of this program handed over by its number, for one call; one that isn't open is
/// an error of the calls made on it.
pub fn with_inherited<T>(number: RawFd, call: impl FnOnce(BorrowedFd<'_>) -> T) -> T {
    // SAFETY: whether it is open, this process doesn't change during `call`: it has one thread, or a second one that
    // closes only what it owns (container/learn.rs).
    call(unsafe { BorrowedFd::borrow_raw(number) })
}

/// Closes descriptors; those whose numbers follow each other, as most do when they were opened together, by one call.
pub fn close_together(fds: Vec<OwnedFd>) {
    let mut run: Vec<OwnedFd> = Vec::with_capacity(fds.len());
    for fd in fds {
        if run.last().is_some_and(|last| last.as_raw_fd() + 1 != fd.as_raw_fd()) {
            close_run(std::mem::take(&mut run));
        }
        run.push(fd);
    }
    close_run(run);
}

/// Closes descriptors whose numbers follow each other.
fn close_run(fds: Vec<OwnedFd>) {
    let (Some(first), Some(last)) = (fds.first(), fds.last()) else { return };
    // SAFETY: every descriptor of the range is owned by `fds`, so nobody else loses one.
    let closed =
        check(unsafe { libc::syscall(libc::SYS_close_range, first.as_raw_fd(), last.as_raw_fd(), 0) });
    if closed.is_ok() {
        fds.into_iter().for_each(std::mem::forget);
    }
}

/// Makes `from` descriptor 0, 1 and 2.
pub fn become_stdio(from: BorrowedFd<'_>) -> Result<(), Errno> {
    for number in 0..=2 {
        replace_inherited(number, from)?;
    }
    Ok(())
}

/// Makes descriptor `number`, which the caller of this program handed over, a duplicate of `from`. It stays open across
/// execve(2).
pub fn replace_inherited(number: RawFd, from: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: replacing it is the point; nothing holds an inherited descriptor as owned.
    check(libc::c_long::from(unsafe { libc::dup2(std::os::fd::AsRawFd::as_raw_fd(&from), number) })).map(drop)
}

/// Ends the calling process at once, without running what is registered for its exit.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: _exit only ends the process; the copy made by clone3 must not flush its parent's buffers.
    unsafe { libc::_exit(status) }
}

/// Leaves the namespaces that `flags` (`CLONE_NEW*`) name for new ones.
pub fn unshare(flags: u64) -> Result<(), Errno> {
    // SAFETY: the flags that could break Rust's view of the process (CLONE_FILES, CLONE_VM) are no namespaces
    // and are masked out.
    check(unsafe { libc::syscall(libc::SYS_unshare, flags & !((libc::CLONE_FILES | libc::CLONE_VM) as u64)) })
        .map(drop)
}

/// The type of a namespace, as its `CLONE_NEW*`: ioctl_ns(2), `NS_GET_NSTYPE`. Fails for what is no namespace.
pub fn namespace_type(fd: BorrowedFd<'_>) -> Result<u64, Errno> {
    const NS_GET_NSTYPE: libc::c_ulong = 0xb703;
    // SAFETY: this request takes no argument.
    let kind = check(libc::c_long::from(unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_NSTYPE) }))?;
    Ok(kind as u64)
}

/// The inode of the initial user namespace: `PROC_USER_INIT_INO` of the kernel's include/linux/proc_ns.h.
const INITIAL_USER_NAMESPACE: u64 = 0xefff_fffd;

/// Whether this process is in a user namespace, where even user 0 is not the host's root.
pub fn in_user_namespace() -> bool {
    rustix::fs::stat("/proc/self/ns/user").is_ok_and(|namespace| namespace.st_ino != INITIAL_USER_NAMESPACE)
}

/// Whether two descriptors are of the same namespace: namespaces(7), "The /proc/pid/ns/ directory".
pub fn is_same_namespace(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> Result<bool, Errno> {
    let identity = |fd| rustix::fs::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino));
    Ok(identity(one)? == identity(other)?)
}

/// Closes every descriptor from `first` up but those `needed`, which get the numbers from `first` on. They are
/// close-on-exec then. What owned one of the closed descriptors must not close it again.
pub fn keep_only(first: u32, needed: &[BorrowedFd<'_>]) -> Result<Vec<OwnedFd>, Errno> {
    let above = first as RawFd + needed.len() as RawFd;
    // Out of the way first: one may have a number that another one is to get.
    let mut copies = Vec::with_capacity(needed.len());
    for fd in needed {
        // SAFETY: duplicating an open descriptor to a free number takes nothing away.
        copies.push(check(libc::c_long::from(unsafe {
            libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, above)
        }))? as RawFd);
    }
    let mut kept = Vec::with_capacity(copies.len());
    for (number, copy) in (first as RawFd..).zip(copies) {
        // SAFETY: whatever has this number is to be closed, as the caller was told.
        check(libc::c_long::from(unsafe { libc::dup3(copy, number, libc::O_CLOEXEC) }))?;
        // SAFETY: the kernel just made this descriptor, and nobody else owns its number any more.
        kept.push(unsafe { OwnedFd::from_raw_fd(number) });
    }
    // SAFETY: all of them are to be closed, as the caller was told.
    check(unsafe { libc::syscall(libc::SYS_close_range, above, u32::MAX, 0) })?;
    Ok(kept)
}

/// A child that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Its id.
    pub pid: i32,
    /// Its exit status; 128 and the signal's number for a signal.
    pub status: u32,
}

/// Any child that has ended, if there is one; its status can still be taken afterwards. Unlike the wrappers of waitid(2)
/// that know signals by name, it sees those whom a realtime signal has ended.
pub fn look_for_ended() -> Option<Ended> {
    wait_id(libc::P_ALL, 0, libc::WNOWAIT)
}

/// Takes the status of a child, if it has ended.
pub fn take_status(pid: i32) -> Option<Ended> {
    wait_id(libc::P_PID, libc::id_t::try_from(pid).ok()?, 0)
}

fn wait_id(kind: libc::idtype_t, id: libc::id_t, more: libc::c_int) -> Option<Ended> {
    // SAFETY: siginfo_t is a plain C struct of numbers and pointers that the kernel fills in.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let options = libc::WEXITED | libc::WNOHANG | more;
    // SAFETY: `info` outlives the call.
    check(libc::c_long::from(unsafe { libc::waitid(kind, id, &raw mut info, options) })).ok()?;
    // SAFETY: after waitid(2) these are the fields in use; when there is no such child, they are zero.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    let status = if info.si_code == libc::CLD_EXITED { status } else { 128 + status };
    (pid != 0).then_some(Ended { pid, status: status as u32 })
}
