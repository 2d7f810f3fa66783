//! The plan: what a bundle means on this host, as a list of concrete steps.
//!
//! A plan is made from a checked [`Bundle`], facts about the host and the command's options, without a single
//! system call: it can be made without root, tested, fuzzed and printed (`coracle plan`). The host's side and the
//! container's side then only execute it.

pub mod devices;
pub mod exec;
pub mod mounts;
pub mod namespaces;
pub mod network;
pub mod process;
pub mod rdt;
pub mod seccomp;
pub mod step;
pub mod user;

use std::ffi::CString;
use std::path::{Path, PathBuf};

use coracle_seccomp::Program;
use oci_spec::runtime::{Linux, Spec};
use serde::Serialize;

use self::mounts::clean;
use self::namespaces::Namespaces;
use self::network::NetDevice;
use self::process::{Role, Streams};
use self::rdt::Rdt;
use self::step::{Action, CgroupHierarchy, Mount, Propagation, Step, What};
use crate::bundle::{self, Bundle, parse_memory_policy, parse_rootfs_propagation, parse_sysctl};
use crate::cgroup::{self, Layout};
use crate::error::{Error, Kind, Result};
use crate::sys::mount::Attributes;

/// Where the notification socket's directory stands in the container, as with runc.
const NOTIFY_DIRECTORY: &str = "/run/notify";

/// What a plan needs to know of the host.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The capabilities that the runtime itself has, as a mask.
    pub capabilities: u64,
    /// AppArmor is enabled.
    pub apparmor: bool,
    /// SELinux is enabled.
    pub selinux: bool,
    /// The runtime's effective user; 0 where the bundle has no user namespace.
    pub uid: u32,
    /// The runtime's effective group; 0 where the bundle has no user namespace.
    pub gid: u32,
}

/// What a command asks for beside the bundle.
#[derive(Debug, Clone)]
pub struct Options {
    /// Don't pivot_root(2).
    pub no_pivot: bool,
    /// Stay in the caller's session keyring.
    pub no_new_keyring: bool,
    /// How many descriptors, from 0 on, the program keeps.
    pub keep: u32,
    /// Descriptors passed by socket activation: sd_listen_fds(3).
    pub listen_fds: u32,
    /// The host's directory with the notification socket, if there is one.
    pub notify: Option<PathBuf>,
    /// Wait for `start` before the program is executed.
    pub gate: bool,
    /// Whose the standard streams are.
    pub streams: Streams,
    /// Who manages the cgroup.
    pub manager: cgroup::ManagerChoice,
    /// Cgroups that can't be made are no error.
    pub rootless: bool,
    /// The cgroup has rules for devices.
    pub device_rules: bool,
    /// systemd means the user's own.
    pub user_systemd: bool,
    /// Notify of every system call, with these flags of seccomp(2), instead of filtering as the bundle says.
    pub learn: Option<u32>,
}

/// What is to be done for `create`. See the module's page.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// The container's id.
    pub id: String,
    /// The namespaces: made by the clone, joined, or prepared before it.
    pub namespaces: Namespaces,
    /// The cgroup: directories and limits.
    pub cgroup: cgroup::Plan,
    /// What the container's side does, in order.
    pub steps: Vec<Step>,
    /// The seccomp filter.
    #[serde(skip)]
    pub seccomp: Option<Program>,
    /// The program's arguments.
    #[serde(skip)]
    pub args: Vec<CString>,
    /// The program's environment.
    #[serde(skip)]
    pub env: Vec<CString>,
    /// How many descriptors, from 0 on, the program keeps.
    pub keep: u32,
    /// The program has a pseudoterminal.
    pub terminal: bool,
    /// Network devices of the host that move into the container.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub net_devices: Vec<NetDevice>,
    /// The class of service of Intel RDT.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rdt: Option<Rdt>,
    /// What the user should know, though it stops nothing.
    pub warnings: Vec<String>,
}

impl Plan {
    /// Whether the container's first process waits for `start`.
    pub fn waits_for_start(&self) -> bool {
        self.steps.iter().any(|step| matches!(step.action, Action::AwaitStart))
    }
}

