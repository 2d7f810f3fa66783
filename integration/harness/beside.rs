//! The same under runc 1.3 and under the runtime under test: what a process sees must be the same.

use crate::host::{self, Mount, parse_mounts};
use crate::{Checked, Runtime, skip};

/// Begins a section of a probe's output: `== NAME`. A probe ends with the section `end`.
const SECTION: &str = "== ";

/// A script for the container's shell that tells of the process and of what is around it. Mounts and namespaces are told in
/// sections that [`seen`] knows; the rest is compared as it is.
pub const PROBE: &str = r"
section() { echo == $1; }
section mounts; cat /proc/self/mountinfo
section namespaces; for n in cgroup ipc mnt net pid time user uts; do readlink /proc/self/ns/$n; done
section status; grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp|Umask)' /proc/self/status
section maps; cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups
section clocks; cat /proc/self/timens_offsets
section limits; cat /proc/self/limits /proc/self/oom_score_adj
section descriptors; ls /proc/self/fd
section process; pwd; umask; hostname; env | sort | grep -v '^CORACLE_TEST_MARK='
section owners; stat -c '%n %F %a %u:%g' / /proc /sys /dev /dev/shm /dev/pts /tmp
section devices; find /dev ! -path '/dev/mqueue*' ! -path '/dev/pts/*' | sort | while read -r f; do stat -c '%n %F %t:%T %a %u:%g' $f; done
section network; ls /sys/class/net | sort
section writable; for d in / /dev /proc/sys /sys /tmp; do ( : > $d/.probe ) 2>/dev/null && echo $d && rm -f $d/.probe; done
";

/// The last lines of a probe.
pub const END: &str = "section end; true\n";

/// What a probe's output says, a line for each thing seen, without what differs from container to container. A namespace is
/// told by the first of `known`, each a word and a process, that is in it.
#[track_caller]
pub fn seen(output: &str, rt: &Runtime, id: &str, known: &[(&str, i32)]) -> Vec<String> {
    let mut section = String::new();
    let (mut told, mut mounts) = (Vec::new(), String::new());
    for line in output.lines() {
        match line.trim_end_matches('\r').strip_prefix(SECTION) {
            Some(name) => name.clone_into(&mut section),
            None if section == "mounts" => mounts.extend([line, "\n"]),
            None if section == "namespaces" => told.push(format!("namespace: {}", owner(line, known))),
            None => told.push(format!("{section}: {}", line.replace(id, "ID"))),
        }
    }
    assert_eq!(section, "end", "the probe did not come to its end: {output}");
    told.extend(parse_mounts(&mounts).iter().map(|mount| describe(mount, rt)));
    told
}

/// Which of these processes has a namespace, such as `pid:[4026531836]`.
fn owner(link: &str, known: &[(&str, i32)]) -> String {
    let kind = link.split(':').next().unwrap_or_default();
    let found = known.iter().find(|(_, pid)| host::namespace_of(*pid, kind).as_deref() == Some(link));
    format!("{kind} is {}", found.map_or("its own", |(name, _)| name))
}

/// A mount without numbers: where, what, and with which options. Every difference between the runtimes that is meant is named
/// here, with the reason.
pub fn describe(mount: &Mount, rt: &Runtime) -> String {
    let is_masked = mount.target.starts_with("/proc/") || mount.target.starts_with("/sys/firmware");
    if is_masked && mount.kind == "tmpfs" {
        // Masked directories: one empty filesystem for all, or one for each.
        return format!("mount: {} is masked", mount.target);
    }
    let scratch = rt.scratch("").to_string_lossy().trim_end_matches('/').to_owned();
    let mut options = mount.options.clone();
    options.sort_unstable();
    let mut of_file_system = mount.super_options.clone();
    of_file_system.sort_unstable();
    if mount.target == "/sys/fs/cgroup" && mount.kind == "tmpfs" {
        // runc leaves the tmpfs that holds the v1 hierarchies writable although `ro` was asked for.
        options.retain(|option| option != "ro" && option != "rw");
    }
    if mount.kind == "devtmpfs" {
        // The devices of the host: nothing in them is to be executed or to change the user, as newer crun has it.
        options.retain(|option| option != "noexec" && option != "nosuid");
    }
    let tags: Vec<&str> = mount.propagation.iter().filter_map(|tag| tag.split(':').next()).collect();
    let root = mount.root.replace(&scratch, "SCRATCH").replace(rt.mark(), "MARK");
    // Where a user namespace may not mount the v2 hierarchy, runc binds the whole of it, and Coracle the container's own.
    let root = if mount.kind.starts_with("cgroup") { String::new() } else { root };
    format!(
        "mount: {} {} {root} {} {} {tags:?}",
        mount.target,
        mount.kind,
        options.join(","),
        of_file_system.join(",")
    )
}

/// Has both runtimes looked at, and demands the same lines of both and that neither leaves anything behind.
///
/// # Errors
/// Skips where the peers were not fetched.
#[track_caller]
pub fn compare(look: impl Fn(&Runtime) -> Vec<String>) -> Checked {
    let Some(runc) = Runtime::peer("runc") else {
        return skip("no runc 1.3 here: integration/peers/fetch brings it");
    };
    let (yardstick, tested) = (Runtime::at(runc), Runtime::under_test());
    let (expected, found) = (look(&yardstick), look(&tested));
    let missing = expected.iter().filter(|line| !found.contains(line)).map(|line| format!("- {line}"));
    let added = found.iter().filter(|line| !expected.contains(line)).map(|line| format!("+ {line}"));
    let differences: Vec<String> = missing.chain(added).collect();
    assert!(
        differences.is_empty(),
        "runc (-) and the runtime under test (+) differ:\n{}",
        differences.join("\n")
    );
    yardstick.finish().expect("runc leaves nothing behind");
    tested.finish().expect("nothing is left behind");
    Ok(())
}
