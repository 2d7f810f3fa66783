//! Cgroups on a host with cgroup v1, alone or in the hybrid layout: where the container is, its limits, and removal.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use coracle_integration::bundle::{self, grant};
use coracle_integration::command::{in_shell, run};
use coracle_integration::{Checked, Container, Runtime, host, skip, tests};
use serde_json::{Value, json};

fn main() -> ExitCode {
    coracle_integration::run_tests(tests![
        a_container_is_in_a_cgroup_of_every_controller,
        the_default_path_is_below_the_runtimes_own_cgroup,
        an_absolute_path_is_of_the_hierarchys_root,
        a_relative_path_works,
        a_path_of_several_levels_is_made,
        the_hybrid_hierarchy_is_joined_too,
        memory_limits_are_written,
        memory_without_limit_is_minus_one,
        swap_may_be_lowered_with_the_limit,
        the_oom_killer_can_be_disabled,
        a_process_above_its_memory_limit_is_killed,
        cpu_limits_are_written,
        a_cpu_burst_is_written,
        a_cpu_period_alone_is_written,
        cpu_idle_is_written,
        a_cpuset_binds_the_process,
        a_cpuset_not_given_is_the_parents,
        a_pids_limit_is_written_and_holds,
        a_pids_limit_of_minus_one_is_none,
        a_pids_limit_of_zero_is_one,
        a_block_device_throttle_is_written,
        a_limit_of_a_controller_that_is_missing_is_an_error,
        unified_settings_need_cgroup_v2,
        a_huge_page_limit_is_written_where_there_is_a_controller,
        an_empty_resources_object_is_fine,
        an_existing_cgroup_is_used,
        nested_cgroups_of_the_container_are_removed,
        more_nested_cgroups_and_processes_than_descriptors_are_no_obstacle,
        delete_removes_every_cgroup,
        pause_freezes_the_cgroup,
        processes_of_exec_are_limited_too,
        kill_ends_every_process_where_there_is_no_pid_namespace,
        two_containers_below_one_parent_do_not_disturb_each_other,
    ])
}

const CONTROLLERS: [&str; 12] = [
    "cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "net_cls", "net_prio",
    "hugetlb", "systemd",
];

fn up<'r>(rt: &'r Runtime, resources: &Value) -> Container<'r> {
    let bundle = rt.sleeper().edit(|config| {
        for (key, value) in resources.as_object().expect("an object") {
            config["linux"]["resources"][key] = value.clone();
        }
    });
    let c = rt.container(&bundle);
    c.up();
    c
}

#[track_caller]
fn read(c: &Container, controller: &str, file: &str) -> String {
    let path = directory(c, controller).join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.trim().to_owned()
}

#[track_caller]
fn directory(c: &Container, controller: &str) -> PathBuf {
    host::cgroup_of(c.pid(), controller).expect("the container has a cgroup there")
}

fn a_container_is_in_a_cgroup_of_every_controller(rt: &Runtime) -> Checked {
    host::need_v1("pids")?;
    let c = up(rt, &json!({}));
    for controller in CONTROLLERS.into_iter().filter(|name| host::v1_hierarchy(name).is_some()) {
        assert!(directory(&c, controller).ends_with(&c.id), "{controller}: {}", c.proc("cgroup"));
    }
    Ok(())
}

fn the_default_path_is_below_the_runtimes_own_cgroup(rt: &Runtime) -> Checked {
    host::need_v1("memory")?;
    let c = up(rt, &json!({}));
    let us = i32::try_from(std::process::id()).unwrap_or_default();
    for controller in CONTROLLERS {
        if let Some(ours) = host::cgroup_of(us, controller) {
            assert_eq!(directory(&c, controller), ours.join(&c.id), "{controller}");
        }
    }
    Ok(())
}

/// A running container with this cgroup path, in which ID stands for its id.
fn at_path<'r>(rt: &'r Runtime, path: &str) -> Container<'r> {
    let bundle = rt.sleeper();
    let c = rt.container(&bundle);
    let path = path.replace("ID", &c.id);
    let _ = bundle.edit(|config| config["linux"]["cgroupsPath"] = json!(path));
    c.up();
    c
}

