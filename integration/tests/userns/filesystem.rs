//! Devices, proc, sysfs and bind mounts of a container with a user namespace.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;

use coracle_integration::bundle::{add_mount, grant, join_namespace, push, without_namespace};
use coracle_integration::{Checked, Runtime, tests};
use libtest_mimic::Trial;
use nix::mount::{MsFlags, mount};
use serde_json::json;

use crate::common::{BASE, script, sh};

pub fn tests() -> Vec<Trial> {
    tests![
        the_default_devices_are_the_hosts_and_work,
        a_bundle_with_its_own_dev_runs_again,
        a_device_that_the_host_lacks_is_told,
        the_hosts_sysfs_is_read_only_with_the_hosts_network,
        the_hosts_sysfs_does_not_stand_in_for_another_networks,
        the_hosts_proc_is_read_only_with_the_hosts_pids,
        a_source_that_only_the_hosts_root_reaches_is_bound,
        more_sources_than_open_files_are_allowed_are_bound,
        a_source_may_lie_where_a_mount_before_has_put_it,
        a_rootfs_that_only_the_hosts_root_reaches_is_entered,
        the_root_can_be_moved_instead_of_pivoted,
        what_is_read_only_on_the_host_stays_so,
        clearing_a_locked_flag_is_refused_at_its_mount,
    ]
}

fn the_default_devices_are_the_hosts_and_work(rt: &Runtime) {
    let seen = sh(
        rt,
        "echo lost > /dev/null; head -c 4 /dev/zero | od -An -tx1; stat -c %t:%T /dev/null /dev/full /dev/urandom",
        |_| (),
    )
    .ok();
    let words: Vec<_> = seen.stdout.split_whitespace().collect();
    assert_eq!(words, ["00", "00", "00", "00", "1:3", "1:7", "1:9"]);
}

/// The second source is a path below the rootfs, which leads through the first mount.
fn a_source_may_lie_where_a_mount_before_has_put_it(rt: &Runtime) {
    let source = rt.scratch("source");
    fs::create_dir_all(source.join("inner")).expect("making a directory");
    fs::write(source.join("inner/file"), "there").expect("writing a file");
    let bundle = script(rt, "cat /second/file", |_| ());
    let through = bundle.rootfs("/first/inner");
    let bundle = bundle.edit(|config| {
        add_mount(config, "/first", "bind", &source.to_string_lossy(), &["rbind"]);
        add_mount(config, "/second", "bind", &through.to_string_lossy(), &["rbind"]);
    });
    for name in ["/first", "/second"] {
        fs::create_dir_all(bundle.rootfs(name)).expect("making a directory");
    }
    assert_eq!(rt.container(&bundle).run().ok().out(), "there");
}

/// What the devices were bound onto is there the second time.
fn a_bundle_with_its_own_dev_runs_again(rt: &Runtime) {
    let bundle = script(rt, "stat -c %t:%T /dev/null", |config| {
        let mounts = config["mounts"].as_array_mut().expect("mounts");
        mounts.retain(|mount| mount["destination"] != "/dev");
    });
    for _ in 0..2 {
        assert_eq!(rt.container(&bundle).run().ok().out(), "1:3");
    }
}

fn a_device_that_the_host_lacks_is_told(rt: &Runtime) -> Checked {
    rt.coracle_only("the words are ours")?;
    let device =
        json!([{ "path": "/dev/zero", "type": "c", "major": 1, "minor": 5, "fileMode": 0o600, "uid": 0 }]);
    let seen = sh(rt, "true", |config| config["linux"]["devices"] = device).ok();
    assert!(seen.stderr.contains("linux.devices[0]") && seen.stderr.contains("0666"), "{seen}");
    let device = json!([{ "path": "/dev/coracle-none", "type": "c", "major": 1, "minor": 3 }]);
    sh(rt, "true", |config| config["linux"]["devices"] = device)
        .fails_with("/dev/coracle-none")
        .fails_with("linux.devices[0]");
    // /dev/zero is 1:5 on the host.
    let device = json!([{ "path": "/dev/zero", "type": "c", "major": 1, "minor": 3 }]);
    sh(rt, "true", |config| config["linux"]["devices"] = device)
        .fails_with("is not the device 1:3")
        .fails_with("linux.devices[0]");
    Ok(())
}

fn the_hosts_sysfs_is_read_only_with_the_hosts_network(rt: &Runtime) -> Checked {
    rt.coracle_only("runc 1.1 refuses it")?;
    let seen = sh(rt, "ls /sys/class/net | grep -x lo; grep ' /sys ' /proc/mounts; mkdir /sys/x", |config| {
        without_namespace(config, "network");
    })
    .fails();
    let options = seen.lines().get(1).and_then(|line| line.split(' ').nth(3)).unwrap_or_default().to_owned();
    assert_eq!(seen.lines().first(), Some(&"lo"), "{seen}");
    assert!(options.starts_with("ro,nosuid,nodev,noexec"), "{seen}");
    Ok(())
}

/// Its network devices aren't the container's.
fn the_hosts_sysfs_does_not_stand_in_for_another_networks(rt: &Runtime) {
    let donor = rt.container(&rt.sleeper());
    donor.up();
    let join = |config: &mut serde_json::Value| {
        join_namespace(config, "network", &format!("/proc/{}/ns/net", donor.pid()));
    };
    sh(rt, "true", join).fails_with("sysfs");
    let own = format!("/proc/{}/ns/net", std::process::id());
    if rt.coracle_only("runc 1.1 refuses it").is_ok() {
        sh(rt, "ls /sys/class/net", |config| join_namespace(config, "network", &own)).ok();
    }
}

