//! The container's mounts, as the container's process sees them in its mountinfo.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::ExitCode;

use coracle_integration::bundle::{add_mount, grant, push};
use coracle_integration::mounts::{at, source, tmpfs_at, with_mount};
use coracle_integration::{Checked, Runtime, tests};
use nix::mount::{MsFlags, mount};
use serde_json::{Value, json};

fn main() -> ExitCode {
    coracle_integration::run_tests(tests![
        the_default_mounts_are_as_configured,
        a_bind_of_a_directory_shows_the_host,
        a_bind_of_a_file_shows_the_host,
        a_bind_source_may_be_relative_to_the_bundle,
        a_readonly_bind_cannot_be_written,
        a_bind_has_the_flags_asked_for,
        a_bind_keeps_flags_of_its_source,
        a_bind_can_clear_flags_of_its_source,
        a_bind_leaves_out_mounts_below_and_rbind_takes_them,
        recursive_readonly_reaches_mounts_below,
        recursive_flags_reach_mounts_below,
        missing_destinations_are_made,
        a_destination_through_symlinks_stays_in_the_rootfs,
        a_destination_with_dots_stays_in_the_rootfs,
        mounts_come_in_their_order,
        noexec_forbids_execution,
        no_pivot_works,
        no_pivot_leaves_no_full_procfs_of_the_host,
        a_relative_destination_is_below_the_root,
        access_times_are_as_asked,
        a_mount_of_no_type_with_bind_is_a_bind,
        a_remounted_bind_changes_what_is_there,
        a_remount_takes_propagation_and_recursive_flags,
        what_is_not_mounted_is_not_remounted,
        a_destination_below_a_rootfs_with_dots_is_meant_inside,
        many_mounts_work,
    ])
}

fn the_default_mounts_are_as_configured(rt: &Runtime) {
    let bundle = rt.sleeper();
    let c = rt.container(&bundle);
    c.up();
    let mounts = c.mounts();
    for (target, kind, flags) in [
        ("/", "", ["rw", "rw", "rw"]),
        ("/proc", "proc", ["rw", "rw", "relatime"]),
        ("/dev", "tmpfs", ["rw", "nosuid", "rw"]),
        ("/dev/pts", "devpts", ["rw", "nosuid", "noexec"]),
        ("/dev/shm", "tmpfs", ["nosuid", "nodev", "noexec"]),
        ("/dev/mqueue", "mqueue", ["nosuid", "nodev", "noexec"]),
        ("/sys", "sysfs", ["ro", "nosuid", "noexec"]),
    ] {
        let mount = at(&mounts, target);
        assert!(kind.is_empty() || mount.kind == kind, "{mount:?}");
        assert!(flags.iter().all(|flag| mount.has(flag)), "{mount:?}");
        assert!(mount.propagation.is_empty(), "nothing is shared: {mount:?}");
    }
    let dev = at(&mounts, "/dev");
    assert!(dev.fs_has("size=65536k") && dev.fs_has("mode=755"), "{dev:?}");
    assert!(!dev.has("relatime"), "strictatime was asked for: {dev:?}");
    let pts = at(&mounts, "/dev/pts");
    assert!(["gid=5", "mode=620", "ptmxmode=666"].iter().all(|option| pts.fs_has(option)), "{pts:?}");
}

fn a_bind_of_a_directory_shows_the_host(rt: &Runtime) {
    let source = source(rt, "source");
    let script = "cat /data/file; echo new > /data/new";
    rt.sh(script, |config| add_mount(config, "/data", "bind", &source, &["bind"])).ok();
    assert_eq!(fs::read_to_string(format!("{source}/new")).expect("it was written"), "new\n");
}

fn a_bind_of_a_file_shows_the_host(rt: &Runtime) {
    let file = format!("{}/file", source(rt, "source"));
    let script = "cat /etc/bound; stat -c %F /etc/bound";
    let seen = rt.sh(script, |config| add_mount(config, "/etc/bound", "bind", &file, &["rbind", "ro"]));
    assert_eq!(seen.ok().lines(), ["of the host", "regular file"]);
}

fn a_bind_source_may_be_relative_to_the_bundle(rt: &Runtime) {
    let bundle =
        rt.script("cat /data/file").edit(|config| add_mount(config, "/data", "bind", "data", &["bind"]));
    fs::create_dir(bundle.path().join("data")).expect("making a directory");
    fs::write(bundle.path().join("data/file"), "of the bundle\n").expect("writing a file");
    assert_eq!(rt.container(&bundle).run().ok().out(), "of the bundle");
}