fn an_absolute_path_is_of_the_hierarchys_root(rt: &Runtime) -> Checked {
    host::need_v1("memory")?;
    let own = rt.own_cgroup();
    let c = at_path(rt, &format!("/{own}/ID"));
    for controller in ["memory", "pids", "cpu", "freezer"] {
        let expected = host::v1_hierarchy(controller).expect("it is there").join(&own).join(&c.id);
        assert_eq!(directory(&c, controller), expected);
    }
    Ok(())
}

fn a_relative_path_works(rt: &Runtime) -> Checked {
    host::need_v1("memory")?;
    let own = rt.own_cgroup();
    let c = at_path(rt, &format!("{own}/ID"));
    assert!(directory(&c, "memory").ends_with(format!("{own}/{}", c.id)));
    Ok(())
}

fn a_path_of_several_levels_is_made(rt: &Runtime) -> Checked {
    host::need_v1("cpuset")?;
    let own = rt.own_cgroup();
    // A cpuset of several new levels has to be filled from the top.
    let c = at_path(rt, &format!("/{own}/one/two/ID"));
    assert!(!read(&c, "cpuset", "cpuset.cpus").is_empty());
    assert!(!read(&c, "cpuset", "cpuset.mems").is_empty());
    Ok(())
}

fn the_hybrid_hierarchy_is_joined_too(rt: &Runtime) -> Checked {
    if !fs::exists("/sys/fs/cgroup/unified/cgroup.procs").unwrap_or(false) {
        return skip("this host has no hybrid layout");
    }
    let c = up(rt, &json!({}));
    let cgroup = c.proc("cgroup");
    let line = cgroup.lines().find_map(|line| line.strip_prefix("0::")).expect("a line of cgroup v2");
    assert!(line.ends_with(&format!("/{}", c.id)), "{cgroup}");
    Ok(())
}

fn memory_limits_are_written(rt: &Runtime) -> Checked {
    host::need_v1("memory")?;
    let c = up(
        rt,
        &json!({ "memory": { "limit": 64 << 20, "reservation": 32 << 20, "swap": 96 << 20, "swappiness": 20 } }),
    );
    assert_eq!(read(&c, "memory", "memory.limit_in_bytes"), (64 << 20).to_string());
    assert_eq!(read(&c, "memory", "memory.soft_limit_in_bytes"), (32 << 20).to_string());
    assert_eq!(read(&c, "memory", "memory.memsw.limit_in_bytes"), (96 << 20).to_string());
    assert_eq!(read(&c, "memory", "memory.swappiness"), "20");
    Ok(())
}

fn memory_without_limit_is_minus_one(rt: &Runtime) -> Checked {
    host::need_v1("memory")?;
    let c = up(rt, &json!({ "memory": { "limit": -1, "swap": -1 } }));
    assert!(read(&c, "memory", "memory.limit_in_bytes").parse::<u64>().is_ok_and(|limit| limit > 1 << 60));
    Ok(())
}

fn swap_may_be_lowered_with_the_limit(rt: &Runtime) -> Checked {
    host::need_v1("memory")?;
    let c = up(rt, &json!({ "memory": { "limit": 64 << 20, "swap": 64 << 20 } }));
    assert_eq!(read(&c, "memory", "memory.memsw.limit_in_bytes"), (64 << 20).to_string());
    Ok(())
}

fn the_oom_killer_can_be_disabled(rt: &Runtime) -> Checked {
    host::need_v1("memory")?;
    let c = up(rt, &json!({ "memory": { "limit": 64 << 20, "disableOOMKiller": true } }));
    assert!(read(&c, "memory", "memory.oom_control").contains("oom_kill_disable 1"));
    Ok(())
}

fn a_process_above_its_memory_limit_is_killed(rt: &Runtime) -> Checked {
    host::need_v1("memory")?;
    // A line without an end is kept in memory whole.
    let ran = rt.sh("tail -n 1 /dev/zero; echo $?", |config| {
        config["linux"]["resources"]["memory"] = json!({ "limit": 32 << 20, "swap": 32 << 20 });
    });
    assert!(ran.code() == 137 || ran.out() == "137", "{ran}");
    Ok(())
}

fn cpu_limits_are_written(rt: &Runtime) -> Checked {
    host::need_v1("cpu")?;
    let c = up(rt, &json!({ "cpu": { "shares": 512, "quota": 50_000, "period": 200_000 } }));
    assert_eq!(read(&c, "cpu", "cpu.shares"), "512");
    assert_eq!(read(&c, "cpu", "cpu.cfs_quota_us"), "50000");
    assert_eq!(read(&c, "cpu", "cpu.cfs_period_us"), "200000");
    Ok(())
}

