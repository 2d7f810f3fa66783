//! `linux.sysctl` (`config-linux.md`, "Sysctl"; sysctl(8)).
//!
//! It promises that only parameters pass that belong to a namespace which the container does not share with the
//! host, so that a container never sets a parameter of the host. Whether a namespace that is joined by path is the
//! runtime's own, only the host can tell: `container/host.rs` looks when it has opened it.

use oci_spec::runtime::{Linux, LinuxNamespace, LinuxNamespaceType};

use super::{
    super::problems::{Problems, member_place},
    has, type_name,
};

/// A parameter's name, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sysctl {
    /// The path below `/proc/sys`, relative: `net/ipv4/conf/eth0.100/rp_filter`.
    pub path: String,
    /// The type of the namespace that the parameter belongs to; `None` when it is the whole host's.
    pub namespace: Option<LinuxNamespaceType>,
}

/// Parameters of an IPC namespace, beside those of `fs.mqueue`.
const IPC: [&str; 8] = [
    "kernel/msgmax",
    "kernel/msgmnb",
    "kernel/msgmni",
    "kernel/sem",
    "kernel/shmall",
    "kernel/shmmax",
    "kernel/shmmni",
    "kernel/shm_rmid_forced",
];

/// Reads a parameter's name, with `.` or `/` as its separator, whichever comes first; the other one is then part
/// of a component: `net.ipv4.conf.eth0/100.rp_filter` and `net/ipv4/conf/eth0.100/rp_filter` are the same.
///
/// # Errors
/// The name is empty or has a component that is empty, `.` or `..`.
pub fn parse_sysctl(name: &str) -> Result<Sysctl, String> {
    let first = name.chars().find(|c| matches!(c, '.' | '/'));
    let path = if first == Some('.') { name.chars().map(swap_separators).collect() } else { name.to_owned() };
    if path.split('/').any(|component| matches!(component, "" | "." | "..")) {
        return Err(
            "is not a parameter's name; write it as sysctl(8) does, such as net.ipv4.ip_forward".to_owned()
        );
    }
    let namespace = if IPC.contains(&path.as_str()) || path.starts_with("fs/mqueue/") {
        Some(LinuxNamespaceType::Ipc)
    } else if path.starts_with("net/") {
        Some(LinuxNamespaceType::Network)
    } else if matches!(path.as_str(), "kernel/hostname" | "kernel/domainname") {
        Some(LinuxNamespaceType::Uts)
    } else if path.starts_with("user/") {
        Some(LinuxNamespaceType::User)
    } else {
        None
    };
    Ok(Sysctl { path, namespace })
}

fn swap_separators(c: char) -> char {
    match c {
        '.' => '/',
        '/' => '.',
        c => c,
    }
}

pub(super) fn check(linux: &Linux, namespaces: &[LinuxNamespace], problems: &mut Problems) {
    for name in linux.sysctl().iter().flat_map(|parameters| parameters.keys()) {
        if let Some(problem) = problem_of(name, namespaces) {
            problems.refuse(member_place("linux.sysctl", name), problem);
        }
    }
}

fn problem_of(name: &str, namespaces: &[LinuxNamespace]) -> Option<String> {
    let sysctl = match parse_sysctl(name) {
        Ok(sysctl) => sysctl,
        Err(problem) => return Some(problem),
    };
    if sysctl.path == "kernel/hostname" {
        return Some(format!(
            "sysctl {name:?} is not allowed as it conflicts with the OCI \"hostname\" field; use that"
        ));
    }
    let Some(kind) = sysctl.namespace else {
        return Some(format!(
            "sysctl {name:?} is not in a separate kernel namespace; it would change the host"
        ));
    };
    if has(namespaces, kind) {
        return None;
    }
    Some(format!("{}; add {{\"type\": \"{}\"}} to linux.namespaces", shared(name, kind), type_name(kind)))
}

/// What is wrong with a parameter of a namespace that the container shares with the host, in runc's words.
pub fn shared(name: &str, kind: LinuxNamespaceType) -> String {
    let why = match kind {
        LinuxNamespaceType::Ipc => "is not allowed in the hosts ipc namespace",
        LinuxNamespaceType::Network => "not allowed in host network namespace",
        _ => "is not in a separate kernel namespace",
    };
    format!("sysctl {name:?} {why}")
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{accepts, refuses};
    use super::*;
    use serde_json::json;

    #[test]
    fn both_separators_name_the_same_parameter() {
        for (name, path) in [
            ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
            ("net/ipv4/conf/eth0.100/rp_filter", "net/ipv4/conf/eth0.100/rp_filter"),
            ("net.ipv4.conf.eth0/100.rp_filter", "net/ipv4/conf/eth0.100/rp_filter"),
        ] {
            let sysctl = parse_sysctl(name).expect(name);
            assert_eq!((sysctl.path.as_str(), sysctl.namespace), (path, Some(LinuxNamespaceType::Network)));
        }
        assert_eq!(parse_sysctl("vm.overcommit_memory").expect("a name").namespace, None);
    }

    #[test]
    fn a_parameter_needs_its_namespace() {
        for (name, namespace) in [
            ("kernel.msgmax", "ipc"),
            ("kernel.sem", "ipc"),
            ("kernel/shm_rmid_forced", "ipc"),
            ("fs.mqueue.msg_max", "ipc"),
            ("net.core.somaxconn", "network"),
            ("kernel.domainname", "uts"),
            ("user.max_user_namespaces", "user"),
        ] {
            let linux = |namespace: &str| {
                let maps = if namespace == "user" {
                    json!([{"containerID": 0, "hostID": 0, "size": 1}])
                } else {
                    json!([])
                };
                json!({"namespaces": [{"type": namespace}, {"type": "time"}], "sysctl": {name: "1"},
                       "uidMappings": maps, "gidMappings": maps})
            };
            let mut config = super::super::super::testing::config_with("linux", linux(namespace));
            config["hostname"] = serde_json::Value::Null;
            super::super::super::testing::load(&config).expect(name);
            config["linux"] = linux("cgroup");
            let error = super::super::super::testing::load(&config).expect_err(name);
            assert_eq!(error.place(), Some(member_place("linux.sysctl", name).as_str()));
            assert!(error.to_string().contains(&format!("\"{namespace}\"")), "{error}");
        }
    }

    #[test]
    fn parameters_of_the_host_and_malformed_names_are_refused() {
        accepts("linux.sysctl", json!({"net.ipv4.ip_forward": "1", "kernel.domainname": "x"}));
        for name in [
            "vm.swappiness",
            "kernel.core_pattern",
            "kernel.hostname",
            "kernel.msgmax.x",
            "net",
            "fs.mqueue",
            "fs.mqueue.",
            "net.",
            "net..core",
            "net/../kernel/core_pattern",
            "net/./a",
            "/net/core",
            "",
            ".",
        ] {
            refuses("linux.sysctl", json!({name: "1"}), &member_place("linux.sysctl", name));
        }
    }
}
