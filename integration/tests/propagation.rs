//! Propagation of mounts between the host and the container.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use coracle_integration::bundle::add_mount;
use coracle_integration::command::{command, run};
use coracle_integration::mounts::{at, source, tmpfs_at, with_mount};
use coracle_integration::{Checked, Runtime, tests};
use nix::mount::{MsFlags, mount};
use serde_json::json;

fn main() -> ExitCode {
    coracle_integration::run_tests(tests![
        a_private_mount_gets_nothing_from_the_host,
        a_slave_mount_gets_what_the_host_mounts,
        a_shared_mount_gives_to_the_host,
        the_rootfs_has_the_propagation_asked_for,
        an_unbindable_mount_is_unbindable,
        no_mount_of_the_host_is_seen,
        the_host_sees_no_new_mount,
    ])
}

/// A directory whose mount is shared in this place, with an empty directory `sub`.
fn shared_source(rt: &Runtime) -> String {
    let source = source(rt, "source");
    tmpfs_at(&source, MsFlags::empty());
    mount(None::<&str>, source.as_str(), None::<&str>, MsFlags::MS_SHARED, None::<&str>)
        .expect("making it shared");
    fs::create_dir(format!("{source}/sub")).expect("making a directory");
    source
}

fn a_private_mount_gets_nothing_from_the_host(rt: &Runtime) {
    let source = shared_source(rt);
    let (c, _bundle) = with_mount(rt, "/data", "bind", &source, &["rbind", "rprivate"]);
    assert!(at(&c.mounts(), "/data").propagation.is_empty());
    tmpfs_at(&format!("{source}/sub"), MsFlags::empty());
    assert!(!c.mounts().iter().any(|mount| mount.target == "/data/sub"));
}

fn a_slave_mount_gets_what_the_host_mounts(rt: &Runtime) {
    let source = shared_source(rt);
    let bundle = rt.sleeper().edit(|config| {
        add_mount(config, "/data", "bind", &source, &["rbind", "rslave"]);
        config["linux"]["rootfsPropagation"] = json!("rslave");
    });
    let c = rt.container(&bundle);
    c.up();
    assert!(at(&c.mounts(), "/data").propagation.iter().any(|tag| tag.starts_with("master:")));
    tmpfs_at(&format!("{source}/sub"), MsFlags::empty());
    assert!(c.mounts().iter().any(|mount| mount.target == "/data/sub"));
}

fn a_shared_mount_gives_to_the_host(rt: &Runtime) {
    let source = shared_source(rt);
    let bundle = rt.sleeper().edit(|config| {
        add_mount(config, "/data", "bind", &source, &["rbind", "rshared"]);
        config["linux"]["rootfsPropagation"] = json!("shared");
        coracle_integration::bundle::grant(config, &["CAP_SYS_ADMIN"]);
    });
    let c = rt.container(&bundle);
    c.up();
    assert!(at(&c.mounts(), "/data").propagation.iter().any(|tag| tag.starts_with("shared:")));
    c.exec(&["mount", "-t", "tmpfs", "tmpfs", "/data/sub"]).ok();
    let sub = format!("{source}/sub");
    assert!(
        coracle_integration::host::mounts_below(Path::new(&sub)).len() == 1,
        "the host does not see the mount"
    );
}

fn the_rootfs_has_the_propagation_asked_for(rt: &Runtime) -> Checked {
    rt.coracle_only("runc does so since 1.3.1")?;
    for (asked, expected) in [("private", ""), ("shared", "shared:"), ("unbindable", "unbindable")] {
        let bundle = rt.sleeper().edit(|config| config["linux"]["rootfsPropagation"] = json!(asked));
        let c = rt.container(&bundle);
        c.up();
        let mounts = c.mounts();
        let tags = &mounts.iter().find(|mount| mount.target == "/").expect("a root").propagation;
        if expected.is_empty() {
            assert!(tags.is_empty(), "{asked}: {tags:?}");
        } else {
            assert!(tags.iter().any(|tag| tag.starts_with(expected)), "{asked}: {tags:?}");
        }
    }
    Ok(())
}

fn an_unbindable_mount_is_unbindable(rt: &Runtime) {
    let (c, _bundle) = with_mount(rt, "/data", "tmpfs", "tmpfs", &["unbindable"]);
    assert_eq!(at(&c.mounts(), "/data").propagation, ["unbindable"]);
}

fn no_mount_of_the_host_is_seen(rt: &Runtime) {
    let bundle = rt.sleeper();
    let c = rt.container(&bundle);
    c.up();
    let allowed = ["/proc", "/dev", "/sys"];
    for mount in c.mounts() {
        let below = allowed.iter().any(|top| Path::new(&mount.target).starts_with(top));
        assert!(mount.target == "/" || below, "{mount:?}");
    }
}

fn the_host_sees_no_new_mount(rt: &Runtime) {
    let mine = || fs::read_to_string("/proc/self/mountinfo").expect("our mounts");
    let scratch = rt.scratch("");
    let count = |text: &str| text.lines().filter(|line| line.contains(&*scratch.to_string_lossy())).count();
    let bundle = rt.sleeper().edit(|config| config["linux"]["rootfsPropagation"] = json!("rslave"));
    let c = rt.container(&bundle);
    c.up();
    c.exec(&["true"]).ok();
    assert_eq!(count(&mine()), 0, "{}", mine());
    // Another process of this mount namespace sees as much.
    let shown = run(command("cat", &["/proc/self/mountinfo"])).ok();
    assert_eq!(count(&shown.stdout), 0, "{shown}");
}