fn a_readonly_bind_cannot_be_written(rt: &Runtime) {
    let source = source(rt, "source");
    let seen =
        rt.sh("touch /data/new", |config| add_mount(config, "/data", "bind", &source, &["bind", "ro"]));
    assert!(seen.fails().stderr.contains("Read-only"));
    assert!(!Path::new(&source).join("new").exists());
}

fn a_bind_has_the_flags_asked_for(rt: &Runtime) {
    let source = source(rt, "source");
    let (c, _bundle) =
        with_mount(rt, "/data", "bind", &source, &["rbind", "nosuid", "nodev", "noexec", "noatime"]);
    let mounts = c.mounts();
    let data = at(&mounts, "/data");
    assert!(["rw", "nosuid", "nodev", "noexec", "noatime"].iter().all(|flag| data.has(flag)), "{data:?}");
}

fn a_bind_keeps_flags_of_its_source(rt: &Runtime) {
    let source = source(rt, "source");
    tmpfs_at(&source, MsFlags::MS_NOSUID | MsFlags::MS_NODEV);
    let (c, _bundle) = with_mount(rt, "/data", "bind", &source, &["bind"]);
    let mounts = c.mounts();
    let data = at(&mounts, "/data");
    assert!(data.has("nosuid") && data.has("nodev"), "{data:?}");
}

fn a_bind_can_clear_flags_of_its_source(rt: &Runtime) -> Checked {
    rt.coracle_only("runc does so since 1.2")?;
    let source = source(rt, "source");
    tmpfs_at(&source, MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_RDONLY);
    let (c, _bundle) = with_mount(rt, "/data", "bind", &source, &["bind", "suid", "dev", "rw"]);
    let mounts = c.mounts();
    let data = at(&mounts, "/data");
    assert!(data.has("rw") && !data.has("nosuid") && !data.has("nodev"), "{data:?}");
    Ok(())
}

/// A source with a tmpfs mounted in it.
fn nested_source(rt: &Runtime) -> String {
    let source = source(rt, "source");
    let below = format!("{source}/below");
    fs::create_dir(&below).expect("making a directory");
    tmpfs_at(&below, MsFlags::empty());
    fs::write(format!("{below}/deep"), "deep\n").expect("writing a file");
    source
}

fn a_bind_leaves_out_mounts_below_and_rbind_takes_them(rt: &Runtime) {
    let source = nested_source(rt);
    let seen = rt.sh("ls /flat/below; ls /deep/below", |config| {
        add_mount(config, "/flat", "bind", &source, &["bind"]);
        add_mount(config, "/deep", "bind", &source, &["rbind"]);
    });
    assert_eq!(seen.ok().out(), "deep");
}

fn recursive_readonly_reaches_mounts_below(rt: &Runtime) {
    let source = nested_source(rt);
    let seen = rt.sh(
        "touch /top/below/new && echo top; touch /all/new || touch /all/below/new || echo all",
        |config| {
            add_mount(config, "/top", "bind", &source, &["rbind", "ro"]);
            add_mount(config, "/all", "bind", &source, &["rbind", "rro"]);
        },
    );
    assert_eq!(seen.ok().lines(), ["top", "all"]);
}

fn recursive_flags_reach_mounts_below(rt: &Runtime) {
    let source = nested_source(rt);
    let options = ["rbind", "rnosuid", "rnodev", "rnoexec", "rnoatime"];
    let (c, _bundle) = with_mount(rt, "/data", "bind", &source, &options);
    let mounts = c.mounts();
    for target in ["/data", "/data/below"] {
        let mount = at(&mounts, target);
        assert!(["nosuid", "nodev", "noexec", "noatime"].iter().all(|flag| mount.has(flag)), "{mount:?}");
    }
}

fn missing_destinations_are_made(rt: &Runtime) {
    let source = source(rt, "source");
    let bundle = rt.script("cat /a/b/c/file /d/e/f").edit(|config| {
        add_mount(config, "/a/b/c", "bind", &source, &["bind"]);
        add_mount(config, "/d/e/f", "bind", &format!("{source}/file"), &["bind"]);
    });
    assert_eq!(rt.container(&bundle).run().ok().lines(), ["of the host", "of the host"]);
    assert!(bundle.rootfs("a/b/c").is_dir());
    assert!(bundle.rootfs("d/e/f").is_file());
}

