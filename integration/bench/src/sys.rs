//! The system calls that std has no safe form of: the only place of this program with `unsafe`.

use std::ffi::{CStr, CString};
use std::io::{Error, Result};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

/// Set when the user asked to stop.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);
/// Set when the watchdog of a command has run out.
static TIMED_OUT: AtomicBool = AtomicBool::new(false);
/// To whom the supervisor passes a request to stop.
static WORKER: AtomicI32 = AtomicI32::new(0);

fn check(result: i32) -> Result<i32> {
    if result < 0 { Err(Error::last_os_error()) } else { Ok(result) }
}

fn text(path: &Path) -> Result<CString> {
    use std::os::unix::ffi::OsStrExt;
    CString::new(path.as_os_str().as_bytes()).map_err(Into::into)
}

/// How a process ended and what it used.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// As wait4(2) gives it.
    pub status: i32,
    /// User and system time, of it and of the children it waited for, in microseconds.
    pub cpu_us: u64,
    /// The highest resident set of it or of a child it waited for, in KiB.
    pub maxrss_kib: u64,
}

impl Ended {
    /// Whether it exited with 0.
    pub fn success(&self) -> bool {
        self.status == 0
    }

    /// "exit status 1" or "signal 9".
    pub fn describe(&self) -> String {
        if libc::WIFSIGNALED(self.status) {
            format!("signal {}", libc::WTERMSIG(self.status))
        } else {
            format!("exit status {}", libc::WEXITSTATUS(self.status))
        }
    }
}

/// How to start processes: standard streams and signals, prepared once, so that a start is one call.
pub struct Spawner {
    actions: Box<libc::posix_spawn_file_actions_t>,
    attributes: Box<libc::posix_spawnattr_t>,
    environment: Vec<CString>,
}

impl Spawner {
    /// Children get these descriptors as standard streams, this environment, a process group of their own (so
    /// that Ctrl-C stops the benchmark between commands and not a command half-way) and default signals.
    pub fn new(input: RawFd, output: RawFd, error: RawFd, environment: Vec<CString>) -> Result<Self> {
        // SAFETY: both types are plain data for their init functions to fill.
        let (mut actions, mut attributes) = unsafe {
            (
                Box::new(std::mem::zeroed::<libc::posix_spawn_file_actions_t>()),
                Box::new(std::mem::zeroed::<libc::posix_spawnattr_t>()),
            )
        };
        // SAFETY: the structures are writable and initialised before any other use; the signal sets are
        // plain data that sigfillset and sigemptyset fill.
        unsafe {
            libc::posix_spawn_file_actions_init(&raw mut *actions);
            for (number, fd) in [input, output, error].into_iter().enumerate() {
                libc::posix_spawn_file_actions_adddup2(&raw mut *actions, fd, number as i32);
            }
            libc::posix_spawnattr_init(&raw mut *attributes);
            let mut all: libc::sigset_t = std::mem::zeroed();
            libc::sigfillset(&raw mut all);
            libc::posix_spawnattr_setsigdefault(&raw mut *attributes, &raw const all);
            let mut none: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut none);
            libc::posix_spawnattr_setsigmask(&raw mut *attributes, &raw const none);
            libc::posix_spawnattr_setpgroup(&raw mut *attributes, 0);
            let flags =
                libc::POSIX_SPAWN_SETPGROUP | libc::POSIX_SPAWN_SETSIGDEF | libc::POSIX_SPAWN_SETSIGMASK;
            libc::posix_spawnattr_setflags(&raw mut *attributes, flags as libc::c_short);
        }
        Ok(Self { actions, attributes, environment })
    }

    /// posix_spawn(3): vfork and execve. Gives the pid. The first argument is the path of the program.
    pub fn spawn(&self, arguments: &[CString]) -> Result<i32> {
        let terminated = |strings: &[CString]| -> Vec<*mut libc::c_char> {
            strings.iter().map(|s| s.as_ptr().cast_mut()).chain([std::ptr::null_mut()]).collect()
        };
        let Some(program) = arguments.first() else {
            return Err(Error::from_raw_os_error(libc::EINVAL));
        };
        let (argv, envp) = (terminated(arguments), terminated(&self.environment));
        let mut pid = 0;
        // SAFETY: both lists end with null and hold NUL-terminated strings that outlive the call, which does
        // not write to them; actions and attributes were initialised.
        let errno = unsafe {
            libc::posix_spawn(
                &raw mut pid,
                program.as_ptr(),
                &raw const *self.actions,
                &raw const *self.attributes,
                argv.as_ptr(),
                envp.as_ptr(),
            )
        };
        if errno == 0 { Ok(pid) } else { Err(Error::from_raw_os_error(errno)) }
    }
}

impl Drop for Spawner {
    fn drop(&mut self) {
        // SAFETY: both were initialised and are not used again.
        unsafe {
            libc::posix_spawn_file_actions_destroy(&raw mut *self.actions);
            libc::posix_spawnattr_destroy(&raw mut *self.attributes);
        }
    }
}

/// wait4(2) for one child. A signal to this process does not end the wait; a watchdog that runs out kills the
/// child's process group first.
pub fn wait(pid: i32) -> Result<Ended> {
    let mut status = 0;
    // SAFETY: all zero is a valid rusage.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both structures may be written.
        match check(unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) }) {
            Ok(_) => break,
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => {
                if TIMED_OUT.load(Ordering::Relaxed) {
                    let _ = kill(-pid, libc::SIGKILL);
                    let _ = kill(pid, libc::SIGKILL);
                }
            }
            Err(error) => return Err(error),
        }
    }
    let microseconds = |t: libc::timeval| t.tv_sec as u64 * 1_000_000 + t.tv_usec as u64;
    Ok(Ended {
        status,
        cpu_us: microseconds(usage.ru_utime) + microseconds(usage.ru_stime),
        maxrss_kib: usage.ru_maxrss as u64,
    })
}

