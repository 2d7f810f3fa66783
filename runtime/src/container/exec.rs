//! `exec`: a further process in a running container.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use oci_spec::runtime::Process;
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, ThreadNameSpaceType};

use super::exec_process;
use super::foreground::{self, Signals};
use super::host;
use super::identity::Identity;
use super::inherited::kept_descriptors;
use super::joined_user::Maps;
use super::listener::{await_execution, unasked};
use super::options::{ExecOptions, ExecProcess, Settings};
use super::process::{ended, hide_from_debuggers, kill_and_reap, wait_for_end};
use super::refused::NOT_DELEGATED;
use super::run::Begun;
use super::stage;
use super::state::{Container, Status};
use super::store::{CONFIG_FILE, Store, remove_pid_file, write_pid_file};
use super::terminal::copy_size;
use crate::bundle::Bundle;
use crate::cgroup::{CgroupHandle, SubCgroup};
use crate::error::{Doing, Error, Kind, Result};
use crate::init::channel::{Channel, Frame, send_with_descriptor};
use crate::init::{self, ConsoleReceiver, Inside, procfs};
use crate::interrupt::Interrupt;
use crate::plan;
use crate::plan::exec::{ExecPlan, Target};
use crate::plan::process::Streams;
use crate::sys::clone::{Clone3, Forked};

/// Adds a process to a running container and, unless it is detached, waits for its end. Gives the exit status.
pub fn exec(store: &Store, settings: &Settings, id: &str, options: &ExecOptions) -> Result<i32> {
    let Spawned { pid, pidfd, master, signals } =
        begin(store, settings, id, options, |process| check_console(process, options), None)?;
    match signals {
        Some(signals) => {
            foreground::wait(&signals, pid, &pidfd, master, None).inspect_err(|_| kill_and_reap(&pidfd))
        }
        None => Ok(0),
    }
}

/// Who is told which process is being added.
type Announce<'a> = &'a dyn Fn(Identity) -> Result<()>;

/// As [`exec`] with `detach`, for a caller of the library, who serves the terminal itself. The process is the caller's
/// child. `announce` is told which one it is before its program may begin: until then the process ends by itself when this
/// one does.
pub fn exec_here(
    store: &Store,
    settings: &Settings,
    id: &str,
    options: &ExecOptions,
    announce: Announce<'_>,
) -> Result<Begun> {
    let Spawned { pid, master, .. } = begin(store, settings, id, options, |_| Ok(()), Some(announce))?;
    Ok(Begun { process: Identity::of(pid)?, master })
}

/// Checks what is asked for and adds the process.
fn begin(
    store: &Store,
    settings: &Settings,
    id: &str,
    options: &ExecOptions,
    check: impl FnOnce(bool) -> Result<()>,
    announce: Option<Announce<'_>>,
) -> Result<Spawned> {
    let container = Container::open(store, id)?;
    let (status, init) = container.status_and_init()?;
    let Some(init) = init.filter(|_| status != Status::Stopped) else {
        return Err(Error::new(Kind::State, "cannot exec in a stopped container"));
    };
    match status {
        Status::Paused if !options.ignore_paused => {
            return Err(Error::new(Kind::State, "cannot exec in a paused container")
                .hint("use --ignore-paused to override"));
        }
        Status::Creating => {
            return Err(Error::new(Kind::State, "cannot exec in a container that is being created"));
        }
        _ => {}
    }
    let bundle = own_bundle(&container)?;
    super::image::protect_from(&bundle.spec)?;
    if let ExecProcess::File { path, .. } = &options.process {
        super::image::protect_before_reading(path)?;
    }
    let process = exec_process::wanted(&bundle, &options.process)?;
    super::image::protect_from_added(&process, &bundle.spec)?;
    check(process.terminal() == Some(true))?;
    let linux = bundle.spec.linux().as_ref();
    let target = Target {
        namespaces: container.state.namespaces,
        personality: linux.and_then(|linux| linux.personality().as_ref()).map(crate::bundle::personality),
        own_keyring: !container.state.no_new_keyring,
    };
    let facts = host::facts(Some(&process), false)?;
    let seccomp = bundle.seccomp.as_deref().filter(|_| !container.state.learning);
    if container.state.learning {
        log::warn!(
            "container {id} is run to learn a seccomp profile: this process has no filter, and its system calls are not recorded"
        );
    }
    let streams = if options.detach { Streams::Handed } else { Streams::Shared };
    let plan = plan::exec::plan(&process, linux, seccomp, target, id, streams, &facts)?;
    for warning in &plan.warnings {
        log::warn!("{warning}");
    }
    plan::seccomp::log_flags(plan.seccomp.as_ref());
    if container.state.namespaces & libc::CLONE_NEWUSER as u64 != 0 {
        prepare_user(&container, &process)?;
    }
    spawn(&container, &init, &plan, options, settings, announce)
}

