//! What a container may not see or write: `linux.maskedPaths`, `linux.readonlyPaths` and a read-only root.

use std::fs;
use std::process::ExitCode;

use coracle_integration::bundle::push;
use coracle_integration::{Checked, Runtime, tests};
use serde_json::json;

fn main() -> ExitCode {
    coracle_integration::run_tests(tests![
        the_rootfs_is_writable_unless_readonly,
        a_readonly_rootfs_cannot_be_written,
        masked_files_are_empty,
        masked_directories_are_empty_and_readonly,
        masked_paths_that_do_not_exist_are_fine,
        readonly_paths_cannot_be_written,
        readonly_paths_that_do_not_exist_are_fine,
        a_readonly_root_path_makes_the_root_readonly,
        the_root_is_not_masked,
    ])
}

fn the_rootfs_is_writable_unless_readonly(rt: &Runtime) {
    let bundle = rt.script("echo text > /file");
    rt.container(&bundle).run().ok();
    assert_eq!(fs::read_to_string(bundle.rootfs("file")).expect("it was written"), "text\n");
}

fn a_readonly_rootfs_cannot_be_written(rt: &Runtime) {
    let script =
        "touch /file; touch /etc/file; mount -o remount,rw / ; touch /file; touch /dev/shm/ok && echo shm";
    let seen = rt.sh(script, |config| config["root"]["readonly"] = json!(true)).ok();
    assert_eq!(seen.out(), "shm");
    assert!(seen.stderr.contains("Read-only file system"), "{seen}");
}

fn masked_files_are_empty(rt: &Runtime) {
    let bundle = rt.script("cat /etc/secret | wc -c; echo text > /etc/secret; cat /etc/secret | wc -c; stat -c '%F %t:%T' /etc/secret")
        .edit(|config| push(config, "/linux/maskedPaths", json!("/etc/secret")));
    let secret = bundle.file("etc/secret", "secret\n", 0o644);
    let seen = rt.container(&bundle).run().ok();
    assert_eq!(seen.lines(), ["0", "0", "character special file 1:3"]);
    assert_eq!(fs::read_to_string(secret).expect("it is still there"), "secret\n");
}

fn masked_directories_are_empty_and_readonly(rt: &Runtime) {
    let bundle = rt
        .script("ls -A /etc/secrets | wc -l; touch /etc/secrets/new")
        .edit(|config| push(config, "/linux/maskedPaths", json!("/etc/secrets")));
    bundle.file("etc/secrets/file", "secret\n", 0o644);
    let seen = rt.container(&bundle).run().fails();
    assert_eq!(seen.out(), "0");
    assert!(seen.stderr.contains("Read-only"), "{seen}");
}

fn masked_paths_that_do_not_exist_are_fine(rt: &Runtime) {
    rt.sh("test ! -e /not/there", |config| {
        push(config, "/linux/maskedPaths", json!("/not/there"));
        push(config, "/linux/maskedPaths", json!("/proc/not-there"));
    })
    .ok();
}

fn readonly_paths_cannot_be_written(rt: &Runtime) {
    let bundle = rt.script("touch /data/sub/new; echo text > /data/file; echo 1 > /proc/sys/net/ipv4/ip_forward; touch /etc/new && echo etc")
        .edit(|config| {
            push(config, "/linux/readonlyPaths", json!("/data/sub"));
            push(config, "/linux/readonlyPaths", json!("/data/file"));
        });
    bundle.file("data/sub/old", "", 0o644);
    bundle.file("data/file", "old\n", 0o644);
    let seen = rt.container(&bundle).run().ok();
    assert_eq!(seen.out(), "etc");
    assert_eq!(seen.stderr.matches("Read-only file system").count(), 3, "{seen}");
}

fn readonly_paths_that_do_not_exist_are_fine(rt: &Runtime) {
    rt.sh("true", |config| push(config, "/linux/readonlyPaths", json!("/not/there"))).ok();
}

fn a_readonly_root_path_makes_the_root_readonly(rt: &Runtime) {
    let seen = rt.sh("touch /new; touch /dev/shm/new && echo below", |config| {
        push(config, "/linux/readonlyPaths", json!("/"));
    });
    assert!(seen.stderr.contains("Read-only"), "{seen}");
    assert_eq!(seen.ok().out(), "below");
}

fn the_root_is_not_masked(rt: &Runtime) -> Checked {
    rt.coracle_only("runc mounts something that nobody sees")?;
    let seen = rt.sh("true", |config| push(config, "/linux/maskedPaths", json!("/tmp/..")));
    seen.fails_with("linux.maskedPaths[10]");
    Ok(())
}