/// Plans a container.
pub fn create(id: &str, bundle: &Bundle, layout: &Layout, facts: &Facts, options: &Options) -> Result<Plan> {
    let spec = &bundle.spec;
    let linux = spec.linux().as_ref();
    let process = spec.process().as_ref().ok_or_else(|| Error::config("process", "it is missing"))?;
    let mut namespaces = namespaces::plan(linux);
    let mut user = user::plan(linux, &namespaces, facts)?;
    let mut warnings = bundle.warnings.clone();
    let cgroup = cgroup::plan(
        layout,
        &cgroup::Request {
            id,
            cgroups_path: linux.and_then(|linux| linux.cgroups_path().as_deref()).and_then(Path::to_str),
            resources: linux.and_then(|linux| linux.resources().as_ref()),
            devices: cgroup::default_rules(),
            annotations: spec.annotations().as_ref(),
            manager: options.manager,
            rootless: options.rootless,
            device_rules: options.device_rules,
            user_systemd: options.user_systemd,
            owner: cgroup_owner(spec, layout, user.is_some(), &namespaces, facts),
        },
    )?;

    let mut steps = Vec::with_capacity(80);
    let mut push = |place: &str, action| steps.push(Step::new(place, action));
    push("linux.cgroupsPath", Action::JoinCgroups);
    let net_devices = network::plan(linux);
    let rdt = rdt::plan(linux, id);
    if !net_devices.is_empty() || rdt.is_some() {
        push("", Action::AwaitHost);
    }
    for (place, namespace) in &namespaces.join {
        push(place, Action::JoinNamespace(namespace.clone()));
    }
    if namespaces.new_cgroup {
        push("linux.namespaces", Action::NewCgroupNamespace);
    }
    if namespaces.clone & libc::CLONE_NEWNET as u64 != 0 {
        push("linux.namespaces", Action::Loopback);
    }
    push("", Action::NewSession);
    if !options.no_new_keyring {
        push("", Action::SessionKeyring { name: format!("_ses.{id}") });
    }
    root_steps(bundle, layout, &cgroup, &namespaces, options, facts, &mut steps)?;
    system_steps(bundle, &mut steps)?;
    steps.extend(memory_policy(linux)?);
    if let Some(personality) = linux.and_then(|linux| linux.personality().as_ref()) {
        let place = "linux.personality";
        steps.push(Step::new(
            place,
            Action::Personality { persona: u64::from(bundle::personality(personality)) },
        ));
    }
    let inside = user.as_ref().map(|_| user::facts_inside(facts));
    let inside = inside.as_ref().unwrap_or(facts);
    steps.extend(process::plan(process, Role::Init, options.streams, inside, user.is_some(), &mut warnings)?);
    let mut push = |place: &str, action| steps.push(Step::new(place, action));
    push("", Action::Ready);
    if options.gate {
        if user.as_ref().is_some_and(|user| !user.maps_are_privileged()) {
            push("", Action::Reveal);
        }
        push("", Action::AwaitStart);
    }
    if spec
        .hooks()
        .as_ref()
        .and_then(|hooks| hooks.start_container().as_ref())
        .is_some_and(|hooks| !hooks.is_empty())
    {
        push("hooks.startContainer", Action::Hooks { name: "startContainer" });
    }
    push("process.args", Action::Execute { args: process.args().clone().unwrap_or_default() });

    let seccomp = match options.learn {
        Some(flags) => Some(seccomp::notify_of_all(flags)?),
        None => seccomp::compile(bundle.seccomp.as_deref())?,
    };
    if options.learn.is_some() && bundle.seccomp.is_some() {
        warnings.push("linux.seccomp: it does not apply while a profile is learnt".to_owned());
    }
    if let Some(program) = &seccomp {
        seccomp::place(&mut steps, program, process.no_new_privileges() == Some(true));
    }

    if let Some(user) = &mut user {
        user::refuse_groups(user, facts, process.user().additional_gids().as_deref().unwrap_or_default())?;
        user::rearrange(&mut steps, user, namespaces.time_offsets.clone());
    }
    namespaces.user = user;

    let mut env = process::c_strings(process.env().as_ref(), "process.env")?;
    process::keep_last(&mut env);
    extend_environment(&mut env, options);
    Ok(Plan {
        id: id.to_owned(),
        namespaces,
        cgroup,
        steps,
        seccomp,
        args: process::c_strings(process.args().as_ref(), "process.args")?,
        env,
        keep: options.keep,
        terminal: process.terminal().unwrap_or(false),
        net_devices,
        rdt,
        warnings,
    })
}

