//! Device nodes in `/dev` and the device controller of cgroup v1.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::process::ExitCode;

use coracle_integration::bundle::{grant, push};
use coracle_integration::{Checked, Runtime, host, skip, tests};
use serde_json::{Value, json};

fn main() -> ExitCode {
    coracle_integration::run_tests(tests![
        the_default_devices_are_there,
        the_default_symlinks_are_there,
        the_default_devices_work,
        a_configured_device_is_made,
        a_configured_device_has_mode_and_owner,
        a_fifo_is_made,
        a_block_device_is_made,
        a_device_replaces_a_default_one,
        a_device_in_a_new_directory_is_made,
        a_device_that_exists_already_is_fine,
        what_is_not_allowed_is_denied,
        what_is_allowed_is_allowed,
        reading_may_be_allowed_without_writing,
        a_wildcard_allows_every_minor,
        a_later_rule_takes_back_an_earlier_one,
        default_devices_are_allowed_under_a_deny_all,
        mknod_is_allowed_even_where_use_is_not,
        devices_work_without_a_tmpfs_on_dev,
        the_devices_of_the_host_are_untouched,
    ])
}

fn the_default_devices_are_there(rt: &Runtime) {
    let names = "null zero full random urandom tty";
    let script = format!("cd /dev && stat -c '%n %F %t:%T %a %u:%g' {names}");
    let seen = rt.sh(&script, |_| ()).ok();
    let expected = ["null 1:3", "zero 1:5", "full 1:7", "random 1:8", "urandom 1:9", "tty 5:0"];
    for (line, expected) in seen.lines().iter().zip(expected) {
        let (name, number) = expected.split_once(' ').expect("name and number");
        assert_eq!(*line, format!("{name} character special file {number} 666 0:0"));
    }
}

fn the_default_symlinks_are_there(rt: &Runtime) {
    let seen =
        rt.sh("cd /dev; for link in fd stdin stdout stderr ptmx; do readlink $link; done", |_| ()).ok();
    assert_eq!(
        seen.lines(),
        ["/proc/self/fd", "/proc/self/fd/0", "/proc/self/fd/1", "/proc/self/fd/2", "pts/ptmx"]
    );
}

fn the_default_devices_work(rt: &Runtime) {
    let script = "head -c 8 /dev/zero | wc -c; head -c 8 /dev/urandom | wc -c; echo text > /dev/null; echo text > /dev/full";
    let seen = rt.sh(script, |_| ()).fails();
    assert_eq!(seen.lines(), ["8", "8"]);
    assert!(seen.stderr.contains("No space left"), "{seen}");
}

/// Adds a device and a rule that allows it.
fn add_device(config: &mut Value, path: &str, kind: &str, major: u32, minor: u32) {
    let device = json!({ "path": path, "type": kind, "major": major, "minor": minor, "fileMode": 0o666 });
    push(config, "/linux/devices", device);
    let rule = json!({ "allow": true, "type": kind, "major": major, "minor": minor, "access": "rwm" });
    push(config, "/linux/resources/devices", rule);
}

fn a_configured_device_is_made(rt: &Runtime) {
    let seen = rt.sh("stat -c '%F %t:%T' /dev/nought; head -c 4 /dev/nought | wc -c", |config| {
        add_device(config, "/dev/nought", "c", 1, 5);
    });
    assert_eq!(seen.ok().lines(), ["character special file 1:5", "4"]);
}

fn a_configured_device_has_mode_and_owner(rt: &Runtime) {
    let seen = rt.sh("stat -c '%a %u:%g' /dev/nought /dev/plain", |config| {
        let device = json!({ "path": "/dev/nought", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640,
            "uid": 1000, "gid": 7 });
        push(config, "/linux/devices", device);
        push(
            config,
            "/linux/devices",
            json!({ "path": "/dev/plain", "type": "u", "major": 1, "minor": 5,
            "fileMode": 0o600 }),
        );
    });
    assert_eq!(seen.ok().lines(), ["640 1000:7", "600 0:0"]);
}

fn a_fifo_is_made(rt: &Runtime) {
    let seen = rt.sh("stat -c %F /dev/pipe", |config| {
        push(config, "/linux/devices", json!({ "path": "/dev/pipe", "type": "p", "fileMode": 0o600 }));
    });
    assert_eq!(seen.ok().out(), "fifo");
}

fn a_block_device_is_made(rt: &Runtime) {
    let seen = rt.sh("stat -c '%F %t:%T' /dev/disk0", |config| add_device(config, "/dev/disk0", "b", 7, 200));
    assert_eq!(seen.ok().out(), "block special file 7:c8");
}

fn a_device_replaces_a_default_one(rt: &Runtime) {
    let seen = rt.sh("stat -c '%t:%T %a' /dev/full", |config| {
        let device = json!({ "path": "/dev/full", "type": "c", "major": 1, "minor": 7, "fileMode": 0o600 });
        push(config, "/linux/devices", device);
    });
    assert!(["1:7 600", "1:7 666"].contains(&seen.ok().out()));
}

fn a_device_in_a_new_directory_is_made(rt: &Runtime) {
    let seen = rt.sh("stat -c %t:%T /dev/deep/er/nought", |config| {
        add_device(config, "/dev/deep/er/nought", "c", 1, 5);
    });
    assert_eq!(seen.ok().out(), "1:5");
}

fn a_device_that_exists_already_is_fine(rt: &Runtime) {
    let bundle =
        rt.script("stat -c %t:%T /srv/nought").edit(|config| add_device(config, "/srv/nought", "c", 1, 5));
    let c = rt.container(&bundle);
    assert_eq!(c.run().ok().out(), "1:5");
    assert_eq!(c.run().ok().out(), "1:5", "the rootfs has it now");
}

