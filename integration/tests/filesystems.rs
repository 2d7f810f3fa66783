//! Mounts of new filesystems, as the container's process sees them: tmpfs, overlay, proc, sysfs, devpts, mqueue, cgroup.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::ExitCode;

use coracle_integration::bundle::{add_mount, push};
use coracle_integration::mounts::{at, source, tmpfs_at, with_mount};
use coracle_integration::{Checked, Runtime, tests};
use nix::mount::MsFlags;
use serde_json::json;

fn main() -> ExitCode {
    coracle_integration::run_tests(tests![
        a_tmpfs_has_size_and_mode,
        a_tmpfs_copies_up_what_it_hides,
        a_tmpfs_that_copies_up_has_mode_and_owner_of_its_own,
        a_tmpfs_takes_the_mode_of_the_directory_it_hides,
        nodev_forbids_devices,
        an_overlay_takes_its_data_options,
        a_proc_mount_takes_its_options,
        sysfs_is_readonly,
        devpts_is_a_new_instance,
        a_message_queue_file_system_is_of_the_ipc_namespace,
        cgroup_v1_shows_the_containers_own_cgroup,
        a_cgroup_mount_is_readonly,
        files_of_proc_that_lxcfs_replaces_may_be_bound_over,
        a_procfs_elsewhere_may_be_mounted_over,
    ])
}

fn a_tmpfs_has_size_and_mode(rt: &Runtime) {
    let (c, _bundle) =
        with_mount(rt, "/data", "tmpfs", "tmpfs", &["nosuid", "size=128k", "mode=0750", "gid=7"]);
    let mounts = c.mounts();
    let data = at(&mounts, "/data");
    assert!(data.has("nosuid") && data.fs_has("size=128k"), "{data:?}");
    assert_eq!(c.exec(&["stat", "-c", "%a %u %g", "/data"]).ok().out(), "750 0 7");
    let full = c.exec(&["sh", "-c", "dd if=/dev/zero of=/data/big bs=1k count=200"]).fails();
    assert!(full.stderr.contains("No space left"), "{full}");
}

fn a_tmpfs_copies_up_what_it_hides(rt: &Runtime) {
    let bundle = rt
        .script(
            "cat /data/sub/file; stat -c '%a %u' /data/sub/file; readlink /data/link; echo new > /data/new",
        )
        .edit(|config| add_mount(config, "/data", "tmpfs", "tmpfs", &["tmpcopyup"]));
    bundle.file("data/sub/file", "copied\n", 0o640);
    std::os::unix::fs::chown(bundle.rootfs("data/sub/file"), Some(1000), None).expect("chown");
    symlink("sub/file", bundle.rootfs("data/link")).expect("making a symlink");
    let seen = rt.container(&bundle).run().ok();
    assert_eq!(seen.lines(), ["copied", "640 1000", "sub/file"]);
    assert!(!bundle.rootfs("data/new").exists());
}

fn a_tmpfs_that_copies_up_has_mode_and_owner_of_its_own(rt: &Runtime) {
    let bundle = rt.script("stat -c '%a %u %g' /given /hidden /new /owned; ls /hidden").edit(|config| {
        for (target, options) in [
            ("/given", &["tmpcopyup", "mode=1750"][..]),
            ("/hidden", &["tmpcopyup"]),
            ("/new", &["tmpcopyup"]),
            ("/owned", &["tmpcopyup", "mode=700", "uid=5", "gid=6"]),
        ] {
            add_mount(config, target, "tmpfs", "tmpfs", options);
        }
    });
    for name in ["given", "hidden", "owned"] {
        let directory = bundle.rootfs(name);
        fs::create_dir(&directory).expect("making a directory");
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o711)).expect("chmod");
        std::os::unix::fs::chown(&directory, Some(1000), Some(1000)).expect("chown");
    }
    bundle.file("hidden/file", "", 0o600);
    let seen = rt.container(&bundle).run().ok();
    assert_eq!(seen.lines(), ["1750 0 0", "711 0 0", "1777 0 0", "700 5 6", "file"]);
}

fn a_tmpfs_takes_the_mode_of_the_directory_it_hides(rt: &Runtime) {
    let bundle =
        rt.script("stat -c %a /data").edit(|config| add_mount(config, "/data", "tmpfs", "tmpfs", &[]));
    fs::create_dir(bundle.rootfs("data")).expect("making a directory");
    fs::set_permissions(bundle.rootfs("data"), fs::Permissions::from_mode(0o711)).expect("chmod");
    assert_eq!(rt.container(&bundle).run().ok().out(), "711");
}

fn nodev_forbids_devices(rt: &Runtime) {
    let script = "mknod /data/null c 1 3 && echo text > /data/null";
    let seen = rt.sh(script, |config| {
        coracle_integration::bundle::grant(config, &["CAP_MKNOD"]);
        push(config, "/linux/resources/devices", json!({ "allow": true, "access": "rwm" }));
        add_mount(config, "/data", "tmpfs", "tmpfs", &["nodev"]);
    });
    assert!(seen.fails().stderr.contains("Permission denied"));
}

