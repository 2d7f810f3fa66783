//! What a user is told where the system doesn't give what rootless containers need, and what `--rootless` decides. The
//! commands' exit statuses are runc's.

use std::process::Command;

use coracle_integration::bundle::grant;
use coracle_integration::command::{command, in_shell, run};
use coracle_integration::{Checked, Kind, Runtime, beside, tests, trial_without_runtime};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::common::{BASE, give};
use crate::rootless::{Rootless, multiple};

pub fn tests() -> Vec<Trial> {
    let mut tests = tests![
        a_user_without_subordinate_ids_is_told,
        a_user_is_told_that_user_namespaces_are_disabled,
        a_mapped_mount_tells_that_user_namespaces_are_disabled,
        what_needs_a_cgroup_tells_how_to_get_one,
        capabilities_that_the_host_cannot_grant_are_dropped_with_a_warning,
    ];
    tests.push(trial_without_runtime("without_a_cgroup_commands_end_as_with_runc", || {
        beside::compare(|rt| statuses(rt, &[]))
    }));
    for value in ["true", "false", "auto"] {
        tests.push(trial_without_runtime(format!("rootless_{value}_of_a_user_is_as_with_runc"), move || {
            beside::compare(|rt| statuses(rt, &["--rootless", value]))
        }));
        tests.push(trial_without_runtime(format!("rootless_{value}_of_root_is_as_with_runc"), move || {
            beside::compare(|rt| of_root(rt, value))
        }));
    }
    tests
}

fn a_user_without_subordinate_ids_is_told(rt: &Runtime) -> Checked {
    const STRANGER: u32 = 4343;
    rt.coracle_only("the words are ours")?;
    let user = Rootless::new(rt);
    user.starter(|config| multiple(config, 1000));
    give(user.directory(), STRANGER);
    let id = STRANGER.to_string();
    let line = format!("./runtime --root run/state run {}", user.id());
    let mut command =
        command("setpriv", &["--reuid", &id, "--regid", &id, "--clear-groups", "sh", "-c", &line]);
    command.current_dir(user.directory()).env("XDG_RUNTIME_DIR", user.directory().join("run"));
    run(command)
        .fails_with("newuidmap")
        .fails_with("linux.uidMappings")
        .fails_with("/etc/subuid must give every range to this user");
    Ok(())
}

/// In a user namespace of the test's own, so that it is for nobody else.
fn without_user_namespaces(inner: &Command) -> Command {
    let disable = "echo 0 >/proc/sys/user/max_user_namespaces; exec \"$@\"";
    let shell = in_shell(disable, inner);
    let mut outer = command("unshare", &["--user", "--map-root-user"]);
    outer.arg(shell.get_program()).args(shell.get_args());
    outer.envs(shell.get_envs().filter_map(|(name, value)| Some((name, value?))));
    outer
}

fn a_user_is_told_that_user_namespaces_are_disabled(rt: &Runtime) -> Checked {
    rt.coracle_only("the words are ours")?;
    let user = Rootless::new(rt);
    user.starter(|config| {
        for list in ["uidMappings", "gidMappings"] {
            config["linux"][list] = json!([{ "containerID": 0, "hostID": 0, "size": 1 }]);
        }
    });
    let inner = user.command(&format!("./runtime --root run/state run {}", user.id()));
    // Who is root there is the host's root, and may become nobody else.
    give(user.directory(), 0);
    let mut plain = command("sh", &["-c"]);
    plain.arg(inner.get_args().last().expect("the script"));
    let mut outer = without_user_namespaces(&plain);
    outer.current_dir(user.directory());
    run(outer).fails_with("linux.namespaces").fails_with("sysctl user.max_user_namespaces=");
    assert!(!user.directory().join("run/state").join(user.id()).exists(), "state is left");
    Ok(())
}

/// It needs one to hold the mount's map, though the container has none.
fn a_mapped_mount_tells_that_user_namespaces_are_disabled(rt: &Runtime) -> Checked {
    rt.coracle_only("the words are ours")?;
    let mapping = json!([{ "containerID": 0, "hostID": 0, "size": 1 }]);
    let bundle = rt.script("true").edit(|config| {
        config["mounts"] = json!([{ "destination": "/mnt", "type": "tmpfs", "source": "tmpfs",
            "uidMappings": mapping, "gidMappings": mapping }]);
    });
    let c = rt.container(&bundle);
    let plain = c.run_command(&["--no-pivot"]);
    let mut with_option = command(plain.get_program(), &["--cgroup-manager=disabled"]);
    with_option.args(plain.get_args());
    run(without_user_namespaces(&with_option))
        .fails_with("mounts[0]")
        .fails_with("sysctl user.max_user_namespaces=");
    Ok(())
}

