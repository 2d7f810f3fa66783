//! Settings of the process itself that need more than one call, or advice where the kernel refuses them.

use std::ffi::CString;

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, setrlimit};

use super::{Inside, missing, procfs};
use crate::error::{Doing, Error, Result};
use crate::sys;

/// A keyring of one's own, unless the kernel has none (or a sandbox around us forbids it).
pub fn session_keyring(name: &str) -> Result<()> {
    let name = CString::new(name).map_err(|_| missing("a keyring name without NUL"))?;
    match sys::keyring::join_session(&name) {
        Ok(()) | Err(Errno::NOSYS) => Ok(()),
        Err(errno) => Err(Error::os(errno, "join the session keyring")
            .hint("the user's quota of keys may be used up (/proc/keys); --no-new-keyring does without")),
    }
}

pub fn set_limit(name: &str, resource: Resource, soft: u64, hard: u64) -> Result<()> {
    let some = |value: u64| (value != u64::MAX).then_some(value);
    setrlimit(resource, Rlimit { current: some(soft), maximum: some(hard) })
        .doing(|| format!("set {name}"))
        .map_err(explain_limit)
}

/// Why the kernel refuses a limit.
pub fn explain_limit(error: Error) -> Error {
    match error.errno() {
        Some(Errno::PERM) => error.hint(
            "raising a hard limit needs CAP_SYS_RESOURCE, which the runtime doesn't have here; no process may have more open files than /proc/sys/fs/nr_open",
        ),
        _ => error,
    }
}

pub fn exec_label(module: &str, label: &str, inside: &Inside<'_>) -> Result<()> {
    match module {
        "apparmor" => {
            let value = format!("exec {label}");
            // Linux 5.8 gave each module a directory of its own; the shared file is the older way.
            procfs::write(&inside.proc, "thread-self/attr/apparmor/exec", &value)
                .or_else(|_| procfs::write(&inside.proc, "thread-self/attr/exec", &value))
        }
        _ => procfs::write(&inside.proc, "thread-self/attr/exec", label),
    }
}

/// Sets the memory policy.
pub fn set_memory_policy(mode: u32, nodes: &[u64]) -> Result<()> {
    sys::policy::set_memory_policy(mode, nodes).doing(|| "set_mempolicy").map_err(|error| match error.errno() {
        Some(Errno::INVAL) => error.hint(
            "the nodes must be online, have memory, and be allowed by the container's cpuset (/sys/devices/system/node)",
        ),
        Some(Errno::NOSYS) => error.hint("this kernel has no NUMA support (CONFIG_NUMA)"),
        _ => error,
    })
}
