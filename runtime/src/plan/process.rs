//! From `process` of `config.json` to steps (runtime-spec, config.md "Process"). Shared by create and exec.

use std::collections::HashSet;
use std::ffi::CString;

use oci_spec::runtime::{Capability, LinuxCapabilities, Process};

use super::Facts;
use super::step::{Action, Capabilities, Step};
use crate::bundle::{IdList, io_priority, rlimit_resource, scheduler_attributes};
use crate::error::{Error, Kind, Result};
use crate::sys::policy::SchedAttr;

/// What a process without `user.umask` gets, as from runc.
const DEFAULT_UMASK: u32 = 0o022;

/// Who the process is: what differs between a container's first one and those that `exec` adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The container's first process.
    Init,
    /// A process that joins a container.
    Exec,
}

/// Whose the standard streams are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Streams {
    /// The program's: the caller hands them over and goes.
    Handed,
    /// The caller's too, who waits for the program. What has a name, a file or the caller's terminal, stays its owner's.
    Shared,
}

/// The steps that shape the process itself, up to the change of user and what follows it.
pub fn plan(
    process: &Process,
    role: Role,
    streams: Streams,
    facts: &Facts,
    in_user_namespace: bool,
    warnings: &mut Vec<String>,
) -> Result<Vec<Step>> {
    let mut steps = Vec::with_capacity(16);
    let mut push = |place: &str, action| steps.push(Step::new(place, action));
    labels(process, facts, &mut push)?;
    if let Some(value) = process.oom_score_adj() {
        push("process.oomScoreAdj", Action::OomScoreAdj { value });
    }
    if let Some(scheduler) = process.scheduler() {
        let attributes = scheduler_attributes(scheduler);
        push(
            "process.scheduler",
            Action::Scheduler {
                policy: scheduler.policy().to_string(),
                attributes: SchedAttr {
                    policy: attributes.policy,
                    flags: attributes.flags,
                    nice: attributes.nice,
                    priority: attributes.priority,
                    runtime: attributes.runtime,
                    deadline: attributes.deadline,
                    period: attributes.period,
                    ..SchedAttr::default()
                },
            },
        );
    }
    if let Some(priority) = process.io_priority() {
        push("process.ioPriority", Action::IoPriority { value: io_priority(priority) });
    }
    affinity(process, role, &mut push)?;
    push("", Action::OwnNull);
    push("", Action::LetGo);
    let capabilities = capabilities(process.capabilities().as_ref(), facts, warnings);
    push("process.cwd", Action::WorkingDirectory { path: process.cwd().clone(), make: role == Role::Init });
    if !has_home(process) {
        push("process.user", Action::Home { uid: process.user().uid() });
    }
    // From here on no descriptor is opened: the limit may be low.
    for (index, limit) in process.rlimits().iter().flatten().enumerate() {
        let action = Action::Rlimit {
            name: limit.typ().to_string(),
            resource: rlimit_resource(limit.typ()),
            soft: limit.soft(),
            hard: limit.hard(),
        };
        push(&format!("process.rlimits[{index}]"), action);
    }
    push("process.capabilities.bounding", Action::BoundingSet { keep: capabilities.bounding });
    let user = process.user();
    let pipes_only = streams == Streams::Shared && process.terminal() != Some(true);
    push("process.user", Action::StdioOwner { uid: user.uid(), pipes_only });
    push("process.user.umask", Action::Umask { mask: user.umask().unwrap_or(DEFAULT_UMASK) });
    push(
        "process.user",
        Action::User {
            uid: user.uid(),
            gid: user.gid(),
            groups: user.additional_gids().clone().unwrap_or_default(),
            in_user_namespace,
        },
    );
    push("process.capabilities", Action::Capabilities(capabilities.own));
    if process.no_new_privileges() == Some(true) {
        push("process.noNewPrivileges", Action::NoNewPrivileges);
    }
    let name = process.args().as_deref().and_then(<[String]>::first).cloned().unwrap_or_default();
    push("process.args[0]", Action::FindProgram { name });
    Ok(steps)
}

/// A HOME that is empty counts as none, as in runc since 1.3.
fn has_home(process: &Process) -> bool {
    let home = process.env().iter().flatten().rev().find_map(|entry| entry.strip_prefix("HOME="));
    home.is_some_and(|home| !home.is_empty())
}

fn labels(process: &Process, facts: &Facts, push: &mut impl FnMut(&str, Action)) -> Result<()> {
    let given = |label: &Option<String>| label.clone().filter(|label| !label.is_empty());
    if let Some(profile) = given(process.apparmor_profile()) {
        let place = "process.apparmorProfile";
        if facts.apparmor {
            push(place, Action::ExecLabel { module: "apparmor", label: profile });
        } else if profile != "unconfined" {
            return Err(lacking(place, "AppArmor", &profile));
        }
    }
    if let Some(label) = given(process.selinux_label()) {
        let place = "process.selinuxLabel";
        if !facts.selinux {
            return Err(lacking(place, "SELinux", &label));
        }
        push(place, Action::ExecLabel { module: "selinux", label });
    }
    Ok(())
}

fn lacking(place: &str, module: &str, label: &str) -> Error {
    Error::new(
        Kind::Unsupported,
        format!("{module} is not enabled in this kernel, so {label:?} can't be applied"),
    )
    .at(place)
    .hint(format!("leave {place} out, or boot with {module} enabled"))
}

