//! Which cgroup hierarchies this host has.
//!
//! It owns the three facts that everything else in this room starts from: the layout (v1, hybrid or
//! v2), where each hierarchy is mounted, and this process's own cgroup in each. It promises not to
//! read `/proc/self/mountinfo`, whose length grows with every container on the host, unless the
//! hierarchies are not in their usual places. Sources: cgroups(7), file-hierarchy(7).

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use procfs::process::MountInfo;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, StatxFlags};
use serde::{Deserialize, Serialize};

use super::file;
use crate::error::{Doing, Error, Kind, Result};
use crate::mountinfo::unescape;

/// Where every distribution mounts its cgroup hierarchies.
pub const ROOT: &str = "/sys/fs/cgroup";
/// The name that systemd's own v1 hierarchy goes by; container runtimes join it.
pub const NAMED_SYSTEMD: &str = "name=systemd";

/// The v1 controllers that a container joins when their hierarchy is mounted.
const CONTROLLERS: [&str; 14] = [
    "blkio",
    "cpu",
    "cpuacct",
    "cpuset",
    "devices",
    "freezer",
    "hugetlb",
    "memory",
    "misc",
    "net_cls",
    "net_prio",
    "perf_event",
    "pids",
    "rdma",
];

/// How a host arranges its cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LayoutKind {
    /// Version 1 hierarchies only.
    V1,
    /// Version 1 hierarchies for controllers, with a version 2 tree beside them.
    Hybrid,
    /// The unified version 2 hierarchy only.
    V2,
}

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// The controllers in it, or `name=systemd`; empty for the unified hierarchy.
    pub controllers: Vec<String>,
    /// Where it is mounted.
    pub mount: PathBuf,
    /// This process's own cgroup, as a path below the mount point that begins with `/`.
    pub own: String,
}

/// The hierarchies of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    kind: LayoutKind,
    v1: Vec<Hierarchy>,
    unified: Option<Hierarchy>,
}

impl Layout {
    /// Looks at this host.
    ///
    /// # Errors
    /// When no cgroup hierarchy is mounted, or `/proc/self/cgroup` cannot be read.
    pub fn detect() -> Result<Layout> {
        let own = file::read_path("/proc/self/cgroup")?;
        let lines = parse_own(&own);
        let root = statfs_magic(ROOT)?;
        let usual = match root {
            Some(file::CGROUP2_MAGIC) => Some(Layout::usual_v2(&lines)),
            Some(_) => Layout::usual_v1(&lines)?,
            None => None,
        };
        match usual {
            Some(layout) if layout.own_cgroups_are_there()? => Ok(layout),
            _ => Layout::from_mountinfo(&lines, &file::read_path("/proc/self/mountinfo")?),
        }
    }

    /// A layout told instead of detected, for plans of other hosts and for tests.
    pub fn given(v1: Vec<Hierarchy>, unified: Option<Hierarchy>) -> Layout {
        let kind = match (v1.is_empty(), &unified) {
            (true, _) => LayoutKind::V2,
            (false, Some(_)) => LayoutKind::Hybrid,
            (false, None) => LayoutKind::V1,
        };
        Layout { kind, v1, unified }
    }

    /// How this host arranges its cgroups.
    pub fn kind(&self) -> LayoutKind {
        self.kind
    }

    /// The version 1 hierarchies that a container joins.
    pub fn v1(&self) -> &[Hierarchy] {
        &self.v1
    }

    /// The version 2 hierarchy, if it is mounted.
    pub fn unified(&self) -> Option<&Hierarchy> {
        self.unified.as_ref()
    }