fn a_cpu_burst_is_written(rt: &Runtime) -> Checked {
    host::need_v1("cpu")?;
    rt.coracle_only("runc has cpu.burst since 1.2")?;
    let c = up(rt, &json!({ "cpu": { "quota": 50_000, "period": 100_000, "burst": 20_000 } }));
    assert_eq!(read(&c, "cpu", "cpu.cfs_burst_us"), "20000");
    Ok(())
}

fn a_cpu_period_alone_is_written(rt: &Runtime) -> Checked {
    host::need_v1("cpu")?;
    let c = up(rt, &json!({ "cpu": { "period": 200_000 } }));
    assert_eq!(read(&c, "cpu", "cpu.cfs_period_us"), "200000");
    assert_eq!(read(&c, "cpu", "cpu.cfs_quota_us"), "-1");
    Ok(())
}

fn cpu_idle_is_written(rt: &Runtime) -> Checked {
    host::need_v1("cpu")?;
    let c = up(rt, &json!({ "cpu": { "idle": 1 } }));
    // runc 1.1 takes the field on cgroup v2 only.
    if rt.kind() == coracle_integration::Kind::Coracle {
        assert_eq!(read(&c, "cpu", "cpu.idle"), "1");
    }
    Ok(())
}

fn a_cpuset_binds_the_process(rt: &Runtime) -> Checked {
    host::need_v1("cpuset")?;
    let c = up(rt, &json!({ "cpu": { "cpus": "0", "mems": "0" } }));
    assert_eq!(read(&c, "cpuset", "cpuset.cpus"), "0");
    assert_eq!(c.exec(&["grep", "Cpus_allowed_list", "/proc/1/status"]).ok().out(), "Cpus_allowed_list:\t0");
    Ok(())
}

fn a_cpuset_not_given_is_the_parents(rt: &Runtime) -> Checked {
    host::need_v1("cpuset")?;
    let c = up(rt, &json!({}));
    let parent = directory(&c, "cpuset").join("..");
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let above = fs::read_to_string(parent.join(file)).expect("the parent has it");
        assert_eq!(read(&c, "cpuset", file), above.trim());
    }
    Ok(())
}

fn a_pids_limit_is_written_and_holds(rt: &Runtime) -> Checked {
    host::need_v1("pids")?;
    let c = up(rt, &json!({ "pids": { "limit": 8 } }));
    assert_eq!(read(&c, "pids", "pids.max"), "8");
    let bundle = rt
        .script("for n in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 1020 & done; wait")
        .edit(|config| config["linux"]["resources"]["pids"] = json!({ "limit": 8 }));
    let c = rt.container(&bundle);
    c.up();
    c.wait_for_output("can't fork");
    Ok(())
}

fn a_pids_limit_of_minus_one_is_none(rt: &Runtime) -> Checked {
    host::need_v1("pids")?;
    let c = up(rt, &json!({ "pids": { "limit": -1 } }));
    assert_eq!(read(&c, "pids", "pids.max"), "max");
    Ok(())
}

fn a_pids_limit_of_zero_is_one(rt: &Runtime) -> Checked {
    host::need_v1("pids")?;
    let bundle = rt
        .bundle(&["sleep", "1000"])
        .edit(|config| config["linux"]["resources"]["pids"] = json!({ "limit": 0 }));
    let c = rt.container(&bundle);
    c.up();
    assert_eq!(read(&c, "pids", "pids.max"), "1");
    assert_eq!(c.exec(&["echo", "in"]).ok().out(), "in");
    Ok(())
}

/// The numbers of a whole disk of this host.
fn a_disk() -> Option<(u64, u64)> {
    let entries = fs::read_dir("/sys/block").ok()?;
    entries.flatten().find_map(|entry| {
        // A throttle works on a disk with a queue; rams and loops that are not in use have none worth the name.
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("loop") || name.starts_with("ram") || name.starts_with("zram") {
            return None;
        }
        let text = fs::read_to_string(entry.path().join("dev")).ok()?;
        let (major, minor) = text.trim().split_once(':')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    })
}

