//! From `linux.netDevices` to the devices that move (runtime-spec, config-linux.md "Network Devices").

use oci_spec::runtime::Linux;
use serde::Serialize;

use super::namespaces::Namespaces;
use crate::bundle::{DEVICE_NAME_TEMPLATE, LONGEST_DEVICE_NAME, member_place};

/// In a name inside: the first number that makes it a free one.
pub const TEMPLATE: &str = DEVICE_NAME_TEMPLATE;
/// The longest name of a network device, in bytes.
pub const LONGEST_NAME: usize = LONGEST_DEVICE_NAME;

/// A device that moves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NetDevice {
    /// The place in `config.json`.
    pub place: String,
    /// Its name in the runtime's network namespace.
    pub on_host: String,
    /// Its name in the container's, which may have a `%d` in it.
    pub inside: String,
}

/// The devices, sorted by their names on the host.
pub fn plan(linux: Option<&Linux>) -> Vec<NetDevice> {
    let mut devices: Vec<_> = linux
        .and_then(|linux| linux.net_devices().as_ref())
        .into_iter()
        .flatten()
        .map(|(name, device)| NetDevice {
            place: member_place("linux.netDevices", name),
            on_host: name.clone(),
            inside: device.name().clone().filter(|inside| !inside.is_empty()).unwrap_or_else(|| name.clone()),
        })
        .collect();
    devices.sort_unstable_by(|one, other| one.on_host.cmp(&other.on_host));
    devices
}

/// Where in the list of joined namespaces the network namespace is; none when the clone makes it.
pub fn joined(namespaces: &Namespaces) -> Option<usize> {
    let network = libc::CLONE_NEWNET as u64;
    namespaces.join.iter().position(|(_, namespace)| namespace.flag == network)
}
