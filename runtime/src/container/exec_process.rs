//! The process that an `exec` adds: what a file, or the options, make of the container's own.

use std::path::PathBuf;

use oci_spec::runtime::{Capability, LinuxCapabilities, Process};

use super::options::{ExecProcess, ExecUser};
use crate::bundle::{Bundle, check_process, load_process, process_from_json};
use crate::error::{Error, Result};

/// The process to add: that of a file, or the container's own with what the options change.
pub fn wanted(bundle: &Bundle, wanted: &ExecProcess) -> Result<Process> {
    match wanted {
        ExecProcess::File { path, tty } => {
            let (mut process, warnings) = load_process(path)?;
            for warning in warnings {
                log::warn!("{warning}");
            }
            if *tty {
                process.set_terminal(Some(true));
            }
            if let Some(own) = bundle.spec.process() {
                take_absent(&mut process, own);
            }
            Ok(process)
        }
        ExecProcess::Text { text, tty } => {
            let (mut process, warnings) = process_from_json(text)?;
            for warning in warnings {
                log::warn!("{warning}");
            }
            process.set_terminal(Some(*tty));
            if let Some(own) = bundle.spec.process() {
                take_absent(&mut process, own);
            }
            Ok(process)
        }
        ExecProcess::Given {
            args,
            cwd,
            env,
            tty,
            user,
            additional_gids,
            caps,
            apparmor,
            process_label,
            no_new_privs,
        } => {
            let own = bundle.spec.process().clone();
            let mut process = own.ok_or_else(|| Error::config("process", "it is missing"))?;
            process.set_args(Some(args.clone()));
            process.set_terminal(Some(*tty));
            if let Some(cwd) = cwd {
                process.set_cwd(PathBuf::from(cwd));
            }
            let mut all = process.env().clone().unwrap_or_default();
            all.extend(env.iter().cloned());
            process.set_env(Some(all));
            change_user(&mut process, *user, additional_gids);
            add_capabilities(&mut process, caps);
            if apparmor.is_some() {
                process.set_apparmor_profile(apparmor.clone());
            }
            if process_label.is_some() {
                process.set_selinux_label(process_label.clone());
            }
            if no_new_privs.is_some() {
                process.set_no_new_privileges(*no_new_privs);
            }
            for warning in check_process(&mut process)? {
                log::warn!("{warning}");
            }
            Ok(process)
        }
    }
}

/// What a process file doesn't say is as for the container's own process, as with runc; its limits apart.
fn take_absent(process: &mut Process, own: &Process) {
    if process.user().umask().is_none() {
        let umask = own.user().umask();
        process.user_mut().set_umask(umask);
    }
    if process.capabilities().is_none() {
        process.set_capabilities(own.capabilities().clone());
    }
    if process.apparmor_profile().is_none() {
        process.set_apparmor_profile(own.apparmor_profile().clone());
    }
    if process.selinux_label().is_none() {
        process.set_selinux_label(own.selinux_label().clone());
    }
    if process.scheduler().is_none() {
        process.set_scheduler(own.scheduler().clone());
    }
    if process.io_priority().is_none() {
        process.set_io_priority(*own.io_priority());
    }
    if process.exec_cpu_affinity().is_none() {
        process.set_exec_cpu_affinity(own.exec_cpu_affinity().clone());
    }
}

fn change_user(process: &mut Process, user: Option<ExecUser>, additional_gids: &[u32]) {
    let own = process.user_mut();
    if let Some(user) = user {
        own.set_uid(user.uid);
        if let Some(gid) = user.gid {
            own.set_gid(gid);
        }
    }
    if !additional_gids.is_empty() {
        let mut gids = own.additional_gids().clone().unwrap_or_default();
        gids.extend(additional_gids);
        own.set_additional_gids(Some(gids));
    }
}

/// `--cap` adds to the bounding, effective and permitted sets, and to the ambient one as far as the inheritable one
/// has it; never to the inheritable one (CVE-2022-29162).
fn add_capabilities(process: &mut Process, names: &[String]) {
    if names.is_empty() {
        return;
    }
    let mut capabilities = process.capabilities().clone().unwrap_or_else(|| {
        let mut none = LinuxCapabilities::default();
        none.set_bounding(None)
            .set_effective(None)
            .set_permitted(None)
            .set_inheritable(None)
            .set_ambient(None);
        none
    });
    for name in names {
        let bare = name.strip_prefix("CAP_").unwrap_or(name);
        let Ok(capability) = bare.parse::<Capability>() else {
            log::warn!("ignoring unknown or unavailable capabilities: [{name}]");
            continue;
        };
        let add = |set: &Option<std::collections::HashSet<Capability>>| {
            let mut set = set.clone().unwrap_or_default();
            set.insert(capability);
            Some(set)
        };
        let (bounding, effective, permitted) =
            (add(capabilities.bounding()), add(capabilities.effective()), add(capabilities.permitted()));
        capabilities.set_bounding(bounding);
        capabilities.set_effective(effective);
        capabilities.set_permitted(permitted);
        if capabilities.inheritable().as_ref().is_some_and(|set| set.contains(&capability)) {
            let ambient = add(capabilities.ambient());
            capabilities.set_ambient(ambient);
        }
    }
    process.set_capabilities(Some(capabilities));
}
