//! The plan of `exec`: a process that joins a container.

use std::ffi::CString;

use coracle_seccomp::Program;
use oci_spec::runtime::{Linux, Process};
use serde_json::value::RawValue;

use super::process::{self, Role, Streams};
use super::step::{Action, Step};
use super::user::Outside;
use super::{Facts, console_size};
use crate::error::Result;

/// What is to be done for `exec`.
#[derive(Debug)]
pub struct ExecPlan {
    /// What the joining side does, in order.
    pub steps: Vec<Step>,
    /// The seccomp filter.
    pub seccomp: Option<Program>,
    /// The program's arguments.
    pub args: Vec<CString>,
    /// The program's environment.
    pub env: Vec<CString>,
    /// What the user should know, though it stops nothing.
    pub warnings: Vec<String>,
    /// What must be set before a user namespace is entered.
    pub outside: Outside,
}

/// The namespace that is joined after the clone also where a user namespace is joined before it: a process in a cgroup
/// namespace can't be made in a cgroup from outside of it (cgroups(7), "nsdelegate").
pub const LATE_WITH_USER: u64 = libc::CLONE_NEWCGROUP as u64;

/// What a process joins.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// `CLONE_NEW*` of the namespaces that aren't the runtime's.
    pub namespaces: u64,
    /// The execution domain of the container's processes: personality(2).
    pub personality: Option<u32>,
    /// Whether the container has a session keyring of its own.
    pub own_keyring: bool,
}

/// Plans a process that joins a container.
pub fn plan(
    process: &Process,
    linux: Option<&Linux>,
    seccomp: Option<&RawValue>,
    target: Target,
    id: &str,
    streams: Streams,
    facts: &Facts,
) -> Result<ExecPlan> {
    let mut warnings = Vec::new();
    let mut steps = Vec::with_capacity(24);
    let mut push = |place: &str, action| steps.push(Step::new(place, action));
    if let Some(initial) =
        process.exec_cpu_affinity().as_ref().and_then(|affinity| affinity.initial().clone())
    {
        let place = "process.execCPUAffinity.initial";
        let mask = crate::bundle::IdList::parse(&initial)
            .map_err(|problem| crate::error::Error::config(place, problem))?
            .mask();
        push(place, Action::Affinity { cpus: Some(initial), mask });
    }
    let joins_user = target.namespaces & libc::CLONE_NEWUSER as u64 != 0;
    push("", Action::JoinCgroups);
    let mounts = libc::CLONE_NEWNS as u64;
    // The pid namespace was entered before the clone; with a user namespace nearly all of them, at once: some may belong
    // to another user namespace, which has no power over them.
    let before = (libc::CLONE_NEWPID | libc::CLONE_NEWUSER) as u64;
    let rest = target.namespaces & !before;
    if rest != 0 {
        let flags = if joins_user { rest & LATE_WITH_USER } else { rest };
        push("", Action::JoinContainer { namespaces: names(rest), flags });
    }
    if target.namespaces & mounts == 0 {
        push("", Action::ContainerRoot);
    }
    if joins_user {
        push("", Action::NamespaceRoot);
    }
    push("", Action::NewSession);
    if target.own_keyring {
        push("", Action::SessionKeyring { name: format!("_ses.{id}") });
    }
    if process.terminal() == Some(true) {
        let size = console_size(process.console_size().as_ref());
        push("process.terminal", Action::Console { size, mount: false });
    }
    let inside = joins_user.then(|| super::user::facts_inside(facts));
    steps.extend(super::memory_policy(linux)?);
    let facts = inside.as_ref().unwrap_or(facts);
    let mut shaping = process::plan(process, Role::Exec, streams, facts, joins_user, &mut warnings)?;
    if let Some(persona) = target.personality {
        steps.push(Step::new("linux.personality", Action::Personality { persona: persona.into() }));
    }
    // What enters the user namespace sets it for all that come after: see `container::stage`.
    let outside = if joins_user { Outside::take(&mut shaping) } else { Outside::default() };
    steps.append(&mut shaping);
    steps.push(Step::new("", Action::Ready));
    steps.push(Step::new(
        "process.args",
        Action::Execute { args: process.args().clone().unwrap_or_default() },
    ));
    let seccomp = super::seccomp::compile(seccomp)?;
    if let Some(program) = &seccomp {
        super::seccomp::place(&mut steps, program, process.no_new_privileges() == Some(true));
    }
    let mut env = process::c_strings(process.env().as_ref(), "process.env")?;
    process::keep_last(&mut env);
    Ok(ExecPlan {
        steps,
        seccomp,
        args: process::c_strings(process.args().as_ref(), "process.args")?,
        env,
        warnings,
        outside,
    })
}

/// The names of the namespaces in a mask.
fn names(flags: u64) -> Vec<&'static str> {
    use oci_spec::runtime::LinuxNamespaceType as Type;
    [Type::User, Type::Mount, Type::Network, Type::Ipc, Type::Uts, Type::Pid, Type::Cgroup, Type::Time]
        .into_iter()
        .map(super::namespaces::describe)
        .filter(|(_, flag)| flags & flag != 0)
        .map(|(name, _)| name)
        .collect()
}