fn an_overlay_takes_its_data_options(rt: &Runtime) {
    let base = rt.own("layers");
    // An overlay's upper directory cannot be on an overlay, which the temporary directory may be.
    fs::create_dir(&base).expect("making a directory");
    tmpfs_at(&base.to_string_lossy(), MsFlags::empty());
    for layer in ["lower", "upper", "work"] {
        fs::create_dir(base.join(layer)).expect("making a layer");
    }
    fs::write(base.join("lower/file"), "below\n").expect("writing a file");
    let layers = ["lower", "upper", "work"].map(|layer| format!("{layer}dir={}", base.join(layer).display()));
    let options: Vec<&str> = layers.iter().map(String::as_str).collect();
    let script = "cat /data/file; echo above > /data/new";
    let seen = rt.sh(script, |config| add_mount(config, "/data", "overlay", "overlay", &options));
    assert_eq!(seen.ok().out(), "below");
    assert_eq!(fs::read_to_string(base.join("upper/new")).expect("written to the upper layer"), "above\n");
}

fn a_proc_mount_takes_its_options(rt: &Runtime) {
    let bundle = rt.sleeper().edit(|config| {
        config["mounts"][0]["options"] = json!(["nosuid", "nodev", "noexec", "hidepid=2"]);
    });
    let c = rt.container(&bundle);
    c.up();
    let mounts = c.mounts();
    let proc = mounts.iter().find(|mount| mount.target == "/proc").expect("proc is mounted");
    assert!(["nosuid", "nodev", "noexec"].iter().all(|flag| proc.has(flag)), "{proc:?}");
    assert!(proc.fs_has("hidepid=invisible") || proc.fs_has("hidepid=2"), "{proc:?}");
}

fn sysfs_is_readonly(rt: &Runtime) {
    let seen = rt.sh("ls -d /sys/kernel; mkdir /sys/fs/new", |_| ()).fails();
    assert_eq!(seen.out(), "/sys/kernel");
    assert!(seen.stderr.contains("Read-only"), "{seen}");
}

fn devpts_is_a_new_instance(rt: &Runtime) {
    let seen = rt.sh("ls /dev/pts; readlink /dev/ptmx", |_| ()).ok();
    assert_eq!(seen.lines(), ["ptmx", "pts/ptmx"]);
}

fn a_message_queue_file_system_is_of_the_ipc_namespace(rt: &Runtime) {
    let bundle = rt.script("touch /dev/mqueue/mine; ls /dev/mqueue");
    assert_eq!(rt.container(&bundle).run().ok().out(), "mine");
    assert_eq!(rt.container(&bundle).run().ok().out(), "mine");
}

fn cgroup_v1_shows_the_containers_own_cgroup(rt: &Runtime) -> Checked {
    if coracle_integration::host::v1_hierarchy("pids").is_none() {
        return coracle_integration::skip("no cgroup v1 here");
    }
    let bundle = rt.sleeper().edit(|config| config["linux"]["resources"]["pids"] = json!({ "limit": 77 }));
    let c = rt.container(&bundle);
    c.up();
    assert_eq!(c.exec(&["cat", "/sys/fs/cgroup/pids/pids.max"]).ok().out(), "77");
    let pids = c.exec(&["cat", "/sys/fs/cgroup/pids/cgroup.procs"]).ok();
    assert!(pids.lines().contains(&"1"), "{pids}");
    Ok(())
}

fn a_cgroup_mount_is_readonly(rt: &Runtime) -> Checked {
    if coracle_integration::host::v1_hierarchy("pids").is_none() {
        return coracle_integration::skip("no cgroup v1 here");
    }
    let seen = rt.sh("echo 5 > /sys/fs/cgroup/pids/pids.max", |_| ()).fails();
    assert!(seen.stderr.contains("Read-only"), "{seen}");
    let seen = rt.sh("mkdir /sys/fs/cgroup/pids/new", |_| ()).fails();
    assert!(seen.stderr.contains("Read-only"), "{seen}");
    Ok(())
}

fn files_of_proc_that_lxcfs_replaces_may_be_bound_over(rt: &Runtime) {
    let file = format!("{}/file", source(rt, "source"));
    let files =
        ["/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/uptime", "/proc/loadavg", "/proc/diskstats"];
    let seen = rt.sh(&format!("cat {}", files.join(" ")), |config| {
        for to in files {
            add_mount(config, to, "bind", &file, &["bind", "ro"]);
        }
    });
    assert_eq!(seen.ok().stdout, "of the host\n".repeat(files.len()));
}

fn a_procfs_elsewhere_may_be_mounted_over(rt: &Runtime) {
    let file = format!("{}/file", source(rt, "source"));
    let seen = rt.sh("cat /mnt/proc/version", |config| {
        add_mount(config, "/mnt/proc", "proc", "proc", &[]);
        add_mount(config, "/mnt/proc/version", "bind", &file, &["bind"]);
    });
    assert_eq!(seen.ok().out(), "of the host");
}