/// Runs a script with CAP_MKNOD and these rules after the deny-all of the default configuration.
fn with_rules(rt: &Runtime, script: &str, rules: &[Value]) -> Result<coracle_integration::Finished, Checked> {
    if host::v1_hierarchy("devices").is_none() {
        return Err(skip("no cgroup v1 device controller here"));
    }
    Ok(rt.sh(script, |config| {
        grant(config, &["CAP_MKNOD", "CAP_SYSLOG"]);
        for rule in rules {
            push(config, "/linux/resources/devices", rule.clone());
        }
    }))
}

const USE: &str =
    "mknod /dev/log0 c 1 11 && ( : < /dev/log0 ) && echo read; ( : > /dev/log0 ) && echo written; true";

/// A rule on `/dev/kmsg` (1:11), which is harmless to open.
fn rule(allow: bool, access: &str) -> Value {
    json!({ "allow": allow, "type": "c", "major": 1, "minor": 11, "access": access })
}

fn what_is_not_allowed_is_denied(rt: &Runtime) -> Checked {
    match with_rules(rt, "mknod /dev/nvram0 c 10 144; cat /dev/nvram0", &[]) {
        Ok(seen) => assert!(seen.fails().stderr.contains("Operation not permitted")),
        Err(skipped) => return skipped,
    }
    Ok(())
}

fn what_is_allowed_is_allowed(rt: &Runtime) -> Checked {
    match with_rules(rt, USE, &[rule(true, "rwm")]) {
        Ok(seen) => assert_eq!(seen.lines(), ["read", "written"]),
        Err(skipped) => return skipped,
    }
    Ok(())
}

fn reading_may_be_allowed_without_writing(rt: &Runtime) -> Checked {
    match with_rules(rt, USE, &[rule(true, "rm")]) {
        Ok(seen) => assert_eq!(seen.lines(), ["read"]),
        Err(skipped) => return skipped,
    }
    Ok(())
}

fn a_wildcard_allows_every_minor(rt: &Runtime) -> Checked {
    match with_rules(rt, USE, &[json!({ "allow": true, "type": "c", "major": 1, "access": "rwm" })]) {
        Ok(seen) => assert_eq!(seen.lines(), ["read", "written"]),
        Err(skipped) => return skipped,
    }
    Ok(())
}

fn a_later_rule_takes_back_an_earlier_one(rt: &Runtime) -> Checked {
    match with_rules(rt, USE, &[rule(true, "rwm"), rule(false, "w")]) {
        Ok(seen) => assert_eq!(seen.lines(), ["read"]),
        Err(skipped) => return skipped,
    }
    Ok(())
}

fn default_devices_are_allowed_under_a_deny_all(rt: &Runtime) -> Checked {
    let Some(hierarchy) = host::v1_hierarchy("devices") else {
        return skip("no cgroup v1 device controller here");
    };
    let bundle = rt.sleeper();
    let c = rt.container(&bundle);
    c.up();
    let cgroup = host::cgroup_of(c.pid(), "devices").expect("it has a cgroup");
    assert!(cgroup.starts_with(&hierarchy));
    let list = fs::read_to_string(cgroup.join("devices.list")).expect("the list of allowed devices");
    for line in [
        "c 1:3 rwm",
        "c 1:5 rwm",
        "c 1:7 rwm",
        "c 1:8 rwm",
        "c 1:9 rwm",
        "c 5:0 rwm",
        "c 5:2 rwm",
        "c 136:* rwm",
    ] {
        assert!(list.lines().any(|have| have == line), "{line} is not in:\n{list}");
    }
    assert!(!list.contains("a *:* rwm"), "{list}");
    Ok(())
}

fn mknod_is_allowed_even_where_use_is_not(rt: &Runtime) -> Checked {
    match with_rules(rt, "mknod /dev/odd c 10 144 && mknod /dev/odder b 7 9 && ls /dev/odd /dev/odder", &[]) {
        Ok(seen) => assert_eq!(seen.ok().lines(), ["/dev/odd", "/dev/odder"]),
        Err(skipped) => return skipped,
    }
    Ok(())
}

fn devices_work_without_a_tmpfs_on_dev(rt: &Runtime) {
    let bundle = rt.script("stat -c %t:%T /dev/null; readlink /dev/fd").edit(|config| {
        if let Some(mounts) = config["mounts"].as_array_mut() {
            mounts
                .retain(|mount| !mount["destination"].as_str().is_some_and(|path| path.starts_with("/dev")));
        }
    });
    fs::remove_dir(bundle.rootfs("dev")).expect("removing an empty directory");
    fs::create_dir(bundle.rootfs("dev")).expect("making a directory");
    symlink("elsewhere", bundle.rootfs("dev/stray")).expect("making a symlink");
    assert_eq!(rt.container(&bundle).run().ok().lines(), ["1:3", "/proc/self/fd"]);
}

fn the_devices_of_the_host_are_untouched(rt: &Runtime) {
    let look = || {
        ["null", "zero", "tty", "ptmx", "console"].map(|name| {
            let metadata = fs::symlink_metadata(format!("/dev/{name}"));
            metadata
                .ok()
                .map(|is| (is.rdev(), is.mode(), is.uid(), is.gid(), is.file_type().is_char_device()))
        })
    };
    let before = look();
    let user = |config: &mut Value| config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    rt.sh("chmod 600 /dev/null /dev/zero; rm /dev/zero; true", user).ok();
    rt.sh("chmod 600 /dev/null; rm /dev/zero; chown 1000 /dev/tty; true", |config| {
        grant(config, &["CAP_CHOWN"]);
    })
    .ok();
    assert_eq!(look(), before);
}
