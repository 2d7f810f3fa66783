//! The same bundles and the same execs under runc 1.3 and under the runtime under test, where one or the other has a user
//! namespace, joins namespaces or has a terminal: what the process sees must be the same.

mod console;
mod exec;
mod inside;
mod joined;

use std::process::ExitCode;

use coracle_integration::beside::{END, PROBE, seen};
use coracle_integration::bundle::push;
use coracle_integration::{Bundle, Runtime};
use serde_json::{Value, json};

fn main() -> ExitCode {
    let mut tests = joined::tests();
    tests.extend(inside::tests());
    tests.extend(exec::tests());
    tests.extend(console::tests());
    coracle_integration::run_tests(tests)
}

/// The first host id of the user namespaces here; one for each of 65536 ids.
const BASE: u32 = 200_000;

/// Gives the container a user namespace.
fn map(config: &mut Value) {
    push(config, "/linux/namespaces", json!({ "type": "user" }));
    for list in ["uidMappings", "gidMappings"] {
        config["linux"][list] = json!([{ "containerID": 0, "hostID": BASE, "size": 65_536 }]);
    }
}

/// Whether the container's root is a user of the host.
fn is_mapped(config: &Value) -> bool {
    let namespaces = config["linux"]["namespaces"].as_array().expect("namespaces");
    namespaces.iter().any(|namespace| namespace["type"] == "user")
}

/// Gives the root filesystem to whom the container's root is.
fn give(bundle: &Bundle) {
    fn give(path: &std::path::Path) {
        std::os::unix::fs::lchown(path, Some(BASE), Some(BASE)).expect("chown in the rootfs");
        if path.is_dir() && !path.is_symlink() {
            for entry in std::fs::read_dir(path).expect("reading the rootfs") {
                give(&entry.expect("reading the rootfs").path());
            }
        }
    }
    if is_mapped(&bundle.config) {
        give(&bundle.rootfs(""));
    }
}

/// The probe with more at its end.
fn probe_and(more: &str) -> String {
    format!("{PROBE}section more; {more}\n{END}")
}

/// What the process of such a bundle sees; or that the runtime refuses the bundle, which it must give a reason for.
#[track_caller]
fn look(rt: &Runtime, more: &str, known: &[(&str, i32)], edit: impl FnOnce(&mut Value)) -> Vec<String> {
    let bundle = rt.script(&probe_and(more)).edit(edit);
    give(&bundle);
    let c = rt.container(&bundle);
    let ran = c.run();
    if !ran.status.success() && ran.stdout.is_empty() {
        assert!(!ran.stderr.trim().is_empty(), "a refusal needs a reason: {ran}");
        return vec!["it is refused".to_owned()];
    }
    seen(&ran.stdout, rt, &c.id, &[known, &[("the host's", own_pid())]].concat())
}

fn own_pid() -> i32 {
    std::process::id().cast_signed()
}
