//! The container's side of a clone: executing the plan's steps, in order, up to execve(2).
//!
//! It decides nothing. What it works on was prepared by the host side and is here already, since memory and
//! descriptors are copied by the clone. A step that fails is told over the channel, by its name and its place in
//! `config.json`, and the process ends; nothing of it can stay behind, because all it made lives in its own
//! namespaces.

pub mod channel;
mod console;
mod copy_up;
mod credentials;
mod devices;
mod fd;
pub mod filesystem;
mod handover;
mod hidden;
pub mod host_mounts;
mod listener;
mod mounts;
mod null;
mod old_root;
pub mod procfs;
mod program;
mod root;
pub mod rootfs;
mod settings;
mod talk;
mod target;
mod user;

pub use credentials::{drop_groups, give_pipes};
pub use mounts::attach;
pub use settings::explain_limit;
pub use user::map_ids;

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use std::time::Instant;

use coracle_seccomp::Program;
use oci_spec::runtime::Hook;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::umask;
use rustix::thread::{LinkNameSpaceType, ThreadNameSpaceType, UnshareFlags};

use self::channel::{Channel, Frame};
use self::root::Root;
use crate::error::{Doing, Error, Kind, Result};
use crate::hooks::HookState;
use crate::plan::step::{Action, Step};
use crate::sys;

/// Where the pseudoterminal's master goes.
#[derive(Debug)]
pub enum ConsoleReceiver {
    /// Over the channel, to the host side, which copies what it carries.
    Host,
    /// Over the channel, to the host side, whose caller serves it.
    Caller,
    /// To the socket that the engine gave (`--console-socket`), already connected.
    Engine(OwnedFd),
}

/// All that the container's side needs: what the host side prepared.
pub struct Inside<'plan> {
    /// What to do.
    pub steps: &'plan [Step],
    /// The socket to the host side.
    pub channel: Channel,
    /// The listening socket on which `start` calls; none when the host side's word starts the program.
    pub gate: Option<OwnedFd>,
    /// The namespaces of the `JoinNamespace` steps, in their order.
    pub namespaces: Vec<OwnedFd>,
    /// The pidfd of the container's init, for `JoinContainer`.
    pub container: Option<BorrowedFd<'plan>>,
    /// The container's root directory, for `ContainerRoot`.
    pub container_root: Option<OwnedFd>,
    /// The user namespaces of id-mapped mounts, in the order of the steps; none where the host side opens the sources.
    pub id_maps: Vec<Rc<OwnedFd>>,
    /// The network namespace is the runtime's own.
    pub has_host_network: bool,
    /// The files that take this process into its cgroups when "0" is written to them.
    pub cgroups: Vec<OwnedFd>,
    /// The host side puts this process into its cgroup itself, and says when it has.
    pub adopted_first: bool,
    /// The host's /proc.
    pub proc: OwnedFd,
    /// Where the master of the pseudoterminal goes.
    pub console: ConsoleReceiver,
    /// The `createContainer` and `startContainer` hooks.
    pub create_container: &'plan [Hook],
    /// See `create_container`.
    pub start_container: &'plan [Hook],
    /// The state that these hooks get; status and pid are filled in when they run.
    pub hook_state: Option<HookState>,
    /// The program's arguments.
    pub args: &'plan [CString],
    /// The program's environment.
    pub env: Vec<CString>,
    /// The compiled seccomp filter, for `Seccomp`.
    pub seccomp: Option<&'plan Program>,
    /// How many descriptors, from 0 on, the program keeps.
    pub keep: u32,
    /// Tell the log how long each step took.
    pub trace: bool,
}

/// What the steps have made so far.
#[derive(Default)]
struct Made {
    root: Option<Root>,
    supplies: user::Supplies,
    hidden: hidden::Hidden,
    devices: devices::Directory,
    joined: usize,
    pending_directory: Option<std::path::PathBuf>,
    program: Option<CString>,
    start: Option<Channel>,
    /// Done with all that a filter may forbid.
    ready: bool,
    times: Vec<(String, u128)>,
}

