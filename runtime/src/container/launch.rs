//! The host's side of making a container: from a bundle to a process that waits for its word.
//!
//! What it makes on the way (a state directory, a cgroup, a process) is taken away again when anything fails. What a
//! SIGKILL leaves behind is found through `state.json`, which is written before the cgroup is made, and removed by
//! `delete`; the container's first process ends by itself when its creator does.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::Hooks;

use super::host::{self, ChildNamespaces};
use super::identity::Identity;
use super::inherited::{kept_descriptors, listen_fds};
use super::joined_user::Maps;
use super::learn;
use super::listener::Agent;
use super::made::Made;
use super::options::{CreateOptions, Settings};
use super::process::hide_from_debuggers;
use super::refused;
use super::serve::{Told, serve};
use super::sources::Sources;
use super::stage;
use super::state::{Phase, State};
use super::store::{CONFIG_FILE, DELETED, GATE, Home, NOTIFY, STATE_FILE, Store, write_pid_file};
use crate::bundle::Bundle;
use crate::cgroup::{Cgroup, Layout};
use crate::clock;
use crate::error::{Doing, Error, Kind, Result};
use crate::init::channel::{Channel, Frame, send_with_descriptor};
use crate::init::{self, ConsoleReceiver, Inside, procfs};
use crate::interrupt::Interrupt;
use crate::network::Moves;
use crate::plan::process::Streams;
use crate::plan::user::{Outside, UserNamespace, outside};
use crate::plan::{self, Plan};
use crate::rdt::Class;
use crate::sys::clone::{Clone3, Forked};
use crate::sys::process::close_together;

/// Who waits for the container's program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// `create`: it waits for `start`.
    Create,
    /// [`super::create_here`]: as `Create`, but the caller serves the terminal.
    CreateHere,
    /// `run --detach`: nobody.
    Detach,
    /// `run`: the caller.
    Foreground,
    /// `run --seccomp-learn`: the caller, who is told of every system call.
    Learn,
}

impl Wish {
    /// Whether the caller waits for the container's end.
    pub fn waits(self) -> bool {
        matches!(self, Self::Foreground | Self::Learn)
    }
}

/// A container that stands: its first process has done all but execute the program.
pub struct Launched {
    /// Its directory.
    pub home: Home,
    /// Its state, as it stands in `state.json`.
    pub state: State,
    /// Its cgroup.
    pub cgroup: Cgroup,
    /// Its first process's id.
    pub pid: i32,
    /// Its first process's pidfd.
    pub pidfd: OwnedFd,
    /// The socket to its first process.
    pub channel: Channel,
    /// The master of its terminal, where that is for the caller to serve.
    pub master: Option<OwnedFd>,
}

impl Launched {
    /// Takes the container away again: its processes, its cgroup, its directory. The poststop hooks run.
    pub fn destroy(self) {
        let rdt = self.state.intel_rdt.clone();
        let (process, cgroup) = (Some(self.pidfd), Some(self.cgroup));
        let made =
            Made { rdt, known: true, cgroup, process, hooks: true, ..Made::new(self.home, self.state) };
        made.take_away();
    }
}

/// Reads and checks the bundle of a new container. It may begin this program anew: see [`super::image`].
pub fn read(id: &str, options: &CreateOptions) -> Result<Bundle> {
    super::store::check_id(id)?;
    super::image::protect_before_reading(&options.bundle.join(&options.config))?;
    let bundle = Bundle::load(&options.bundle, &options.config)?;
    super::image::protect_from(&bundle.spec)?;
    Ok(bundle)
}

