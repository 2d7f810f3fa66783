//! Somebody who changes the root filesystem while the container is made.

use std::fs;

use coracle_integration::bundle::add_mount;
use coracle_integration::command::{command, run};
use coracle_integration::hostile::Exchange;
use coracle_integration::{Checked, Runtime, host, tests};
use libtest_mimic::Trial;
use serde_json::json;

pub fn tests() -> Vec<Trial> {
    tests![
        a_proc_directory_that_is_exchanged_unprotects_nothing,
        a_file_that_becomes_a_fifo_is_not_waited_for,
    ]
}

/// How often a race is tried.
const ROUNDS: usize = 40;

/// A directory that holds a mount can be renamed, and the mount goes with it. What is to be read-only is so all the same.
fn a_proc_directory_that_is_exchanged_unprotects_nothing(rt: &Runtime) -> Checked {
    rt.coracle_only("runc looks for what it masks by its path alone")?;
    let script = "cat /proc/self/mountinfo 2>/dev/null || cat /proc.other/self/mountinfo";
    let bundle = rt.script(script);
    fs::create_dir(bundle.rootfs("proc.other")).expect("making a directory");
    let exchange = Exchange::start(bundle.rootfs("proc"), bundle.rootfs("proc.other"));
    for _ in 0..ROUNDS {
        let ran = rt.container(&bundle).run();
        let mounts = host::parse_mounts(&ran.stdout);
        // Where they stand changes from one line of the list to the next.
        let of_proc = |root: &str| mounts.iter().find(|mount| mount.kind == "proc" && mount.root == root);
        if of_proc("/").is_some() {
            assert!(of_proc("/sys").is_some_and(|sys| sys.has("ro")), "proc/sys can be written to: {ran}");
        }
    }
    drop(exchange);
    rt.assert_clean();
    Ok(())
}

fn a_file_that_becomes_a_fifo_is_not_waited_for(rt: &Runtime) -> Checked {
    rt.coracle_only("runc opens what it copies by its path")?;
    let bundle = rt.bundle(&["true"]).edit(|config| {
        add_mount(config, "/data", "tmpfs", "tmpfs", &["tmpcopyup"]);
        config["linux"]["maskedPaths"] = json!([]);
    });
    bundle.file("data/file", "a file\n", 0o644);
    for index in 0..50 {
        bundle.file(&format!("data/more{index}"), "a file\n", 0o644);
    }
    let fifo = bundle.rootfs("fifo");
    run(command("mkfifo", &[&fifo.to_string_lossy()])).ok();
    let exchange = Exchange::start(bundle.rootfs("data/file"), fifo);
    for _ in 0..ROUNDS {
        // Copied or refused: either is an end.
        let _ = rt.container(&bundle).run();
    }
    drop(exchange);
    rt.assert_clean();
    Ok(())
}