/// The memory policy of the container's processes, those of `exec` too.
fn memory_policy(linux: Option<&Linux>) -> Result<Option<Step>> {
    let Some(policy) = linux.and_then(|linux| linux.memory_policy().as_ref()) else { return Ok(None) };
    let place = "linux.memoryPolicy";
    let policy = parse_memory_policy(policy).map_err(|problem| Error::config(place, problem))?;
    Ok(Some(Step::new(place, Action::MemoryPolicy { mode: policy.mode, nodes: policy.nodes.mask() })))
}

/// Who may make cgroups below the container's: the process's user, on v2, with a new cgroup namespace and where the
/// hierarchy is mounted to be written (runtime-spec, config-linux.md "Cgroup ownership"). Without a user namespace root
/// may anyway.
fn cgroup_owner(
    spec: &Spec,
    layout: &Layout,
    has_user_namespace: bool,
    namespaces: &Namespaces,
    facts: &Facts,
) -> Option<u32> {
    let uid = spec.process().as_ref()?.user().uid();
    let is_given = layout.v1().is_empty()
        && namespaces.new_cgroup
        && facts.capabilities & user::CAP_SYS_ADMIN != 0
        && (has_user_namespace || uid != 0)
        && spec.mounts().iter().flatten().any(mounts::is_writable_cgroup);
    is_given.then_some(uid)
}