/// Makes a container and waits until it stands.
pub fn launch(
    store: &Store,
    settings: &Settings,
    id: &str,
    bundle: &Bundle,
    options: &CreateOptions,
    wish: Wish,
    interrupt: &Interrupt,
) -> Result<Launched> {
    let terminal =
        bundle.spec.process().as_ref().and_then(oci_spec::runtime::Process::terminal) == Some(true);
    check_console(terminal, wish, options.console_socket.as_deref())?;
    let notify_socket = super::notify::manager();
    let plan = plan::create(
        id,
        bundle,
        &Layout::detect()?,
        &host::bundle_facts(bundle)?,
        &plan::Options {
            no_pivot: options.no_pivot,
            no_new_keyring: options.no_new_keyring,
            keep: kept_descriptors(listen_fds(), options.preserve_fds)?,
            listen_fds: listen_fds(),
            notify: notify_socket.is_some().then(|| store.path_of(id).join(NOTIFY)),
            gate: matches!(wish, Wish::Create | Wish::CreateHere),
            streams: if wish.waits() { Streams::Shared } else { Streams::Handed },
            manager: settings.manager,
            rootless: settings.is_rootless(),
            device_rules: settings.has_device_rules(),
            user_systemd: settings.has_user_systemd(),
            learn: (wish == Wish::Learn).then(learn::filter_flags),
        },
    )?;
    for warning in &plan.warnings {
        log::warn!("{warning}");
    }
    plan::seccomp::log_flags(plan.seccomp.as_ref());
    let seccomp_agent = plan.seccomp.as_ref().and_then(|program| program.listener.as_ref()).map(Agent::from);
    if let Some(agent) = &seccomp_agent {
        agent.look_for()?;
    }
    let home = store.claim(id)?;
    let state = State {
        seccomp_agent,
        learning: wish == Wish::Learn,
        no_new_keyring: options.no_new_keyring,
        ..first_state(id, bundle, &plan, notify_socket)?
    };
    let mut made = Made::new(home, state);
    match build(&mut made, bundle, &plan, options, settings, interrupt) {
        Ok((pid, channel, master)) => match (made.cgroup.take(), made.process.take()) {
            (Some(cgroup), Some(pidfd)) => {
                Ok(Launched { home: made.home, state: made.state, cgroup, pid, pidfd, channel, master })
            }
            _ => Err(Error::new(Kind::System, "the container has no cgroup, or no process")),
        },
        Err(_) if made.home.is_deleted(made.known) => {
            made.leave_to_deleter();
            Err(Error::new(Kind::State, format!("container {id} was deleted while it was being created")))
        }
        Err(error) => {
            made.take_away();
            Err(error)
        }
    }
}

/// A terminal needs somebody to serve it, and a console socket a terminal: runc's rule and its words.
fn check_console(terminal: bool, wish: Wish, socket: Option<&Path>) -> Result<()> {
    if wish == Wish::CreateHere {
        return Ok(());
    }
    let detached = !wish.waits();
    if detached && terminal && socket.is_none() {
        return Err(Error::new(
            Kind::Config,
            "cannot allocate tty if runc will detach without setting console socket",
        )
        .at("process.terminal")
        .hint("give --console-socket, or set process.terminal to false"));
    }
    if (!detached || !terminal) && socket.is_some() {
        return Err(Error::new(
            Kind::Config,
            "cannot use console socket if runc will not detach or allocate tty",
        )
        .hint("leave --console-socket out, or set process.terminal and detach"));
    }
    Ok(())
}

fn first_state(id: &str, bundle: &Bundle, plan: &Plan, notify_socket: Option<PathBuf>) -> Result<State> {
    let spec = &bundle.spec;
    let some = |hooks: Option<&Hooks>, pick: fn(&Hooks) -> &Option<Vec<oci_spec::runtime::Hook>>| {
        hooks.and_then(|hooks| pick(hooks).clone()).unwrap_or_default()
    };
    let hooks = spec.hooks().as_ref();
    let joined = plan.namespaces.join.iter().fold(0, |flags, (_, namespace)| flags | namespace.flag);
    let pids = if plan.namespaces.pid_path.is_some() { libc::CLONE_NEWPID as u64 } else { 0 };
    let cgroups = if plan.namespaces.own_cgroups { libc::CLONE_NEWCGROUP as u64 } else { 0 };
    let time = if plan.namespaces.time_offsets.is_some() { host::CLONE_NEWTIME } else { 0 };
    Ok(State {
        oci_version: spec.version().clone(),
        id: id.to_owned(),
        phase: Phase::Creating,
        creator: Identity::own()?,
        init: None,
        created: clock::rfc3339_nanos(std::time::SystemTime::now()),
        owner: rustix::process::getuid().as_raw(),
        bundle: bundle.dir.clone(),
        rootfs: bundle.rootfs.clone(),
        annotations: spec.annotations().clone().unwrap_or_default().into_iter().collect(),
        cgroup: plan.cgroup.record(),
        devices: None,
        intel_rdt: None,
        namespaces: plan.namespaces.clone | joined | pids | cgroups | time,
        own_pids: plan.namespaces.own_pids,
        no_new_keyring: false,
        host_mounts: Vec::new(),
        poststart: some(hooks, Hooks::poststart),
        poststop: some(hooks, Hooks::poststop),
        seccomp_agent: None,
        learning: false,
        notify_socket,
    })
}

type Built = (i32, Channel, Option<OwnedFd>);

