//! Facts of this host, and what the host's side opens before a clone.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use oci_spec::runtime::{LinuxNamespaceType, Process};
use rustix::fs::{CWD, Mode, OFlags, fchmod, openat};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};
use rustix::thread::LinkNameSpaceType;

use crate::bundle::{Bundle, Sysctl, parse_sysctl, shared_sysctl};
use crate::error::{Doing, Error, Result};
use crate::interrupt::Interrupt;
use crate::plan::namespaces::{Namespaces, describe};
use crate::plan::step::{Action, Step};
use crate::plan::{Facts, network};
use crate::sys::process::{in_user_namespace, is_same_namespace, unshare};

/// `CLONE_NEWTIME`.
pub const CLONE_NEWTIME: u64 = 0x80;

/// `$XDG_RUNTIME_DIR`, for everybody but a real root, of the host or of a system in a user namespace: sudo leaves it
/// set to a user's. Engines of a user call the runtime as root of their user namespace, with the user's variables.
pub fn user_runtime_dir() -> Option<PathBuf> {
    let base = std::env::var_os("XDG_RUNTIME_DIR").filter(|base| !base.is_empty())?;
    if !rustix::process::geteuid().is_root() {
        return Some(base.into());
    }
    let became_root = std::env::var_os("USER").is_none_or(|user| user != "root");
    (became_root && in_user_namespace()).then(|| base.into())
}

/// Looks at the host; at its security modules only where one is asked for.
pub fn facts(process: Option<&Process>, labels_mounts: bool) -> Result<Facts> {
    let given = |label: &Option<String>| label.as_ref().is_some_and(|label| !label.is_empty());
    let apparmor = process.is_some_and(|process| given(process.apparmor_profile()));
    let selinux = labels_mounts || process.is_some_and(|process| given(process.selinux_label()));
    let own = rustix::thread::capabilities(None).doing(|| "read the runtime's own capabilities")?;
    let says_yes = |path: &str| std::fs::read(path).is_ok_and(|text| text.first() == Some(&b'Y'));
    Ok(Facts {
        capabilities: own.permitted.bits(),
        apparmor: apparmor && says_yes("/sys/module/apparmor/parameters/enabled"),
        selinux: selinux && Path::new("/sys/fs/selinux/enforce").exists(),
        uid: 0,
        gid: 0,
    })
}

/// Looks at the host, for a bundle.
pub fn bundle_facts(bundle: &Bundle) -> Result<Facts> {
    let linux = bundle.spec.linux().as_ref();
    let label = linux.and_then(|linux| linux.mount_label().as_deref()).unwrap_or_default();
    let mut facts = facts(bundle.spec.process().as_ref(), !label.is_empty())?;
    if linux.is_some_and(|linux| linux.uid_mappings().is_some()) {
        facts.uid = rustix::process::geteuid().as_raw();
        facts.gid = rustix::process::getegid().as_raw();
    }
    Ok(facts)
}

/// How often a wait for somebody who takes no calls looks for signals that are held.
const LOOK: Duration = Duration::from_millis(200);

/// Connects to a Unix stream socket by path. A path that is too long for a socket's address is reached from its
/// directory. Who listens may have too many calls waiting already; an interrupt ends the wait.
pub fn connect_to(path: &Path, what: &str, interrupt: Option<&Interrupt>) -> Result<OwnedFd> {
    let doing = || format!("connect to the {what} {}", path.display());
    let socket =
        socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).doing(doing)?;
    // No event tells of a free place: only connect(2) itself waits for one, as long as one may send.
    let set_patience =
        |time| interrupt.map_or(Ok(()), |_| set_socket_timeout(&socket, Timeout::Send, time)).doing(doing);
    set_patience(Some(LOOK))?;
    loop {
        match (with_address(path, |address| connect(&socket, address)), interrupt) {
            (Err(Errno::AGAIN), Some(interrupt)) => {
                interrupt.check().map_err(|error| error.while_doing(doing()))?;
            }
            (connected, _) => {
                connected.doing(doing)?;
                set_patience(None)?;
                return Ok(socket);
            }
        }
    }
}