/// The steps from the host's root to the container's.
fn root_steps(
    bundle: &Bundle,
    layout: &Layout,
    cgroup: &cgroup::Plan,
    namespaces: &Namespaces,
    options: &Options,
    facts: &Facts,
    steps: &mut Vec<Step>,
) -> Result<()> {
    let spec = &bundle.spec;
    let linux = spec.linux().as_ref();
    let path = bundle.rootfs.clone();
    let place = "linux.rootfsPropagation";
    let propagation = linux
        .and_then(|linux| linux.rootfs_propagation().as_deref())
        .filter(|name| !name.is_empty())
        .map(|name| {
            parse_rootfs_propagation(name)
                .map(mounts::propagation)
                .ok_or_else(|| Error::config(place, format!("{name:?} is not a propagation type")))
        })
        .transpose()?;
    if namespaces.own_mounts {
        let shared = propagation.filter(|propagation| propagation.kind == libc::MS_SHARED);
        let tree = match propagation {
            Some(given) if given.kind == libc::MS_PRIVATE => Propagation { recursive: true, ..given },
            _ => Propagation { kind: libc::MS_SLAVE, recursive: true },
        };
        steps.push(Step::new(place, Action::RootPropagation(shared.unwrap_or(tree))));
        steps.push(Step::new("root.path", Action::BindRoot { path, private_parent: shared.is_some() }));
    } else {
        steps.push(Step::new("root.path", Action::OpenRoot { path }));
    }

    let label = linux.and_then(|linux| linux.mount_label().as_deref()).filter(|label| !label.is_empty());
    if let Some(label) = label.filter(|_| !facts.selinux) {
        return Err(Error::new(
            Kind::Unsupported,
            format!("SELinux is not enabled in this kernel, so mounts can't be labelled {label:?}"),
        )
        .at("linux.mountLabel"));
    }
    let context = mounts::Context {
        bundle: &bundle.dir,
        rootfs: &clean(&bundle.rootfs),
        cgroup_v1: cgroup_hierarchies(layout, cgroup, namespaces),
        cgroup_v2_bind: (!namespaces.own_cgroups)
            .then(|| directory(cgroup, cgroup::Place::is_unified))
            .flatten(),
        label,
        facts,
    };
    let given = spec.mounts().as_deref().unwrap_or_default();
    let mut later = Vec::new();
    for (index, mount) in given.iter().enumerate() {
        let planned = mounts::plan(index, mount, &context)?;
        steps.push(planned.now);
        later.extend(planned.later);
    }
    if let Some(directory) = &options.notify {
        steps.push(Step::new("", Action::Mount(Box::new(notify_mount(directory)))));
    }
    let devices = linux.and_then(|linux| linux.devices().as_deref()).unwrap_or_default();
    steps.extend(devices::plan(devices, given));

    let process = spec.process().as_ref();
    if process.and_then(oci_spec::runtime::Process::terminal) == Some(true) {
        let size = process.and_then(|process| console_size(process.console_size().as_ref()));
        steps.push(Step::new("process.terminal", Action::Console { size, mount: namespaces.own_mounts }));
    }
    let hooks = spec.hooks().as_ref();
    let before = hooks.is_some_and(|hooks| {
        [hooks.prestart(), hooks.create_runtime()]
            .iter()
            .any(|hooks| hooks.as_ref().is_some_and(|hooks| !hooks.is_empty()))
    });
    if before {
        steps.push(Step::new("hooks", Action::RuntimeHooks));
    }
    if hooks.and_then(|hooks| hooks.create_container().as_ref()).is_some_and(|hooks| !hooks.is_empty()) {
        steps.push(Step::new("hooks.createContainer", Action::Hooks { name: "createContainer" }));
    }
    steps.push(Step::new(
        "root.path",
        match (namespaces.own_mounts, options.no_pivot) {
            (false, _) => Action::Chroot,
            (true, false) => Action::PivotRoot,
            (true, true) => Action::MoveRoot,
        },
    ));
    if let Some(propagation) =
        propagation.filter(|given| given.kind != libc::MS_PRIVATE && namespaces.own_mounts)
    {
        steps.push(Step::new(place, Action::ContainerPropagation(propagation)));
    }
    steps.extend(later);
    if spec.root().as_ref().and_then(oci_spec::runtime::Root::readonly) == Some(true) {
        if !namespaces.own_mounts {
            return Err(Error::config(
                "root.readonly",
                "it needs a mount namespace of the container's own; add {\"type\": \"mount\"} to linux.namespaces",
            ));
        }
        // While it can still be made.
        if let Some(process) = process.filter(|process| process.cwd() != Path::new("/")) {
            steps.push(Step::new("process.cwd", Action::MakeDirectory { path: process.cwd().clone() }));
        }
        steps.push(Step::new("root.readonly", Action::RemountReadonly { path: "/".into() }));
    }
    Ok(())
}

/// The v1 hierarchies as the container sees them; none on a host that has only v2.
fn cgroup_hierarchies(
    layout: &Layout,
    cgroup: &cgroup::Plan,
    namespaces: &Namespaces,
) -> Option<Vec<CgroupHierarchy>> {
    if layout.v1().is_empty() {
        return None;
    }
    Some(
        layout
            .v1()
            .iter()
            .map(|hierarchy| CgroupHierarchy {
                name: hierarchy.mount.file_name().unwrap_or_default().to_string_lossy().into_owned(),
                option: hierarchy.controllers.join(","),
                bind: if namespaces.own_cgroups {
                    None
                } else {
                    directory(cgroup, |place| place.mount == hierarchy.mount)
                },
            })
            .collect(),
    )
}

/// The container's directory in the hierarchy that `is` recognises.
fn directory(cgroup: &cgroup::Plan, is: impl Fn(&cgroup::Place) -> bool) -> Option<PathBuf> {
    cgroup.directories.iter().find(|place| is(place)).map(|place| place.path.clone())
}

fn notify_mount(directory: &Path) -> Mount {
    Mount {
        target: NOTIFY_DIRECTORY.into(),
        what: What::Bind { source: directory.to_owned(), recursive: false },
        attributes: Attributes {
            // Writable it would be a place for files of the container's in the state directory.
            set: libc::MOUNT_ATTR_RDONLY
                | libc::MOUNT_ATTR_NOSUID
                | libc::MOUNT_ATTR_NOEXEC
                | libc::MOUNT_ATTR_NODEV,
            ..Attributes::default()
        },
        recursive: Attributes::default(),
        propagation: Vec::new(),
        copy_up: false,
        named_clear: 0,
        idmap: None,
    }
}