fn build(
    made: &mut Made,
    bundle: &Bundle,
    plan: &Plan,
    options: &CreateOptions,
    settings: &Settings,
    interrupt: &Interrupt,
) -> Result<Built> {
    let class = plan.rdt.as_ref().map(Class::look_for).transpose()?;
    made.state.intel_rdt = class.as_ref().map(Class::record);
    // Put into place once the cgroup is there: what `delete` finds in it is the container's own.
    let first_state = made.home.prepare(STATE_FILE, &made.state.to_json()?)?;
    if made.state.notify_socket.is_some() {
        super::notify::prepare(&made.home)?;
    }
    let proc = procfs::open_host_for(&plan.steps)?;
    let namespaces = host::open_namespaces(&plan.namespaces)?;
    host::refuse_shared_sysctls(&plan.steps, &plan.namespaces, &namespaces)?;
    let console = match &options.console_socket {
        Some(path) => ConsoleReceiver::Engine(host::connect_to(path, "console socket", Some(interrupt))?),
        None if plan.waits_for_start() => ConsoleReceiver::Caller,
        None => ConsoleReceiver::Host,
    };
    let pidfd_socket = options
        .pidfd_socket
        .as_deref()
        .map(|path| host::connect_to(path, "pidfd socket", Some(interrupt)))
        .transpose()?;
    let gate = plan.waits_for_start().then(|| host::listen_at(made.home.as_fd(), GATE)).transpose()?;
    let cgroup = made.cgroup.insert(plan.cgroup.create()?);
    first_state.commit()?;
    made.known = true;
    if made.home.has(DELETED) {
        return Err(Error::new(Kind::State, "the container is being deleted"));
    }
    if cgroup.paths().is_empty() && !plan.namespaces.own_pids {
        log::warn!(
            "Creating a container with no cgroup and no private pid namespace. Such configuration is strongly discouraged, as it is impossible to properly kill all container's processes"
        );
    }
    if let Some(class) = &class {
        class.make()?;
        made.rdt = Some(class.made());
    }
    let cgroups = cgroup.join_files()?;
    let user = plan.namespaces.user.as_ref();
    let id_maps = match user {
        None => super::user::id_map_namespaces(&proc, &plan.steps, None)?
            .into_iter()
            .map(|(namespace, _)| namespace)
            .collect(),
        Some(_) => Vec::new(),
    };
    let hooks = bundle.spec.hooks().as_ref();
    let hooks_called = |pick: fn(&Hooks) -> &Option<Vec<oci_spec::runtime::Hook>>| {
        hooks.and_then(|hooks| pick(hooks).as_deref()).unwrap_or_default()
    };
    let has_host_network = host::shares_network(&plan.namespaces, &namespaces)?;
    let (host_end, container_end) = Channel::pair()?;
    // From here to the program's execution the process is the runtime's code with the runtime's memory: nobody in
    // the container may look into it (CVE-2016-9962).
    if user.is_none_or(UserNamespace::maps_are_privileged) {
        hide_from_debuggers()?;
    }
    // The root of a user namespace could not come back from there.
    let pids = plan
        .namespaces
        .pid_path
        .as_deref()
        .filter(|_| !plan.namespaces.staged() && crate::sys::process::in_user_namespace());
    let before = ChildNamespaces::enter(&plan.namespaces, pids.is_some())?;
    let clone =
        Clone3 { namespaces: plan.namespaces.clone, into_cgroup: cgroup.clone_into(), ..Clone3::default() };
    let forked = if plan.namespaces.staged() {
        let outside = user.map(|user| user.outside.clone()).unwrap_or_default();
        stage::spawn(&stage::Entry::Paths(&plan.namespaces, &namespaces), &outside, &proc, &clone)
    } else if let Some(path) = pids {
        stage::spawn(&stage::Entry::Pids(host::open_pids(path)?), &Outside::default(), &proc, &clone)
    } else {
        clone.spawn().doing(|| "make the container's first process")
    };
    let forked = forked.map_err(|error| refused::explain_first(error, clone.namespaces))?;
    let (pid, pidfd) = match forked {
        Forked::Parent { pid, pidfd } => (pid, pidfd),
        Forked::Child => {
            drop(host_end);
            init::run(Inside {
                steps: &plan.steps,
                channel: container_end,
                gate,
                namespaces,
                container: None,
                container_root: None,
                id_maps,
                has_host_network,
                cgroups,
                adopted_first: cgroup.needs_adopt(),
                proc,
                console,
                create_container: hooks_called(Hooks::create_container),
                start_container: hooks_called(Hooks::start_container),
                hook_state: hooks.map(|_| made.state.for_hooks("creating")),
                args: &plan.args,
                env: plan.env.clone(),
                seccomp: plan.seccomp.as_ref(),
                keep: plan.keep,
                trace: settings.debug,
            })
        }
    };
    let mut namespaces = namespaces;
    let joined_network = plan::network::joined(&plan.namespaces).filter(|_| !plan.net_devices.is_empty());
    let joined_network = joined_network.map(|index| namespaces.swap_remove(index));
    drop((container_end, gate, namespaces, console, id_maps));
    close_together(cgroups);
    let pidfd = made.process.insert(pidfd);
    made.state.init = Some(Identity::of(pid)?);
    if cgroup.paths().is_empty() {
        // Nothing else tells `delete` of the process, should the creator be killed.
        made.home.write(STATE_FILE, &made.state.to_json()?)?;
    }
    before.leave()?;
    let uid = bundle.spec.process().as_ref().map_or(0, |process| process.user().uid());
    let uid_outside = match user {
        Some(user) => prepare_user(user, plan, bundle, &proc, pid)?,
        None => Some(uid),
    };
    if user.is_some_and(|user| user.maps.is_some()) {
        host_end.send(&Frame::Go).doing(|| "let the container's first process go on")?;
    }
    if cgroup.needs_adopt() {
        cgroup.adopt(pid)?;
        host_end.send(&Frame::Go).doing(|| "let the container's first process go on")?;
    }
    if let Some(uid) = uid_outside.filter(|_| plan.cgroup.owner.is_some()) {
        cgroup.give_to(uid)?;
    }
    if let Some(rdt) = &made.state.intel_rdt {
        rdt.add(pid)?;
    }
    if !plan.net_devices.is_empty() {
        let container = match joined_network {
            Some(namespace) => namespace,
            None => host::namespace_of(pid, "net")?,
        };
        made.devices = Some(Moves::of(&plan.net_devices, host::own_namespace("net")?, container)?);
    }
    if plan.rdt.is_some() || !plan.net_devices.is_empty() {
        host_end.send(&Frame::Go).doing(|| "let the container's first process go on")?;
    }
    made.state.cgroup = cgroup.record();
    made.state.phase = Phase::Created;
    // Written while the container's side is at work; put into place when it is done.
    made.home.write(CONFIG_FILE, &bundle.source)?;
    let state = made.home.prepare(STATE_FILE, &made.state.to_json()?)?;
    let sources = Sources::new(&host_end, &proc, plan, pid, pidfd);
    let mut told = Told { home: &made.home, state: &mut made.state, hooks_begun: &mut made.hooks };
    let master = serve(&host_end, &mut told, hooks, pidfd, sources, interrupt)?;
    let state = match made.state.host_mounts.as_slice() {
        [] => state,
        _ => made.home.prepare(STATE_FILE, &made.state.to_json()?)?,
    };
    state.commit()?;
    if let Some(socket) = pidfd_socket {
        // The word is runc's for a container's first process.
        send_with_descriptor(socket.as_fd(), b"standard", Some(pidfd.as_fd())).doing(|| "send the pidfd")?;
    }
    if let Some(path) = &options.pid_file {
        write_pid_file(path, pid)?;
    }
    Ok((pid, host_end, master))
}

