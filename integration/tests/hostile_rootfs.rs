//! Root filesystems that lead the runtime astray: symbolic links where it looks for something else, and names that are
//! exchanged while it works.

use std::fs::{self};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::ExitCode;

use coracle_integration::bundle::{add_mount, push};
use coracle_integration::command::Running;
use coracle_integration::console::DescriptorSocket;
use coracle_integration::hostile::{Exchange, Outside};
use coracle_integration::{Bundle, Checked, Runtime, host, tests};
use rustix::fs::CWD;
use serde_json::{Value, json};

fn main() -> ExitCode {
    coracle_integration::run_tests(tests![
        a_symlink_at_dev_stays_inside,
        symlinks_at_the_usual_mount_points_stay_inside,
        a_symlink_at_proc_is_refused,
        a_relative_symlink_at_proc_is_refused,
        a_symlink_at_sys_is_refused,
        a_file_at_proc_is_refused,
        a_destination_that_is_exchanged_stays_inside,
        missing_parents_that_are_exchanged_stay_inside,
        a_bind_destination_that_is_exchanged_stays_inside,
        a_null_device_that_is_exchanged_unmasks_nothing,
        what_is_not_the_null_device_masks_nothing,
        a_proc_directory_that_is_exchanged_is_no_way_out,
        a_symlinked_dev_without_a_mount_stays_inside,
        symlinks_in_dev_without_a_mount_stay_inside,
        a_symlinked_console_without_a_mount_stays_inside,
        a_console_that_is_exchanged_stays_inside,
        a_symlink_at_a_masked_path_does_not_unmask,
        a_symlink_at_a_readonly_path_stays_inside,
        a_working_directory_that_is_a_symlink_stays_inside,
        a_tmpfs_copies_nothing_through_a_symlink,
        the_users_file_may_be_a_symlink_out,
        the_users_file_may_be_a_fifo_or_a_device,
    ])
}

/// How often a race is tried.
const ROUNDS: usize = 30;

/// Takes every mount at or below `/dev` out of the configuration.
fn without_dev(config: &mut Value) {
    if let Some(mounts) = config["mounts"].as_array_mut() {
        mounts.retain(|mount| !mount["destination"].as_str().is_some_and(|path| path.starts_with("/dev")));
    }
}

fn replace_by_symlink(bundle: &Bundle, inside: &str, target: impl AsRef<Path>) {
    let path = bundle.rootfs(inside);
    let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
    symlink(target, path).expect("making a symlink");
}

fn a_symlink_at_dev_stays_inside(rt: &Runtime) -> Checked {
    rt.coracle_only("runc before 1.4.3 has CVE-2026-41579")?;
    symlink_stays_inside(rt, "dev");
    Ok(())
}

fn symlinks_at_the_usual_mount_points_stay_inside(rt: &Runtime) {
    symlink_stays_inside(rt, "etc");
    symlink_stays_inside(rt, "tmp");
}

fn symlink_stays_inside(rt: &Runtime, name: &str) {
    let outside = Outside::new(rt);
    let bundle = rt.bundle(&["cat", "/proc/self/mountinfo"]).edit(|config| {
        add_mount(config, "/etc/hosts", "bind", "/etc/hostname", &["bind"]);
        add_mount(config, "/tmp/deep", "tmpfs", "tmpfs", &[]);
    });
    replace_by_symlink(&bundle, name, &outside.path);
    let ran = rt.container(&bundle).run();
    outside.is_untouched();
    // What was mounted through the link stands where it leads inside: on the host nobody would see it any more.
    if ran.status.success() {
        let path = outside.path.display();
        let expected = match name {
            "etc" => format!("{path}/hosts"),
            "tmp" => format!("{path}/deep"),
            _ => path.to_string(),
        };
        let inside = host::parse_mounts(&ran.stdout);
        assert!(inside.iter().any(|mount| mount.target == expected), "nothing at {expected}: {ran}");
    }
    rt.assert_clean();
    fs::remove_dir_all(&outside.path).expect("removing a directory of ours");
}

#[track_caller]
fn refused_with_symlink(rt: &Runtime, name: &str, target: &Path) {
    let bundle = rt.bundle(&["true"]);
    replace_by_symlink(&bundle, name, target);
    fs::create_dir_all(bundle.rootfs("tmp/elsewhere")).expect("making a directory");
    rt.container(&bundle).run().exits(1).fails();
    rt.assert_clean();
}

