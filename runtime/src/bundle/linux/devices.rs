//! `linux.devices` (`config-linux.md`, "Devices"; mknod(2)).

use std::path::Path;

use oci_spec::runtime::{Linux, LinuxDevice, LinuxDeviceType};

use super::super::problems::{Problems, has};

/// The largest major and minor number: the kernel's `dev_t` has 12 and 20 bits for them.
pub(super) const MAX_MAJOR: i64 = 0xfff;
pub(super) const MAX_MINOR: i64 = 0xf_ffff;

/// The bits of a mode that are a file's type (`S_IFMT`).
const TYPE_BITS: u32 = 0o170_000;

/// Drops the type bits of `fileMode`: engines that take the mode from stat(2) leave them in, and the type has a
/// property of its own.
pub(super) fn drop_type_bits(linux: &mut Linux) {
    for device in linux.devices_mut().iter_mut().flatten() {
        let mode = device.file_mode().filter(|mode| mode & !(TYPE_BITS | 0o7777) == 0);
        if let Some(mode) = mode {
            device.set_file_mode(Some(mode & !TYPE_BITS));
        }
    }
}

pub(super) fn check(linux: &Linux, text: &[u8], problems: &mut Problems) {
    for (index, device) in linux.devices().iter().flatten().enumerate() {
        let mut refuse =
            |name: &str, problem: String| problems.refuse(format!("linux.devices[{index}].{name}"), problem);
        if !device.path().is_absolute() || device.path() == Path::new("/") {
            refuse(
                "path",
                format!(
                    "{:?} is not an absolute path to a device; give one such as /dev/fuse",
                    device.path().to_string_lossy()
                ),
            );
        }
        check_numbers(device, index, text, &mut refuse);
        if let Some(mode) = device.file_mode().filter(|mode| *mode > 0o7777) {
            refuse("fileMode", format!("{mode} (octal {mode:o}) is not from 0 to 4095 (octal 7777)"));
        }
        for (name, id) in [("uid", device.uid()), ("gid", device.gid())] {
            if id == Some(u32::MAX) {
                refuse(name, format!("{} is not a valid id", u32::MAX));
            }
        }
    }
}

fn check_numbers(device: &LinuxDevice, index: usize, text: &[u8], refuse: &mut impl FnMut(&str, String)) {
    let numbers = [("major", device.major(), MAX_MAJOR), ("minor", device.minor(), MAX_MINOR)];
    match device.typ() {
        LinuxDeviceType::A => {
            refuse("type", "\"a\" is a type of rules, not of devices; use c, b, u or p".to_owned());
        }
        // A FIFO needs no numbers, and those that are given mean nothing.
        LinuxDeviceType::P => {}
        LinuxDeviceType::B | LinuxDeviceType::C | LinuxDeviceType::U => {
            for (name, number, max) in numbers {
                if !(0..=max).contains(&number) {
                    refuse(name, format!("{number} is not from 0 to {max}"));
                }
                // The types make 0 of a number that is not given.
                if number == 0 && device.major() == 0 && !has(text, &format!("linux.devices[{index}].{name}"))
                {
                    refuse(name, format!("is missing; a device of type {} has one", device.typ().as_str()));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{accepts, refuses};
    use serde_json::{Value, json};

    fn devices(path: &str, kind: &str, rest: &Value) -> Value {
        let mut device = json!({"path": path, "type": kind});
        for (key, value) in rest.as_object().into_iter().flatten() {
            device[key] = value.clone();
        }
        json!([device])
    }

    #[track_caller]
    fn refused(path: &str, kind: &str, rest: &Value, at: &str) {
        refuses("linux.devices", devices(path, kind, rest), &format!("linux.devices[0].{at}"));
    }

    #[test]
    fn a_device_has_an_absolute_path_and_a_type() {
        let null = json!({"major": 1, "minor": 3});
        for kind in ["c", "u", "b"] {
            accepts("linux.devices", devices("/dev/x", kind, &null));
        }
        for path in ["", "dev/x", "/"] {
            refused(path, "c", &null, "path");
        }
        for kind in ["a", "", "x", "C"] {
            refused("/dev/x", kind, &null, "type");
        }
    }

    #[test]
    fn numbers_fit_the_kernel_and_a_fifo_needs_none() {
        accepts("linux.devices", devices("/dev/x", "c", &json!({"major": 4095, "minor": 1_048_575})));
        accepts("linux.devices", devices("/dev/x", "c", &json!({"major": 0, "minor": 0})));
        accepts("linux.devices", devices("/dev/x", "p", &Value::Null));
        refused("/dev/x", "c", &json!({"major": 4096, "minor": 0}), "major");
        refused("/dev/x", "c", &json!({"major": 1, "minor": 1_048_576}), "minor");
        refused("/dev/x", "b", &json!({"major": -1, "minor": 0}), "major");
        refused("/dev/x", "c", &Value::Null, "major");
        refused("/dev/x", "c", &json!({"major": 0}), "minor");
        // As with runc, what a FIFO is given besides means nothing.
        accepts("linux.devices", devices("/dev/x", "p", &json!({"major": 1, "minor": 2})));
    }

    #[test]
    fn the_type_bits_of_a_mode_are_dropped_and_the_rest_is_checked() {
        let with_mode =
            |mode: u32| devices("/dev/x", "c", &json!({"major": 1, "minor": 3, "fileMode": mode}));
        for (given, kept) in [(0o666, 0o666), (0o20_666, 0o666), (0o27_777, 0o7777)] {
            let bundle = accepts("linux.devices", with_mode(given));
            let devices =
                bundle.spec.linux().as_ref().and_then(|linux| linux.devices().clone()).expect("devices");
            assert_eq!(devices[0].file_mode(), Some(kept));
        }
        refuses("linux.devices", with_mode(0o1_000_666), "linux.devices[0].fileMode");
        refused("/dev/x", "c", &json!({"major": 1, "minor": 3, "uid": u32::MAX}), "uid");
    }
}
