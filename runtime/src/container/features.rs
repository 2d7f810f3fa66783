//! `features`: what this runtime can do, as the document of the runtime specification (features.md).

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::abilities::{Abilities, abilities};
use crate::version::{COMMIT, SPEC_VERSION, VERSION};

/// The features document of the runtime specification 1.3, in runc's order.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Features {
    oci_version_min: &'static str,
    oci_version_max: &'static str,
    hooks: Vec<&'static str>,
    mount_options: Vec<&'static str>,
    linux: Linux,
    annotations: BTreeMap<&'static str, String>,
    potentially_unsafe_config_annotations: Vec<&'static str>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Linux {
    namespaces: Vec<&'static str>,
    capabilities: Vec<String>,
    cgroup: Cgroup,
    seccomp: Value,
    apparmor: Enabled,
    selinux: Enabled,
    intel_rdt: IntelRdt,
    #[serde(skip_serializing_if = "MemoryPolicy::is_empty")]
    memory_policy: MemoryPolicy,
    mount_extensions: MountExtensions,
    net_devices: Enabled,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Cgroup {
    v1: bool,
    v2: bool,
    systemd: bool,
    systemd_user: bool,
    rdma: bool,
}

#[derive(Debug, Serialize)]
struct Enabled {
    enabled: bool,
}

#[derive(Debug, Serialize)]
struct IntelRdt {
    enabled: bool,
    schemata: bool,
    monitoring: bool,
}

#[derive(Debug, Serialize)]
struct MemoryPolicy {
    modes: Vec<&'static str>,
    flags: Vec<&'static str>,
}

impl MemoryPolicy {
    fn is_empty(&self) -> bool {
        self.modes.is_empty()
    }
}

#[derive(Debug, Serialize)]
struct MountExtensions {
    idmap: Enabled,
}

impl Features {
    /// The document of this runtime on this host.
    pub fn here() -> Self {
        Self::of(abilities())
    }

    fn of(can: Abilities) -> Self {
        let mut annotations = BTreeMap::from([
            ("io.github.coracle.version", VERSION.to_owned()),
            // containerd and Podman look for checkpoint support under runc's name.
            ("org.opencontainers.runc.checkpoint.enabled", can.checkpoint.to_string()),
        ]);
        if let Some(commit) = COMMIT {
            annotations.insert("io.github.coracle.commit", commit.to_owned());
        }
        Self {
            oci_version_min: "1.0.0",
            oci_version_max: SPEC_VERSION,
            hooks: can.hooks,
            mount_options: sorted(can.mount_options),
            linux: Linux {
                namespaces: sorted(can.namespaces),
                capabilities: can.capabilities,
                cgroup: Cgroup {
                    v1: can.cgroup_v1,
                    v2: can.cgroup_v2,
                    systemd: can.cgroup_systemd,
                    systemd_user: can.cgroup_systemd_user,
                    rdma: can.cgroup_rdma,
                },
                seccomp: can.seccomp.unwrap_or_else(|| serde_json::json!({"enabled": false})),
                apparmor: Enabled { enabled: can.apparmor },
                selinux: Enabled { enabled: can.selinux },
                intel_rdt: IntelRdt {
                    enabled: can.intel_rdt,
                    schemata: can.intel_rdt_schemata,
                    monitoring: can.intel_rdt_monitoring,
                },
                memory_policy: MemoryPolicy {
                    modes: can.memory_policy_modes,
                    flags: can.memory_policy_flags,
                },
                mount_extensions: MountExtensions { idmap: Enabled { enabled: can.idmap } },
                net_devices: Enabled { enabled: can.net_devices },
            },
            annotations,
            potentially_unsafe_config_annotations: can.unsafe_annotations,
        }
    }
}

fn sorted(mut names: Vec<&'static str>) -> Vec<&'static str> {
    names.sort_unstable();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_has_the_keys_of_the_specification() {
        let can = Abilities {
            hooks: vec!["prestart"],
            mount_options: vec!["ro", "bind"],
            cgroup_v1: true,
            seccomp: Some(serde_json::json!({"enabled": true, "actions": []})),
            memory_policy_modes: vec!["MPOL_BIND"],
            ..Abilities::default()
        };
        let document = serde_json::to_value(Features::of(can)).unwrap();
        for (pointer, value) in [
            ("/ociVersionMin", serde_json::json!("1.0.0")),
            ("/ociVersionMax", serde_json::json!("1.3.0")),
            ("/hooks", serde_json::json!(["prestart"])),
            ("/mountOptions", serde_json::json!(["bind", "ro"])),
            (
                "/linux/cgroup",
                serde_json::json!({"v1": true, "v2": false, "systemd": false, "systemdUser": false, "rdma": false}),
            ),
            ("/linux/seccomp/enabled", serde_json::json!(true)),
            ("/linux/intelRdt/enabled", serde_json::json!(false)),
            ("/linux/memoryPolicy/modes", serde_json::json!(["MPOL_BIND"])),
            ("/linux/mountExtensions/idmap/enabled", serde_json::json!(false)),
            ("/linux/netDevices/enabled", serde_json::json!(false)),
            ("/potentiallyUnsafeConfigAnnotations", serde_json::json!([])),
        ] {
            assert_eq!(document.pointer(pointer), Some(&value), "{pointer}");
        }
    }
}