/// Executes the steps. Never returns: the process becomes the program, or ends.
pub fn run(mut inside: Inside<'_>) -> ! {
    let id_maps = std::mem::take(&mut inside.id_maps);
    let mut made =
        Made { supplies: user::Supplies::new(id_maps, inside.has_host_network), ..Made::default() };
    fd::heed_limit();
    // Modes that are asked for are meant exactly.
    umask(Mode::empty());
    for step in inside.steps {
        let begun = Instant::now();
        if let Err(error) = execute(step, &mut inside, &mut made) {
            let error = if step.place.is_empty() { error } else { error.at(step.place.clone()) };
            let error = if error.kind() == Kind::Config && error.place() == Some("process.args[0]") {
                error
            } else {
                error.while_doing(step)
            };
            let channel = made.start.as_ref().unwrap_or(&inside.channel);
            // Nobody is there to hear it any more: then nobody waits for it either.
            let _ = channel.send(&Frame::Failed(error));
            break;
        }
        if inside.trace {
            made.times.push((step.to_string(), begun.elapsed().as_micros()));
        }
    }
    sys::process::exit_now(1)
}

#[expect(clippy::too_many_lines, reason = "one line a kind of step: the table is the point")]
fn execute(step: &Step, inside: &mut Inside<'_>, made: &mut Made) -> Result<()> {
    match &step.action {
        Action::JoinNamespace(namespace) => {
            let fd =
                inside.namespaces.get(made.joined).ok_or_else(|| missing("the namespace's descriptor"))?;
            made.joined += 1;
            rustix::thread::move_into_link_name_space(fd.as_fd(), link_type(namespace.flag))
                .doing(|| format!("setns to {}", namespace.path.display()))
        }
        Action::JoinContainer { flags, .. } => {
            let container = inside.container.ok_or_else(|| missing("the container's pidfd"))?;
            if *flags != 0 {
                let kinds = ThreadNameSpaceType::from_bits_retain(*flags as u32);
                rustix::thread::move_into_thread_name_spaces(container, kinds)
                    .doing(|| "setns to the container's init")?;
            }
            made.root = Some(rootfs::reopen()?);
            Ok(())
        }
        Action::AwaitMaps | Action::AwaitHost => talk::await_go(inside),
        Action::Hide => user::hide(),
        Action::Reveal => user::reveal(),
        Action::Sources { count } => {
            made.supplies.expect_trees(*count);
            Ok(())
        }
        Action::NamespaceRoot => credentials::become_namespace_root(),
        Action::NewTimeNamespace { offsets } => user::new_time_namespace(&inside.proc, offsets),
        Action::ContainerRoot => {
            let root =
                inside.container_root.take().map(Root::new).ok_or_else(|| missing("the container's root"))?;
            rootfs::chroot(&root)?;
            made.root = Some(root);
            Ok(())
        }
        Action::JoinCgroups => {
            if inside.adopted_first {
                talk::await_go(inside)?;
            }
            let files = std::mem::take(&mut inside.cgroups);
            let joined = files.iter().try_for_each(|file| {
                rustix::io::write(file, b"0").doing(|| "write to the cgroup's list of processes").map(drop)
            });
            sys::process::close_together(files);
            joined
        }
        Action::NewCgroupNamespace => {
            unshare(UnshareFlags::NEWCGROUP).doing(|| "unshare the cgroup namespace")
        }
        Action::Loopback => sys::network::bring_loopback_up().doing(|| "bring lo up"),
        Action::NewSession => match rustix::process::setsid() {
            // The first process of a pid namespace that somebody else made a session leader is one already.
            Ok(_) | Err(Errno::PERM) => Ok(()),
            Err(errno) => Err(Error::os(errno, "setsid")),
        },
        Action::SessionKeyring { name } => settings::session_keyring(name),
        Action::RootPropagation(propagation) => rootfs::set_tree_propagation(*propagation),
        Action::BindRoot { path, private_parent } => {
            let place = match made.supplies.rootfs(&inside.channel)? {
                Some(place) => place,
                None => rootfs::Place::open(path, *private_parent, false)?,
            };
            made.root = Some(place.attach()?);
            Ok(())
        }
        Action::OpenRoot { path } => {
            made.root = Some(rootfs::open(path)?);
            Ok(())
        }
        Action::Mount(mount) => {
            let mounted = mounts::execute(mount, root(&made.root)?, &mut made.supplies, &inside.channel)?;
            made.hidden.know(mount, mounted);
            Ok(())
        }
        Action::Device(device) => made.devices.make(device, root(&made.root)?),
        Action::Symlink { path, target, replace } => {
            made.devices.link(path, target, *replace, root(&made.root)?)
        }
        Action::Console { size, mount } => {
            let root = root(&made.root)?;
            let terminal = console::allocate(root, *size)?;
            if matches!(inside.console, ConsoleReceiver::Host) {
                console::leave_new_lines(&terminal)?;
            }
            if *mount {
                console::mount(&terminal, root)?;
            }
            console::take(&terminal)?;
            talk::hand_over_console(terminal.master, inside)
        }
        Action::RuntimeHooks => {
            talk::tell(inside, &Frame::RuntimeHooks)?;
            talk::await_go(inside)
        }
        Action::Hooks { name } => talk::run_hooks(name, inside, made.root.as_ref()),
        Action::PivotRoot => rootfs::pivot(root(&made.root)?),
        Action::MoveRoot => {
            let root = root(&made.root)?;
            old_root::take_views_away(&inside.proc, root)?;
            rootfs::move_over_root(root)
        }
        Action::Chroot => rootfs::chroot(root(&made.root)?),
        Action::ContainerPropagation(propagation) => {
            rootfs::set_root_propagation(root(&made.root)?, *propagation)
        }
        Action::RemountReadonly { path } => hidden::remount_readonly(path, root(&made.root)?),
        Action::Hostname { name } => {
            rustix::system::sethostname(name.as_bytes()).doing(|| format!("set the hostname {name}"))
        }
        Action::Domainname { name } => {
            rustix::system::setdomainname(name.as_bytes()).doing(|| format!("set the domainname {name}"))
        }
        Action::Sysctl { file, value } => {
            procfs::write(&inside.proc, &format!("sys/{}", file.display()), value)
        }
        Action::ReadonlyPath { path } => made.hidden.make_readonly(path, root(&made.root)?),
        Action::MaskPath { path } => made.hidden.mask(path, root(&made.root)?),
        Action::OwnNull => null::own_streams(root(&made.root)?),
        Action::LetGo => handover::let_go(inside, made),
        Action::Rlimit { name, resource, soft, hard } => settings::set_limit(name, *resource, *soft, *hard),
        Action::OomScoreAdj { value } => {
            procfs::write(&inside.proc, "self/oom_score_adj", &value.to_string()).map_err(|error| match error
                .errno()
            {
                Some(Errno::ACCESS) => error.hint("a value below the runtime's own needs CAP_SYS_RESOURCE"),
                _ => error,
            })
        }
        Action::Scheduler { attributes, .. } => {
            sys::policy::set_scheduler(*attributes).doing(|| "sched_setattr").map_err(|error| match error.errno() {
                // SCHED_DEADLINE wants all CPUs of the root domain: sched_setattr(2).
                Some(Errno::PERM) => error.hint(
                    "process scheduler can't be used together with AllowedCPUs (linux.resources.cpu.cpus), nor without CAP_SYS_NICE",
                ),
                _ => error,
            })
        }
        Action::IoPriority { value } => sys::policy::set_io_priority(*value).doing(|| "ioprio_set"),
        Action::MemoryPolicy { mode, nodes } => settings::set_memory_policy(*mode, nodes),
        Action::Affinity { cpus: None, .. } => {
            // A cpuset that the kernel doesn't let us use in full is used as far as it goes.
            sys::affinity::reset().or(Ok(()))
        }
        Action::Affinity { mask, .. } => {
            sys::affinity::set(mask).doing(|| "sched_setaffinity").map_err(|error| {
                error.hint("at least one of the CPUs must exist and be in the container's cpuset")
            })
        }
        Action::Personality { persona } => sys::policy::set_personality(*persona).doing(|| "personality"),
        Action::ExecLabel { module, label } => settings::exec_label(module, label, inside),
        Action::BoundingSet { keep } => credentials::limit_bounding_set(*keep),
        Action::StdioOwner { uid, pipes_only } => {
            if *pipes_only {
                give_pipes(*uid);
            } else {
                credentials::own_stdio(*uid);
            }
            Ok(())
        }
        Action::Umask { mask } => {
            umask(Mode::from_raw_mode(*mask));
            Ok(())
        }
        Action::MakeDirectory { path } => root(&made.root)?
            .open_or_make(path, root::Make::Directory)
            .map(drop)
            .doing(|| format!("make the directory {}", path.display())),
        Action::WorkingDirectory { path, make } => {
            if !program::change_directory(path, *make)? {
                made.pending_directory = Some(path.clone());
            }
            Ok(())
        }
        Action::User { uid, gid, groups, in_user_namespace } => {
            credentials::become_user(*uid, *gid, groups, *in_user_namespace)?;
            match made.pending_directory.take() {
                Some(path) if !program::change_directory(&path, false)? => Err(Error::os(
                    Errno::ACCESS,
                    format!("chdir to cwd ({path:?}) set in config.json failed"),
                )
                .at("process.cwd")),
                _ => Ok(()),
            }
        }
        Action::Capabilities(capabilities) => credentials::set(capabilities),
        Action::NoNewPrivileges => rustix::thread::set_no_new_privs(true).doing(|| "set no_new_privs"),
        Action::Seccomp { privileged, .. } => handover::load_filter(*privileged, inside, made),
        Action::Home { uid } => {
            inside.env.retain(|entry| !entry.to_bytes().starts_with(b"HOME="));
            let home = [b"HOME=", program::home(*uid).to_bytes()].concat();
            inside.env.extend(CString::new(home).ok());
            Ok(())
        }
        Action::FindProgram { .. } => {
            made.program = Some(program::find(program_name(inside)?, &inside.env)?);
            Ok(())
        }
        Action::Ready => {
            if inside.trace {
                talk::tell(inside, &Frame::Times(slowest_first(&mut made.times)))?;
            }
            talk::tell(inside, &Frame::Ready)?;
            talk::await_go(inside)
        }
        Action::AwaitStart => {
            made.start = talk::await_start(inside)?;
            Ok(())
        }
        Action::Execute { .. } => handover::program_start(inside, made),
    }
}