fn a_symlink_at_proc_is_refused(rt: &Runtime) {
    let outside = Outside::new(rt);
    refused_with_symlink(rt, "proc", &outside.path);
    refused_with_symlink(rt, "proc", Path::new("/tmp/elsewhere"));
    outside.is_untouched();
}

fn a_relative_symlink_at_proc_is_refused(rt: &Runtime) {
    refused_with_symlink(rt, "proc", Path::new("tmp/elsewhere"));
}

fn a_symlink_at_sys_is_refused(rt: &Runtime) {
    refused_with_symlink(rt, "sys", Path::new("/tmp/elsewhere"));
    refused_with_symlink(rt, "sys", Path::new("tmp/elsewhere"));
}

fn a_file_at_proc_is_refused(rt: &Runtime) {
    let bundle = rt.bundle(&["true"]);
    fs::remove_dir(bundle.rootfs("proc")).expect("removing an empty directory");
    fs::write(bundle.rootfs("proc"), "").expect("writing a file");
    rt.container(&bundle).run().exits(1).fails();
    rt.assert_clean();
}

/// Runs containers while `real` in the root filesystem is exchanged with a symlink to `target`.
fn race(
    rt: &Runtime,
    bundle: &Bundle,
    real: &str,
    target: &Path,
    check: impl Fn(&coracle_integration::Finished),
) {
    let link = bundle.rootfs(&format!("{real}.link"));
    symlink(target, &link).expect("making a symlink");
    let exchange = Exchange::start(bundle.rootfs(real), link);
    for _ in 0..ROUNDS {
        check(&rt.container(bundle).run());
    }
    drop(exchange);
    rt.assert_clean();
}

fn a_destination_that_is_exchanged_stays_inside(rt: &Runtime) -> Checked {
    rt.coracle_only("runc before 1.2 has CVE-2024-45310")?;
    let outside = Outside::new(rt);
    let bundle = rt.bundle(&["cat", "/proc/self/mountinfo"]).edit(|config| {
        add_mount(config, "/work/a/b", "tmpfs", "tmpfs", &[]);
        add_mount(config, "/work/a/file", "bind", "/etc/hostname", &["bind"]);
    });
    fs::create_dir_all(bundle.rootfs("work/a/b")).expect("making a directory");
    bundle.file("work/a/file", "", 0o644);
    race(rt, &bundle, "work/a", &outside.path, |_| outside.is_untouched());
    Ok(())
}

fn missing_parents_that_are_exchanged_stay_inside(rt: &Runtime) -> Checked {
    rt.coracle_only("runc before 1.2 has CVE-2024-45310")?;
    let outside = Outside::new(rt);
    let bundle = rt.bundle(&["true"]).edit(|config| {
        for index in 0..8 {
            add_mount(config, &format!("/work/a/{index}/new/er"), "tmpfs", "tmpfs", &[]);
            add_mount(config, &format!("/work/a/{index}/file"), "bind", "/etc/hostname", &["bind"]);
        }
    });
    fs::create_dir_all(bundle.rootfs("work/a")).expect("making a directory");
    race(rt, &bundle, "work/a", &outside.path, |_| outside.is_untouched());
    Ok(())
}

fn a_bind_destination_that_is_exchanged_stays_inside(rt: &Runtime) {
    // The target is a symlink to the host's root: a mount there would let the container see the host's files.
    let bundle = rt.script("ls /work /work/a 2>/dev/null; cat /proc/self/mountinfo").edit(|config| {
        add_mount(config, "/work/a/b", "bind", "/etc", &["bind", "ro"]);
    });
    fs::create_dir_all(bundle.rootfs("work/a/b")).expect("making a directory");
    let host_only =
        |text: &str| text.lines().any(|line| line.trim() == "lost+found" || line.trim() == "boot");
    race(rt, &bundle, "work/a", Path::new("/"), |ran| assert!(!host_only(&ran.stdout), "{ran}"));
}

fn a_null_device_that_is_exchanged_unmasks_nothing(rt: &Runtime) -> Checked {
    rt.coracle_only("runc before 1.2.8 has CVE-2025-31133")?;
    let bundle = rt.script("cat /etc/masked").edit(|config| {
        without_dev(config);
        push(config, "/linux/maskedPaths", json!("/etc/masked"));
    });
    bundle.file("etc/masked", "unmasked\n", 0o644);
    bundle.file("etc/other", "another file\n", 0o644);
    // The first run makes the device nodes.
    rt.container(&bundle).run().ok();
    race(rt, &bundle, "dev/null", Path::new("/etc/other"), |ran| {
        assert_eq!(ran.stdout, "", "masked by something that is not the null device: {ran}");
    });
    Ok(())
}

