//! `update`: what it changes on a host with cgroup v1, what it leaves alone, and what it refuses.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use coracle_integration::bundle::Bundle;
use coracle_integration::command::{Finished, run_with_input};
use coracle_integration::{Checked, Container, Runtime, host, skip, tests};
use serde_json::{Value, json};

fn main() -> ExitCode {
    coracle_integration::run_tests(tests![
        repeated_devices_keep_what_was_allowed_from_outside,
        changed_devices_are_applied_and_taken_back,
        a_pids_limit_that_is_not_given_is_left_alone,
        limits_are_read_as_in_config_json,
        a_refused_update_puts_every_file_back,
        the_oom_killer_can_be_switched_on_again,
        an_idle_cgroup_has_no_shares,
        the_configuration_may_ask_for_a_check_of_the_usage,
        limits_on_kernel_memory_are_ignored,
        empty_flags_are_as_none,
        what_is_unknown_is_warned_of,
        a_list_is_refused,
    ])
}

/// A running container of the bundle with these resources, and the whole of its `linux.resources`.
fn up<'r>(rt: &'r Runtime, resources: &Value) -> (Container<'r>, Value) {
    let mut whole = Value::Null;
    let bundle: Bundle = rt.sleeper().edit(|config| {
        for (key, value) in resources.as_object().expect("an object") {
            config["linux"]["resources"][key] = value.clone();
        }
        whole = config["linux"]["resources"].clone();
    });
    let c = rt.container(&bundle);
    c.up();
    (c, whole)
}

fn update(rt: &Runtime, c: &Container, resources: &Value) -> Finished {
    run_with_input(rt.command(["update", "--resources", "-", &c.id]), &resources.to_string())
}

#[track_caller]
fn directory(c: &Container, controller: &str) -> PathBuf {
    host::cgroup_of(c.pid(), controller).expect("the container has a cgroup there")
}

#[track_caller]
fn read(c: &Container, controller: &str, file: &str) -> String {
    let path = directory(c, controller).join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.trim().to_owned()
}

fn may(c: &Container, device: &str) -> bool {
    read(c, "devices", "devices.list").lines().any(|line| line == device)
}

/// An engine repeats the whole of `linux.resources`; a graphics card was allowed by somebody else.
fn repeated_devices_keep_what_was_allowed_from_outside(rt: &Runtime) -> Checked {
    host::need_v1("devices")?;
    host::need_v1("pids")?;
    let (c, mut whole) = up(rt, &json!({ "devices": [{ "allow": false, "access": "rwm" }] }));
    fs::write(directory(&c, "devices").join("devices.allow"), "c 10:229 rwm").expect("a rule");
    whole["pids"] = json!({ "limit": 33 });
    update(rt, &c, &whole).ok();
    assert_eq!(read(&c, "pids", "pids.max"), "33");
    assert!(may(&c, "c 10:229 rwm"), "{}", read(&c, "devices", "devices.list"));
    Ok(())
}

fn changed_devices_are_applied_and_taken_back(rt: &Runtime) -> Checked {
    host::need_v1("devices")?;
    rt.coracle_only("others never update devices")?;
    let (c, whole) = up(rt, &json!({ "devices": [{ "allow": false, "access": "rwm" }] }));
    let fuse = json!({ "allow": true, "type": "c", "major": 10, "minor": 229, "access": "rwm" });
    update(rt, &c, &json!({ "devices": [{ "allow": false, "access": "rwm" }, fuse] })).ok();
    assert!(may(&c, "c 10:229 rwm"));
    update(rt, &c, &whole).ok();
    assert!(!may(&c, "c 10:229 rwm"));
    Ok(())
}

fn a_pids_limit_that_is_not_given_is_left_alone(rt: &Runtime) -> Checked {
    host::need_v1("pids")?;
    let (c, _) = up(rt, &json!({ "pids": { "limit": 44 } }));
    update(rt, &c, &json!({ "pids": {} })).ok();
    assert_eq!(read(&c, "pids", "pids.max"), "44");
    Ok(())
}

fn limits_are_read_as_in_config_json(rt: &Runtime) -> Checked {
    host::need_v1("pids")?;
    let (c, mut whole) = up(rt, &json!({}));
    whole["devices"] = json!([{ "allow": false, "type": "", "access": "rwm" }]);
    whole["pids"] = json!({ "limit": 45 });
    update(rt, &c, &whole).ok();
    assert_eq!(read(&c, "pids", "pids.max"), "45");
    Ok(())
}