/// The container's init may use all CPUs of its cpuset, whatever mask the engine's own process has. A process that
/// is added starts where `initial` says and ends up where `final` says; without that it stays where it was put.
fn affinity(process: &Process, role: Role, push: &mut impl FnMut(&str, Action)) -> Result<()> {
    let given = process.exec_cpu_affinity().as_ref().filter(|_| role == Role::Exec);
    let last = given.and_then(|affinity| affinity.cpu_affinity_final().clone());
    let starts_somewhere = given.is_some_and(|affinity| affinity.initial().is_some());
    match last {
        Some(cpus) => {
            let place = "process.execCPUAffinity.final";
            let mask = IdList::parse(&cpus).map_err(|problem| Error::config(place, problem))?.mask();
            push(place, Action::Affinity { cpus: Some(cpus), mask });
        }
        None if starts_somewhere => {}
        None => push("", Action::Affinity { cpus: None, mask: Vec::new() }),
    }
    Ok(())
}

struct AllCapabilities {
    bounding: u64,
    own: Capabilities,
}

/// The sets as masks. What this host can't grant is left out, with a warning (runtime-spec, config.md "Linux
/// Process"); ambient ones that aren't permitted and inheritable too can't be raised by any kernel.
fn capabilities(
    given: Option<&LinuxCapabilities>,
    facts: &Facts,
    warnings: &mut Vec<String>,
) -> AllCapabilities {
    let mut refused = 0;
    let mut grant = |set: Option<&HashSet<Capability>>| {
        let wanted = set.into_iter().flatten().fold(0, |mask, capability| mask | bit(*capability));
        refused |= wanted & !facts.capabilities;
        wanted & facts.capabilities
    };
    let sets = given.map(|given| {
        (
            grant(given.bounding().as_ref()),
            grant(given.permitted().as_ref()),
            grant(given.effective().as_ref()),
            grant(given.inheritable().as_ref()),
            grant(given.ambient().as_ref()),
        )
    });
    let (bounding, permitted, effective, inheritable, ambient) = sets.unwrap_or_default();
    if refused != 0 {
        let mut names: Vec<_> =
            caps::all().into_iter().filter(|c| refused & c.bitmask() != 0).map(|c| c.to_string()).collect();
        names.sort_unstable();
        warnings.push(format!(
            "process.capabilities: the runtime doesn't have {} itself, so the container doesn't get it",
            names.join(", ")
        ));
    }
    for capability in caps::all() {
        if ambient & !(permitted & inheritable) & capability.bitmask() != 0 {
            warnings.push(format!(
                "process.capabilities.ambient: can't raise ambient capability {capability}: it must be permitted and inheritable too"
            ));
        }
    }
    AllCapabilities {
        bounding,
        own: Capabilities {
            permitted,
            effective: effective & permitted,
            inheritable,
            ambient: ambient & permitted & inheritable,
        },
    }
}

/// The kernel's number of a capability, as a bit. Both crates know the same names.
pub fn bit(capability: Capability) -> u64 {
    let name = format!("CAP_{capability}");
    name.parse::<caps::Capability>().map_or(0, |capability| capability.bitmask())
}

/// Arguments or environment as the kernel takes them.
pub fn c_strings(texts: Option<&Vec<String>>, place: &str) -> Result<Vec<CString>> {
    texts
        .into_iter()
        .flatten()
        .enumerate()
        .map(|(index, text)| {
            CString::new(text.as_str())
                .map_err(|_| Error::config(format!("{place}[{index}]"), "it has a NUL byte in it"))
        })
        .collect()
}

/// Of several entries with one name, the last one counts; most programs would take the first.
pub fn keep_last(env: &mut Vec<CString>) {
    fn name(entry: &CString) -> &[u8] {
        entry.to_bytes().split(|byte| *byte == b'=').next().unwrap_or_default()
    }
    let mut last: Vec<bool> = {
        let mut seen = HashSet::with_capacity(env.len());
        env.iter().rev().map(|entry| seen.insert(name(entry))).collect()
    };
    // In pace with `retain`, which goes from the first to the last.
    env.retain(|_| last.pop().unwrap_or(true));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_several_entries_with_one_name_counts() {
        let mut env = vec![c"A=1".to_owned(), c"B=2".to_owned(), c"A=3".to_owned()];
        keep_last(&mut env);
        assert_eq!(env, [c"B=2".to_owned(), c"A=3".to_owned()]);
    }

    #[test]
    fn an_environment_of_any_length_is_gone_through_once() {
        let entry = |number: usize| CString::new(format!("V{number}=")).unwrap();
        let mut env: Vec<CString> = (0..200_000).chain(0..200_000).map(entry).collect();
        keep_last(&mut env);
        assert_eq!(env.len(), 200_000);
        assert_eq!(env.first(), Some(&entry(0)));
    }

    #[test]
    fn every_capability_of_the_spec_has_a_number() {
        assert_eq!(bit(Capability::Chown), 1);
        assert_eq!(bit(Capability::CheckpointRestore), 1 << 40);
        assert_eq!(bit(Capability::SysAdmin), 1 << 21);
    }
}