fn a_destination_through_symlinks_stays_in_the_rootfs(rt: &Runtime) {
    let bundle = rt.sleeper().edit(|config| {
        add_mount(config, "/link/sub", "tmpfs", "tmpfs", &[]);
        add_mount(config, "/up/sub", "tmpfs", "tmpfs", &[]);
    });
    fs::create_dir_all(bundle.rootfs("var/inside")).expect("making a directory");
    symlink("/var/inside", bundle.rootfs("link")).expect("making a symlink");
    symlink("../../../../var/other", bundle.rootfs("up")).expect("making a symlink");
    let c = rt.container(&bundle);
    c.up();
    let mounts = c.mounts();
    assert_eq!(at(&mounts, "/var/inside/sub").kind, "tmpfs");
    assert_eq!(at(&mounts, "/var/other/sub").kind, "tmpfs");
    assert!(!Path::new("/var/other").exists());
}

fn a_destination_with_dots_stays_in_the_rootfs(rt: &Runtime) {
    let (c, _bundle) = with_mount(rt, "/var/../../../tmp/./dots", "tmpfs", "tmpfs", &[]);
    assert_eq!(at(&c.mounts(), "/tmp/dots").kind, "tmpfs");
}

fn mounts_come_in_their_order(rt: &Runtime) {
    let source = source(rt, "source");
    let bundle = rt.sleeper().edit(|config| {
        add_mount(config, "/a", "tmpfs", "first", &[]);
        add_mount(config, "/a/b", "bind", &source, &["bind"]);
        add_mount(config, "/c/d", "tmpfs", "hidden", &[]);
        add_mount(config, "/c", "tmpfs", "second", &[]);
    });
    let c = rt.container(&bundle);
    c.up();
    let order: Vec<String> = c.mounts().into_iter().map(|mount| mount.target).collect();
    let ours: Vec<&str> = order
        .iter()
        .map(String::as_str)
        .filter(|at| at.starts_with(['/']) && at.len() > 1 && (at.starts_with("/a") || at.starts_with("/c")))
        .collect();
    assert_eq!(ours, ["/a", "/a/b", "/c/d", "/c"]);
    assert_eq!(c.exec(&["cat", "/a/b/file"]).ok().out(), "of the host");
    assert!(c.exec(&["ls", "/c/d"]).fails().stderr.contains("No such file"));
}

fn noexec_forbids_execution(rt: &Runtime) {
    let script = "cp /bin/busybox /data/busybox && /data/busybox true";
    let seen = rt.sh(script, |config| add_mount(config, "/data", "tmpfs", "tmpfs", &["noexec"]));
    assert!(seen.fails().stderr.contains("Permission denied"));
}

fn no_pivot_works(rt: &Runtime) {
    let bundle = rt.script("cat /etc/passwd; ls -d /bin /proc/self");
    let seen = rt.container(&bundle).run_with(&["--no-pivot"]).ok();
    assert!(seen.stdout.starts_with("root:x:0:0:root:/root:/bin/sh\nuser:"), "{seen}");
    assert!(seen.stdout.ends_with("/bin\n/proc/self\n"), "{seen}");
}

/// One that stayed in the host's tree below would let a user namespace inside mount a new one, with nothing masked.
fn no_pivot_leaves_no_full_procfs_of_the_host(rt: &Runtime) {
    let other = rt.own("a procfs");
    fs::create_dir_all(&other).expect("making a directory");
    mount(Some("proc"), &other, Some("proc"), MsFlags::empty(), None::<&str>).expect("mounting a procfs");
    let bundle = rt.script("unshare -U -r -m -p -f mount -t proc proc /tmp && echo mounted");
    // To map the host's root.
    let bundle = bundle.edit(|config| grant(config, &["CAP_SETFCAP"]));
    let seen = rt.container(&bundle).run_with(&["--no-pivot"]).fails();
    assert_eq!(seen.out(), "", "{seen}");
    assert!(
        other.join("self").exists() && fs::exists("/proc/self").is_ok_and(|there| there),
        "the host's stay"
    );
}

fn a_relative_destination_is_below_the_root(rt: &Runtime) {
    let (c, _bundle) = with_mount(rt, "data", "tmpfs", "tmpfs", &[]);
    assert_eq!(at(&c.mounts(), "/data").kind, "tmpfs");
}