fn what_is_not_the_null_device_masks_nothing(rt: &Runtime) -> Checked {
    rt.coracle_only("runc before 1.2.8 has CVE-2025-31133")?;
    let dev = rt.own("dev");
    fs::create_dir(&dev).expect("making a directory");
    let source = dev.to_string_lossy();
    let bundle = rt.script("cat /etc/masked").edit(|config| {
        without_dev(config);
        add_mount(config, "/dev", "bind", &source, &["bind"]);
        push(config, "/linux/maskedPaths", json!("/etc/masked"));
    });
    bundle.file("etc/masked", "unmasked\n", 0o644);
    // There is none.
    assert_eq!(rt.container(&bundle).run().fails_with("/dev/null").stdout, "");
    fs::write(dev.join("null"), "a file\n").expect("writing a file");
    assert_eq!(rt.container(&bundle).run().fails_with("not the character device 1:3").stdout, "");
    Ok(())
}

fn a_proc_directory_that_is_exchanged_is_no_way_out(rt: &Runtime) {
    let outside = Outside::new(rt);
    let bundle = rt.bundle(&["cat", "/proc/self/mountinfo"]).edit(|config| {
        config["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": "1" });
    });
    race(rt, &bundle, "proc", &outside.path, |ran| {
        outside.is_untouched();
        // The directory itself may have either name by now.
        let strays = host::parse_mounts(&ran.stdout)
            .into_iter()
            .filter(|mount| mount.kind == "proc" && mount.root == "/")
            .find(|mount| !matches!(mount.target.as_str(), "/proc" | "/proc.link"));
        assert_eq!(strays, None, "proc was mounted through the link: {ran}");
    });
}

fn a_symlinked_dev_without_a_mount_stays_inside(rt: &Runtime) -> Checked {
    rt.coracle_only("runc before 1.4.3 has CVE-2026-41579")?;
    let outside = Outside::new(rt);
    let bundle = rt.bundle(&["true"]).edit(without_dev);
    replace_by_symlink(&bundle, "dev", &outside.path);
    let _ = rt.container(&bundle).run();
    outside.is_untouched();
    rt.assert_clean();
    Ok(())
}

fn symlinks_in_dev_without_a_mount_stay_inside(rt: &Runtime) {
    for name in ["null", "zero", "full", "tty", "random", "ptmx", "stdin", "fd", "console"] {
        let outside = rt.own(&format!("outside-{name}"));
        fs::create_dir(&outside).expect("making a directory");
        fs::write(outside.join("secret"), "of the host\n").expect("writing a file");
        for target in [outside.join("secret"), outside.join("new")] {
            let bundle = rt.bundle(&["true"]).edit(without_dev);
            replace_by_symlink(&bundle, &format!("dev/{name}"), &target);
            let _ = rt.container(&bundle).run();
            assert_eq!(
                fs::read_dir(&outside).expect("it is there").count(),
                1,
                "dev/{name}: made a file outside"
            );
            assert_eq!(fs::read_to_string(outside.join("secret")).expect("it is there"), "of the host\n");
        }
    }
}

fn a_symlinked_console_without_a_mount_stays_inside(rt: &Runtime) {
    let outside = Outside::new(rt);
    for target in ["secret", "new"] {
        let bundle = rt.bundle(&["true"]).edit(|config| {
            without_dev(config);
            add_mount(config, "/dev/pts", "devpts", "devpts", &["newinstance", "ptmxmode=0666"]);
            config["process"]["terminal"] = json!(true);
        });
        replace_by_symlink(&bundle, "dev/console", outside.path.join(target));
        let socket = DescriptorSocket::new(rt.scratch(&format!("console-{target}")));
        let c = rt.container(&bundle);
        // Whether it is refused or goes well, the other end of the socket may have been used.
        let _ = Running::start(c.create_command(&["--console-socket", socket.path()])).finish();
        outside.is_untouched();
        let _ = c.call("delete", &["--force"]);
    }
}

