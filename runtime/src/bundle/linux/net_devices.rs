//! `linux.netDevices` (`config-linux.md`, "Network Devices"): network devices of the host that move into the
//! container.

use std::collections::{BTreeMap, HashMap};

use oci_spec::runtime::{Linux, LinuxNamespace, LinuxNamespaceType, LinuxNetDevice};

use super::{
    super::problems::{Problems, member_place},
    has,
};

const PLACE: &str = "linux.netDevices";

/// The longest name of a network device, in bytes: the kernel's `IFNAMSIZ` without the NUL.
pub const LONGEST_NAME: usize = 15;
/// In a name inside the container, a number that makes it a free one.
pub const TEMPLATE: &str = "%d";

pub(super) fn check(linux: &Linux, namespaces: &[LinuxNamespace], problems: &mut Problems) {
    let Some(devices) = linux.net_devices().as_ref().filter(|devices| !devices.is_empty()) else { return };
    if !has(namespaces, LinuxNamespaceType::Network) {
        problems.refuse(
            PLACE,
            "unable to move network devices without a private NET namespace; \
             add {\"type\": \"network\"} to linux.namespaces",
        );
    }
    check_names(devices, problems);
}

fn check_names(devices: &HashMap<String, LinuxNetDevice>, problems: &mut Problems) {
    // Sorted, so that the same one of two equal names is told each time.
    let mut inside: BTreeMap<&str, &str> = BTreeMap::new();
    let sorted: BTreeMap<&String, &LinuxNetDevice> = devices.iter().collect();
    for (host_name, device) in sorted {
        let place = member_place(PLACE, host_name);
        if let Some(problem) = problem_of_name(host_name) {
            problems.refuse(&place, problem);
        }
        let given = device.name().as_deref().filter(|name| !name.is_empty());
        if let Some(problem) = given.and_then(problem_of_inside_name) {
            problems.refuse(format!("{place}.name"), problem);
        }
        let name = given.unwrap_or(host_name);
        if name.contains(TEMPLATE) {
            continue;
        }
        if let Some(other) = inside.insert(name, host_name) {
            problems.refuse(
                if given.is_some() { format!("{place}.name") } else { place },
                format!("{name:?} is the name of {other:?} in the container too; names must differ"),
            );
        }
    }
}

/// What is wrong with a name that a device is to get, if anything is: once, it may have a number left open.
fn problem_of_inside_name(name: &str) -> Option<String> {
    match name.split_once(TEMPLATE) {
        Some((before, after)) if name.len() <= LONGEST_NAME => problem_of_name(&format!("{before}0{after}"))
            .map(|_| {
                format!("{name:?} is not the name of a network device, nor a template with one {TEMPLATE}")
            }),
        _ => problem_of_name(name),
    }
}

/// What is wrong with the name of a network device, if anything is: the rules of the kernel's `dev_valid_name`.
fn problem_of_name(name: &str) -> Option<String> {
    let wrong = match name {
        "" => "is empty",
        "." | ".." => "is reserved",
        _ if name.len() > LONGEST_NAME => "is longer than 15 bytes",
        _ if name.contains(['/', ':', '%']) => "has one of / : %",
        _ if name.contains(char::is_whitespace) => "has a blank",
        _ => return None,
    };
    Some(format!("{name:?} is not the name of a network device: it {wrong}"))
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{accepts, refuses};
    use serde_json::json;

    #[test]
    fn devices_move_only_into_a_network_namespace() {
        accepts("linux.netDevices", json!({"eth0": {}, "eth1": {"name": "net0"}, "a.b-c": {"name": ""}}));
        refuses(
            "linux",
            json!({"namespaces": [{"type": "uts"}], "netDevices": {"eth0": {}}}),
            "linux.netDevices",
        );
        accepts("linux", json!({"namespaces": [{"type": "uts"}], "netDevices": {}}));
    }

    #[test]
    fn names_are_those_that_the_kernel_takes() {
        accepts("linux.netDevices", json!({"a".repeat(15): {}}));
        for name in ["a/b", "a b", "a:b", "..", ".", "a%d", "abcdefghijklmnop"] {
            let place = super::member_place("linux.netDevices", name);
            refuses("linux.netDevices", json!({name: {}}), &place);
            if name != "a%d" {
                refuses("linux.netDevices", json!({"eth0": {"name": name}}), "linux.netDevices.eth0.name");
            }
        }
        accepts("linux.netDevices", json!({"eth0": {"name": "a%d"}, "eth1": {"name": "a%d"}}));
        for name in ["a%d%d", "%", "a%s", "a/%d", "abcdefghijklmn%d"] {
            refuses("linux.netDevices", json!({"eth0": {"name": name}}), "linux.netDevices.eth0.name");
        }
        refuses("linux.netDevices", json!({"": {}}), "linux.netDevices[\"\"]");
    }

    #[test]
    fn two_devices_do_not_get_one_name() {
        let devices = json!({"eth0": {"name": "a"}, "eth1": {"name": "a"}});
        refuses("linux.netDevices", devices, "linux.netDevices.eth1.name");
        refuses("linux.netDevices", json!({"a": {"name": "b"}, "b": {}}), "linux.netDevices.b");
        accepts("linux.netDevices", json!({"a": {"name": "b"}, "b": {"name": "a"}}));
    }
}