/// A listening socket at `name` in a directory.
pub fn listen_at(directory: impl AsFd, name: &str) -> Result<OwnedFd> {
    let doing = || format!("make the socket {name}");
    let socket =
        socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).doing(doing)?;
    // The name gets this mode at its birth, whatever the caller's umask is: nobody else may call.
    fchmod(&socket, Mode::RUSR | Mode::WUSR).doing(doing)?;
    in_directory(directory, name, |address| bind(&socket, address)).doing(doing)?;
    listen(&socket, 1).doing(doing)?;
    Ok(socket)
}

/// Calls the socket at `name` in a directory.
pub fn call(directory: impl AsFd, name: &str) -> Result<OwnedFd, Errno> {
    call_with(directory, name, SocketFlags::CLOEXEC)
}

/// Whether somebody listens at `name` in a directory; `ECONNREFUSED` when the socket was left by somebody who did. Never
/// waits: who listens may be stopped or frozen, and take no calls.
pub fn is_listened_at(directory: impl AsFd, name: &str) -> Result<bool, Errno> {
    match call_with(directory, name, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
        // So many calls wait already that there is no room for this one.
        Ok(_) | Err(Errno::AGAIN) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno),
    }
}

fn call_with(directory: impl AsFd, name: &str, flags: SocketFlags) -> Result<OwnedFd, Errno> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    in_directory(directory, name, |address| connect(&socket, address))?;
    Ok(socket)
}

