//! The system calls, each a thin and safe function: the only place of this program with `unsafe`.
//!
//! Descriptors are plain numbers here: the program makes few, knows the life of each, and must not spend a
//! call that a runtime could do without.

use std::ffi::{CStr, CString};
use std::fmt;
use std::sync::atomic::AtomicU64;

/// What the C library calls; arguments come from std::env, which gets them from the loader.
// SAFETY: the one symbol of this name in the program, with the signature that C demands.
#[unsafe(no_mangle)]
extern "C" fn main(_count: i32, _arguments: *const *const libc::c_char) -> i32 {
    crate::entry().into()
}

/// A file descriptor.
pub type Fd = i32;
/// What the calls give.
pub type Result<T> = std::result::Result<T, Error>;

/// CAP_CHECKPOINT_RESTORE, the highest capability of Linux 5.9 and later.
pub const LAST_CAPABILITY: u32 = 40;

/// A call that failed.
#[derive(Debug)]
pub struct Error {
    what: String,
    /// Its errno.
    pub errno: i32,
}

impl Error {
    /// `what` says what was being done.
    pub fn new(what: impl Into<String>, errno: i32) -> Self {
        Self { what: what.into(), errno }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, std::io::Error::from_raw_os_error(self.errno))
    }
}

/// The error of the call before, which did `what` to `path`.
fn last(what: &str, path: &CStr) -> Error {
    let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
    Error { what: format!("{what} {}", path.to_string_lossy()), errno }
}

/// Turns -1 into an error that says what was done, and to which path.
fn check(result: i64, what: &str, path: &CStr) -> Result<i64> {
    if result < 0 { Err(last(what, path)) } else { Ok(result) }
}

fn pointer(text: Option<&CStr>) -> *const libc::c_char {
    text.map_or(std::ptr::null(), CStr::as_ptr)
}

/// mount(2).
pub fn mount(
    source: Option<&CStr>,
    target: &CStr,
    kind: Option<&CStr>,
    flags: libc::c_ulong,
    data: Option<&CStr>,
) -> Result<()> {
    // SAFETY: every pointer is null or a NUL-terminated string that outlives the call.
    let result =
        unsafe { libc::mount(pointer(source), target.as_ptr(), pointer(kind), flags, pointer(data).cast()) };
    check(result.into(), "mount", target).map(drop)
}

/// umount2(2) with MNT_DETACH.
pub fn umount_detach(target: &CStr) -> Result<()> {
    // SAFETY: the path is a NUL-terminated string.
    let result = unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
    check(result.into(), "unmount", target).map(drop)
}

/// mount_setattr(2): read-only, nosuid, nodev and noexec for a mount and all below it.
pub fn seal_tree(path: &CStr) -> Result<()> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY
            | libc::MOUNT_ATTR_NOSUID
            | libc::MOUNT_ATTR_NODEV
            | libc::MOUNT_ATTR_NOEXEC,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: the path is a NUL-terminated string, and the structure is as large as the size that is given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    check(result, "make read-only", path).map(drop)
}

/// pivot_root(2).
pub fn pivot_root(new: &CStr, old: &CStr) -> Result<()> {
    // SAFETY: both are NUL-terminated strings.
    let result = unsafe { libc::syscall(libc::SYS_pivot_root, new.as_ptr(), old.as_ptr()) };
    check(result, "pivot_root to", new).map(drop)
}

/// chdir(2).
pub fn chdir(path: &CStr) -> Result<()> {
    // SAFETY: the path is a NUL-terminated string.
    check(unsafe { libc::chdir(path.as_ptr()) }.into(), "chdir to", path).map(drop)
}

/// mkdir(2).
pub fn mkdir(path: &CStr, mode: libc::mode_t) -> Result<()> {
    // SAFETY: the path is a NUL-terminated string.
    check(unsafe { libc::mkdir(path.as_ptr(), mode) }.into(), "make directory", path).map(drop)
}

/// rmdir(2).
pub fn rmdir(path: &CStr) -> Result<()> {
    // SAFETY: the path is a NUL-terminated string.
    check(unsafe { libc::rmdir(path.as_ptr()) }.into(), "remove directory", path).map(drop)
}