fn access_times_are_as_asked(rt: &Runtime) {
    let bundle = rt.sleeper().edit(|config| {
        for (to, option) in
            [("/a", "noatime"), ("/b", "relatime"), ("/c", "strictatime"), ("/d", "nodiratime")]
        {
            add_mount(config, to, "tmpfs", "tmpfs", &[option]);
        }
    });
    let c = rt.container(&bundle);
    c.up();
    let mounts = c.mounts();
    assert!(at(&mounts, "/a").has("noatime"));
    assert!(at(&mounts, "/b").has("relatime"));
    assert!(!at(&mounts, "/c").has("relatime") && !at(&mounts, "/c").has("noatime"));
    assert!(at(&mounts, "/d").has("nodiratime"));
}

fn a_mount_of_no_type_with_bind_is_a_bind(rt: &Runtime) {
    let source = source(rt, "source");
    let seen = rt.sh("cat /data/file", |config: &mut Value| {
        push(config, "/mounts", json!({ "destination": "/data", "source": source, "options": ["rbind"] }));
    });
    assert_eq!(seen.ok().out(), "of the host");
}

fn many_mounts_work(rt: &Runtime) {
    let source = source(rt, "source");
    let seen = rt.sh("grep -c ' /many/' /proc/self/mountinfo", |config| {
        for index in 0..300 {
            add_mount(config, &format!("/many/{index}"), "bind", &source, &["bind", "ro"]);
        }
    });
    assert_eq!(seen.ok().out(), "300");
}

fn a_remounted_bind_changes_what_is_there(rt: &Runtime) {
    let own = source(rt, "other");
    for source in [None, Some(own.as_str())] {
        let bundle = rt.sleeper().edit(|config| {
            add_mount(config, "/x", "tmpfs", "mine", &["nosuid", "noexec", "mode=700"]);
            let mut again = json!({ "destination": "/x", "options": ["remount", "bind", "ro", "nodev"] });
            if let Some(source) = source {
                again["source"] = json!(source);
            }
            push(config, "/mounts", again);
        });
        let c = rt.container(&bundle);
        c.up();
        let mounts = c.mounts();
        assert_eq!(
            mounts.iter().filter(|mount| mount.target == "/x").count(),
            1,
            "nothing is mounted over it"
        );
        let there = at(&mounts, "/x");
        assert_eq!((there.kind.as_str(), there.has("ro"), there.has("nodev")), ("tmpfs", true, true));
        // As remounting with mount(2) does, and runc.
        assert!(!there.has("nosuid") && !there.has("noexec"), "{there:?}");
        assert!(there.fs_has("rw"), "only the mount is read-only: {there:?}");
    }
}

fn a_remount_takes_propagation_and_recursive_flags(rt: &Runtime) -> Checked {
    rt.coracle_only("runc takes the propagation, but no recursive flags")?;
    let bundle = rt.sleeper().edit(|config| {
        add_mount(config, "/x", "tmpfs", "tmpfs", &[]);
        add_mount(config, "/x/below", "tmpfs", "tmpfs", &[]);
        add_mount(config, "/x", "tmpfs", "tmpfs", &["remount", "nodev", "rnoexec", "shared"]);
    });
    let c = rt.container(&bundle);
    c.up();
    let mounts = c.mounts();
    let (there, below) = (at(&mounts, "/x"), at(&mounts, "/x/below"));
    assert!(there.has("nodev") && there.has("noexec"), "{there:?}");
    assert!(there.propagation.iter().any(|tag| tag.starts_with("shared:")), "{there:?}");
    assert!(!below.has("nodev") && below.has("noexec") && below.propagation.is_empty(), "{below:?}");
    Ok(())
}

fn what_is_not_mounted_is_not_remounted(rt: &Runtime) -> Checked {
    rt.coracle_only("runc's message has no place")?;
    for options in [&["remount", "ro"][..], &["remount", "bind", "ro"]] {
        let seen = rt.sh("true", |config| add_mount(config, "/tmp", "tmpfs", "tmpfs", options));
        seen.fails_with("mounts[7]");
    }
    Ok(())
}

fn a_destination_below_a_rootfs_with_dots_is_meant_inside(rt: &Runtime) {
    let bundle = rt.script("grep -c ' /x/y ' /proc/self/mountinfo");
    let name = bundle.path().file_name().expect("a name").to_string_lossy().into_owned();
    let target = bundle.rootfs("x/y").to_string_lossy().into_owned();
    let bundle = bundle.edit(|config| {
        config["root"]["path"] = json!(format!("../{name}/./rootfs"));
        add_mount(config, &target, "tmpfs", "tmpfs", &[]);
    });
    assert_eq!(rt.container(&bundle).run().ok().out(), "1");
}
