//! Bundles of these tests.

use std::fs;
use std::os::unix::fs::lchown;
use std::path::Path;

use coracle_integration::bundle::push;
use coracle_integration::command::Finished;
use coracle_integration::{Bundle, Container, Runtime};
use serde_json::{Value, json};

/// The first host id of the mappings here, and how many there are.
pub const BASE: u32 = 200_000;

pub const COUNT: u32 = 65_536;

pub fn map(config: &mut Value, inside: u32, outside: u32, size: u32) {
    let mapping = json!({ "containerID": inside, "hostID": outside, "size": size });
    for list in ["uidMappings", "gidMappings"] {
        push(config, &format!("/linux/{list}"), mapping.clone());
    }
}

/// Adds a user namespace with the mapping of these tests.
pub fn mapped(config: &mut Value) {
    push(config, "/linux/namespaces", json!({ "type": "user" }));
    map(config, 0, BASE, COUNT);
}

/// Gives a root filesystem to a host id, so that the container's root owns it.
pub fn give(path: &Path, id: u32) {
    lchown(path, Some(id), Some(id)).expect("chown in the rootfs");
    if path.is_dir() && !path.is_symlink() {
        for entry in fs::read_dir(path).expect("reading the rootfs") {
            give(&entry.expect("reading the rootfs").path(), id);
        }
    }
}

pub fn script(rt: &Runtime, script: &str, edit: impl FnOnce(&mut Value)) -> Bundle {
    let bundle = rt.script(script).edit(|config| {
        mapped(config);
        edit(config);
    });
    give(&bundle.rootfs(""), BASE);
    bundle
}

#[track_caller]
pub fn sh(rt: &Runtime, text: &str, edit: impl FnOnce(&mut Value)) -> Finished {
    let bundle = script(rt, text, edit);
    rt.container(&bundle).run()
}

pub fn sleeper(rt: &Runtime, edit: impl FnOnce(&mut Value)) -> Container<'_> {
    let bundle = script(rt, "trap 'exit 0' TERM; while :; do sleep 1000 & wait $!; done", edit);
    let c = rt.container(&bundle);
    c.up();
    c
}