fn a_console_that_is_exchanged_stays_inside(rt: &Runtime) {
    let outside = Outside::new(rt);
    let bundle = rt.bundle(&["true"]).edit(|config| {
        without_dev(config);
        add_mount(config, "/dev/pts", "devpts", "devpts", &["newinstance", "ptmxmode=0666"]);
        config["process"]["terminal"] = json!(true);
    });
    bundle.file("dev/console", "", 0o600);
    symlink(outside.path.join("new"), bundle.rootfs("dev/console.link")).expect("making a symlink");
    fs::create_dir(bundle.rootfs("dev/console.dir")).expect("making a directory");
    let socket = DescriptorSocket::new(rt.scratch("console"));
    for other in ["dev/console.link", "dev/console.dir"] {
        let exchange = Exchange::start(bundle.rootfs("dev/console"), bundle.rootfs(other));
        for _ in 0..ROUNDS / 3 {
            let c = rt.container(&bundle);
            let _ = Running::start(c.create_command(&["--console-socket", socket.path()])).finish();
            outside.is_untouched();
            let _ = c.call("delete", &["--force"]);
        }
        drop(exchange);
    }
}

fn a_symlink_at_a_masked_path_does_not_unmask(rt: &Runtime) {
    let bundle = rt.script("cat /etc/masked /etc/behind").edit(|config| {
        push(config, "/linux/maskedPaths", json!("/etc/masked"));
    });
    bundle.file("etc/behind", "behind\n", 0o644);
    replace_by_symlink(&bundle, "etc/masked", "behind");
    // Following the link inside the root masks the file behind it; refusing it is as good.
    let ran = rt.container(&bundle).run();
    assert!(!ran.stdout.contains("behind"), "{ran}");
}

fn a_symlink_at_a_readonly_path_stays_inside(rt: &Runtime) {
    let outside = Outside::new(rt);
    let path = outside.path.display();
    let bundle = rt
        .script(&format!("echo changed > {path}/secret; cat {path}/secret"))
        .edit(|config| push(config, "/linux/readonlyPaths", json!("/etc/frozen")));
    replace_by_symlink(&bundle, "etc/frozen", &outside.path);
    bundle.file(&format!("{path}/secret"), "of the container\n", 0o644);
    // What the link means is in the container: that is what is protected, or nothing runs.
    let ran = rt.container(&bundle).run();
    assert!(!ran.status.success() || ran.stdout == "of the container\n", "{ran}");
    fs::write(outside.path.join("secret"), "of the host\n").expect("the host can still write");
    outside.is_untouched();
}

fn a_working_directory_that_is_a_symlink_stays_inside(rt: &Runtime) {
    let outside = Outside::new(rt);
    let bundle = rt.script("pwd; ls").edit(|config| config["process"]["cwd"] = json!("/work/new"));
    replace_by_symlink(&bundle, "work", &outside.path);
    let ran = rt.container(&bundle).run();
    assert!(!ran.stdout.contains("secret"), "{ran}");
    outside.is_untouched();
    if ran.status.success() {
        let made = bundle.rootfs(&outside.path.join("new").to_string_lossy());
        assert!(made.is_dir(), "{} was to be the working directory: {ran}", made.display());
    }
}

fn a_tmpfs_copies_nothing_through_a_symlink(rt: &Runtime) {
    let outside = Outside::new(rt);
    let bundle = rt.script("cat /data/* /data/*/* 2>/dev/null; true").edit(|config| {
        add_mount(config, "/data", "tmpfs", "tmpfs", &["tmpcopyup"]);
    });
    replace_by_symlink(&bundle, "data", &outside.path);
    let ran = rt.container(&bundle).run();
    assert!(!ran.stdout.contains("of the host"), "{ran}");
    outside.is_untouched();
}

fn the_users_file_may_be_a_symlink_out(rt: &Runtime) {
    let outside = Outside::new(rt);
    fs::write(outside.path.join("secret"), "root:x:0:0::/from-the-host:/bin/sh\n").expect("writing a file");
    let bundle = rt.script("echo $HOME");
    replace_by_symlink(&bundle, "etc/passwd", outside.path.join("secret"));
    let ran = rt.container(&bundle).run();
    assert!(!ran.stdout.contains("from-the-host"), "{ran}");
}

fn the_users_file_may_be_a_fifo_or_a_device(rt: &Runtime) -> Checked {
    rt.coracle_only("runc 1.1 waits for a writer, or reads without an end")?;
    let bundle = rt.script("echo here");
    replace_by_symlink(&bundle, "etc/passwd", "/dev/zero");
    let _ = rt.container(&bundle).run();
    let path = bundle.rootfs("etc/passwd");
    fs::remove_file(&path).expect("removing a symlink");
    rustix::fs::mkfifoat(CWD, &path, rustix::fs::Mode::RUSR).expect("making a fifo");
    // Either answer is fine; not to come back is not.
    let _ = rt.container(&bundle).run();
    Ok(())
}