/// mknod(2) of a character device that all may read and write.
pub fn mknod(path: &CStr, major: u32, minor: u32) -> Result<()> {
    // SAFETY: the path is a NUL-terminated string.
    let result = unsafe { libc::mknod(path.as_ptr(), libc::S_IFCHR | 0o666, libc::makedev(major, minor)) };
    check(result.into(), "make device", path).map(drop)
}

/// symlink(2).
pub fn symlink(target: &CStr, path: &CStr) -> Result<()> {
    // SAFETY: both are NUL-terminated strings.
    check(unsafe { libc::symlink(target.as_ptr(), path.as_ptr()) }.into(), "make link", path).map(drop)
}

/// umask(2).
pub fn umask(mask: libc::mode_t) {
    // SAFETY: takes a number and never fails.
    unsafe { libc::umask(mask) };
}

/// open(2) for writing.
pub fn open_for_writing(path: &CStr) -> Result<Fd> {
    // SAFETY: the path is a NUL-terminated string.
    let result = unsafe { libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC) };
    check(result.into(), "open", path).map(|fd| fd as Fd)
}

/// Reads a small file of the kernel in one read(2). The execve or the exit closes it.
pub fn read_file<'a>(path: &CStr, buffer: &'a mut [u8]) -> Result<&'a [u8]> {
    // SAFETY: the path is a NUL-terminated string.
    let fd = unsafe { libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
    let fd = check(fd.into(), "open", path)? as Fd;
    // SAFETY: the buffer is writable and as long as the length that is given.
    let count = unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()) };
    let count = check(count as i64, "read", path)?;
    Ok(buffer.get(..count as usize).unwrap_or_default())
}

/// write(2) of a few bytes; `what` says what for.
pub fn write(fd: Fd, bytes: &[u8], what: &str) -> Result<()> {
    // SAFETY: the bytes are readable for the length that is given.
    let result = unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) };
    check(result as i64, what, c"").map(drop)
}

/// read(2) of one byte; the end of the file is an error.
pub fn wait_for_byte(fd: Fd) -> Result<()> {
    let mut byte = 0u8;
    // SAFETY: one byte may be written there.
    let result = unsafe { libc::read(fd, (&raw mut byte).cast(), 1) };
    if check(result as i64, "wait for the parent", c"")? == 0 {
        return Err(Error::new("wait for the parent, which gave up", libc::EPIPE));
    }
    Ok(())
}

/// close(2).
pub fn close(fd: Fd) {
    // SAFETY: the caller owns the descriptor and forgets it.
    unsafe { libc::close(fd) };
}

/// pipe2(2): the end to read and the end to write.
pub fn pipe() -> Result<(Fd, Fd)> {
    let mut ends = [0; 2];
    // SAFETY: there is room for two descriptors.
    let result = unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) };
    check(result.into(), "make a pipe", c"")?;
    Ok((ends[0], ends[1]))
}

/// clone3(2) with the semantics of fork. Gives the child's pid, or nothing in the child.
pub fn clone3(flags: i32) -> Result<Option<i32>> {
    // SAFETY: all zero is a valid clone_args.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = flags as u64;
    arguments.exit_signal = libc::SIGCHLD as u64;
    // SAFETY: memory and stack are copied as by fork, and this process has one thread, so that the child may
    // go on like after fork.
    let result =
        unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<libc::clone_args>()) };
    let pid = check(result, "clone3 with new namespaces", c"")?;
    Ok((pid != 0).then_some(pid as i32))
}

/// unshare(2).
pub fn unshare(flags: i32) -> Result<()> {
    // SAFETY: takes a number.
    check(unsafe { libc::unshare(flags) }.into(), "unshare", c"").map(drop)
}

/// wait4(2). Gives the exit status that a shell would.
pub fn wait(pid: i32) -> Result<u8> {
    let mut status = 0;
    loop {
        // SAFETY: the status may be written.
        let result = unsafe { libc::wait4(pid, &raw mut status, 0, std::ptr::null_mut()) };
        match check(result.into(), "wait for the container", c"") {
            Err(Error { errno: libc::EINTR, .. }) => {}
            Err(error) => return Err(error),
            Ok(_) if libc::WIFSIGNALED(status) => return Ok(128 + libc::WTERMSIG(status) as u8),
            Ok(_) => return Ok(libc::WEXITSTATUS(status) as u8),
        }
    }
}