/// Reaps every child that has ended. Gives whether children remain.
pub fn reap() -> bool {
    loop {
        // SAFETY: no status is asked for.
        match unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) } {
            0 => return true,
            pid if pid < 0 => return false,
            _ => {}
        }
    }
}

/// kill(2).
pub fn kill(pid: i32, signal: i32) -> Result<()> {
    // SAFETY: takes numbers.
    check(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// Sets a watchdog that runs out after `seconds` (and then every second, in case a signal comes between two
/// calls), or stops it with 0.
pub fn watchdog(seconds: i64) {
    TIMED_OUT.store(false, Ordering::Relaxed);
    let after = |s: i64| libc::timeval { tv_sec: s, tv_usec: 0 };
    let timer = libc::itimerval { it_interval: after(seconds.min(1)), it_value: after(seconds) };
    // SAFETY: the structure is readable and no old value is asked for.
    unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()) };
}

/// Whether the watchdog has run out since it was set.
pub fn timed_out() -> bool {
    TIMED_OUT.load(Ordering::Relaxed)
}

/// Whether the user asked to stop.
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

extern "C" fn on_signal(signal: libc::c_int) {
    if signal == libc::SIGALRM {
        TIMED_OUT.store(true, Ordering::Relaxed);
        return;
    }
    INTERRUPTED.store(true, Ordering::Relaxed);
    let worker = WORKER.load(Ordering::Relaxed);
    if worker > 0 {
        // SAFETY: kill(2) is async-signal-safe, and the worker is not reaped while its pid is here.
        unsafe { libc::kill(worker, libc::SIGTERM) };
    }
}

/// Turns SIGINT, SIGTERM and SIGHUP into [`interrupted`], and SIGALRM into [`timed_out`].
pub fn catch_signals() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGALRM] {
        // SAFETY: the handler only touches atomics and calls kill(2); without SA_RESTART waits are cut short.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_signal as *const () as libc::sighandler_t;
            libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        }
    }
}

/// Makes orphans among the descendants children of this process.
pub fn become_subreaper() -> Result<()> {
    // SAFETY: takes numbers.
    check(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }).map(drop)
}

/// fork(2). Gives the pid of the worker, or nothing in the worker, which is told to stop when the supervisor
/// dies.
pub fn fork_worker() -> Result<Option<i32>> {
    // SAFETY: this process has one thread, so that the child may do anything.
    let pid = check(unsafe { libc::fork() })?;
    if pid == 0 {
        // SAFETY: takes numbers.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM, 0, 0, 0) };
        return Ok(None);
    }
    WORKER.store(pid, Ordering::Relaxed);
    Ok(Some(pid))
}

/// The worker has been reaped: its pid may be another's from now on.
pub fn forget_worker() {
    WORKER.store(0, Ordering::Relaxed);
}

/// Enters a mount namespace of its own, from which nothing reaches the host's.
pub fn private_mounts() -> Result<()> {
    // SAFETY: takes a number.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
    mount(None, Path::new("/"), None, libc::MS_REC | libc::MS_PRIVATE)
}

/// Binds one file over another.
pub fn bind(source: &Path, target: &Path) -> Result<()> {
    mount(Some(source), target, None, libc::MS_BIND)
}

/// A new tmpfs.
pub fn tmpfs(target: &Path) -> Result<()> {
    mount(Some(Path::new("tmpfs")), target, Some(c"tmpfs"), libc::MS_NOSUID | libc::MS_NODEV)
}

/// Makes the filesystem of a tmpfs read-only.
pub fn tmpfs_read_only(target: &Path) -> Result<()> {
    mount(None, target, None, libc::MS_REMOUNT | libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV)
}

/// umount2(2), lazily.
pub fn unmount(target: &Path) -> Result<()> {
    let target = text(target)?;
    // SAFETY: the path is NUL-terminated.
    check(unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) }).map(drop)
}

fn mount(source: Option<&Path>, target: &Path, kind: Option<&CStr>, flags: libc::c_ulong) -> Result<()> {
    let source = source.map(text).transpose()?;
    let target = text(target)?;
    let pointer = |s: Option<&CStr>| s.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: every pointer is null or a NUL-terminated string that outlives the call.
    let result = unsafe {
        libc::mount(pointer(source.as_deref()), target.as_ptr(), pointer(kind), flags, std::ptr::null())
    };
    check(result).map(drop)
}

/// A file in memory.
pub fn memory_file(name: &CStr) -> Result<OwnedFd> {
    // SAFETY: the name is NUL-terminated; a new descriptor has no other owner.
    unsafe {
        let fd = check(libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Sets or clears the immutable flag of an open file (`chattr +i`).
pub fn set_immutable(file: &impl AsRawFd, on: bool) -> Result<()> {
    const FS_IMMUTABLE_FL: libc::c_long = 0x10;
    let mut flags: libc::c_long = 0;
    // SAFETY: both requests take a pointer to a long.
    unsafe {
        check(libc::ioctl(file.as_raw_fd(), libc::FS_IOC_GETFLAGS, &raw mut flags))?;
        flags = if on { flags | FS_IMMUTABLE_FL } else { flags & !FS_IMMUTABLE_FL };
        check(libc::ioctl(file.as_raw_fd(), libc::FS_IOC_SETFLAGS, &raw const flags)).map(drop)
    }
}