fn what_needs_a_cgroup_tells_how_to_get_one(rt: &Runtime) -> Checked {
    rt.coracle_only("the words are ours")?;
    let user = Rootless::new(rt);
    sleeper(&user);
    let id = user.id();
    user.sh(&format!("./runtime run --detach {id} >log 2>&1 </dev/null")).ok();
    for command in ["pause ID", "ps ID", "update --memory 64000000 ID", "events --stats ID"] {
        user.sh(&format!("./runtime {}", command.replace("ID", &id)))
            .fails_with("no cgroup of its own")
            .fails_with("systemd-run --user --scope -p Delegate=yes");
    }
    // What needs none works.
    let seen =
        user.sh(&format!("./runtime exec {id} id -u; ./runtime delete --force {id}; ./runtime list -q"));
    assert_eq!(seen.ok().lines(), ["0"]);
    Ok(())
}

fn sleeper(user: &Rootless<'_>) {
    user.starter(|config| config["process"]["args"] = json!(["sleep", "1000"]));
}

/// What each command of a container's life ends with in a user's hands.
fn statuses(rt: &Runtime, options: &[&str]) -> Vec<String> {
    let user = Rootless::new(rt);
    sleeper(&user);
    let id = user.id();
    let binary =
        if rt.kind() == Kind::Coracle { "./runtime".to_owned() } else { rt.binary().display().to_string() };
    let global = options.join(" ");
    let steps = [
        "run --detach ID",
        "exec ID true",
        "state ID",
        "pause ID",
        "resume ID",
        "ps ID",
        "update --pids-limit 5 ID",
        "kill ID KILL",
        "delete --force ID",
        "delete ID",
    ];
    steps
        .iter()
        .map(|step| {
            let line = format!("{binary} {global} {} >log 2>&1 </dev/null", step.replace("ID", &id));
            let ran = user.sh(&format!("{line} || {{ status=$?; cat log >&2; exit $status; }}"));
            assert!(ran.status.success() || !ran.stderr.trim().is_empty(), "a refusal needs a reason: {ran}");
            format!("{step}: {}", ran.code())
        })
        .collect()
}

/// What the host's root gets by saying that it isn't: no more devices, for one.
fn of_root(rt: &Runtime, value: &str) -> Vec<String> {
    let bundle = rt
        .script(
            "sort /sys/fs/cgroup/devices/devices.list; mknod /dev/sda b 8 0 && head -c 1 /dev/sda; echo $?",
        )
        .edit(|config: &mut Value| grant(config, &["CAP_MKNOD"]));
    let c = rt.container(&bundle);
    let plain = c.run_command(&[]);
    let mut command = command(plain.get_program(), &["--rootless", value]);
    command.args(plain.get_args());
    let seen = run(command).ok();
    seen.lines().iter().map(|line| (*line).to_owned()).collect()
}

fn capabilities_that_the_host_cannot_grant_are_dropped_with_a_warning(rt: &Runtime) -> Checked {
    rt.coracle_only("runc fails, where the specification asks for a warning")?;
    let bundle = rt.script("grep Cap /proc/self/status").edit(|config| {
        for set in ["bounding", "effective", "permitted", "inheritable", "ambient"] {
            config["process"]["capabilities"][set] = json!(["CAP_KILL", "CAP_SYS_TIME", "CAP_NET_RAW"]);
        }
    });
    let c = rt.container(&bundle);
    let plain = c.run_command(&[]);
    // Only out of the bounding set, as in a container of little power; then out of the permitted one too.
    for line in [
        &["setpriv", "--bounding-set=-sys_time,-net_raw"][..],
        &["setpriv", "--bounding-set=-sys_time,-net_raw", "setpriv", "--inh-caps=-all"],
    ] {
        let mut command = command(line[0], &line[1..]);
        command.arg(plain.get_program()).args(plain.get_args());
        let seen = run(command).ok();
        assert!(seen.stderr.contains("level=warning"), "{seen}");
        assert!(
            seen.stderr.contains("process.capabilities: the runtime doesn't have CAP_NET_RAW, CAP_SYS_TIME"),
            "{seen}"
        );
        for field in seen.lines() {
            // CAP_KILL alone, in each of them.
            assert!(field.ends_with("0000000000000020"), "{seen}");
        }
        assert_eq!(seen.lines().len(), 5, "{seen}");
    }
    // In a user namespace the process has them all over what is its own.
    let bundle = bundle.edit(crate::common::mapped);
    give(&bundle.rootfs(""), BASE);
    let mut command = command("setpriv", &["--bounding-set=-sys_time,-net_raw"]);
    command.arg(plain.get_program()).args(plain.get_args());
    let seen = run(command).ok();
    assert!(!seen.stderr.contains("CAP_NET_RAW"), "{seen}");
    assert!(seen.lines().contains(&"CapEff:\t0000000002002020"), "{seen}");
    Ok(())
}
