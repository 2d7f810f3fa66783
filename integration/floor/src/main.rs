//! The floor: what one run of the default bundle (`runc spec`) costs in bare system calls.
//!
//! It makes the namespaces, the nine cgroups of version 1 with their device rules, all default mounts, masked
//! and read-only paths, devices and links, enters the root filesystem, sets limits, capabilities and
//! no_new_privs, executes, waits, and removes the cgroups. It reads no `config.json`, keeps no state, checks
//! nothing and resolves nothing safely: it is a measure, never a runtime.

// The standard library's own start makes some sixteen system calls (it reads /proc/self/maps to guard the
// stack), which are no part of a container. `main` is in `sys`.
#![no_main]

mod cgroup;
mod inside;
mod marks;
mod run;
mod sys;

use std::ffi::CString;

use run::{Attach, Options};

const USAGE: &str = "\
usage: floor run [options] BUNDLE [PROGRAM [ARGUMENT...]]

Runs PROGRAM (default: /bin/true) in BUNDLE/rootfs as the default bundle of `runc spec` says.

  --id NAME          the name of its cgroups (default: coracle-floor-PID)
  --attach tasks     the container's process joins its cgroups itself, by writing 0 to `tasks` (default)
  --attach procs     the parent writes the process's pid to `cgroup.procs`
  --serial           nothing at the same time: first the cgroups, then the clone, then the mounts
  --cgroup-namespace with a cgroup namespace, as `runc spec` writes on hosts with cgroup version 2
  --times            print to standard error when each phase ended, in microseconds
";

fn parse(arguments: &[String]) -> Result<Options, String> {
    let mut rest = arguments.iter();
    if rest.next().map(String::as_str) != Some("run") {
        return Err(USAGE.to_owned());
    }
    let mut options = Options::default();
    let mut operands = Vec::new();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--attach" if operands.is_empty() => match rest.next().map(String::as_str) {
                Some("tasks") => options.attach = Attach::Tasks,
                Some("procs") => options.attach = Attach::Procs,
                other => {
                    return Err(format!("--attach {}: must be tasks or procs\n", other.unwrap_or("")));
                }
            },
            "--id" if operands.is_empty() => match rest.next() {
                Some(id) if !id.is_empty() && !id.contains('/') => options.id = Some(id.clone()),
                other => {
                    return Err(format!("--id {}: must be a name\n", other.map_or("", String::as_str)));
                }
            },
            "--serial" if operands.is_empty() => options.serial = true,
            "--cgroup-namespace" if operands.is_empty() => options.cgroup_namespace = true,
            "--times" if operands.is_empty() => options.times = true,
            option if operands.is_empty() && option.starts_with('-') => {
                return Err(format!("unknown option {option}\n{USAGE}"));
            }
            operand => operands.push(operand),
        }
    }
    let text = |s: &str| CString::new(s).map_err(|_| format!("an argument contains a NUL byte: {s:?}\n"));
    let Some((bundle, program)) = operands.split_first() else {
        return Err(USAGE.to_owned());
    };
    options.rootfs = text(&format!("{bundle}/rootfs"))?;
    if !program.is_empty() {
        options.program = program.iter().map(|s| text(s)).collect::<Result<_, _>>()?;
    }
    Ok(options)
}

/// Parses and runs. Gives the exit status.
fn entry() -> u8 {
    let arguments: Vec<String> =
        std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned()).collect();
    let result =
        parse(&arguments).and_then(|options| run::run(&options).map_err(|e| format!("floor: {e}\n")));
    result.unwrap_or_else(|message| {
        eprint!("{message}");
        1
    })
}
