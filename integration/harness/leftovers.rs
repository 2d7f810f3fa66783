//! What a container may leave on the host, and how it is found and removed.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};

use crate::{host, place};

/// The name of the environment variable that marks every process of a test, in and out of containers.
pub const MARK: &str = "CORACLE_TEST_MARK";

/// What the marks and the container ids of this test program begin with.
pub fn mark_of_this_program() -> String {
    format!("ct-{}", std::process::id())
}

/// The directory in a test's scratch directory below which the test itself mounts.
pub const OWN: &str = "own";

/// Every directory below `/sys/fs/cgroup` whose name contains the container id.
pub fn cgroups(id: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(directory) = open.pop() {
        // A cgroup of somebody else may vanish while this looks.
        let Ok(entries) = fs::read_dir(&directory) else {
            continue;
        };
        for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            if entry.file_name().to_string_lossy().contains(id) {
                found.push(entry.path());
            } else {
                open.push(entry.path());
            }
        }
    }
    found
}

/// Every process that carries the mark, or one that the mark with a dash begins.
pub fn processes(mark: &str) -> Vec<(i32, String)> {
    let entry = format!("{MARK}={mark}");
    let marked = |pid: &i32| {
        let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let rest =
            environ.split(|&byte| byte == 0).find_map(|variable| variable.strip_prefix(entry.as_bytes()));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"-"))
    };
    let name = |pid: i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        (pid, String::from_utf8_lossy(&line).replace('\0', " ").trim().to_owned())
    };
    host::pids().into_iter().filter(marked).map(name).collect()
}

/// What is left of containers and their runtime: each item is a sentence.
pub fn find(ids: &[String], mark: &str, root: &Path, scratch: &Path) -> Vec<String> {
    let mut left = Vec::new();
    for id in ids {
        left.extend(cgroups(id).iter().map(|path| format!("a cgroup: {}", path.display())));
    }
    left.extend(processes(mark).iter().map(|(pid, line)| format!("a process: {pid} {line}")));
    let mounts = host::mounts_below(scratch).into_iter().filter(|path| !path.starts_with(scratch.join(OWN)));
    left.extend(mounts.map(|path| format!("a mount: {}", path.display())));
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    left.extend(entries.map(|entry| format!("a file of state: {}", entry.path().display())));
    left
}

/// Removes what is left, whatever state it is in, so that one failed test does not spoil the machine: processes and
/// cgroups of these containers or with this mark, and mounts below the scratch directory.
pub fn remove(ids: &[String], mark: &str, scratch: &Path) {
    let cgroups = || ids.iter().flat_map(|id| cgroups(id));
    for cgroup in cgroups() {
        // Without making the file: not every hierarchy has it.
        let file = fs::OpenOptions::new().write(true).open(cgroup.join("freezer.state"));
        let _ = file.and_then(|mut file| file.write_all(b"THAWED"));
    }
    let marked = processes(mark).into_iter().map(|(pid, _)| pid);
    for pid in marked.chain(cgroups().flat_map(|cgroup| members(&cgroup))) {
        if let Some(pid) = Pid::from_raw(pid) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    place::unmount_below(scratch);
    crate::command::eventually(|| cgroups().all(|cgroup| remove_cgroup(&cgroup)));
}

/// The processes in a cgroup and those below it.
fn members(cgroup: &Path) -> Vec<i32> {
    let text = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    let mut pids: Vec<i32> = text.lines().filter_map(|line| line.parse().ok()).collect();
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            pids.extend(members(&entry.path()));
        }
    }
    pids
}

/// Removes a cgroup and those below it; false while a process keeps one.
fn remove_cgroup(cgroup: &Path) -> bool {
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&entry.path());
        }
    }
    fs::remove_dir(cgroup).is_ok()
}