fn a_refused_update_puts_every_file_back(rt: &Runtime) -> Checked {
    host::need_v1("memory")?;
    host::need_v1("cpuset")?;
    rt.coracle_only("others leave what was written before the refusal")?;
    let (c, _) = up(rt, &json!({ "memory": { "limit": 64 << 20 }, "pids": { "limit": 44 } }));
    let refused = json!({
        "memory": { "limit": 96 << 20, "disableOOMKiller": true }, "pids": { "limit": 33 }, "cpu": { "cpus": "4095" }
    });
    let error = update(rt, &c, &refused).exits(1).fails();
    assert!(
        error.stderr.contains("linux.resources.cpu.cpus") && !error.stderr.contains("config.json"),
        "{error}"
    );
    assert_eq!(read(&c, "memory", "memory.limit_in_bytes"), (64 << 20).to_string());
    assert!(read(&c, "memory", "memory.oom_control").contains("oom_kill_disable 0"));
    assert_eq!(read(&c, "pids", "pids.max"), "44");
    Ok(())
}

fn the_oom_killer_can_be_switched_on_again(rt: &Runtime) -> Checked {
    host::need_v1("memory")?;
    rt.coracle_only("others only switch it off")?;
    let (c, _) = up(rt, &json!({ "memory": { "limit": 64 << 20, "disableOOMKiller": true } }));
    assert!(read(&c, "memory", "memory.oom_control").contains("oom_kill_disable 1"));
    update(rt, &c, &json!({ "memory": { "disableOOMKiller": false } })).ok();
    assert!(read(&c, "memory", "memory.oom_control").contains("oom_kill_disable 0"));
    Ok(())
}

fn an_idle_cgroup_has_no_shares(rt: &Runtime) -> Checked {
    host::need_v1("cpu")?;
    rt.coracle_only("others write the shares, and lose them")?;
    let (c, _) = up(rt, &json!({ "cpu": { "shares": 512 } }));
    if !directory(&c, "cpu").join("cpu.idle").exists() {
        return skip("this kernel has no cpu.idle");
    }
    let told = c.call("update", &["--cpu-share", "200", "--cpu-idle", "1"]).ok();
    assert!(told.stderr.contains("unable to apply both"), "{told}");
    assert_eq!(read(&c, "cpu", "cpu.idle"), "1");
    Ok(())
}

fn the_configuration_may_ask_for_a_check_of_the_usage(rt: &Runtime) -> Checked {
    host::need_v1("memory")?;
    rt.coracle_only("others check on cgroup v2 only")?;
    let (c, _) = up(rt, &json!({ "memory": { "limit": 64 << 20, "checkBeforeUpdate": true } }));
    c.call("update", &["--memory", "4096"]).exits(1).fails_with("rejecting memory limit 4096 <= usage ");
    assert_eq!(read(&c, "memory", "memory.limit_in_bytes"), (64 << 20).to_string());
    Ok(())
}

fn limits_on_kernel_memory_are_ignored(rt: &Runtime) -> Checked {
    host::need_v1("pids")?;
    let (c, _) = up(rt, &json!({}));
    c.call("update", &["--kernel-memory", "50m", "--kernel-memory-tcp", "50m", "--pids-limit", "46"]).ok();
    assert_eq!(read(&c, "pids", "pids.max"), "46");
    Ok(())
}

fn empty_flags_are_as_none(rt: &Runtime) -> Checked {
    host::need_v1("memory")?;
    let (c, _) = up(rt, &json!({ "memory": { "limit": 64 << 20 } }));
    c.call("update", &["--memory", "", "--cpu-quota", "", "--blkio-weight", "0", "--pids-limit", "47"]).ok();
    assert_eq!(read(&c, "memory", "memory.limit_in_bytes"), (64 << 20).to_string());
    assert_eq!(read(&c, "pids", "pids.max"), "47");
    Ok(())
}

fn what_is_unknown_is_warned_of(rt: &Runtime) -> Checked {
    host::need_v1("memory")?;
    rt.coracle_only("others say nothing of it")?;
    let (c, _) = up(rt, &json!({}));
    let told = update(rt, &c, &json!({ "momery": { "limit": 5 } })).ok();
    assert!(told.stderr.contains("momery: is unknown and ignored"), "{told}");
    Ok(())
}

fn a_list_is_refused(rt: &Runtime) {
    let (c, _) = up(rt, &json!({}));
    update(rt, &c, &json!([])).exits(1).fails();
}
