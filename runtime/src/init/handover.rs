//! The end of the container's side: letting the host go, the seccomp filter, the program.

use std::os::fd::AsFd;
use std::path::Path;

use coracle_seccomp::FLAG_NEW_LISTENER;
use rustix::io::Errno;

use super::channel::Channel;
use super::listener::Courier;
use super::{Inside, Made, credentials, missing};
use crate::error::{Doing, Error, Result};
use crate::sys;
use crate::sys::exec::CStringArray;

/// Leaves only what the program keeps, the socket to the host side and the gate: a process that waits for `start` must
/// not hold a way to the host (CVE-2016-9962, CVE-2024-21626), nor may the limit of descriptors be met later.
pub fn let_go(inside: &mut Inside<'_>, made: &mut Made) -> Result<()> {
    *made = Made {
        times: std::mem::take(&mut made.times),
        pending_directory: made.pending_directory.take(),
        ..Made::default()
    };
    let mut needed = vec![inside.channel.as_fd()];
    needed.extend(inside.gate.as_ref().map(AsFd::as_fd));
    let mut kept = sys::process::keep_only(inside.keep, &needed)
        .doing(|| "close the runtime's descriptors")?
        .into_iter();
    // What these replace, and all that the host side prepared, is closed already.
    if let Some(channel) = kept.next() {
        std::mem::forget(std::mem::replace(&mut inside.channel, Channel::from_socket(channel)));
    }
    std::mem::forget(std::mem::replace(&mut inside.gate, kept.next()));
    Ok(())
}

/// Loads the filter. With a listener, what follows may be decided by an agent, which must have the listener first.
pub fn load_filter(privileged: bool, inside: &Inside<'_>, made: &mut Made) -> Result<()> {
    let program = inside.seccomp.ok_or_else(|| missing("the seccomp filter"))?;
    get_ready(made)?;
    if privileged {
        credentials::raise_permitted()?;
    }
    let channel = made.start.as_ref().unwrap_or(&inside.channel);
    let listens = program.flags & FLAG_NEW_LISTENER != 0;
    let courier = listens.then(|| Courier::call(channel)).transpose()?;
    let listener = sys::seccomp::load(&program.instructions, program.flags)
        .doing(|| "load the seccomp filter")
        .map_err(|error| match error.errno() {
            Some(Errno::ACCESS) => error.hint("set process.noNewPrivileges, or run with CAP_SYS_ADMIN"),
            Some(Errno::INVAL) => {
                error.hint("this kernel doesn't know one of linux.seccomp.flags, or has no seccomp filters")
            }
            _ => error,
        })?;
    match (listener, courier) {
        (Some(listener), Some(courier)) => courier
            .deliver(listener)
            .doing(|| "hand the seccomp listener over")
            .map_err(|error| error.hint("with an agent the profile must allow write")),
        _ => Ok(()),
    }
}

/// What can be done for the program before a filter that may forbid it: after it only execve(2) is left.
fn get_ready(made: &mut Made) -> Result<()> {
    if std::mem::replace(&mut made.ready, true) {
        return Ok(());
    }
    sys::process::close_on_exec_from(3).doing(|| "close the runtime's descriptors")?;
    sys::signal::reset_for_exec().doing(|| "reset the signals")
}

/// Becomes the program.
pub fn program_start(inside: &mut Inside<'_>, made: &mut Made) -> Result<()> {
    let program = made.program.take().ok_or_else(|| missing("the program's path"))?;
    let args = CStringArray::new(inside.args.to_vec());
    let env = CStringArray::new(std::mem::take(&mut inside.env));
    get_ready(made)?;
    // Not before: the startContainer hooks, which may come after the filter, don't get them.
    for number in 3..inside.keep {
        sys::process::keep_on_exec(number as i32).doing(|| format!("keep descriptor {number}"))?;
    }
    let errno = sys::exec::execve(&program, &args, &env);
    let shown = Path::new(std::ffi::OsStr::new(program.to_str().unwrap_or_default())).display().to_string();
    Err(match errno {
        Errno::NOEXEC => Error::os(errno, format!("exec {shown}"))
            .hint("the file is for another architecture, or a script without #!"),
        Errno::NOENT => Error::os(errno, format!("exec {shown}"))
            .hint("the interpreter or loader that the file names is missing in the rootfs"),
        _ => Error::os(errno, format!("exec {shown}")),
    }
    .at("process.args[0]"))
}
