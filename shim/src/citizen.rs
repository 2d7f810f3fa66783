//! The shim as a process among others: its name, its place in cgroups and scheduling, and what it inherits.

use std::ffi::CStr;
use std::path::Path;
use std::sync::OnceLock;

use coracle::error::{Doing, Error, Kind, Result};
use rustix::io::Errno;
use rustix::process::{Pid, Resource, Rlimit, getpid, getppid, getrlimit, setrlimit};

use crate::sys;

/// What ps(1) shows: a name has 15 bytes.
const NAME: &CStr = c"containerd-shim";

/// The highest score that the OOM killer takes.
const HIGHEST_SCORE: i32 = 1000;

/// Variables of containerd's service that mean containerd alone: sd_notify(3), sd_listen_fds(3).
const NOT_OURS: [&str; 4] = ["NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"];

/// The limit of open descriptors that the shim was started with, once it has raised its own.
static INHERITED_LIMIT: OnceLock<Rlimit> = OnceLock::new();

/// The environment that the daemon inherits.
pub fn environment() -> impl Iterator<Item = (std::ffi::OsString, std::ffi::OsString)> {
    std::env::vars_os().filter(|(name, _)| !NOT_OURS.iter().any(|other| name == other))
}

/// Makes this process more likely to be ended for want of memory than its parent, containerd, by one.
pub fn adjust_oom_score() -> Result<()> {
    let Some(parent) = getppid() else { return Ok(()) };
    let path = format!("/proc/{}/oom_score_adj", parent.as_raw_nonzero());
    let text = std::fs::read_to_string(&path).doing(|| format!("read {path}"))?;
    let score: i32 = text
        .trim()
        .parse()
        .map_err(|_| Error::new(Kind::System, format!("read {path}: {text:?} is no number")))?;
    let score = (score + 1).min(HIGHEST_SCORE);
    std::fs::write("/proc/self/oom_score_adj", score.to_string())
        .doing(|| format!("write {score} to /proc/self/oom_score_adj"))
}

/// Joins the cgroup that the options name: a path below the mount of each hierarchy that has it.
pub fn join_cgroup(path: &str) -> Result<()> {
    let layout = coracle::cgroup::Layout::detect()?;
    let relative = Path::new(path.trim_start_matches('/'));
    let own = getpid().as_raw_nonzero().to_string();
    let mut joined = 0;
    for hierarchy in layout.v1().iter().chain(layout.unified()) {
        let procs = hierarchy.mount.join(relative).join("cgroup.procs");
        match std::fs::write(&procs, &own) {
            Ok(()) => joined += 1,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).doing(|| format!("join the cgroup {}", procs.display())),
        }
    }
    if joined == 0 {
        return Err(Error::new(Kind::System, format!("join the cgroup {path}: no hierarchy has it"))
            .hint("ShimCgroup names a cgroup that exists"));
    }
    Ok(())
}

/// Gives the shim and what it starts a core scheduling group of their own, where containerd asks for that by
/// `$SCHED_CORE`. To be called by the leader of a process group.
pub fn set_core_group() -> Result<()> {
    match std::env::var_os("SCHED_CORE") {
        Some(value) if !value.is_empty() => {
            sys::make_core_group().doing(|| "make a core scheduling group").map_err(|error| {
                error.hint("the kernel needs CONFIG_SCHED_CORE and a CPU with threads; or unset SCHED_CORE")
            })
        }
        _ => Ok(()),
    }
}

/// Lets the shim open as many descriptors as it may: one shim has the streams of all containers of a pod, and of all
/// their execs, and systemd starts services with a soft limit of 1024 (systemd.exec(5)).
fn raise_descriptor_limit() -> Result<()> {
    let inherited = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: inherited.maximum, ..inherited };
    setrlimit(Resource::Nofile, raised).doing(|| "raise the shim's limit of open descriptors")?;
    INHERITED_LIMIT.get_or_init(|| inherited);
    Ok(())
}

/// Gives a copy of the shim the limit of open descriptors back that the shim was started with: what the copy executes
/// is to have it. Does nothing where it wasn't raised.
pub fn restore_descriptor_limit() -> Result<(), Errno> {
    INHERITED_LIMIT.get().map_or(Ok(()), |inherited| setrlimit(Resource::Nofile, *inherited))
}

/// Settles the daemon: its name, its limits, its descendants' way to it, its working directory.
pub fn settle() -> Result<()> {
    rustix::thread::set_name(NAME).doing(|| "set the shim's name")?;
    raise_descriptor_limit()?;
    rustix::process::set_child_subreaper(Some(own_pid())).doing(|| "become a subreaper")?;
    std::env::set_current_dir("/").doing(|| "change to the directory /")
}

fn own_pid() -> Pid {
    getpid()
}
