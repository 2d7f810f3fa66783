//! Containers that may write their cgroups, and use them against the commands that come.

use std::fs;

use coracle_integration::bundle::without_namespace;
use coracle_integration::command::{Running, eventually};
use coracle_integration::{Checked, Container, Runtime, Skip, host, tests};
use libtest_mimic::Trial;
use serde_json::json;

pub fn tests() -> Vec<Trial> {
    tests![
        a_container_that_froze_itself_is_deleted_by_force,
        a_container_that_froze_itself_is_killed,
        a_container_that_froze_itself_is_killed_without_a_pid_namespace,
        a_container_that_freezes_its_children_again_and_again_is_deleted_by_force,
        a_pause_that_meets_a_delete_keeps_nothing_alive,
        a_cgroup_named_like_a_file_is_no_file,
    ]
}

/// A container that may write its cgroups, and does this in the freezer's.
fn up<'r>(rt: &'r Runtime, script: &str, own_pids: bool) -> Result<Container<'r>, Skip> {
    host::need_v1("freezer")?;
    rt.coracle_only("runc waits for a frozen process to end")?;
    Ok(up_with(rt, &format!("cd /sys/fs/cgroup/freezer && mkdir in && {script}"), own_pids))
}

/// A container that may write its cgroups.
fn up_with<'r>(rt: &'r Runtime, script: &str, own_pids: bool) -> Container<'r> {
    let bundle = rt.script(script).edit(|config| {
        let cgroups = config["mounts"].as_array_mut().and_then(|mounts| mounts.last_mut());
        cgroups.expect("the cgroup mount")["options"] = json!(["nosuid", "noexec", "nodev", "relatime"]);
        if !own_pids {
            without_namespace(config, "pid");
        }
    });
    let c = rt.container(&bundle);
    c.up();
    c
}

const FREEZE_ITSELF: &str = "echo $$ > in/cgroup.procs && echo FROZEN > in/freezer.state; sleep 1021";

/// Waits until the container's first process is frozen.
fn await_frozen(c: &Container) {
    let pid = c.pid();
    let is_frozen = || {
        host::cgroup_of(pid, "freezer")
            .filter(|cgroup| cgroup.ends_with("in"))
            .and_then(|cgroup| fs::read_to_string(cgroup.join("freezer.state")).ok())
            .is_some_and(|state| state.trim() == "FROZEN")
    };
    assert!(eventually(is_frozen), "{}", c.output());
}

fn a_container_that_froze_itself_is_deleted_by_force(rt: &Runtime) -> Checked {
    let c = up(rt, FREEZE_ITSELF, true)?;
    await_frozen(&c);
    c.call("delete", &["--force"]).ok();
    rt.assert_clean();
    Ok(())
}

fn a_container_that_froze_itself_is_killed(rt: &Runtime) -> Checked {
    frozen_by_itself_is_killed(rt, true)
}

fn a_container_that_froze_itself_is_killed_without_a_pid_namespace(rt: &Runtime) -> Checked {
    frozen_by_itself_is_killed(rt, false)
}

fn frozen_by_itself_is_killed(rt: &Runtime, own_pids: bool) -> Checked {
    let c = up(rt, FREEZE_ITSELF, own_pids)?;
    await_frozen(&c);
    c.kill("KILL").ok();
    c.wait_for("stopped");
    c.delete().ok();
    rt.assert_clean();
    Ok(())
}

fn a_container_that_freezes_its_children_again_and_again_is_deleted_by_force(rt: &Runtime) -> Checked {
    let script = "sleep 1021 & echo $! > in/cgroup.procs; echo ready; \
                  while :; do echo FROZEN > in/freezer.state; done";
    let c = up(rt, script, true)?;
    c.wait_for_output("ready");
    c.call("delete", &["--force"]).ok();
    rt.assert_clean();
    Ok(())
}

/// On cgroup v1 a frozen process isn't killed: one that is frozen right after it was sent SIGKILL either.
fn a_pause_that_meets_a_delete_keeps_nothing_alive(rt: &Runtime) -> Checked {
    rt.coracle_only("runc waits for a frozen process to end")?;
    let bundle = rt.sleeper();
    for _ in 0..30 {
        let c = rt.container(&bundle);
        c.up();
        let pause = Running::start(rt.command(["pause", &c.id]));
        c.call("delete", &["--force"]).ok();
        // Either came first.
        let _ = pause.finish();
    }
    rt.assert_clean();
    Ok(())
}

/// The kernel takes any name for a new cgroup that no file of its has: names of files that other kernels have, too.
fn a_cgroup_named_like_a_file_is_no_file(rt: &Runtime) -> Checked {
    host::need_v1("blkio")?;
    rt.coracle_only("runc reads directories")?;
    let names = "io_service_bytes_recursive io_serviced_recursive sectors_recursive time_recursive";
    let script = format!(
        "cd /sys/fs/cgroup/blkio && for name in {names}; do mkdir blkio.$name; done; echo made; sleep 1021"
    );
    let c = up_with(rt, &script, true);
    c.wait_for_output("made");
    c.call("events", &["--stats"]).ok();
    c.call("delete", &["--force"]).ok();
    rt.assert_clean();
    Ok(())
}
