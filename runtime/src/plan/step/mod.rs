//! The steps that the container's side executes: data, and how each is told to a person.
//!
//! A step is concrete: every name is resolved to a number, every path is cleaned, nothing is left to decide.
//! [`Step`]'s `Display` is what `coracle plan` prints and how an error names the step that failed.

mod mount;
mod tell;

use std::path::PathBuf;

use rustix::process::Resource;
use serde::Serialize;

pub use self::mount::{CgroupHierarchy, Mount, MountIdMap, NewFilesystem, Propagation, What};
use crate::sys::policy::SchedAttr;

/// One thing to do, and the place in `config.json` that asks for it.
#[derive(Debug, Serialize)]
pub struct Step {
    /// The JSON path: `mounts[3]`. Empty for what every container gets.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub place: String,
    /// What to do.
    #[serde(flatten)]
    pub action: Action,
}

impl Step {
    /// A step that `place` of `config.json` asks for.
    pub fn new(place: impl Into<String>, action: Action) -> Self {
        Self { place: place.into(), action }
    }
}

/// What a step does. They are grouped in the order in which a plan uses them.
#[derive(Debug, Serialize)]
#[serde(tag = "action", rename_all = "camelCase")]
pub enum Action {
    /// setns(2) into a namespace given by path, which the host side opened.
    JoinNamespace(Namespace),
    /// setns(2) into all the namespaces of the container's init.
    JoinContainer {
        /// The namespaces' names.
        namespaces: Vec<&'static str>,
        /// `CLONE_NEW*` of those that aren't joined before the clone.
        #[serde(skip)]
        flags: u64,
    },
    /// Wait until the host side has written the maps of the user namespace.
    AwaitMaps,
    /// Make this process non-dumpable, so that nobody in its user namespace may look into it.
    Hide,
    /// Make this process dumpable again while it waits for `start`: else the user whose container it is could not join its
    /// namespaces, which takes the permission to look into it (ptrace(2)). It holds nothing but what is that user's.
    Reveal,
    /// Take the rootfs and the sources of bind mounts from the host side, which may reach what this process may not.
    Sources {
        /// How many descriptors there are: two for the rootfs, since its place comes too.
        count: usize,
    },
    /// Become user and group 0 of the user namespace.
    NamespaceRoot,
    /// unshare(2) the time namespace inside the user namespace, write its offsets and enter it.
    NewTimeNamespace {
        /// The lines of timens_offsets.
        offsets: String,
    },
    /// Take the container's root as the root: for a container without a mount namespace.
    ContainerRoot,
    /// Move this process into the cgroups that the host side opened.
    JoinCgroups,
    /// Wait until the host side has moved the network devices in, and put this process into its class of service.
    AwaitHost,
    /// unshare(2) the cgroup namespace, so that its root is the container's cgroup.
    NewCgroupNamespace,
    /// Bring the loopback interface of the new network namespace up.
    Loopback,
    /// setsid(2).
    NewSession,
    /// Join a new session keyring of this name.
    SessionKeyring {
        /// The keyring's name.
        name: String,
    },
    /// Change the propagation of the whole mount tree.
    RootPropagation(Propagation),
    /// Make the rootfs a mount of its own, and the root of what follows.
    BindRoot {
        /// The rootfs on the host.
        path: PathBuf,
        /// The mount that the rootfs lies on must not propagate, or pivot_root(2) refuses.
        private_parent: bool,
    },
    /// Use the rootfs as it is, without a mount namespace.
    OpenRoot {
        /// The rootfs on the host.
        path: PathBuf,
    },
    /// Mount something.
    Mount(Box<Mount>),
    /// Make a device node.
    Device(Device),
    /// Make a symbolic link.
    Symlink {
        /// Where the link stands.
        path: PathBuf,
        /// What it points to.
        target: &'static str,
        /// Replace what stands there.
        replace: bool,
    },
    /// Allocate the pseudoterminal, put it on /dev/console and standard input, output and error.
    Console {
        /// Rows and columns.
        size: Option<(u16, u16)>,
        /// Also mount it on /dev/console.
        mount: bool,
    },
    /// Let the host side run the prestart and createRuntime hooks.
    RuntimeHooks,
    /// Run hooks of this name on this side.
    Hooks {
        /// `createContainer` or `startContainer`.
        name: &'static str,
    },
    /// pivot_root(2) into the rootfs and detach the old root.
    PivotRoot,
    /// Move the rootfs over the root and chroot(2): `--no-pivot`.
    MoveRoot,
    /// chroot(2) into the rootfs: a container without a mount namespace.
    Chroot,
    /// Set the propagation of the container's root.
    ContainerPropagation(Propagation),
    /// Make the mount of a path read-only.
    RemountReadonly {
        /// The path, in the container.
        path: PathBuf,
    },
    /// sethostname(2).
    Hostname {
        /// The name.
        name: String,
    },
    /// setdomainname(2).
    Domainname {
        /// The name.
        name: String,
    },
    /// Write a kernel parameter below /proc/sys.
    Sysctl {
        /// The file below /proc/sys.
        file: PathBuf,
        /// What to write.
        value: String,
    },
    /// Make a path read-only by a mount of itself.
    ReadonlyPath {
        /// The path, in the container.
        path: PathBuf,
    },
    /// Hide a path: an empty directory, or `/dev/null`, is mounted on it.
    MaskPath {
        /// The path, in the container.
        path: PathBuf,
    },