    fn usual_v2(lines: &[OwnLine<'_>]) -> Layout {
        let own = lines.iter().find(|line| line.controllers.is_empty()).map_or("/", |line| line.path);
        Layout::given(
            Vec::new(),
            Some(Hierarchy { controllers: Vec::new(), mount: PathBuf::from(ROOT), own: own.to_owned() }),
        )
    }

    /// The usual v1 places, or nothing when a hierarchy that exists is not in its place.
    fn usual_v1(lines: &[OwnLine<'_>]) -> Result<Option<Layout>> {
        let names = directories_of(ROOT)?;
        let mut v1 = Vec::new();
        let mut unified = None;
        for line in lines {
            if line.controllers.is_empty() {
                let mount = Path::new(ROOT).join("unified");
                if names.iter().any(|name| name == "unified")
                    && statfs_magic(&mount)? == Some(file::CGROUP2_MAGIC)
                {
                    unified = Some(Hierarchy { controllers: Vec::new(), mount, own: line.path.to_owned() });
                }
            } else if line.is_joined() {
                let name = line.controllers.strip_prefix("name=").unwrap_or(line.controllers);
                if !names.iter().any(|entry| entry == name) {
                    return Ok(None);
                }
                v1.push(line.hierarchy(Path::new(ROOT).join(name), line.path.to_owned()));
            }
        }
        Ok((!v1.is_empty()).then(|| Layout::given(v1, unified)))
    }

    /// A cgroup mounted from inside another container without a cgroup namespace has its root
    /// elsewhere: then the own path of `/proc/self/cgroup` does not exist below the mount point.
    fn own_cgroups_are_there(&self) -> Result<bool> {
        for hierarchy in self.v1.iter().chain(&self.unified) {
            if hierarchy.own == "/" {
                continue;
            }
            let path = file::below(&hierarchy.mount, &hierarchy.own);
            match rustix::fs::statx(rustix::fs::CWD, &path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::TYPE) {
                Ok(_) => {}
                Err(rustix::io::Errno::NOENT) => return Ok(false),
                Err(errno) => return Err(Error::os(errno, format!("look at {}", path.display()))),
            }
        }
        Ok(true)
    }

    /// The slow way: where the mount table says that the hierarchies are.
    fn from_mountinfo(lines: &[OwnLine<'_>], mountinfo: &str) -> Result<Layout> {
        let mounts: Vec<Mount> = mountinfo.lines().filter_map(Mount::parse).collect();
        let mut v1 = Vec::new();
        let mut unified = None;
        for line in lines {
            if line.controllers.is_empty() {
                if let Some(mount) = mounts.iter().find(|mount| mount.kind == "cgroup2") {
                    unified = Some(line.hierarchy(mount.point.clone(), mount.own(line.path)));
                }
            } else if line.is_joined()
                && let Some(mount) = mounts.iter().find(|mount| mount.holds(line.controllers))
            {
                v1.push(line.hierarchy(mount.point.clone(), mount.own(line.path)));
            }
        }
        if v1.is_empty() && unified.is_none() {
            return Err(Error::new(Kind::System, "no cgroup hierarchy is mounted on this host").hint(
                "mount one (mount -t cgroup2 none /sys/fs/cgroup), or run with --cgroup-manager=disabled",
            ));
        }
        Ok(Layout::given(v1, unified))
    }
}

/// One line of `/proc/self/cgroup`: `4:memory:/user/me`, or `0::/user/me`.
#[derive(Debug, Clone, Copy)]
struct OwnLine<'a> {
    controllers: &'a str,
    path: &'a str,
}

impl OwnLine<'_> {
    fn is_joined(&self) -> bool {
        self.controllers == NAMED_SYSTEMD
            || self.controllers.split(',').any(|controller| CONTROLLERS.contains(&controller))
    }

    fn hierarchy(&self, mount: PathBuf, own: String) -> Hierarchy {
        let controllers =
            self.controllers.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        Hierarchy { controllers, mount, own }
    }
}

fn parse_own(text: &str) -> Vec<OwnLine<'_>> {
    text.lines()
        .filter_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
            // A cgroup that was removed under a process is marked so.
            Some(OwnLine { controllers, path: path.strip_suffix(" (deleted)").unwrap_or(path) })
        })
        .collect()
}

/// The controllers of another process, by the text of its `/proc/<pid>/cgroup`: each controller list
/// (empty for the unified hierarchy) with the path.
pub fn cgroups_of(text: &str) -> impl Iterator<Item = (&str, &str)> {
    parse_own(text).into_iter().map(|line| (line.controllers, line.path))
}