/// Uses a path as a socket's address, which holds 107 bytes; a longer one is used from its directory.
pub fn with_address<T>(
    path: &Path,
    use_it: impl Fn(&SocketAddrUnix) -> Result<T, Errno>,
) -> Result<T, Errno> {
    match (SocketAddrUnix::new(path), path.parent(), path.file_name().and_then(|name| name.to_str())) {
        (Ok(address), ..) => use_it(&address),
        (Err(_), Some(parent), Some(name)) => {
            let directory =
                openat(CWD, parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
            in_directory(directory, name, use_it)
        }
        (Err(errno), ..) => Err(errno),
    }
}

/// Uses a name in a directory as a socket's address, through the directory's entry in procfs, which is short
/// whatever the directory's own path is.
fn in_directory<T>(
    directory: impl AsFd,
    name: &str,
    use_it: impl Fn(&SocketAddrUnix) -> Result<T, Errno>,
) -> Result<T, Errno> {
    let number = std::os::fd::AsRawFd::as_raw_fd(&directory.as_fd());
    use_it(&SocketAddrUnix::new(format!("/proc/self/fd/{number}/{name}"))?)
}

/// Opens the namespaces that the container's side joins, and makes sure that each is of its type.
pub fn open_namespaces(namespaces: &Namespaces) -> Result<Vec<OwnedFd>> {
    namespaces
        .join
        .iter()
        .map(|(place, namespace)| open_namespace(&namespace.path, namespace.flag, place))
        .collect()
}

fn open_namespace(path: &Path, flag: u64, place: &str) -> Result<OwnedFd> {
    // A FIFO would be waited for.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let fd = openat(CWD, path, flags, Mode::empty())
        .doing(|| format!("open the namespace {}", path.display()))
        .map_err(|error| error.at(place))?;
    match crate::sys::process::namespace_type(fd.as_fd()) {
        Ok(kind) if kind == flag => Ok(fd),
        Ok(_) => Err(Error::config(place, format!("{} is a namespace of another type", path.display()))),
        Err(_) => Err(Error::config(place, format!("{} is not a namespace", path.display()))
            .hint("a namespace's path is like /proc/PID/ns/net, or a bind mount of such a file")),
    }
}

/// Whether the container's network namespace is the runtime's own.
pub fn shares_network(namespaces: &Namespaces, opened: &[OwnedFd]) -> Result<bool> {
    match network::joined(namespaces).and_then(|index| opened.get(index)) {
        Some(joined) => is_same_namespace(own_namespace("net")?.as_fd(), joined.as_fd())
            .doing(|| "look at the network namespaces"),
        None => Ok(namespaces.clone & libc::CLONE_NEWNET as u64 == 0),
    }
}

/// Refuses a parameter of the kernel for a namespace that is joined by path and is the runtime's own: it would be the
/// host's that is set.
pub fn refuse_shared_sysctls(steps: &[Step], namespaces: &Namespaces, opened: &[OwnedFd]) -> Result<()> {
    for step in steps {
        let Action::Sysctl { file, .. } = &step.action else { continue };
        let name = file.to_string_lossy();
        let Ok(Sysctl { namespace: Some(kind), .. }) = parse_sysctl(&name) else { continue };
        let (_, flag) = describe(kind);
        let joined = namespaces.join.iter().zip(opened).find(|((_, joined), _)| joined.flag == flag);
        let Some(((_, joined), fd)) = joined else { continue };
        let own = own_namespace(link_of(kind))?;
        if is_same_namespace(own.as_fd(), fd.as_fd()).doing(|| "look at the namespaces that are joined")? {
            let told =
                format!("{}: {} is the runtime's own", shared_sysctl(&name, kind), joined.path.display());
            return Err(Error::config(step.place.clone(), told)
                .hint("leave the path out for a namespace of the container's own, or the parameter"));
        }
    }
    Ok(())
}

/// Puts the namespaces for children back to what they were: hooks, too, are children.
#[derive(Default)]
pub struct ChildNamespaces {
    pids: Option<OwnedFd>,
    time: Option<OwnedFd>,
}

impl ChildNamespaces {
    /// Prepares what a process can only be born into: a pid namespace given by path, unless `pids_stay`, and a new time
    /// namespace.
    pub fn enter(namespaces: &Namespaces, pids_stay: bool) -> Result<Self> {
        let mut before = Self::default();
        if let Some(path) = namespaces.pid_path.as_ref().filter(|_| !pids_stay) {
            before.pids = Some(own_namespace("pid")?);
            let fd = open_pids(path)?;
            set(&fd, LinkNameSpaceType::ProcessID)
                .doing(|| format!("enter the pid namespace {}", path.display()))
                .map_err(|error| error.at("linux.namespaces"))?;
        }
        if let Some(offsets) = namespaces.time_offsets.as_ref().filter(|_| namespaces.user.is_none()) {
            before.time = Some(own_namespace("time")?);
            unshare(CLONE_NEWTIME).doing(|| "make the time namespace").map_err(|error| {
                error.at("linux.namespaces").hint("the kernel needs CONFIG_TIME_NS (Linux 5.6)")
            })?;
            if !offsets.is_empty() {
                std::fs::write("/proc/self/timens_offsets", offsets)
                    .doing(|| "write the offsets of the time namespace")
                    .map_err(|error| error.at("linux.timeOffsets"))?;
            }
        }
        Ok(before)
    }

    /// Goes back.
    pub fn leave(self) -> Result<()> {
        if let Some(pids) = self.pids {
            set(&pids, LinkNameSpaceType::ProcessID).doing(|| "go back to the runtime's pid namespace")?;
        }
        if let Some(time) = self.time {
            set(&time, LinkNameSpaceType::Time).doing(|| "go back to the runtime's time namespace")?;
        }
        Ok(())
    }
}

/// The name of a namespace that has parameters, below `/proc/PID/ns`.
fn link_of(kind: LinuxNamespaceType) -> &'static str {
    match kind {
        LinuxNamespaceType::Network => "net",
        LinuxNamespaceType::User => "user",
        LinuxNamespaceType::Uts => "uts",
        _ => "ipc",
    }
}

/// The pid namespace that a bundle gives by path.
pub fn open_pids(path: &Path) -> Result<OwnedFd> {
    open_namespace(path, libc::CLONE_NEWPID as u64, "linux.namespaces")
}

fn set(fd: &OwnedFd, kind: LinkNameSpaceType) -> Result<(), Errno> {
    rustix::thread::move_into_link_name_space(fd.as_fd(), Some(kind))
}

/// A namespace of a process that can't end meanwhile, since it is ours to reap.
pub fn namespace_of(pid: i32, kind: &str) -> Result<OwnedFd> {
    openat(CWD, format!("/proc/{pid}/ns/{kind}"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .doing(|| format!("open the {kind} namespace of process {pid}"))
}

/// A namespace of the runtime's own.
pub fn own_namespace(kind: &str) -> Result<OwnedFd> {
    openat(CWD, format!("/proc/self/ns/{kind}"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .doing(|| format!("open the runtime's {kind} namespace"))
}
