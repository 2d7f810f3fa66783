//! The step that mounts: what, where, with which attributes.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use crate::plan::user::IdMaps;
use crate::sys::mount::Attributes;

/// How mount events travel: mount_namespaces(7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Propagation {
    /// `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE` or `MS_UNBINDABLE`.
    pub kind: u64,
    /// Also of the mounts below.
    pub recursive: bool,
}

/// A mount to make.
#[derive(Debug, Serialize)]
pub struct Mount {
    /// Where, in the container.
    pub target: PathBuf,
    /// What.
    pub what: What,
    /// Attributes of the mount itself.
    pub attributes: Attributes,
    /// Attributes of the mount and all below it.
    pub recursive: Attributes,
    /// In order.
    pub propagation: Vec<Propagation>,
    /// Copy what the directory holds into the new tmpfs.
    pub copy_up: bool,
    /// Of the attributes to clear, those that were named. The others stay where they are locked.
    #[serde(skip)]
    pub named_clear: u64,
    /// How the ids of the source are mapped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idmap: Option<MountIdMap>,
}

/// How the ids of an id-mapped mount are mapped: mount_setattr(2), "ID-mapped mounts".
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MountIdMap {
    /// The maps; none given are those of the container's user namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maps: Option<IdMaps>,
    /// Also of the mounts below.
    pub recursive: bool,
}

/// What is mounted.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum What {
    /// A directory or file of the host.
    Bind {
        /// The host's path.
        source: PathBuf,
        /// With the mounts below it.
        recursive: bool,
    },
    /// A new instance of a filesystem.
    New(NewFilesystem),
    /// New flags for what is mounted there.
    Remount {
        /// `MS_*`.
        flags: u64,
        /// Options of the filesystem.
        data: String,
    },
    /// The v2 hierarchy, when the container has no cgroup namespace of its own: the whole, since its processes are told
    /// their place in the whole. A user namespace may not mount that (EPERM, EBUSY) and sees the container's cgroup.
    CgroupV2 {
        /// The hierarchy.
        new: NewFilesystem,
        /// The container's cgroup: its directory on the host.
        path: PathBuf,
    },
    /// New attributes for the mount that is there: `remount` of a bind mount.
    Attributes,
    /// The container's v1 cgroups, one directory a hierarchy, on a tmpfs.
    CgroupV1 {
        /// The hierarchies.
        hierarchies: Vec<CgroupHierarchy>,
        /// Extra names of a hierarchy of several controllers: (`cpu`, `cpu,cpuacct`).
        links: Vec<(String, String)>,
        /// Mount attributes of each; the tmpfs gets them too, read-only last.
        attributes: u64,
    },
}

/// A filesystem to make with fsopen(2).
#[derive(Debug, Clone, Serialize)]
pub struct NewFilesystem {
    /// The kernel's name of it.
    pub fstype: String,
    /// The source, as /proc/self/mountinfo shows it.
    pub source: String,
    /// Options: name and value, or a flag.
    pub options: Vec<(String, Option<String>)>,
    /// The attributes of the mount at its birth, `MOUNT_ATTR_*`.
    pub attributes: u64,
}

/// A v1 hierarchy as the container sees it.
#[derive(Debug, Clone, Serialize)]
pub struct CgroupHierarchy {
    /// The directory's name: `cpu`, `systemd`.
    pub name: String,
    /// Mount options that choose the hierarchy: `cpu`, or `name=systemd`.
    pub option: String,
    /// The container's cgroup on the host, when it has no cgroup namespace of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bind: Option<PathBuf>,
}

impl fmt::Display for Propagation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.kind {
            libc::MS_SHARED => "shared",
            libc::MS_SLAVE => "slave",
            libc::MS_PRIVATE => "private",
            _ => "unbindable",
        };
        write!(f, "{}{name}", if self.recursive { "r" } else { "" })
    }
}

impl fmt::Display for Mount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let target = self.target.display();
        match &self.what {
            What::Bind { source, recursive } => {
                write!(f, "{}bind {} on {target}", if *recursive { "r" } else { "" }, source.display())?;
            }
            What::New(new) => {
                write!(f, "mount {} on {target}", new.fstype)?;
                for (i, (name, value)) in new.options.iter().enumerate() {
                    f.write_str(if i == 0 { " (" } else { "," })?;
                    match value {
                        Some(value) => write!(f, "{name}={value}")?,
                        None => f.write_str(name)?,
                    }
                }
                if !new.options.is_empty() {
                    f.write_str(")")?;
                }
            }
            What::Remount { .. } | What::Attributes => write!(f, "remount {target}")?,
            What::CgroupV2 { path, .. } => {
                write!(f, "mount cgroup2 on {target}, or else bind the cgroup {} there", path.display())?;
            }
            What::CgroupV1 { .. } => write!(f, "mount the cgroup hierarchies on {target}")?,
        }
        let set = attribute_names(self.attributes.set | self.birth_attributes());
        if !set.is_empty() {
            write!(f, " {set}")?;
        }
        Ok(())
    }
}

impl Mount {
    /// The attributes that the mount is born with.
    fn birth_attributes(&self) -> u64 {
        match &self.what {
            What::New(new) => new.attributes,
            What::CgroupV1 { attributes, .. } => *attributes,
            _ => 0,
        }
    }
}

fn attribute_names(set: u64) -> String {
    [
        (libc::MOUNT_ATTR_RDONLY, "ro"),
        (libc::MOUNT_ATTR_NOSUID, "nosuid"),
        (libc::MOUNT_ATTR_NODEV, "nodev"),
        (libc::MOUNT_ATTR_NOEXEC, "noexec"),
        (libc::MOUNT_ATTR_NODIRATIME, "nodiratime"),
        (libc::MOUNT_ATTR_NOSYMFOLLOW, "nosymfollow"),
    ]
    .iter()
    .filter(|(bit, _)| set & bit != 0)
    .map(|(_, name)| *name)
    .collect::<Vec<_>>()
    .join(",")
}