fn a_block_device_throttle_is_written(rt: &Runtime) -> Checked {
    host::need_v1("blkio")?;
    let Some((major, minor)) = a_disk() else {
        return skip("this host has no disk");
    };
    let device = |rate: u64| json!([{ "major": major, "minor": minor, "rate": rate }]);
    let c = up(
        rt,
        &json!({ "blockIO": {
        "throttleReadBpsDevice": device(1_048_576), "throttleWriteBpsDevice": device(2_097_152),
        "throttleReadIOPSDevice": device(300), "throttleWriteIOPSDevice": device(400),
    } }),
    );
    for (file, rate) in
        [("read_bps", 1_048_576), ("write_bps", 2_097_152), ("read_iops", 300), ("write_iops", 400)]
    {
        assert_eq!(
            read(&c, "blkio", &format!("blkio.throttle.{file}_device")),
            format!("{major}:{minor} {rate}")
        );
    }
    Ok(())
}

#[track_caller]
fn refused(rt: &Runtime, key: &str, value: Value) -> coracle_integration::Finished {
    let bundle = rt.bundle(&["true"]).edit(|config| config["linux"]["resources"][key] = value);
    let refused = rt.container(&bundle).run().exits(1).fails();
    rt.assert_clean();
    refused
}

fn a_limit_of_a_controller_that_is_missing_is_an_error(rt: &Runtime) -> Checked {
    rt.coracle_only("runc ignores some of them")?;
    if host::v1_hierarchy("net_cls").is_some() {
        return skip("this host has net_cls");
    }
    let message = refused(rt, "network", json!({ "classID": 1_048_577 }));
    assert!(message.stderr.contains("linux.resources.network"), "{message}");
    Ok(())
}

fn unified_settings_need_cgroup_v2(rt: &Runtime) -> Checked {
    host::need_v1("memory")?;
    rt.coracle_only("runc 1.1 ignores them on cgroup v1")?;
    let message = refused(rt, "unified", json!({ "memory.high": "1048576" }));
    assert!(message.stderr.contains("linux.resources.unified"), "{message}");
    Ok(())
}

