//! From `linux.namespaces` to what the clone makes, what is joined, and what is prepared before
//! (runtime-spec, config-linux.md "Namespaces"; namespaces(7)).

use std::path::PathBuf;

use oci_spec::runtime::{Linux, LinuxNamespaceType as Type};
use serde::Serialize;

use super::step::Namespace;
use super::user::UserNamespace;

/// `CLONE_NEWTIME`, which `libc` has for unshare(2) under the same number.
const CLONE_NEWTIME: u64 = 0x80;

/// How the container gets its namespaces.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Namespaces {
    /// `CLONE_NEW*` for the clone itself.
    #[serde(skip)]
    pub clone: u64,
    /// The names of what the clone makes.
    pub new: Vec<&'static str>,
    /// A cgroup namespace is made after the process has joined its cgroup, so that this is its root.
    pub new_cgroup: bool,
    /// The container's cgroup namespace isn't the runtime's.
    #[serde(skip)]
    pub own_cgroups: bool,
    /// The container has a mount namespace of its own.
    pub own_mounts: bool,
    /// The container has a new pid namespace: it ends with the container's first process.
    pub own_pids: bool,
    /// Joined by the container's side, each with its place in `config.json`.
    #[serde(serialize_with = "without_places")]
    pub join: Vec<(String, Namespace)>,
    /// Entered by the host side before the clone: a pid namespace holds only a process's children.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid_path: Option<PathBuf>,
    /// A time namespace's offsets, which must be written before the first process enters it: time_namespaces(7).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_offsets: Option<String>,
    /// The user namespace, if the container has one of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<UserNamespace>,
}

impl Namespaces {
    /// Whether a user namespace is joined by path.
    pub fn joins_user(&self) -> bool {
        self.join.iter().any(|(_, namespace)| namespace.flag == libc::CLONE_NEWUSER as u64)
    }

    /// Whether a process of its own must join namespaces first, from which the container's is cloned: those by path
    /// belong to the host's user namespace or to the joined one, and a process in a new one has no power over them.
    pub fn staged(&self) -> bool {
        self.user.is_some() && !self.join.is_empty()
    }

    /// With a user namespace a time namespace is made inside, and a pid namespace by path is joined like the others.
    fn belong_to_user(&mut self) {
        if let Some(path) = self.pid_path.take() {
            let (kind, flag) = describe(Type::Pid);
            self.join.push(("linux.namespaces".to_owned(), Namespace { kind, flag, path }));
        }
    }
}

fn without_places<S: serde::Serializer>(
    join: &[(String, Namespace)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(join.iter().map(|(_, namespace)| namespace))
}

/// Plans the namespaces.
pub fn plan(linux: Option<&Linux>) -> Namespaces {
    let mut planned = Namespaces::default();
    let given = linux.and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default();
    for (index, namespace) in given.iter().enumerate() {
        let (kind, flag) = describe(namespace.typ());
        match namespace.typ() {
            Type::Mount => planned.own_mounts = true,
            Type::Cgroup => planned.own_cgroups = true,
            _ => {}
        }
        let path = namespace.path().clone().filter(|path| !path.as_os_str().is_empty());
        match (path, namespace.typ()) {
            (Some(path), Type::Pid) => planned.pid_path = Some(path),
            (Some(path), _) => {
                planned
                    .join
                    .push((format!("linux.namespaces[{index}].path"), Namespace { kind, flag, path }));
            }
            (None, Type::Cgroup) => planned.new_cgroup = true,
            (None, Type::Time) => {
                planned.new.push(kind);
                planned.time_offsets = Some(offsets(linux));
            }
            (None, _) => {
                planned.own_pids |= namespace.typ() == Type::Pid;
                planned.new.push(kind);
                planned.clone |= flag;
            }
        }
    }
    if planned.clone & libc::CLONE_NEWUSER as u64 != 0 || planned.joins_user() {
        planned.belong_to_user();
    }
    // The mount namespace is joined last: the other paths are the host's.
    planned.join.sort_by_key(|(_, namespace)| namespace.flag == libc::CLONE_NEWNS as u64);
    planned
}

/// The name and the `CLONE_NEW*` of a namespace type.
pub fn describe(kind: Type) -> (&'static str, u64) {
    match kind {
        Type::Mount => ("mount", libc::CLONE_NEWNS as u64),
        Type::Cgroup => ("cgroup", libc::CLONE_NEWCGROUP as u64),
        Type::Uts => ("uts", libc::CLONE_NEWUTS as u64),
        Type::Ipc => ("ipc", libc::CLONE_NEWIPC as u64),
        Type::User => ("user", libc::CLONE_NEWUSER as u64),
        Type::Pid => ("pid", libc::CLONE_NEWPID as u64),
        Type::Network => ("network", libc::CLONE_NEWNET as u64),
        Type::Time => ("time", CLONE_NEWTIME),
    }
}

/// The lines of /proc/PID/timens_offsets: clock, seconds, nanoseconds.
fn offsets(linux: Option<&Linux>) -> String {
    let mut lines: Vec<String> = linux
        .and_then(|linux| linux.time_offsets().as_ref())
        .into_iter()
        .flatten()
        .map(|(clock, offset)| {
            format!("{clock} {} {}\n", offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0))
        })
        .collect();
    lines.sort_unstable();
    lines.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(json: &str) -> Namespaces {
        plan(Some(&serde_json::from_str(json).unwrap()))
    }

    #[test]
    fn the_mount_namespace_is_joined_last_and_the_pid_namespace_before_the_clone() {
        let planned = planned(
            r#"{"namespaces": [{"type": "mount", "path": "/m"}, {"type": "pid", "path": "/p"}, {"type": "ipc", "path": "/i"}]}"#,
        );
        let kinds: Vec<_> = planned.join.iter().map(|(_, namespace)| namespace.kind).collect();
        assert_eq!(kinds, ["ipc", "mount"]);
        assert_eq!(planned.join[1].0, "linux.namespaces[0].path");
        assert_eq!(planned.pid_path, Some("/p".into()));
        assert_eq!(planned.clone, 0);
    }

    #[test]
    fn time_offsets_are_written_a_clock_a_line() {
        let planned = planned(
            r#"{"namespaces": [{"type": "time"}], "timeOffsets": {"monotonic": {"secs": 5, "nanosecs": 7}, "boottime": {"secs": -1}}}"#,
        );
        assert_eq!(planned.time_offsets.as_deref(), Some("boottime -1 0\nmonotonic 5 7\n"));
    }
}
