//! Why the kernel refused to make a process in new namespaces, and what to do.

use std::path::Path;

use rustix::io::Errno;

use crate::error::Error;

/// The flag of each namespace, and the file that limits how many there are: namespaces(7).
const LIMITS: [(i32, &str); 8] = [
    (libc::CLONE_NEWUSER, "max_user_namespaces"),
    (libc::CLONE_NEWPID, "max_pid_namespaces"),
    (libc::CLONE_NEWNET, "max_net_namespaces"),
    (libc::CLONE_NEWNS, "max_mnt_namespaces"),
    (libc::CLONE_NEWIPC, "max_ipc_namespaces"),
    (libc::CLONE_NEWUTS, "max_uts_namespaces"),
    (libc::CLONE_NEWCGROUP, "max_cgroup_namespaces"),
    (0x80, "max_time_namespaces"),
];

/// Switches of Linux distributions that keep user namespaces from users: the file, what it holds then, and what to do.
const SWITCHES: [(&str, &str, &str); 2] = [
    (
        "/proc/sys/kernel/unprivileged_userns_clone",
        "0",
        "users may make no user namespaces here: let them by `sysctl kernel.unprivileged_userns_clone=1`",
    ),
    (
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "AppArmor lets users make user namespaces only in a profile that says so: give the runtime one with `userns,`, or `sysctl kernel.apparmor_restrict_unprivileged_userns=0`",
    ),
];

/// What a user must do whose process may not be born in the container's cgroup: the cgroup above both must be its own.
pub const NOT_DELEGATED: &str = "to be put into the container's cgroup, it must be started in the same delegated tree: systemd-run --user --scope";

/// Adds the reason to what clone3(2) said to the container's first process, and the place in `config.json`.
pub fn explain_first(error: Error, namespaces: u64) -> Error {
    let place = match error.errno() {
        Some(Errno::NOSPC | Errno::PERM) => "linux.namespaces",
        Some(Errno::ACCESS) => "linux.cgroupsPath",
        _ => return explain(error, namespaces),
    };
    explain(error.at(place), namespaces)
}

/// Adds the reason to what clone3(2) said to these namespaces.
pub fn explain(error: Error, namespaces: u64) -> Error {
    let has = |flag: i32| namespaces & flag as u64 != 0;
    match error.errno() {
        Some(Errno::AGAIN) => {
            error.hint("a limit of processes is reached: pids.max of the cgroup, or RLIMIT_NPROC")
        }
        Some(Errno::ACCESS) => error.hint(NOT_DELEGATED),
        Some(Errno::NOSPC) => {
            let told = no_room(has, |file| number(&Path::new("/proc/sys/user").join(file)));
            error.hint(told)
        }
        Some(Errno::PERM) if has(libc::CLONE_NEWUSER) => {
            let switch = SWITCHES.iter().find(|(file, off, _)| text(Path::new(file)).as_deref() == Some(off));
            let told = switch.map_or(
                "the runtime may make no user namespace here: a seccomp filter, an LSM or a chroot(2) around it forbids it",
                |(_, _, told)| told,
            );
            error.hint(told)
        }
        Some(Errno::PERM) => error.hint("making namespaces needs CAP_SYS_ADMIN, or a user namespace among them: `coracle spec --rootless` has one"),
        _ => error,
    }
}

/// Which limit it was. One that is 0 forbids them all; others are counted by user, and one further up may be reached.
fn no_room(has: impl Fn(i32) -> bool, limit: impl Fn(&str) -> Option<u64>) -> String {
    let mut asked = LIMITS.iter().filter(|(flag, _)| has(*flag)).map(|(_, file)| *file);
    match asked.clone().find(|file| limit(file) == Some(0)) {
        Some(file) => {
            format!("/proc/sys/user/{file} is 0, so there may be none: raise it, `sysctl user.{file}=10000`")
        }
        None => {
            let files = asked.by_ref().collect::<Vec<_>>().join(", ");
            format!(
                "a limit of namespaces is reached: end what holds some, or raise it; in /proc/sys/user: {files}"
            )
        }
    }
}

fn text(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn number(path: &Path) -> Option<u64> {
    text(path)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, Kind};

    #[test]
    fn the_limit_that_forbids_is_named() {
        let has = |flag| flag == libc::CLONE_NEWUSER || flag == libc::CLONE_NEWNET;
        let told = no_room(has, |file| Some(if file == "max_net_namespaces" { 0 } else { 7 }));
        assert!(told.contains("sysctl user.max_net_namespaces="), "{told}");
        let told = no_room(has, |_| Some(7));
        assert!(told.ends_with("max_user_namespaces, max_net_namespaces"), "{told}");
    }

    #[test]
    fn what_has_another_reason_is_left_alone() {
        let error = Error::new(Kind::System, "it said no");
        assert_eq!(explain(error, u64::MAX).to_string(), "it said no");
    }
}