fn a_huge_page_limit_is_written_where_there_is_a_controller(rt: &Runtime) -> Checked {
    if host::v1_hierarchy("hugetlb").is_none() {
        let controllers = fs::read_to_string("/sys/fs/cgroup/unified/cgroup.controllers").unwrap_or_default();
        if !controllers.contains("hugetlb") {
            return skip("this host has no hugetlb controller");
        }
        rt.coracle_only("runc does not use controllers of the hybrid hierarchy")?;
        let bundle = rt.bundle(&["true"]).edit(|config| {
            config["linux"]["resources"]["hugepageLimits"] = json!([{ "pageSize": "2MB", "limit": 4 << 20 }]);
        });
        // Written there, or refused by name; never ignored.
        let ran = rt.container(&bundle).run();
        assert!(ran.status.success() || ran.stderr.contains("linux.resources.hugepageLimits"), "{ran}");
        return Ok(());
    }
    let c = up(rt, &json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": 4 << 20 }] }));
    assert_eq!(read(&c, "hugetlb", "hugetlb.2MB.limit_in_bytes"), (4 << 20).to_string());
    Ok(())
}

fn an_empty_resources_object_is_fine(rt: &Runtime) {
    let empty = json!({ "memory": {}, "cpu": {}, "blockIO": {}, "network": {}, "hugepageLimits": [] });
    let c = up(rt, &empty);
    assert_eq!(c.status(), "running");
    rt.sh("true", |config| {
        config["linux"].as_object_mut().expect("an object").remove("resources");
    })
    .ok();
}

fn an_existing_cgroup_is_used(rt: &Runtime) -> Checked {
    host::need_v1("memory")?;
    let bundle = rt.sleeper();
    let c = rt.container(&bundle);
    let hierarchy = host::v1_hierarchy("memory").expect("it is there");
    fs::create_dir_all(hierarchy.join(rt.own_cgroup()).join(&c.id)).expect("making a cgroup");
    let path = format!("/{}/{}", rt.own_cgroup(), c.id);
    let _ = bundle.edit(|config| config["linux"]["cgroupsPath"] = json!(path));
    c.up();
    assert!(directory(&c, "memory").ends_with(&c.id));
    Ok(())
}

fn nested_cgroups_of_the_container_are_removed(rt: &Runtime) -> Checked {
    host::need_v1("pids")?;
    let script =
        "cd /sys/fs/cgroup/pids && mkdir -p one/two && echo $$ > one/two/cgroup.procs; echo made; sleep 1021";
    let bundle = rt.script(script).edit(|config| {
        let last =
            config["mounts"].as_array_mut().and_then(|mounts| mounts.last_mut()).expect("the cgroup mount");
        last["options"] = json!(["nosuid", "noexec", "nodev", "relatime"]);
        grant(config, &["CAP_SYS_ADMIN"]);
    });
    let c = rt.container(&bundle);
    c.up();
    c.wait_for_output("made");
    c.kill("KILL").ok();
    c.wait_for("stopped");
    c.delete().ok();
    rt.assert_clean();
    Ok(())
}

fn more_nested_cgroups_and_processes_than_descriptors_are_no_obstacle(rt: &Runtime) -> Checked {
    host::need_v1("pids")?;
    rt.coracle_only("runc finds a cgroup's processes by paths")?;
    let bundle = rt.script("for n in $(seq 150); do sleep 1023 & done; echo made; wait");
    let c = rt.container(&bundle);
    c.up();
    c.wait_for_output("made");
    let mut deepest = directory(&c, "pids");
    for _ in 0..150 {
        deepest.push("n");
        fs::create_dir(&deepest).expect("making a cgroup");
    }
    fs::write(deepest.join("cgroup.procs"), c.pid().to_string()).expect("moving a process");
    let call = |arguments: [&str; 4]| run(in_shell("ulimit -n 100; exec \"$@\"", &rt.command(arguments)));
    let listed = call(["ps", "--format", "json", &c.id]).ok();
    assert!(listed.out().split(',').count() > 150, "{listed}");
    call(["--debug", "delete", "--force", &c.id]).ok();
    rt.assert_clean();
    Ok(())
}

fn delete_removes_every_cgroup(rt: &Runtime) -> Checked {
    host::need_v1("pids")?;
    let c = up(rt, &json!({}));
    assert!(coracle_integration::leftovers::cgroups(&c.id).len() >= 2);
    c.kill("KILL").ok();
    c.wait_for("stopped");
    c.delete().ok();
    assert_eq!(coracle_integration::leftovers::cgroups(&c.id), Vec::<PathBuf>::new());
    Ok(())
}

fn pause_freezes_the_cgroup(rt: &Runtime) -> Checked {
    host::need_v1("freezer")?;
    let c = up(rt, &json!({}));
    c.call("pause", &[]).ok();
    assert_eq!(read(&c, "freezer", "freezer.state"), "FROZEN");
    c.call("resume", &[]).ok();
    assert_eq!(read(&c, "freezer", "freezer.state"), "THAWED");
    Ok(())
}

fn processes_of_exec_are_limited_too(rt: &Runtime) -> Checked {
    host::need_v1("memory")?;
    let c = up(rt, &json!({ "memory": { "limit": 32 << 20, "swap": 32 << 20 } }));
    let ran = c.exec(&["sh", "-c", "tail -n 1 /dev/zero; echo $?"]);
    assert!(ran.code() == 137 || ran.out() == "137", "{ran}");
    Ok(())
}

fn two_containers_below_one_parent_do_not_disturb_each_other(rt: &Runtime) -> Checked {
    host::need_v1("pids")?;
    let own = rt.own_cgroup();
    let (one, two) = (at_path(rt, &format!("/{own}/ID")), at_path(rt, &format!("/{own}/ID")));
    one.call("delete", &["--force"]).ok();
    assert_eq!(two.status(), "running");
    assert!(host::v1_hierarchy("pids").is_some_and(|pids| pids.join(&own).join(&two.id).is_dir()));
    Ok(())
}

/// The signal to all ends the first process as well, and it may be gone before it gets one of its own.
fn kill_ends_every_process_where_there_is_no_pid_namespace(rt: &Runtime) {
    for _ in 0..5 {
        let bundle =
            rt.script("sleep 1040 & exec sleep 1041").edit(|config| bundle::without_namespace(config, "pid"));
        let c = rt.container(&bundle);
        c.up();
        c.kill("KILL").ok();
        c.wait_for("stopped");
    }
}
