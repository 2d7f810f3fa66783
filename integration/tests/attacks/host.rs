//! A host that lacks what the runtime asks it: nothing that can't be seen is taken for gone.

use coracle_integration::bundle::without_namespace;
use coracle_integration::command::{in_shell, run};
use coracle_integration::{Checked, Container, Finished, Runtime, host, tests};
use libtest_mimic::Trial;

pub fn tests() -> Vec<Trial> {
    tests![
        without_procfs_a_container_does_not_count_as_ended,
        without_cgroup_hierarchies_nothing_counts_as_removed,
    ]
}

/// Calls a command in a mount namespace where something was done before.
fn call(c: &Container, rt: &Runtime, before: &str, verb: &[&str]) -> Finished {
    let command = rt.command(verb.iter().chain([&c.id.as_str()]));
    let script = format!("exec unshare --mount sh -c '{before} && exec \"$0\" \"$@\"' \"$@\"");
    run(in_shell(&script, &command))
}

fn without_procfs_a_container_does_not_count_as_ended(rt: &Runtime) -> Checked {
    rt.coracle_only("runc takes it for stopped")?;
    let bundle = rt.sleeper();
    let c = rt.container(&bundle);
    c.up();
    let hide = "mount -t tmpfs none /proc";
    for verb in [["state"].as_slice(), &["kill"], &["pause"], &["delete"], &["delete", "--force"]] {
        call(&c, rt, hide, verb).exits(1).fails_with("/proc is not a procfs");
    }
    assert_eq!(c.status(), "running");
    c.call("delete", &["--force"]).ok();
    rt.assert_clean();
    Ok(())
}

fn without_cgroup_hierarchies_nothing_counts_as_removed(rt: &Runtime) -> Checked {
    rt.coracle_only("runc forgets what it can't see")?;
    let bundle = rt.sleeper().edit(|config| without_namespace(config, "pid"));
    let c = rt.container(&bundle);
    c.up();
    let pid = c.pid();
    let hide = "mount -t tmpfs none /sys/fs/cgroup";
    for verb in [["kill", "--all"].as_slice(), &["delete", "--force"]] {
        call(&c, rt, hide, verb).exits(1).fails_with("no hierarchy is mounted on /sys/fs/cgroup");
    }
    c.wait_for("stopped");
    assert!(!host::is_alive(pid));
    // Where they can be seen, all of it goes.
    c.call("delete", &["--force"]).ok();
    rt.assert_clean();
    Ok(())
}
