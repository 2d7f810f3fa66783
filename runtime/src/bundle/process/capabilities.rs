//! `process.capabilities` (`config.md`, "Linux Process"; capabilities(7), capset(2)).
//!
//! Names that are unknown are gone when this runs (see `tolerate`). What is left are relations between the sets: a
//! process cannot have an effective capability that it is not permitted. (Ambient ones that cannot be raised are left
//! out by the plan without a word: `runc spec` itself writes such a set, so nearly every bundle has one.)

use std::collections::HashSet;

use oci_spec::runtime::{Capability, Process};

use super::super::problems::Problems;

pub(super) fn check(process: &Process, prefix: &str, problems: &mut Problems) {
    let Some(sets) = process.capabilities() else { return };
    let none = HashSet::new();
    let permitted = sets.permitted().as_ref().unwrap_or(&none);

    let effective = sets.effective().as_ref().unwrap_or(&none);
    let forbidden = names(effective.difference(permitted));
    if !forbidden.is_empty() {
        problems.refuse(
            format!("{prefix}capabilities.effective"),
            format!("{forbidden} is not in capabilities.permitted; add it there, or remove it here"),
        );
    }
}

/// The names, sorted: the sets have no order.
fn names<'a>(capabilities: impl Iterator<Item = &'a Capability>) -> String {
    let mut names: Vec<String> = capabilities.map(|capability| format!("CAP_{capability}")).collect();
    names.sort_unstable();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{accepts, refuses};
    use oci_spec::runtime::{Capability, LinuxCapabilities};
    use serde_json::{Value, json};
    use std::collections::HashSet;

    fn sets(value: Value) -> (LinuxCapabilities, Vec<String>) {
        let bundle = accepts("process.capabilities", value);
        let process = bundle.spec.process().as_ref().expect("a process");
        (process.capabilities().clone().expect("capabilities"), bundle.warnings)
    }

    #[test]
    fn every_capability_of_linux_is_known_by_its_name() {
        let names = "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE \
            NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT \
            SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE \
            AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ \
            PERFMON BPF CHECKPOINT_RESTORE";
        let names: Vec<String> = names.split_whitespace().map(|name| format!("CAP_{name}")).collect();
        assert_eq!(names.len(), 41);
        // The unknown one sends all of them through the tolerant way, the second time.
        for unknown in [None, Some("CAP_NEW".to_owned())] {
            let given: Vec<&String> = names.iter().chain(&unknown).collect();
            let (sets, warnings) = sets(json!({"permitted": given}));
            assert_eq!(sets.permitted().as_ref().map(HashSet::len), Some(41));
            assert_eq!(warnings.len(), unknown.iter().len());
        }
    }

    #[test]
    fn a_name_that_is_not_a_capabilitys_is_dropped_with_a_warning() {
        for odd in ["CAP_FOO", "KILL", "cap_kill", "CAP_CAP_KILL", "", "CAP_", "bounding ", "CAP_\u{4b}ILL\t"]
        {
            let (sets, warnings) = sets(json!({"bounding": ["CAP_CHOWN", odd]}));
            assert_eq!(sets.bounding(), &Some(HashSet::from([Capability::Chown])), "{odd:?}");
            assert_eq!(warnings.len(), 1, "{odd:?}: {warnings:?}");
            assert!(
                warnings[0].starts_with("config.json: process.capabilities.bounding: capability "),
                "{warnings:?}"
            );
        }
    }

    #[test]
    fn effective_capabilities_must_be_permitted() {
        refuses(
            "process.capabilities",
            json!({"effective": ["CAP_KILL", "CAP_CHOWN"], "permitted": ["CAP_KILL"]}),
            "process.capabilities.effective",
        );
        refuses("process.capabilities", json!({"effective": ["CAP_KILL"]}), "process.capabilities.effective");
        accepts(
            "process.capabilities",
            json!({"effective": ["CAP_KILL"], "permitted": ["CAP_KILL", "CAP_CHOWN"]}),
        );
    }
}