/// Rows and columns; a size of zero is none.
pub(crate) fn console_size(size: Option<&oci_spec::runtime::Box>) -> Option<(u16, u16)> {
    let size = size?;
    let rows = u16::try_from(size.height()).ok()?;
    let columns = u16::try_from(size.width()).ok()?;
    (rows != 0 && columns != 0).then_some((rows, columns))
}

/// Names, kernel parameters, and what of the filesystem is hidden or kept from writing.
fn system_steps(bundle: &Bundle, steps: &mut Vec<Step>) -> Result<()> {
    let spec = &bundle.spec;
    if let Some(name) = spec.hostname().clone().filter(|name| !name.is_empty()) {
        steps.push(Step::new("hostname", Action::Hostname { name }));
    }
    if let Some(name) = spec.domainname().clone().filter(|name| !name.is_empty()) {
        steps.push(Step::new("domainname", Action::Domainname { name }));
    }
    let Some(linux) = spec.linux() else { return Ok(()) };
    let mut sysctls: Vec<_> = linux.sysctl().iter().flatten().collect();
    sysctls.sort_unstable();
    for (name, value) in sysctls {
        let place = bundle::member_place("linux.sysctl", name);
        let file = parse_sysctl(name).map_err(|problem| Error::config(place.clone(), problem))?.path.into();
        steps.push(Step::new(place, Action::Sysctl { file, value: value.clone() }));
    }
    for (index, path) in linux.readonly_paths().iter().flatten().enumerate() {
        let path = clean(Path::new(path));
        steps.push(Step::new(format!("linux.readonlyPaths[{index}]"), Action::ReadonlyPath { path }));
    }
    for (index, path) in linux.masked_paths().iter().flatten().enumerate() {
        let path = clean(Path::new(path));
        steps.push(Step::new(format!("linux.maskedPaths[{index}]"), Action::MaskPath { path }));
    }
    Ok(())
}

/// What socket activation and notification tell the program.
fn extend_environment(env: &mut Vec<CString>, options: &Options) {
    if options.listen_fds > 0 {
        env.extend(CString::new(format!("LISTEN_FDS={}", options.listen_fds)).ok());
        env.push(c"LISTEN_PID=1".to_owned());
    }
    if options.notify.is_some() {
        env.extend(CString::new(format!("NOTIFY_SOCKET={NOTIFY_DIRECTORY}/notify.sock")).ok());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_cgroup_is_given_to_the_processs_user_where_it_may_be_written() {
        let layout = Layout::given(Vec::new(), None);
        let facts =
            Facts { capabilities: user::CAP_SYS_ADMIN, apparmor: false, selinux: false, uid: 0, gid: 0 };
        let owner = |uid: u32, user: bool, options: Value, namespace: Value| {
            let spec: Spec = serde_json::from_value(json!({
                "ociVersion": "1.3.0",
                "process": { "user": { "uid": uid, "gid": 0 }, "args": ["x"], "cwd": "/" },
                "mounts": [{ "destination": "/sys/fs/cgroup/", "type": "cgroup", "source": "cgroup", "options": options }],
                "linux": { "namespaces": [namespace] },
            }))
            .unwrap();
            cgroup_owner(&spec, &layout, user, &namespaces::plan(spec.linux().as_ref()), &facts)
        };
        let new = || json!({"type": "cgroup"});
        assert_eq!(owner(7, true, json!(["nosuid"]), new()), Some(7));
        assert_eq!(owner(7, true, json!(["nosuid", "ro"]), new()), None);
        assert_eq!(owner(7, true, json!(["rw"]), json!({"type": "cgroup", "path": "/x"})), None);
        assert_eq!(owner(7, true, json!(["rw"]), json!({"type": "uts"})), None);
        assert_eq!(owner(7, false, json!(["rw"]), new()), Some(7));
        assert_eq!(owner(0, false, json!(["rw"]), new()), None);
        assert_eq!(owner(0, true, json!(["rw"]), new()), Some(0));
    }
}