/// What only the host's side may do for a process in a user namespace, which waits meanwhile. Gives the id outside that
/// the process's user is, if it is mapped.
fn prepare_user(
    user: &UserNamespace,
    plan: &Plan,
    bundle: &Bundle,
    proc: &OwnedFd,
    pid: i32,
) -> Result<Option<u32>> {
    if !plan.namespaces.staged() {
        super::user::set_from_outside(&user.outside, proc, Some(pid))?;
    }
    super::user::warn_of_devices(bundle.spec.linux().as_ref(), user.maps.as_ref());
    let process = bundle.spec.process().as_ref();
    let uid = process.map_or(0, |process| process.user().uid());
    let uid = match &user.maps {
        Some(maps) => {
            super::user::write_maps(proc, pid, maps)?;
            outside(&maps.uids, uid)
        }
        None => {
            let maps = Maps::of(proc, pid)?;
            if maps.check_given(bundle.spec.linux().as_ref())? {
                log::warn!(
                    "user namespaces enabled, but both namespace path and mapping specified: they are the same"
                );
            }
            if let Some(process) = process {
                maps.check_process(process.user()).map_err(|error| error.at("process.user"))?;
            }
            maps.uid_outside(uid)
        }
    };
    if let Some(uid) = uid.filter(|_| user.sources_by_host && !plan.terminal) {
        init::give_pipes(uid);
    }
    Ok(uid)
}