/// What only the host's side may do for a process that joins a user namespace.
fn prepare_user(container: &Container, process: &Process) -> Result<()> {
    let pid = container.state.init.map_or(0, |init| init.pid);
    let maps = Maps::of(&procfs::open_host()?, pid)?;
    maps.check_process(process.user())?;
    let uid = maps.uid_outside(process.user().uid());
    if let Some(uid) = uid.filter(|_| process.terminal() != Some(true)) {
        init::give_pipes(uid);
    }
    Ok(())
}

/// A terminal needs somebody to serve it, and a console socket a terminal: runc's rule and its words.
fn check_console(terminal: bool, options: &ExecOptions) -> Result<()> {
    if options.detach && terminal && options.console_socket.is_none() {
        return Err(Error::new(
            Kind::Config,
            "cannot allocate tty if runc will detach without setting console socket",
        )
        .hint("give --console-socket, or don't ask for a terminal"));
    }
    if (!options.detach || !terminal) && options.console_socket.is_some() {
        return Err(Error::new(
            Kind::Config,
            "cannot use console socket if runc will not detach or allocate tty",
        )
        .hint("leave --console-socket out, or give --tty and --detach"));
    }
    Ok(())
}

/// The configuration as it was when the container was created.
pub(super) fn own_bundle(container: &Container) -> Result<Bundle> {
    let path = container.home.path().join(CONFIG_FILE);
    let text = container
        .home
        .read(CONFIG_FILE)?
        .ok_or_else(|| Error::new(Kind::System, format!("{} is missing", path.display())))?;
    // It was checked when the container was created.
    Bundle::from_json(&container.state.bundle, &text).map_err(|error| {
        error
            .while_doing(format_args!("{} is damaged", path.display()))
            .hint("delete the container and create it again")
    })
}

/// A process whose program is executed.
struct Spawned {
    pid: i32,
    pidfd: OwnedFd,
    /// The master of its terminal, where that comes to us.
    master: Option<OwnedFd>,
    /// The signals that are held for it, where we stay in the foreground.
    signals: Option<Signals>,
}