/// One cgroup mount of `/proc/self/mountinfo`, see proc_pid_mountinfo(5).
struct Mount {
    root: String,
    point: PathBuf,
    kind: String,
    options: HashMap<String, Option<String>>,
}

impl Mount {
    fn parse(line: &str) -> Option<Mount> {
        let info = MountInfo::from_line(line).ok()?;
        matches!(info.fs_type.as_str(), "cgroup" | "cgroup2").then(|| Mount {
            root: unescape(&info.root).to_string_lossy().into_owned(),
            point: unescape(&info.mount_point.to_string_lossy()).into(),
            kind: info.fs_type,
            options: info.super_options,
        })
    }

    fn holds(&self, controllers: &str) -> bool {
        self.kind == "cgroup"
            && controllers.split(',').all(|wanted| match wanted.split_once('=') {
                Some((name, value)) => self.options.get(name) == Some(&Some(value.to_owned())),
                None => self.options.contains_key(wanted),
            })
    }

    /// The own path as seen below this mount, whose root may itself be a cgroup further down.
    fn own(&self, path: &str) -> String {
        let root = self.root.trim_end_matches('/');
        match path.strip_prefix(root) {
            Some("") => "/".to_owned(),
            Some(rest) if rest.starts_with('/') => rest.to_owned(),
            _ => "/".to_owned(),
        }
    }
}

fn statfs_magic(path: impl AsRef<Path>) -> Result<Option<u64>> {
    let path = path.as_ref();
    match rustix::fs::statfs(path) {
        Ok(stat) => Ok(Some(stat.f_type as u64)),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(errno) => Err(Error::os(errno, format!("look at {}", path.display()))),
    }
}

/// The names of the directories in `path`.
fn directories_of(path: &str) -> Result<Vec<String>> {
    let doing = || format!("read the directory {path}");
    let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .doing(doing)?;
    let mut names = Vec::new();
    for entry in Dir::new(fd).doing(doing)? {
        let entry = entry.doing(doing)?;
        if matches!(entry.file_type(), FileType::Directory | FileType::Unknown) {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "12:name=systemd:/init\n4:memory:/user/me\n2:cpu,cpuacct:/\n9:name=other:/\n0::/\n";

    #[test]
    fn hierarchies_outside_the_usual_place_come_from_the_mount_table() {
        let mountinfo = "\
31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw
32 31 0:29 / /cg/cpu\\040acct rw,relatime shared:3 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 /user /cg/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /cg/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /cg/unified rw,relatime - cgroup2 cgroup2 rw\n";
        let layout = Layout::from_mountinfo(&parse_own(HYBRID), mountinfo).unwrap();
        assert_eq!(layout.kind(), LayoutKind::Hybrid);
        let memory = layout.v1().iter().find(|hierarchy| hierarchy.controllers == ["memory"]).unwrap();
        assert_eq!((memory.mount.as_path(), memory.own.as_str()), (Path::new("/cg/memory"), "/me"));
        let cpu = layout.v1().iter().find(|hierarchy| hierarchy.controllers == ["cpu", "cpuacct"]).unwrap();
        assert_eq!(cpu.mount, Path::new("/cg/cpu acct"));
        assert_eq!(layout.v1().len(), 3, "name=other is not joined");
    }

    #[test]
    fn a_host_without_hierarchies_is_an_error_that_says_what_to_do() {
        let error = Layout::from_mountinfo(&parse_own("0::/\n"), "").unwrap_err();
        assert!(error.to_string().contains("--cgroup-manager=disabled"), "{error}");
    }

    #[test]
    fn an_own_cgroup_above_the_mounts_root_is_taken_as_that_root() {
        let mount = Mount {
            root: "/docker/a".into(),
            point: PathBuf::from("/sys/fs/cgroup"),
            kind: "cgroup2".to_owned(),
            options: HashMap::new(),
        };
        assert_eq!(mount.own("/docker/a/b"), "/b");
        assert_eq!(mount.own("/docker/ab"), "/");
        assert_eq!(mount.own("/"), "/");
    }
}
