//! `linux` (`config-linux.md`), one file for what belongs together.

mod devices;
pub(super) mod mappings;
pub(super) mod memory_policy;
mod namespaces;
pub(super) mod net_devices;
pub(super) mod paths;
mod rdt;
pub(super) mod resources;
pub(super) mod sysctl;

use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType, Spec};

use super::problems::Problems;

pub(super) fn check(spec: &mut Spec, text: &[u8], problems: &mut Problems) {
    if let Some(linux) = spec.linux_mut() {
        devices::drop_type_bits(linux);
        if let Some(resources) = linux.resources_mut() {
            resources::forget_missing_pids_limit(resources, text, "linux.resources.pids.limit");
        }
    }
    let spec = &*spec;
    let namespaces = namespaces_of(spec);
    namespaces::check_names(spec, namespaces, problems);
    let Some(linux) = spec.linux() else { return };
    namespaces::check(namespaces, problems);
    namespaces::check_time_offsets(linux, namespaces, problems);
    mappings::check_user_namespace(linux, spec.process().as_ref(), namespaces, problems);
    devices::check(linux, text, problems);
    paths::check(linux, namespaces, problems);
    net_devices::check(linux, namespaces, problems);
    sysctl::check(linux, namespaces, problems);
    rdt::check(linux, text, problems);
    memory_policy::check(linux, problems);
    if let Some(limits) = linux.resources() {
        resources::check(limits, resources::Use::Create, problems);
    }
}

/// `linux.namespaces`, or nothing.
pub(super) fn namespaces_of(spec: &Spec) -> &[LinuxNamespace] {
    spec.linux().as_ref().and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default()
}

/// Whether the container gets a namespace of that type, new or joined, instead of the runtime's.
pub(super) fn has(namespaces: &[LinuxNamespace], kind: LinuxNamespaceType) -> bool {
    namespaces.iter().any(|namespace| namespace.typ() == kind)
}

/// Whether the container gets a new namespace of that type.
pub(super) fn has_new(namespaces: &[LinuxNamespace], kind: LinuxNamespaceType) -> bool {
    namespaces.iter().any(|namespace| namespace.typ() == kind && namespace.path().is_none())
}

/// The name of a type in `config.json`.
fn type_name(kind: LinuxNamespaceType) -> &'static str {
    match kind {
        LinuxNamespaceType::Mount => "mount",
        LinuxNamespaceType::Cgroup => "cgroup",
        LinuxNamespaceType::Uts => "uts",
        LinuxNamespaceType::Ipc => "ipc",
        LinuxNamespaceType::User => "user",
        LinuxNamespaceType::Pid => "pid",
        LinuxNamespaceType::Network => "network",
        LinuxNamespaceType::Time => "time",
    }
}
