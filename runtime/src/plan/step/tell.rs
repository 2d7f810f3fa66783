//! How steps are told to a person.

use std::fmt;

use super::{Action, Step};

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.action.fmt(f)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::JoinNamespace(ns) => write!(f, "join the {} namespace {}", ns.kind, ns.path.display()),
            Self::JoinContainer { namespaces, .. } => {
                write!(f, "join the container's namespaces ({})", namespaces.join(", "))
            }
            Self::AwaitMaps => f.write_str("wait for the maps of the user namespace"),
            Self::Hide => f.write_str("become non-dumpable"),
            Self::Reveal => f.write_str("let the container's user look into this process"),
            Self::Sources { count } => {
                write!(f, "take {count} descriptors of the rootfs and of sources from the host's side")
            }
            Self::NamespaceRoot => f.write_str("become root of the user namespace"),
            Self::NewTimeNamespace { offsets } => {
                write!(f, "make the time namespace with the offsets {offsets:?}")
            }
            Self::ContainerRoot => f.write_str("change to the container's root"),
            Self::JoinCgroups => f.write_str("join the cgroups"),
            Self::AwaitHost => f.write_str("wait for network devices and the class of service"),
            Self::NewCgroupNamespace => f.write_str("make the cgroup namespace"),
            Self::Loopback => f.write_str("bring the loopback interface up"),
            Self::NewSession => f.write_str("make a session"),
            Self::SessionKeyring { name } => write!(f, "join the new session keyring {name}"),
            Self::RootPropagation(p) => write!(f, "make all mounts {p}"),
            Self::BindRoot { path, .. } | Self::OpenRoot { path } => {
                write!(f, "take the rootfs {}", path.display())
            }
            Self::Mount(mount) => mount.fmt(f),
            Self::Device(d) => write!(
                f,
                "make the device {} ({} {}:{}, mode {:04o}, owner {}:{})",
                d.path.display(),
                device_type(d.mode),
                d.major,
                d.minor,
                d.mode & 0o7777,
                d.uid,
                d.gid
            ),
            Self::Symlink { path, target, .. } => write!(f, "link {} to {target}", path.display()),
            Self::Console { .. } => f.write_str("make the console"),
            Self::RuntimeHooks => f.write_str("run the prestart and createRuntime hooks"),
            Self::Hooks { name } => write!(f, "run the {name} hooks"),
            Self::PivotRoot => f.write_str("pivot_root into the rootfs"),
            Self::MoveRoot => f.write_str("move the rootfs over the root and chroot"),
            Self::Chroot => f.write_str("chroot into the rootfs"),
            Self::ContainerPropagation(p) => write!(f, "make the container's root mount {p}"),
            Self::RemountReadonly { path } => write!(f, "make the mount {} read-only", path.display()),
            Self::Hostname { name } => write!(f, "set the hostname {name}"),
            Self::Domainname { name } => write!(f, "set the domainname {name}"),
            Self::Sysctl { file, value } => write!(f, "write {value:?} to /proc/sys/{}", file.display()),
            Self::ReadonlyPath { path } => write!(f, "make {} read-only", path.display()),
            Self::MaskPath { path } => write!(f, "mask {}", path.display()),
            Self::OwnNull => {
                f.write_str("give null devices on the standard streams up for the container's own")
            }
            Self::LetGo => f.write_str("close the runtime's descriptors"),
            Self::Rlimit { name, soft, hard, .. } => {
                write!(f, "set {name} to {} (soft) and {} (hard)", limit(*soft), limit(*hard))
            }
            Self::OomScoreAdj { value } => write!(f, "set oom_score_adj to {value}"),
            Self::Scheduler { policy, .. } => write!(f, "set the scheduling policy {policy}"),
            Self::IoPriority { value } => {
                write!(f, "set the I/O priority: class {}, level {}", value >> 13, value & 7)
            }
            Self::MemoryPolicy { .. } => f.write_str("set the memory policy"),
            Self::Affinity { cpus: Some(cpus), .. } => write!(f, "run on CPUs {cpus}"),
            Self::Affinity { cpus: None, .. } => f.write_str("run on all CPUs of the cpuset"),
            Self::Personality { persona } => write!(f, "set the personality {persona:#x}"),
            Self::ExecLabel { module, label } => write!(f, "set the {module} label {label}"),
            Self::BoundingSet { keep } => write!(f, "keep {} in the bounding set", capability_list(*keep)),
            Self::StdioOwner { uid, pipes_only: false } => {
                write!(f, "give the standard streams to user {uid}")
            }
            Self::StdioOwner { uid, pipes_only: true } => {
                write!(f, "give the standard streams that are pipes to user {uid}")
            }
            Self::Umask { mask } => write!(f, "set the umask {mask:04o}"),
            Self::User { uid, gid, groups, .. } => {
                write!(f, "become user {uid}, group {gid}, groups {groups:?}")
            }
            Self::MakeDirectory { path } => {
                write!(f, "make the directory {} if it is missing", path.display())
            }
            Self::WorkingDirectory { path, .. } => write!(f, "change to the directory {}", path.display()),
            Self::Capabilities(c) => write!(
                f,
                "set the capabilities: permitted {}, effective {}, inheritable {}, ambient {}",
                capability_list(c.permitted),
                capability_list(c.effective),
                capability_list(c.inheritable),
                capability_list(c.ambient)
            ),
            Self::NoNewPrivileges => f.write_str("set no_new_privs"),
            Self::Seccomp { instructions, .. } => {
                write!(f, "load the seccomp filter ({instructions} instructions)")
            }
            Self::Home { uid } => write!(f, "find the home directory of user {uid}"),
            Self::FindProgram { name } => write!(f, "find the program {name}"),
            Self::Ready => f.write_str("report that the container is made"),
            Self::AwaitStart => f.write_str("wait for start"),
            Self::Execute { args } => write!(f, "execute {}", args.join(" ")),
        }
    }
}

fn device_type(mode: u32) -> char {
    match mode & libc::S_IFMT {
        libc::S_IFBLK => 'b',
        libc::S_IFIFO => 'p',
        _ => 'c',
    }
}

fn limit(value: u64) -> String {
    if value == u64::MAX { "unlimited".to_owned() } else { value.to_string() }
}

/// The names of the capabilities in a mask.
fn capability_list(mask: u64) -> String {
    if mask == 0 {
        return "none".to_owned();
    }
    let mut names: Vec<_> =
        caps::all().into_iter().filter(|c| mask & c.bitmask() != 0).map(|c| c.to_string()).collect();
    names.sort_unstable();
    names.join(" ")
}
