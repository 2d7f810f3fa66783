//! What may be a container's root filesystem, and what may stand on it.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::ExitCode;

use coracle_integration::bundle::{add_mount, without_namespace};
use coracle_integration::{Checked, Runtime, host, place, tests};
use nix::mount::{MsFlags, mount};
use serde_json::json;

fn main() -> ExitCode {
    coracle_integration::run_tests(tests![
        the_root_of_the_host_is_no_rootfs,
        a_bind_mount_of_a_rootfs_is_one,
        nothing_is_mounted_on_the_root,
        a_link_to_the_root_is_not_mounted_on,
        mounts_on_the_host_are_undone_and_nobody_elses,
    ])
}

fn the_root_of_the_host_is_no_rootfs(rt: &Runtime) {
    for path in ["/", "/tmp/.."] {
        let seen = rt.sh("true", |config| config["root"]["path"] = json!(path)).fails();
        assert!(seen.stderr.contains("root.path") || seen.stderr.contains("pivot_root"), "{seen}");
    }
    let bundle = rt.script("true").edit(|config| config["root"]["path"] = json!("link"));
    symlink("/", bundle.path().join("link")).expect("a link");
    rt.container(&bundle).run().fails();
}

fn a_bind_mount_of_a_rootfs_is_one(rt: &Runtime) {
    let bundle = rt.script("echo inside");
    let place = rt.own("rootfs");
    fs::create_dir_all(&place).expect("making a directory");
    mount(Some(&bundle.rootfs("")), &place, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .expect("bind mount");
    let bundle = bundle.edit(|config| config["root"]["path"] = json!(place));
    assert_eq!(rt.container(&bundle).run().ok().out(), "inside");
}

fn nothing_is_mounted_on_the_root(rt: &Runtime) {
    for (target, kind, options) in [
        ("/", "tmpfs", &[][..]),
        ("/", "bind", &["rbind"]),
        ("/mnt/..", "tmpfs", &[]),
        ("/", "bind", &["bind", "remount", "ro"]),
    ] {
        let seen = rt.sh("true", |config| {
            config["mounts"] = json!([]);
            add_mount(config, target, kind, "/tmp", options);
        });
        seen.fails_with("on the top of rootfs");
    }
    let seen = rt.sh("true", |config| {
        without_namespace(config, "cgroup");
        add_mount(config, "/mnt", "tmpfs", "tmpfs", &[]);
    });
    seen.ok();
}

fn a_link_to_the_root_is_not_mounted_on(rt: &Runtime) {
    let bundle = rt.script("true").edit(|config| add_mount(config, "/link", "tmpfs", "tmpfs", &[]));
    symlink("/", bundle.rootfs("/link")).expect("a link");
    let seen = rt.container(&bundle).run().fails();
    assert!(seen.stderr.contains("/link"), "{seen}");
}

fn mounts_on_the_host_are_undone_and_nobody_elses(rt: &Runtime) -> Checked {
    rt.coracle_only("runc leaves what it mounted without a mount namespace")?;
    let own = rt.own("host");
    let of_host = own.join("sub");
    fs::create_dir_all(&of_host).expect("making a directory");
    mount(Some("of-host"), &of_host, Some("tmpfs"), MsFlags::empty(), None::<&str>)
        .expect("mounting a tmpfs");
    let through_links = |last: &'static str| {
        let bundle = rt.script("true").edit(|config| {
            without_namespace(config, "mount");
            config["mounts"] = json!([]);
            for list in ["maskedPaths", "readonlyPaths"] {
                config["linux"][list] = json!([]);
            }
            add_mount(config, "/way/sub", "tmpfs", "of-container", &[]);
            add_mount(config, "/last", "tmpfs", "of-container", &[]);
            add_mount(config, "/real", "bind", "/proc", &["rbind"]);
            add_mount(config, "/end", last, "of-container", &[]);
        });
        fs::create_dir(bundle.rootfs("/real")).expect("making a directory");
        symlink(&own, bundle.rootfs("/way")).expect("a link");
        symlink("/real", bundle.rootfs("/last")).expect("a link");
        bundle
    };
    let untouched = || host::mounts_below(&own).contains(&of_host);
    for (last, works) in [("tmpfs", true), ("no-such-filesystem", false)] {
        let bundle = through_links(last);
        let seen = rt.container(&bundle).run();
        assert_eq!(seen.status.success(), works, "{seen}");
        assert!(untouched(), "the host's mount is gone");
        assert!(host::mounts_below(bundle.path()).is_empty(), "{:?}", host::mounts_below(bundle.path()));
    }
    // One that the host puts in the way meanwhile isn't the container's.
    let bundle = through_links("tmpfs");
    let c = rt.container(&bundle);
    c.create().ok();
    let covered = bundle.rootfs("/end");
    mount(Some("of-host"), &covered, Some("tmpfs"), MsFlags::empty(), None::<&str>)
        .expect("mounting a tmpfs");
    c.delete().ok();
    assert!(untouched());
    assert_eq!(host::mounts_below(bundle.path()).len(), 2, "the host's, and the one below it");
    place::unmount_below(bundle.path());
    Ok(())
}
