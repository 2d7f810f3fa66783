//! From `linux.seccomp` to a compiled filter (runtime-spec, config-linux.md "Seccomp").

use coracle_seccomp::bpf::{OFFSET_ARCH, OFFSET_NR, SockFilter, op, ret};
use coracle_seccomp::{Arch, FLAG_NEW_LISTENER, Profile, Program};
use serde_json::Value;
use serde_json::value::RawValue;

use super::step::{Action, Step};
use crate::error::{Error, Kind, Result};

/// Compiles the filter of a bundle, if it has one. A section without a default action and without rules is none, as in
/// runc.
pub fn compile(section: Option<&RawValue>) -> Result<Option<Program>> {
    let Some(section) = section else { return Ok(None) };
    let refused = |error: &coracle_seccomp::Error| {
        let place = match error.path() {
            "" => "linux.seccomp".to_owned(),
            path => format!("linux.seccomp.{path}"),
        };
        Error::config(place, error.problem().to_string())
    };
    let profile = match Profile::from_json(section.get()) {
        Ok(profile) => profile,
        Err(_) if says_nothing(section) => {
            log::warn!("linux.seccomp: no defaultAction and no syscalls; the container gets no filter");
            return Ok(None);
        }
        Err(error) => return Err(refused(&error)),
    };
    let native = native().map_err(|error| error.at("linux.seccomp"))?;
    let program = coracle_seccomp::compile(&profile, native).map_err(|error| refused(&error))?;
    for warning in &program.warnings {
        log::debug!("linux.seccomp: {warning}");
    }
    Ok(Some(program))
}

fn says_nothing(section: &RawValue) -> bool {
    let section: Value = serde_json::from_str(section.get()).unwrap_or_default();
    let nothing = |key: &str| match section.get(key) {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Array(list)) => list.is_empty(),
        Some(_) => false,
    };
    section.is_object() && nothing("defaultAction") && nothing("syscalls")
}

/// The architecture of this build, which is the kernel's own.
pub fn native() -> Result<Arch> {
    Arch::native().ok_or_else(|| {
        Error::new(
            Kind::Unsupported,
            format!("seccomp filters for {} are not supported", std::env::consts::ARCH),
        )
    })
}

/// A filter that notifies its listener of every system call on every architecture, but for [`NOT_NOTIFIED`].
pub fn notify_of_all(flags: u32) -> Result<Program> {
    let native = native()?;
    let number =
        coracle_seccomp::Syscall::by_name(NOT_NOTIFIED).and_then(|call| call.number(native)).ok_or_else(
            || Error::new(Kind::Unsupported, format!("{native} has no system call {NOT_NOTIFIED}")),
        )?;
    let equal = |k, jf| SockFilter { code: op::JEQ_K, jt: 0, jf, k };
    Ok(Program {
        instructions: vec![
            SockFilter::new(op::LD_W_ABS, OFFSET_ARCH),
            equal(native.audit_token(), 3),
            SockFilter::new(op::LD_W_ABS, OFFSET_NR),
            equal(number, 1),
            SockFilter::new(op::RET_K, ret::ALLOW),
            SockFilter::new(op::RET_K, ret::USER_NOTIF),
        ],
        flags: flags | FLAG_NEW_LISTENER,
        listener: None,
        warnings: Vec::new(),
    })
}

/// The one call that can't be notified of: by it the runtime tells where the listener is.
pub const NOT_NOTIFIED: &str = "write";

/// Where in the steps the filter is loaded: as late as can be, since what follows must pass it.
///
/// With no_new_privs that is right before the program, and before the startContainer hooks, which run under the filter
/// as they do with runc. Without, the kernel wants CAP_SYS_ADMIN for it, so the
/// capabilities are given up after it; nothing but that and execve(2) has to pass it then.
pub fn place(steps: &mut Vec<Step>, program: &Program, no_new_privileges: bool) {
    let first_under_it = |step: &Step| match step.action {
        Action::Execute { .. } => true,
        Action::Hooks { name } => name == "startContainer",
        _ => false,
    };
    let Some(end) = steps.iter().position(first_under_it) else { return };
    let load = Step::new(
        "linux.seccomp",
        Action::Seccomp { instructions: program.instructions.len(), privileged: !no_new_privileges },
    );
    steps.insert(end, load);
    if no_new_privileges {
        return;
    }
    if let Some(at) = steps.iter().position(|step| matches!(step.action, Action::Capabilities(_))) {
        let capabilities = steps.remove(at);
        // Removing moved the load one place forward; right behind it is where the step before was.
        steps.insert(end, capabilities);
    }
}

/// Tells the log which flags of `linux.seccomp.flags` the kernel is asked for, as their sum: seccomp(2).
pub fn log_flags(program: Option<&Program>) {
    if let Some(program) = program {
        log::debug!("seccomp filter flags: {}", program.flags & !FLAG_NEW_LISTENER);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_seccomp::{SeccompData, interp};

    #[test]
    fn a_section_that_says_nothing_is_no_filter() {
        let compiled = |text: &str| compile(Some(&RawValue::from_string(text.to_owned()).unwrap()));
        for nothing in ["{}", r#"{"defaultAction":"","syscalls":[],"architectures":["SCMP_ARCH_X86"]}"#] {
            assert!(compiled(nothing).unwrap().is_none(), "{nothing}");
        }
        for wrong in ["[]", r#"{"syscalls":[{}]}"#, r#"{"defaultAction":"SOME"}"#] {
            assert!(compiled(wrong).is_err(), "{wrong}");
        }
        let text = r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/run/a\u0000b"}"#;
        assert_eq!(compiled(text).unwrap_err().place(), Some("linux.seccomp.listenerPath"));
    }

    #[test]
    fn a_filter_that_learns_notifies_of_all_but_the_native_write() {
        let native = native().unwrap();
        let program = notify_of_all(0).unwrap();
        interp::verify(&program.instructions).unwrap();
        let answer = |arch: Arch, name: &str| {
            let nr = coracle_seccomp::Syscall::by_name(name).and_then(|call| call.number(arch)).unwrap();
            let data = SeccompData { nr, arch: arch.audit_token(), instruction_pointer: 0, args: [0; 6] };
            interp::run(&program.instructions, &data, native.endian()).unwrap().ret
        };
        assert_eq!(answer(native, "write"), ret::ALLOW);
        for name in ["read", "execve", "exit_group", "openat"] {
            assert_eq!(answer(native, name), ret::USER_NOTIF, "{name}");
        }
        let other = if native == Arch::X86 { Arch::Arm } else { Arch::X86 };
        assert_eq!(answer(other, "write"), ret::USER_NOTIF);
        assert_ne!(program.flags & FLAG_NEW_LISTENER, 0);
    }
}