fn the_hosts_proc_is_read_only_with_the_hosts_pids(rt: &Runtime) -> Checked {
    rt.coracle_only("runc 1.1 refuses it")?;
    let seen = sh(rt, "test -d /proc/1 && grep ' /proc ' /proc/mounts", |config| {
        without_namespace(config, "pid");
    })
    .ok();
    assert!(seen.out().starts_with("proc /proc proc ro,"), "{seen}");
    Ok(())
}

/// A directory with a file, behind one that only the host's root may enter.
fn locked_away(rt: &Runtime) -> PathBuf {
    let closed = rt.scratch("closed");
    let inside = closed.join("inside");
    fs::create_dir_all(&inside).expect("making a directory");
    fs::write(inside.join("file"), "text\n").expect("writing a file");
    chown(&closed, Some(4321), Some(4321)).expect("chown");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).expect("chmod");
    inside
}

fn a_source_that_only_the_hosts_root_reaches_is_bound(rt: &Runtime) -> Checked {
    rt.coracle_only("runc 1.1 opens sources without the host's power")?;
    let source = locked_away(rt);
    let seen = sh(rt, "cat /mnt/file", |config| {
        add_mount(config, "/mnt", "bind", &source.to_string_lossy(), &["rbind"]);
    });
    assert_eq!(seen.ok().out(), "text");
    Ok(())
}

/// Some of them mapped, all by the same maps.
fn more_sources_than_open_files_are_allowed_are_bound(rt: &Runtime) -> Checked {
    rt.coracle_only("runc 1.1 knows no id-mapped mounts")?;
    let source = rt.scratch("source");
    fs::create_dir_all(&source).expect("making a directory");
    let bundle = script(rt, "grep -c ' /mnt/' /proc/mounts", |config| {
        config["process"].as_object_mut().expect("an object").remove("rlimits");
        let mapping = json!([{ "containerID": 0, "hostID": BASE + 100, "size": 1000 }]);
        for number in 0..700 {
            let mut mount = json!({ "destination": format!("/mnt/{number}"), "type": "bind", "source": source,
                "options": ["bind"] });
            if number % 2 == 0 {
                mount["uidMappings"] = mapping.clone();
                mount["gidMappings"] = mapping.clone();
            }
            push(config, "/mounts", mount);
        }
    });
    let run = rt.container(&bundle).run_command(&[]);
    let mut limited = std::process::Command::new("prlimit");
    limited.arg("--nofile=320:320").arg("--").arg(run.get_program()).args(run.get_args());
    limited.stdin(std::process::Stdio::null());
    assert_eq!(coracle_integration::command::run(limited).ok().out(), "700");
    Ok(())
}

fn a_rootfs_that_only_the_hosts_root_reaches_is_entered(rt: &Runtime) -> Checked {
    rt.coracle_only("runc needs the way to the rootfs to be open")?;
    let bundle = script(rt, "echo inside", |_| ());
    fs::set_permissions(bundle.path(), fs::Permissions::from_mode(0o700)).expect("chmod");
    assert_eq!(rt.container(&bundle).run().ok().out(), "inside");
    Ok(())
}

/// Nothing of the host's tree that stays below shows a procfs in full: that would allow a new one.
fn the_root_can_be_moved_instead_of_pivoted(rt: &Runtime) {
    let text = "ls -d /bin; unshare -U -r -m -p -f mount -t proc proc /tmp && echo mounted";
    let bundle = script(rt, text, |config| grant(config, &["CAP_SETFCAP"]));
    let seen = rt.container(&bundle).run_with(&["--no-pivot"]).fails();
    assert_eq!(seen.out(), "/bin", "{seen}");
}

/// A tmpfs on the host, read-only and without devices.
fn read_only_tmpfs(rt: &Runtime) -> PathBuf {
    let path = rt.own("read-only");
    fs::create_dir_all(&path).expect("making a directory");
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NODEV;
    mount(Some("none"), &path, Some("tmpfs"), flags, None::<&str>).expect("mounting a tmpfs");
    path
}

fn what_is_read_only_on_the_host_stays_so(rt: &Runtime) {
    let source = read_only_tmpfs(rt);
    let seen = sh(rt, "mount -o remount,bind,rw /mnt || grep ' /mnt ' /proc/mounts", |config| {
        grant(config, &["CAP_SYS_ADMIN"]);
        add_mount(config, "/mnt", "bind", &source.to_string_lossy(), &["bind", "nosuid"]);
    })
    .ok();
    assert!(seen.out().starts_with("none /mnt tmpfs ro,nosuid,nodev,"), "{seen}");
}

fn clearing_a_locked_flag_is_refused_at_its_mount(rt: &Runtime) -> Checked {
    rt.coracle_only("runc 1.1 keeps the flag silently")?;
    let source = read_only_tmpfs(rt);
    sh(rt, "true", |config| {
        config["mounts"] = json!([]);
        add_mount(config, "/mnt", "bind", &source.to_string_lossy(), &["bind", "rw"]);
    })
    .fails_with("mounts[0]")
    .fails_with("the source carries ro from outside of the user namespace: locked");
    Ok(())
}