fn spawn(
    container: &Container,
    init_pidfd: &OwnedFd,
    plan: &ExecPlan,
    options: &ExecOptions,
    settings: &Settings,
    announce: Option<Announce<'_>>,
) -> Result<Spawned> {
    // Socket activation is for the container's own process.
    let keep = kept_descriptors(0, options.preserve_fds)?;
    let init_pid = container.state.init.map_or(0, |init| init.pid);
    let sub: Vec<SubCgroup> = options.cgroup.iter().map(|text| text.parse()).collect::<Result<_>>()?;
    let cgroups = container.cgroup()?;
    let mut cgroup = cgroups.exec_target(init_pid, &sub)?;
    let proc = procfs::open_host()?;
    let container_root = if container.state.namespaces & libc::CLONE_NEWNS as u64 == 0 {
        Some(init::open_directory(Path::new(&format!("/proc/{init_pid}/root")))?)
    } else {
        None
    };
    // What was opened by its number is that process's, unless the number has become another's.
    if wait_for_end(init_pidfd, 0)? {
        return Err(Error::new(Kind::State, "the container's first process ended meanwhile"));
    }
    let console = match &options.console_socket {
        Some(path) => ConsoleReceiver::Engine(host::connect_to(path, "console socket", None)?),
        None if options.detach => ConsoleReceiver::Caller,
        None => ConsoleReceiver::Host,
    };
    let pidfd_socket = options
        .pidfd_socket
        .as_deref()
        .map(|path| host::connect_to(path, "pidfd socket", None))
        .transpose()?;
    let (host_end, container_end) = Channel::pair()?;
    // As for create: nobody in the container may look into this process before it is the program (CVE-2016-9962).
    // Towards a user namespace the process that enters it does that: see `stage`.
    let joins_user = container.state.namespaces & libc::CLONE_NEWUSER as u64 != 0;
    if !joins_user {
        hide_from_debuggers()?;
    }
    let joins_pids = container.state.namespaces & libc::CLONE_NEWPID as u64 != 0;
    // The root of a user namespace could not come back from there.
    let staged = joins_user || (joins_pids && crate::sys::process::in_user_namespace());
    let own_pids = (joins_pids && !staged).then(|| host::own_namespace("pid")).transpose()?;
    if own_pids.is_some() {
        rustix::thread::move_into_thread_name_spaces(init_pidfd.as_fd(), ThreadNameSpaceType::PROCESS_ID)
            .doing(|| "enter the container's pid namespace")?;
    }
    let spawn = |into: Option<&CgroupHandle>| {
        let clone = Clone3 { into_cgroup: into.map(AsFd::as_fd), ..Clone3::default() };
        if !staged {
            return clone.spawn().doing(|| "make the process");
        }
        let all = ThreadNameSpaceType::from_bits_retain(
            (container.state.namespaces & !plan::exec::LATE_WITH_USER) as u32,
        );
        let entered = if joins_user { all } else { ThreadNameSpaceType::PROCESS_ID };
        let entry = stage::Entry::Container(init_pidfd.as_fd(), entered);
        stage::spawn(&entry, &plan.outside, &proc, &clone)
    };
    let failed_with = |forked: &Result<Forked>, errnos: &[Errno]| {
        forked.as_ref().err().and_then(Error::errno).filter(|errno| errnos.contains(errno))
    };
    let mut into = cgroup.clone_into.take();
    let mut forked = spawn(into.as_ref());
    // Controllers are enabled for its children, or it is threaded; or it is removed as we look.
    let unfit = [Errno::BUSY, Errno::OPNOTSUPP, Errno::NODEV, Errno::NOENT];
    if sub.is_empty()
        && failed_with(&forked, &unfit).is_some()
        && let Some(of_init) = cgroups.of_init(init_pid)?
    {
        into = Some(of_init);
        forked = spawn(into.as_ref());
    }
    if let (Some(into), Some(errno)) = (&into, failed_with(&forked, &[Errno::BUSY, Errno::OPNOTSUPP])) {
        forked = Err(into.taken_by_children(errno));
    }
    // Whoever is neither root nor in what was delegated to it may not move a process there: cgroups(7).
    if sub.is_empty() && settings.is_rootless() && failed_with(&forked, &[Errno::ACCESS]).is_some() {
        log::warn!(
            "the process stays in the caller's cgroup, without the container's limits: {NOT_DELEGATED}"
        );
        forked = spawn(None);
    }
    // No process is born in a cgroup that is full, but one may come in: who looks after a container that forks without
    // end, or that may not fork, must get into it.
    if let Some(full) = into.filter(|_| failed_with(&forked, &[Errno::AGAIN]).is_some()) {
        cgroup.join.push(full.list()?);
        forked = spawn(None);
    }
    let forked = forked.map_err(|error| match error.errno() {
        Some(Errno::ACCESS) => error.hint(NOT_DELEGATED),
        Some(Errno::AGAIN) => error
            .hint("a limit of processes is reached: RLIMIT_NPROC, or pids.max of the runtime's own cgroup"),
        Some(Errno::NOMEM) => {
            error.hint("the container's first process has ended meanwhile, or memory is short")
        }
        _ => error,
    })?;
    let (pid, pidfd) = match forked {
        Forked::Parent { pid, pidfd } => (pid, pidfd),
        Forked::Child => {
            drop(host_end);
            init::run(Inside {
                steps: &plan.steps,
                channel: container_end,
                gate: None,
                namespaces: Vec::new(),
                container: Some(init_pidfd.as_fd()),
                container_root,
                id_maps: Vec::new(),
                has_host_network: false,
                cgroups: cgroup.join,
                adopted_first: false,
                proc,
                console,
                create_container: &[],
                start_container: &[],
                hook_state: None,
                args: &plan.args,
                env: plan.env.clone(),
                seccomp: plan.seccomp.as_ref(),
                keep,
                trace: settings.debug,
            })
        }
    };
    drop((container_end, cgroup, container_root, console));
    if let Some(own_pids) = own_pids {
        rustix::thread::move_into_link_name_space(own_pids.as_fd(), Some(LinkNameSpaceType::ProcessID))
            .doing(|| "go back to the runtime's pid namespace")?;
    }
    let finished = finish(container, &host_end, pid, &pidfd, pidfd_socket.as_ref(), options, announce);
    match finished {
        Ok((master, signals)) => Ok(Spawned { pid, pidfd, master, signals }),
        Err(error) => {
            kill_and_reap(&pidfd);
            Err(error)
        }
    }
}

