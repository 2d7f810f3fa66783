//! Which containers could take the immutable flag from the runtime's own file, and so get a sealed image (CVE-2019-5736).

use std::path::Path;

use oci_spec::runtime::{Capability, LinuxNamespaceType, Process, Spec};

use crate::error::Result;
use crate::seal::{self, Writers};

/// Makes sure that the runtime's image can't be written by the processes of a container with this configuration. It may
/// begin this program anew, so nothing may have been made yet, and no signal be held back.
pub fn protect_from(spec: &Spec) -> Result<()> {
    if could_unprotect(spec) { seal::ensure(Writers::All) } else { Ok(()) }
}

/// As [`protect_from`], for a process that is added to such a container.
pub fn protect_from_added(process: &Process, spec: &Spec) -> Result<()> {
    if may_clear_flags(process) && !has_user_namespace(spec) { seal::ensure(Writers::All) } else { Ok(()) }
}

/// As [`protect_from`], before a file that tells of capabilities is read: what isn't a regular file can be read once only,
/// which this program would have to do again when it begins anew.
pub fn protect_before_reading(path: &Path) -> Result<()> {
    if path.is_file() { Ok(()) } else { seal::ensure(Writers::All) }
}

/// Whether a process that sees the runtime's file may have CAP_LINUX_IMMUTABLE on the host: one of the container's own, or
/// one of those in a pid namespace that others made.
fn could_unprotect(spec: &Spec) -> bool {
    let shared = namespaces(spec).any(|namespace| {
        namespace.typ() == LinuxNamespaceType::Pid
            && namespace.path().as_ref().is_some_and(|path| !path.as_os_str().is_empty())
    });
    !has_user_namespace(spec) && (shared || spec.process().as_ref().is_some_and(may_clear_flags))
}

/// In a user namespace of its own a container's capabilities are none over the host's files.
fn has_user_namespace(spec: &Spec) -> bool {
    namespaces(spec).any(|namespace| namespace.typ() == LinuxNamespaceType::User)
}

fn namespaces(spec: &Spec) -> impl Iterator<Item = &oci_spec::runtime::LinuxNamespace> {
    spec.linux().iter().filter_map(|linux| linux.namespaces().as_ref()).flatten()
}

/// Whether any set has CAP_LINUX_IMMUTABLE: what is permitted or inheritable need not be in the bounding set.
fn may_clear_flags(process: &Process) -> bool {
    process.capabilities().as_ref().is_some_and(|sets| {
        [sets.bounding(), sets.permitted(), sets.effective(), sets.inheritable(), sets.ambient()]
            .into_iter()
            .flatten()
            .any(|set| set.contains(&Capability::LinuxImmutable))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn spec(namespaces: &Value, capabilities: &Value) -> Spec {
        serde_json::from_value(json!({
            "ociVersion": "1.0.0",
            "process": { "user": {"uid": 0, "gid": 0}, "cwd": "/", "args": ["sh"], "capabilities": capabilities },
            "linux": { "namespaces": namespaces },
        }))
        .unwrap()
    }

    #[test]
    fn the_flag_can_be_taken_away_with_the_capability_on_the_host() {
        let could =
            |namespaces: Value, capabilities: Value| could_unprotect(&spec(&namespaces, &capabilities));
        let own = || json!([{"type": "pid"}, {"type": "mount"}]);
        assert!(!could(own(), json!({"bounding": ["CAP_CHOWN"]})));
        for set in ["bounding", "permitted", "effective", "inheritable", "ambient"] {
            assert!(could(own(), json!({set: ["CAP_LINUX_IMMUTABLE"]})), "{set}");
        }
        let with_user = json!([{"type": "pid"}, {"type": "user"}]);
        assert!(!could(with_user, json!({"bounding": ["CAP_LINUX_IMMUTABLE"]})));
    }

    #[test]
    fn nobody_knows_what_processes_of_a_joined_pid_namespace_may_do() {
        let joined = json!([{"type": "pid", "path": "/proc/1/ns/pid"}]);
        assert!(could_unprotect(&spec(&joined, &json!({"bounding": []}))));
    }
}
