//! Signals: sending by pidfd with any number, masks, dispositions.

use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::io::Errno;

use super::check;

/// Sends signal number `signal` (0 only asks whether it could be sent) to the process that `pidfd` is.
pub fn send(pidfd: impl AsFd, signal: i32) -> Result<(), Errno> {
    // SAFETY: a null siginfo makes the kernel fill it in as kill(2) does.
    check(unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_fd().as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    })
    .map(drop)
}

/// What a signal means, in the words of strsignal(3) and of Go: "bad system call".
pub fn describe(signal: i32) -> String {
    // SAFETY: the C library gives a text for every number, which stays valid until the next call; there is one thread.
    let text = unsafe { std::ffi::CStr::from_ptr(libc::strsignal(signal)) };
    text.to_string_lossy().to_lowercase()
}

/// `struct sigaction` as the kernel has it, which isn't the C library's.
#[repr(C)]
#[derive(Default)]
struct KernelAction {
    handler: usize,
    flags: u64,
    restorer: usize,
    mask: u64,
}

extern "C" fn end(signal: libc::c_int) {
    // SAFETY: _exit(2) may be called by a handler: signal-safety(7).
    unsafe { libc::_exit(128 + signal) }
}

/// Lets SIGHUP, SIGINT and SIGTERM end this process with the status 128 and the signal's number. execve(2) puts their
/// defaults back.
pub fn end_by_usual_signals() -> Result<(), Errno> {
    let mut blocked = 0_u64;
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGTERM] {
        // SAFETY: the handler takes the one argument that it gets without SA_SIGINFO, and calls only what a handler may.
        if unsafe { libc::signal(signal, end as *const () as libc::sighandler_t) } == libc::SIG_ERR {
            return Err(Errno::INVAL);
        }
        blocked |= 1 << (signal - 1);
    }
    set_mask(libc::SIG_UNBLOCK, blocked)
}

/// Changes which signals are blocked: sigprocmask(2).
fn set_mask(how: i32, mask: u64) -> Result<(), Errno> {
    // SAFETY: the mask is one word, as is told, and outlives the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            how,
            &raw const mask,
            std::ptr::null_mut::<u64>(),
            std::mem::size_of::<u64>(),
        )
    })
    .map(drop)
}

/// Whether the calling process ignores a signal.
pub fn is_ignored(number: i32) -> bool {
    let mut action = KernelAction::default();
    // SAFETY: the kernel writes one action, in its own layout; nothing is changed.
    let read = check(unsafe {
        libc::syscall(
            libc::SYS_rt_sigaction,
            number,
            std::ptr::null::<KernelAction>(),
            &raw mut action,
            std::mem::size_of::<u64>(),
        )
    });
    read.is_ok() && action.handler == libc::SIG_IGN
}

/// Makes a command begin with what [`reset_for_exec`] gives: it would inherit what the runtime blocks.
pub fn reset_before_exec(command: &mut Command) {
    // SAFETY: between fork(2) and execve(2) only system calls are made, and nothing is allocated.
    unsafe {
        // Where a seccomp filter refuses the calls, it was loaded after they were made for the whole process.
        command.pre_exec(|| reset_for_exec().or(Ok(())));
    }
}

/// Gives the process that is about to be executed the dispositions and the mask a program expects: no signal blocked,
/// and at their defaults what is commonly ignored around a runtime. `SIGPIPE` is by Rust's start-up, the two signals of the
/// C library's threads by its posix_spawn(3), `SIGHUP` by nohup(1), `SIGINT` and `SIGQUIT` by a shell for what it puts
/// into the background, `SIGTERM` and `SIGCHLD` by some daemons.
pub fn reset_for_exec() -> Result<(), Errno> {
    const IGNORED: [libc::c_int; 8] =
        [libc::SIGPIPE, 32, 33, libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGCHLD];
    IGNORED.into_iter().try_for_each(set_default)?;
    set_mask(libc::SIG_SETMASK, 0)
}

/// Lets this process hear of its children's ends: a caller that ignores SIGCHLD leaves that to what it executes, whose
/// children then vanish without an exit status (sigaction(2)).
pub fn hear_of_children() -> Result<(), Errno> {
    set_default(libc::SIGCHLD)
}

fn set_default(number: libc::c_int) -> Result<(), Errno> {
    let default = KernelAction::default();
    // SAFETY: the action is SIG_DFL, in the kernel's layout, with its size of signal mask; it outlives the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_rt_sigaction,
            number,
            &raw const default,
            std::ptr::null_mut::<KernelAction>(),
            std::mem::size_of::<u64>(),
        )
    })
    .map(drop)
}