/// Answers the joining side until its program is executed.
fn finish(
    container: &Container,
    channel: &Channel,
    pid: i32,
    pidfd: &OwnedFd,
    pidfd_socket: Option<&OwnedFd>,
    options: &ExecOptions,
    announce: Option<Announce<'_>>,
) -> Result<(Option<OwnedFd>, Option<Signals>)> {
    if let Some(rdt) = &container.state.intel_rdt {
        rdt.add(pid)?;
    }
    let mut master = None;
    loop {
        match channel.receive()? {
            Some(Frame::Times(lines)) => lines.lines().for_each(|line| log::debug!("{line}")),
            Some(Frame::Console(fd)) => {
                // Before the program looks.
                copy_size(fd.as_fd());
                master = Some(fd);
            }
            Some(Frame::Ready) => break,
            Some(Frame::Failed(error)) => return Err(error),
            Some(_) => {}
            None => return Err(ended(pidfd, "before its program was executed")),
        }
    }
    if let Some(socket) = pidfd_socket {
        // The word is runc's for a process that is added.
        send_with_descriptor(socket.as_fd(), b"setns", Some(pidfd.as_fd())).doing(|| "send the pidfd")?;
    }
    if let Some(path) = &options.pid_file {
        write_pid_file(path, pid)?;
    }
    if let Some(announce) = announce {
        announce(Identity::of(pid)?)?;
    }
    // Not before, since a process that can't begin, as in a paused container, must not keep us from ending; and not after,
    // since the program may signal us at once.
    let signals = (!options.detach).then(Signals::hold).transpose()?;
    let interrupt = signals.is_some().then(Interrupt::watch).transpose()?;
    channel.send(&Frame::Go).doing(|| "let the process go on")?;
    let state = &container.state;
    await_execution(channel, interrupt.as_ref(), |listener| {
        let agent = state.seccomp_agent.as_ref().ok_or_else(unasked)?;
        agent.take(&listener, pid, &state.for_hooks("running"))
    })
    .inspect_err(|_| {
        options.pid_file.as_deref().map(remove_pid_file);
    })?;
    Ok((master, signals))
}
