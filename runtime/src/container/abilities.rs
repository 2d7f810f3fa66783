//! `features`: what this build can do (runtime-spec, features.md).

use crate::bundle::mount_option_names;
use crate::sys::seccomp::knows_flags;

/// What this build can do.
#[derive(Debug, Clone, Default)]
pub struct Abilities {
    /// The hooks, in the order of a container's life.
    pub hooks: Vec<&'static str>,
    /// The options of `mounts` that aren't the filesystem's.
    pub mount_options: Vec<&'static str>,
    /// The types of `linux.namespaces`.
    pub namespaces: Vec<&'static str>,
    /// The capabilities that can be named.
    pub capabilities: Vec<String>,
    /// cgroup v1.
    pub cgroup_v1: bool,
    /// cgroup v2.
    pub cgroup_v2: bool,
    /// systemd as the cgroup manager.
    pub cgroup_systemd: bool,
    /// A user's systemd as the cgroup manager.
    pub cgroup_systemd_user: bool,
    /// `linux.resources.rdma`.
    pub cgroup_rdma: bool,
    /// The `linux.seccomp` object; none when there are no filters for this architecture.
    pub seccomp: Option<serde_json::Value>,
    /// `process.apparmorProfile`.
    pub apparmor: bool,
    /// `process.selinuxLabel`.
    pub selinux: bool,
    /// `linux.intelRdt`.
    pub intel_rdt: bool,
    /// `linux.intelRdt.schemata`.
    pub intel_rdt_schemata: bool,
    /// `linux.intelRdt.enableMonitoring`.
    pub intel_rdt_monitoring: bool,
    /// The modes of `linux.memoryPolicy`.
    pub memory_policy_modes: Vec<&'static str>,
    /// The flags of `linux.memoryPolicy`.
    pub memory_policy_flags: Vec<&'static str>,
    /// Id-mapped mounts.
    pub idmap: bool,
    /// `linux.netDevices`.
    pub net_devices: bool,
    /// `checkpoint` and `restore`.
    pub checkpoint: bool,
    /// Annotations (a trailing dot: all that begin so) that change what the runtime does.
    pub unsafe_annotations: Vec<&'static str>,
}

/// What this build can do, whatever the host can; only the flags of seccomp(2) are the running kernel's.
pub fn abilities() -> Abilities {
    let mut capabilities: Vec<String> =
        caps::all().into_iter().map(|capability| capability.to_string()).collect();
    capabilities.sort_unstable();
    Abilities {
        hooks: vec![
            "prestart",
            "createRuntime",
            "createContainer",
            "startContainer",
            "poststart",
            "poststop",
        ],
        mount_options: mount_option_names().to_vec(),
        namespaces: vec!["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
        capabilities,
        cgroup_v1: true,
        cgroup_v2: true,
        cgroup_systemd: true,
        cgroup_systemd_user: true,
        cgroup_rdma: true,
        seccomp: seccomp(),
        apparmor: true,
        selinux: true,
        intel_rdt: true,
        intel_rdt_schemata: true,
        intel_rdt_monitoring: true,
        memory_policy_modes: vec![
            "MPOL_DEFAULT",
            "MPOL_BIND",
            "MPOL_INTERLEAVE",
            "MPOL_WEIGHTED_INTERLEAVE",
            "MPOL_PREFERRED",
            "MPOL_PREFERRED_MANY",
            "MPOL_LOCAL",
        ],
        memory_policy_flags: vec!["MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"],
        idmap: true,
        net_devices: true,
        checkpoint: false,
        unsafe_annotations: vec!["org.systemd.property."],
    }
}

fn seccomp() -> Option<serde_json::Value> {
    coracle_seccomp::Arch::native()?;
    serde_json::to_value(coracle_seccomp::features().keep_supported(knows_flags)).ok()
}