/// `--debug`: where the time went, in microseconds, for the host's log; what the container's standard error is for, its
/// engine decides.
fn slowest_first(times: &mut [(String, u128)]) -> String {
    times.sort_by_key(|(_, micros)| std::cmp::Reverse(*micros));
    let lines: Vec<String> = times.iter().map(|(step, micros)| format!("{micros:>7} us  {step}")).collect();
    lines.join("\n")
}

fn missing(what: &str) -> Error {
    Error::new(Kind::System, format!("the plan needs {what}, which the host side didn't prepare"))
}

fn root(root: &Option<Root>) -> Result<&Root> {
    root.as_ref().ok_or_else(|| missing("the rootfs"))
}

fn program_name<'a>(inside: &'a Inside<'_>) -> Result<&'a CStr> {
    inside.args.first().map(CString::as_c_str).ok_or_else(|| missing("process.args"))
}

fn link_type(flag: u64) -> Option<LinkNameSpaceType> {
    [
        LinkNameSpaceType::Network,
        LinkNameSpaceType::InterProcessCommunication,
        LinkNameSpaceType::HostNameAndNISDomainName,
        LinkNameSpaceType::Mount,
        LinkNameSpaceType::ControlGroup,
        LinkNameSpaceType::User,
        LinkNameSpaceType::Time,
        LinkNameSpaceType::ProcessID,
    ]
    .into_iter()
    .find(|kind| *kind as u64 == flag)
}

fn unshare(flags: UnshareFlags) -> Result<(), Errno> {
    sys::process::unshare(flags.bits().into())
}

/// Opens a directory of the host for the container's side.
pub fn open_directory(path: &Path) -> Result<OwnedFd> {
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .doing(|| format!("open {}", path.display()))
}