    /// Make every standard stream that is a null device the container's own `/dev/null`.
    OwnNull,
    /// Close all descriptors but those that the program keeps and those that the steps after this one need.
    LetGo,
    /// setrlimit(2).
    Rlimit {
        /// `RLIMIT_NOFILE`, say.
        name: String,
        /// Its number.
        #[serde(skip)]
        resource: Resource,
        /// Soft limit; `u64::MAX` is no limit.
        soft: u64,
        /// Hard limit; `u64::MAX` is no limit.
        hard: u64,
    },
    /// Write `oom_score_adj`.
    OomScoreAdj {
        /// -1000 to 1000.
        value: i32,
    },
    /// sched_setattr(2).
    Scheduler {
        /// The policy's name.
        policy: String,
        /// The kernel's struct.
        attributes: SchedAttr,
    },
    /// ioprio_set(2).
    IoPriority {
        /// Class and level, as the kernel packs them.
        value: i32,
    },
    /// set_mempolicy(2).
    MemoryPolicy {
        /// `MPOL_*` with its flags.
        mode: u32,
        /// The mask of nodes.
        nodes: Vec<u64>,
    },
    /// sched_setaffinity(2); without a list, all CPUs that the cpuset allows.
    Affinity {
        /// The list as it was given.
        #[serde(skip_serializing_if = "Option::is_none")]
        cpus: Option<String>,
        /// The mask, lowest CPU first.
        #[serde(skip)]
        mask: Vec<u64>,
    },
    /// personality(2).
    Personality {
        /// `PER_*`.
        persona: u64,
    },
    /// Write the AppArmor profile or SELinux label that execve(2) changes to.
    ExecLabel {
        /// `apparmor` or `selinux`.
        module: &'static str,
        /// What is written.
        label: String,
    },
    /// Drop what the bounding set doesn't keep.
    BoundingSet {
        /// The kept capabilities, as a mask.
        keep: u64,
    },
    /// Give standard input, output and error to the container's user, where they are not shared devices.
    StdioOwner {
        /// The user.
        uid: u32,
        /// Only those that are pipes.
        pipes_only: bool,
    },
    /// umask(2).
    Umask {
        /// The mask.
        mask: u32,
    },
    /// Change to the user, with exactly these groups.
    User {
        /// User id.
        uid: u32,
        /// Group id.
        gid: u32,
        /// Supplementary groups; none given leaves none.
        groups: Vec<u32>,
        /// A user namespace may deny setgroups(2); with no groups given that is no error.
        #[serde(skip)]
        in_user_namespace: bool,
    },
    /// Make a directory in the container where it is missing.
    MakeDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// Change to the working directory and check that it lies inside the container.
    WorkingDirectory {
        /// The directory.
        path: PathBuf,
        /// Make it when it is missing.
        make: bool,
    },
    /// Set the permitted, effective, inheritable and ambient sets.
    Capabilities(Capabilities),
    /// `PR_SET_NO_NEW_PRIVS`.
    NoNewPrivileges,
    /// Load the seccomp filter.
    Seccomp {
        /// The number of instructions.
        instructions: usize,
        /// CAP_SYS_ADMIN must be raised for it, since no_new_privs isn't set.
        #[serde(skip)]
        privileged: bool,
    },
    /// Set HOME from the container's /etc/passwd.
    Home {
        /// The user whose home it is.
        uid: u32,
    },
    /// Find the program, as execvp(3) would.
    FindProgram {
        /// `process.args[0]`.
        name: String,
    },
    /// Tell the host side that all is made, and wait for its word.
    Ready,
    /// Wait for `start`.
    AwaitStart,
    /// execve(2).
    Execute {
        /// The program and its arguments.
        args: Vec<String>,
    },
}

/// A namespace to join.
#[derive(Debug, Clone, Serialize)]
pub struct Namespace {
    /// `pid`, `network`, …
    pub kind: &'static str,
    /// `CLONE_NEW*`.
    #[serde(skip)]
    pub flag: u64,
    /// Where it is.
    pub path: PathBuf,
}

/// A device node to make.
#[derive(Debug, Clone, Serialize)]
pub struct Device {
    /// Where, in the container.
    pub path: PathBuf,
    /// Type and permission bits, as mknod(2) takes them.
    pub mode: u32,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// Capability sets as masks, bit n for capability n.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Capabilities {
    /// Permitted set.
    pub permitted: u64,
    /// Effective set.
    pub effective: u64,
    /// Inheritable set.
    pub inheritable: u64,
    /// Ambient set.
    pub ambient: u64,
}
