//! The devices and links that every container has, and those that `linux.devices` adds.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxDevice, LinuxDeviceType, Mount};

use super::mounts::clean;
use super::step::{Action, Device, Step};
use crate::bundle::{Bind, parse_mount_options};

/// runtime-spec, config-linux.md "Default Devices": name, major, minor.
const DEFAULT_DEVICES: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/random", 1, 8),
    ("/dev/full", 1, 7),
    ("/dev/tty", 5, 0),
    ("/dev/zero", 1, 5),
    ("/dev/urandom", 1, 9),
];

/// What allocates terminals: pts(4).
const MULTIPLEXER: &str = "/dev/ptmx";

/// The links that a Linux program expects: runtime-linux.md "Dev symbolic links".
const LINKS: [(&str, &str); 4] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
];

/// The steps that fill /dev. A /dev that is bound from the host is left as it is.
pub fn plan(devices: &[LinuxDevice], mounts: &[Mount]) -> Vec<Step> {
    if mounts.iter().any(is_bound_dev) {
        return Vec::new();
    }
    let given: Vec<PathBuf> = devices.iter().map(|device| clean(device.path())).collect();
    let mut steps: Vec<Step> = DEFAULT_DEVICES
        .iter()
        .filter(|(path, ..)| !given.iter().any(|given| given == Path::new(path)))
        .map(|(path, major, minor)| {
            let mode = libc::S_IFCHR | 0o666;
            let device = Device { path: path.into(), mode, major: *major, minor: *minor, uid: 0, gid: 0 };
            Step::new("", Action::Device(device))
        })
        .collect();
    // The multiplexer is the link below, always.
    let wanted = |(_, device): &(usize, &LinuxDevice)| clean(device.path()) != Path::new(MULTIPLEXER);
    for (index, device) in devices.iter().enumerate().filter(wanted) {
        steps.push(Step::new(format!("linux.devices[{index}]"), Action::Device(device_of(device))));
    }
    for (path, target) in LINKS {
        steps.push(Step::new("", Action::Symlink { path: path.into(), target, replace: false }));
    }
    // The host's multiplexer, or one that the image brought, would allocate terminals of another devpts.
    steps
        .push(Step::new("", Action::Symlink { path: MULTIPLEXER.into(), target: "pts/ptmx", replace: true }));
    steps
}

fn is_bound_dev(mount: &Mount) -> bool {
    clean(mount.destination()) == Path::new("/dev")
        && (mount.typ().as_deref() == Some("bind")
            || parse_mount_options(mount.options().as_deref().unwrap_or_default()).bind != Bind::No)
}

fn device_of(device: &LinuxDevice) -> Device {
    let kind = match device.typ() {
        LinuxDeviceType::B => libc::S_IFBLK,
        LinuxDeviceType::P => libc::S_IFIFO,
        _ => libc::S_IFCHR,
    };
    Device {
        path: clean(device.path()),
        mode: kind | device.file_mode().unwrap_or(0o666),
        major: device.major() as u32,
        minor: device.minor() as u32,
        uid: device.uid().unwrap_or(0),
        gid: device.gid().unwrap_or(0),
    }
}