/// sethostname(2).
pub fn sethostname(name: &[u8]) -> Result<()> {
    // SAFETY: the bytes are readable for the length that is given.
    check(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) }.into(), "sethostname", c"").map(drop)
}

/// setrlimit(2): RLIMIT_NOFILE, soft and hard.
pub fn set_nofile(limit: u64) -> Result<()> {
    let limit = libc::rlimit { rlim_cur: limit, rlim_max: limit };
    // SAFETY: the structure is readable.
    let result = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    check(result.into(), "set RLIMIT_NOFILE", c"").map(drop)
}

/// setgroups(2): none.
pub fn clear_groups() -> Result<()> {
    // SAFETY: no group is read when the count is zero.
    check(unsafe { libc::setgroups(0, std::ptr::null()) }.into(), "setgroups", c"").map(drop)
}

/// prctl(2): PR_CAPBSET_DROP.
pub fn drop_from_bounding_set(capability: u32) -> Result<()> {
    // SAFETY: takes numbers.
    let result = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(capability), 0, 0, 0) };
    check(result.into(), "drop from the bounding set", c"").map(drop)
}

/// capset(2): permitted and effective as given, inheritable none.
pub fn set_capabilities(set: u64) -> Result<()> {
    const VERSION_3: u32 = 0x2008_0522;
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    let header = Header { version: VERSION_3, pid: 0 };
    let (low, high) = (set as u32, (set >> 32) as u32);
    // Effective, permitted, inheritable: first of capabilities 0 to 31, then of the rest.
    let data = [low, low, 0, high, high, 0];
    // SAFETY: version 3 has a header of two words and data of six.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) };
    check(result, "set capabilities", c"").map(drop)
}

/// prctl(2): PR_SET_NO_NEW_PRIVS.
pub fn no_new_privs() -> Result<()> {
    // SAFETY: takes numbers.
    let result = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    check(result.into(), "set no_new_privs", c"").map(drop)
}

/// close_range(2) from `first` upwards.
pub fn close_from(first: u32) -> Result<()> {
    // SAFETY: takes numbers; no descriptor from there on is used again.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
    check(result, "close descriptors", c"").map(drop)
}

/// execve(2). Comes back only with an error.
pub fn execute(program: &[CString], environment: &[CString]) -> Result<std::convert::Infallible> {
    let terminated = |strings: &[CString]| -> Vec<*const libc::c_char> {
        strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let Some(path) = program.first() else {
        return Err(Error::new("execute nothing", libc::EINVAL));
    };
    let (arguments, variables) = (terminated(program), terminated(environment));
    // SAFETY: both are null-terminated lists of NUL-terminated strings that are still alive.
    let result = unsafe { libc::execve(path.as_ptr(), arguments.as_ptr(), variables.as_ptr()) };
    check(result.into(), "execute", path)?;
    Err(Error::new("execute, which came back", libc::EINVAL))
}

/// _exit(2).
pub fn exit(status: i32) -> ! {
    // SAFETY: ends the process without running anything of the parent's that was copied.
    unsafe { libc::_exit(status) }
}

/// getpid(2).
pub fn getpid() -> i32 {
    // SAFETY: takes nothing and never fails.
    unsafe { libc::getpid() }
}

/// The monotonic clock, in nanoseconds.
pub fn now_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the structure may be written.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Counters that stay shared over a clone, for the life of the process.
pub fn shared_counters<const N: usize>() -> Result<&'static [AtomicU64; N]> {
    // SAFETY: a new mapping, at an address of the kernel's choice.
    let memory = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            size_of::<[AtomicU64; N]>(),
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if memory == libc::MAP_FAILED {
        return Err(last("map shared memory", c""));
    }
    // SAFETY: the mapping is zeroed, aligned to a page, large enough, and never unmapped.
    Ok(unsafe { &*memory.cast() })
}
