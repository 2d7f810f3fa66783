//! What the tests read of the host: mounts, cgroup hierarchies, processes.

use std::fs;
use std::path::{Path, PathBuf};

use crate::trial::{Checked, skip};

/// One line of `/proc/PID/mountinfo`, see proc_pid_mountinfo(5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The part of the file system that is mounted.
    pub root: String,
    /// Where it is mounted, as seen from the process's root.
    pub target: String,
    /// Options of this mount, in the kernel's order.
    pub options: Vec<String>,
    /// `shared:N`, `master:N`, `unbindable`; empty for a private mount.
    pub propagation: Vec<String>,
    /// The file system's type.
    pub kind: String,
    /// The file system's source.
    pub source: String,
    /// Options of the file system.
    pub super_options: Vec<String>,
}

impl Mount {
    /// True when this mount has the option, such as `nosuid`.
    pub fn has(&self, option: &str) -> bool {
        self.options.iter().any(|have| have == option)
    }

    /// True when the file system has the option, such as `size=64k`.
    pub fn fs_has(&self, option: &str) -> bool {
        self.super_options.iter().any(|have| have == option)
    }
}

/// Reads the text of a mountinfo file.
pub fn parse_mounts(mountinfo: &str) -> Vec<Mount> {
    mountinfo.lines().filter_map(parse_mount).collect()
}

fn parse_mount(line: &str) -> Option<Mount> {
    let (mount, file_system) = line.split_once(" - ")?;
    let mount: Vec<&str> = mount.split(' ').collect();
    let file_system: Vec<&str> = file_system.split(' ').collect();
    let words = |text: &str| text.split(',').map(str::to_owned).collect();
    Some(Mount {
        root: (*mount.get(3)?).to_owned(),
        target: unescape(mount.get(4)?),
        options: words(mount.get(5)?),
        propagation: mount.iter().skip(6).map(|&tag| tag.to_owned()).collect(),
        kind: (*file_system.first()?).to_owned(),
        source: (*file_system.get(1)?).to_owned(),
        super_options: words(file_system.get(2)?),
    })
}

/// Undoes the kernel's octal escapes of blanks and backslashes.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (escape, plain)| text.replace(escape, plain))
}

/// The mount points at or below `path` in this process's mount namespace, in the order in which they were mounted.
pub fn mounts_below(path: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let targets = parse_mounts(&text).into_iter().map(|mount| PathBuf::from(mount.target));
    targets.filter(|target| target.starts_with(path)).collect()
}

/// Where the hierarchy of a cgroup v1 controller is mounted, such as `/sys/fs/cgroup/pids`; `None` when this host
/// has no such hierarchy.
pub fn v1_hierarchy(controller: &str) -> Option<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let named = format!("name={controller}");
    let mount = parse_mounts(&text)
        .into_iter()
        .find(|mount| mount.kind == "cgroup" && (mount.fs_has(controller) || mount.fs_has(&named)))?;
    Some(PathBuf::from(mount.target))
}

/// Skips a test where there is no hierarchy of a cgroup v1 controller.
pub fn need_v1(controller: &str) -> Checked {
    match v1_hierarchy(controller) {
        Some(_) => Ok(()),
        None => skip(format!("this host has no cgroup v1 hierarchy of {controller}")),
    }
}

/// The cgroup of a process in the hierarchy of a v1 controller, as a directory of this host.
pub fn cgroup_of(pid: i32, controller: &str) -> Option<PathBuf> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let named = format!("name={controller}");
    let path = text.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let controllers = fields.next()?;
        let mine = controllers.split(',').any(|have| have == controller || have == named);
        mine.then(|| fields.next()).flatten().map(str::to_owned)
    })?;
    Some(v1_hierarchy(controller)?.join(path.trim_start_matches('/')))
}

/// A field of `/proc/PID/status`, such as `CapEff`.
pub fn status_field<'t>(status: &'t str, field: &str) -> Option<&'t str> {
    status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).map(str::trim)
}

/// True when a process exists and is not a zombie.
pub fn is_alive(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status_field(&status, "State").is_some_and(|state| !state.starts_with(['Z', 'X']))
}

/// True when a process has ended and its parent, which is this one, has not heard of it yet.
pub fn is_zombie_of(pid: i32, parent: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let zombie = status_field(&status, "State").is_some_and(|state| state.starts_with('Z'));
    zombie && status_field(&status, "PPid").and_then(|have| have.parse().ok()) == Some(parent)
}

/// True when a process sleeps and has not run since it was looked at a moment before.
pub fn is_asleep(pid: i32) -> bool {
    let look = || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let sleeps = status_field(&status, "State").is_some_and(|state| state.starts_with('S'));
        let switches = status_field(&status, "voluntary_ctxt_switches").map(str::to_owned);
        sleeps.then_some(switches).flatten()
    };
    let before = look();
    std::thread::sleep(std::time::Duration::from_millis(20));
    before.is_some() && before == look()
}

/// True when a process has a handler for the signal.
pub fn catches(pid: i32, signal: rustix::process::Signal) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status_field(&status, "SigCgt").and_then(|mask| u64::from_str_radix(mask, 16).ok());
    caught.is_some_and(|mask| mask >> (signal.as_raw() - 1) & 1 == 1)
}

/// The namespace of a process, such as `pid:[4026531836]`.
pub fn namespace_of(pid: i32, kind: &str) -> Option<String> {
    let link = fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok()?;
    Some(link.to_string_lossy().into_owned())
}

/// All process ids that `/proc` shows now.
pub fn pids() -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Where what the tests fetch and build is kept, as `integration/cache.bash` has it.
pub fn cache_home() -> PathBuf {
    let set = std::env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty());
    match set {
        Some(path) => path.into(),
        None if rustix::process::getuid().is_root() => "/var/cache".into(),
        None => std::env::home_dir().unwrap_or_default().join(".cache"),
    }
}

/// True when a program is found through PATH or in the places of administrators' programs.
pub fn has_program(name: &str) -> bool {
    program(name).is_some()
}

/// The path of a program, looked up in PATH, then in the places of administrators' programs.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin", "/usr/bin"].map(PathBuf::from));
    places.map(|place| place.join(name)).find(|candidate| candidate.is_file())
}
