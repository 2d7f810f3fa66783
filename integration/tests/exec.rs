//! `exec`: further processes in a running container.

use std::fs;
use std::process::ExitCode;

use coracle_integration::bundle::{grant, set_capabilities, without_namespace};
use coracle_integration::command::{Running, eventually, run, run_with_input};
use coracle_integration::{Checked, Container, Runtime, host, skip, tests};
use rustix::process::Signal;
use serde_json::{Value, json};

fn main() -> ExitCode {
    coracle_integration::run_tests(tests![
        exec_shows_output_and_exit_status,
        exec_is_in_the_containers_world,
        exec_takes_environment_and_directory_of_the_container,
        exec_env_adds_to_the_environment,
        exec_cwd_changes_the_directory,
        exec_user_takes_numbers,
        exec_user_takes_additional_groups,
        a_numeric_user_is_never_looked_up,
        bad_users_are_refused,
        exec_has_the_containers_capabilities,
        exec_cap_adds_capabilities,
        exec_inheritable_set_is_empty,
        exec_no_new_privs_is_set,
        exec_limits_are_the_containers,
        exec_process_takes_a_file,
        exec_process_file_without_args_is_an_error,
        exec_detached_comes_back_with_a_pid_file,
        exec_pid_file_holds_digits_only,
        exec_passes_standard_input,
        exec_preserves_descriptors,
        exec_has_no_other_descriptors,
        exec_forwards_signals,
        exec_killed_by_a_signal_is_128_and_the_signal,
        exec_is_in_the_containers_cgroups,
        exec_in_a_subgroup,
        exec_in_a_subgroup_outside_is_refused,
        exec_in_a_paused_container_waits_when_told,
        exec_ends_with_the_container,
        many_execs_at_once,
        exec_keeps_working_after_a_failure,
        exec_in_a_created_container,
        exec_flags_after_the_id_are_the_commands,
        exec_umask_is_the_containers,
        exec_of_a_file_has_the_containers_umask,
        exec_stays_in_the_callers_keyring_as_its_container_does,
        exec_without_final_cpus_stays_where_it_began,
        exec_sees_no_process_of_the_runtime,
    ])
}

fn up(rt: &Runtime) -> Container<'_> {
    up_with(rt, |_| ())
}

fn up_with(rt: &Runtime, edit: impl FnOnce(&mut Value)) -> Container<'_> {
    let bundle = rt.sleeper().edit(edit);
    let c = rt.container(&bundle);
    c.up();
    c
}

fn exec_shows_output_and_exit_status(rt: &Runtime) {
    let ran = up(rt).exec(&["sh", "-c", "echo out; echo err >&2; exit 9"]).exits(9);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("out\n", "err\n"));
}

fn exec_is_in_the_containers_world(rt: &Runtime) {
    let c = up(rt);
    let seen = c.exec(&["sh", "-c", "hostname; ls /; cat /proc/1/cmdline | tr '\\0' ' '"]).ok();
    assert!(seen.stdout.starts_with("container\n") && seen.stdout.contains("sh -c trap"), "{seen}");
    assert!(!seen.stdout.contains("lost+found"), "{seen}");
}

fn exec_takes_environment_and_directory_of_the_container(rt: &Runtime) {
    let c = up_with(rt, |config| {
        config["process"]["cwd"] = json!("/usr");
        coracle_integration::bundle::push(config, "/process/env", json!("WORD=of the config"));
    });
    assert_eq!(
        c.exec(&["sh", "-c", "pwd; echo $WORD; echo $HOME"]).ok().lines(),
        ["/usr", "of the config", "/root"]
    );
}

fn exec_env_adds_to_the_environment(rt: &Runtime) {
    let c =
        up_with(rt, |config| coracle_integration::bundle::push(config, "/process/env", json!("WORD=old")));
    let options = ["-e", "WORD=new", "-e", "MORE=a b=c"];
    assert_eq!(
        c.exec_with(&options, &["sh", "-c", "echo $WORD; echo \"$MORE\""]).ok().lines(),
        ["new", "a b=c"]
    );
}

fn exec_cwd_changes_the_directory(rt: &Runtime) {
    let c = up(rt);
    assert_eq!(c.exec_with(&["--cwd", "/etc"], &["pwd"]).ok().out(), "/etc");
    c.exec_with(&["--cwd", "/not/there"], &["pwd"]).exits(255).fails_with("/not/there");
}

fn exec_user_takes_numbers(rt: &Runtime) {
    let c = up(rt);
    assert_eq!(c.exec_with(&["--user", "1000"], &["id", "-u"]).ok().out(), "1000");
    let both = c.exec_with(&["-u", "1000:7"], &["sh", "-c", "id -u; id -g; echo $HOME"]).ok();
    assert_eq!(both.lines(), ["1000", "7", "/home/user"]);
}

fn exec_user_takes_additional_groups(rt: &Runtime) {
    let c = up(rt);
    let options = ["--user", "1000:7", "--additional-gids", "5", "--additional-gids", "70000"];
    let seen = c.exec_with(&options, &["grep", "^Groups", "/proc/self/status"]).ok();
    assert_eq!(seen.out().split_whitespace().skip(1).collect::<Vec<_>>(), ["5", "70000"]);
}

fn a_numeric_user_is_never_looked_up(rt: &Runtime) {
    let bundle = rt.sleeper();
    bundle.file("etc/passwd", "1000:x:0:0:trap:/root:/bin/sh\nroot:x:0:0::/root:/bin/sh\n", 0o644);
    let c = rt.container(&bundle);
    c.up();
    assert_eq!(c.exec_with(&["--user", "1000"], &["id", "-u"]).ok().out(), "1000");
}

fn bad_users_are_refused(rt: &Runtime) {
    let c = up(rt);
    let ours = rt.kind() == coracle_integration::Kind::Coracle;
    for user in [":1", "1:", "-1", "1:-1", "root", "0x0", "1:2:3", "1;2", " 1", "1 "] {
        // runc 1.1 takes a third part and negative numbers.
        if !ours && ["1:2:3", "-1", "1:-1"].contains(&user) {
            continue;
        }
        c.exec_with(&["--user", user], &["id"]).exits(255).fails();
    }
    if ours {
        // A number that wraps to 0, or that means "leave it" to the kernel, would be another user.
        for user in ["+0", "4294967295", "4294967296", "0:4294967296"] {
            c.exec_with(&["--user", user], &["id"]).exits(255).fails();
        }
    }
}

fn sets(status: &str) -> [u64; 5] {
    ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].map(|set| {
        let text = host::status_field(status, set).expect("the kernel shows all five sets");
        u64::from_str_radix(text, 16).expect("a hexadecimal set")
    })
}

const KILL: u64 = 1 << 5;
const NET_ADMIN: u64 = 1 << 12;

fn exec_has_the_containers_capabilities(rt: &Runtime) {
    let c = up_with(rt, |config| grant(config, &["CAP_KILL"]));
    let seen = c.exec(&["cat", "/proc/self/status"]).ok();
    assert_eq!(sets(&seen.stdout), [0, KILL, KILL, KILL, 0]);
}

fn exec_cap_adds_capabilities(rt: &Runtime) {
    let c = up_with(rt, |config| grant(config, &["CAP_KILL"]));
    let seen = c.exec_with(&["--cap", "CAP_NET_ADMIN"], &["cat", "/proc/self/status"]).ok();
    let [_, permitted, effective, bounding, _] = sets(&seen.stdout);
    assert!([permitted, effective, bounding].iter().all(|set| *set == KILL | NET_ADMIN), "{seen}");
    c.exec_with(&["--cap", "CAP_FLY"], &["true"]);
}

fn exec_inheritable_set_is_empty(rt: &Runtime) {
    let c = up_with(rt, |config| grant(config, &["CAP_KILL"]));
    let seen = c.exec_with(&["--cap", "CAP_NET_ADMIN"], &["cat", "/proc/self/status"]).ok();
    assert_eq!(sets(&seen.stdout)[0], 0);
    let given = up_with(rt, |config| {
        grant(config, &["CAP_KILL"]);
        set_capabilities(config, &["inheritable"], &["CAP_KILL"]);
    });
    let seen = given.exec_with(&["--cap", "CAP_NET_ADMIN"], &["cat", "/proc/self/status"]).ok();
    assert_eq!(sets(&seen.stdout)[0] & NET_ADMIN, 0, "an added capability is never inheritable");
}

fn exec_no_new_privs_is_set(rt: &Runtime) {
    let c = up_with(rt, |config| config["process"]["noNewPrivileges"] = json!(false));
    let show = ["grep", "NoNewPrivs", "/proc/self/status"];
    assert_eq!(c.exec(&show).ok().out(), "NoNewPrivs:\t0");
    assert_eq!(c.exec_with(&["--no-new-privs"], &show).ok().out(), "NoNewPrivs:\t1");
}

fn exec_limits_are_the_containers(rt: &Runtime) {
    let c = up_with(rt, |config| {
        config["process"]["rlimits"] = json!([{ "type": "RLIMIT_CORE", "soft": 512, "hard": 1024 }]);
    });
    assert_eq!(c.exec(&["sh", "-c", "ulimit -Sc; ulimit -Hc"]).ok().lines(), ["1", "2"]);
}

fn exec_process_takes_a_file(rt: &Runtime) {
    let c = up(rt);
    let process = json!({
        "terminal": false,
        "user": { "uid": 1000, "gid": 7, "additionalGids": [5], "umask": 0o027 },
        "args": ["sh", "-c", "id -u; id -G; pwd; echo $WORD; umask; grep -E 'CapEff|NoNewPrivs' /proc/self/status; ulimit -c"],
        "env": ["PATH=/bin", "WORD=value", format!("{}={}", coracle_integration::leftovers::MARK, rt.mark())],
        "cwd": "/etc",
        "capabilities": { "bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"],
            "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"] },
        "rlimits": [{ "type": "RLIMIT_CORE", "soft": 512, "hard": 1024 }],
        "noNewPrivileges": true,
    });
    let file = rt.scratch("process.json");
    fs::write(&file, process.to_string()).expect("writing a file");
    let mut exec = rt.command(["exec", "--process"]);
    exec.arg(&file).arg(&c.id);
    let seen = run(exec).ok();
    let lines = seen.lines();
    assert_eq!(lines[..4], ["1000", "7 5", "/etc", "value"]);
    // runc takes the umask of exec since 1.2.
    if rt.kind() == coracle_integration::Kind::Coracle {
        assert_eq!(lines[4], "0027");
    }
    assert_eq!(lines[5..], ["CapEff:\t0000000000000020", "NoNewPrivs:\t1", "1"]);
}

fn exec_process_file_without_args_is_an_error(rt: &Runtime) {
    let c = up(rt);
    let file = rt.scratch("process.json");
    for text in ["{\"cwd\": \"/\"}", "{\"args\": [], \"cwd\": \"/\"}", "{", ""] {
        fs::write(&file, text).expect("writing a file");
        let mut exec = rt.command(["exec", "--process"]);
        exec.arg(&file).arg(&c.id);
        run(exec).exits(255).fails();
    }
    run(rt.command(["exec", "--process", "/not/there", &c.id])).exits(255).fails_with("/not/there");
}

fn exec_detached_comes_back_with_a_pid_file(rt: &Runtime) {
    let c = up(rt);
    let file = rt.scratch("exec.pid");
    let mut exec = c.exec_command(&["--detach", "--pid-file"], &[]);
    exec = {
        let mut again = rt.command(["exec", "--detach", "--pid-file"]);
        again.arg(&file).arg(&c.id).args(["sh", "-c", "echo here; sleep 1015"]);
        drop(exec);
        again
    };
    c.detached(exec).ok();
    let pid: i32 = fs::read_to_string(&file).expect("the pid file").parse().expect("digits only");
    assert!(host::is_alive(pid));
    assert_eq!(host::namespace_of(pid, "pid"), host::namespace_of(c.pid(), "pid"));
    c.wait_for_output("here");
}

fn exec_pid_file_holds_digits_only(rt: &Runtime) {
    let c = up(rt);
    let file = rt.scratch("exec.pid");
    let file = file.to_string_lossy();
    c.exec_with(&["--pid-file", &file], &["true"]).ok();
    let text = fs::read_to_string(&*file).expect("the pid file");
    assert!(!text.is_empty() && text.chars().all(|each| each.is_ascii_digit()), "{text:?}");
}

fn exec_passes_standard_input(rt: &Runtime) {
    let c = up(rt);
    let seen = run_with_input(c.exec_command(&[], &["wc", "-c"]), &"x".repeat(150_000)).ok();
    assert_eq!(seen.out(), "150000");
}

/// The command through bash, which opens descriptors first.
fn with_descriptors(opens: &str, direct: &std::process::Command, mark: &str) -> std::process::Command {
    let mut through = std::process::Command::new("bash");
    through
        .args(["-c", &format!("exec {opens}; exec \"$@\""), "sh"])
        .arg(direct.get_program())
        .args(direct.get_args());
    through.env(coracle_integration::leftovers::MARK, mark);
    through
}

fn exec_preserves_descriptors(rt: &Runtime) {
    let c = up(rt);
    let direct = c.exec_command(&["--preserve-fds", "1"], &["sh", "-c", "cat <&3; ls /proc/self/fd | wc -l"]);
    assert_eq!(
        run(with_descriptors("3<<<three 4</dev/null", &direct, rt.mark())).ok().lines(),
        ["three", "5"]
    );
}

fn exec_has_no_other_descriptors(rt: &Runtime) {
    let c = up(rt);
    let direct = c.exec_command(&[], &["ls", "/proc/self/fd"]);
    let seen = run(with_descriptors("3</dev/null 9</etc 77</etc/passwd", &direct, rt.mark())).ok();
    assert_eq!(seen.lines(), ["0", "1", "2", "3"]);
}

fn exec_forwards_signals(rt: &Runtime) {
    let c = up(rt);
    let script = "trap 'echo got; exit 5' USR1; echo ready; while :; do sleep 0.05; done";
    let running = Running::start(c.exec_command(&[], &["sh", "-c", script]));
    running.wait_for_output("ready");
    running.signal(Signal::USR1);
    let finished = running.finish().exits(5);
    assert!(finished.stdout.contains("got"), "{finished}");
}

fn exec_killed_by_a_signal_is_128_and_the_signal(rt: &Runtime) {
    up(rt).exec(&["sh", "-c", "kill -KILL $$"]).exits(128 + 9);
}

fn exec_is_in_the_containers_cgroups(rt: &Runtime) {
    let c = up(rt);
    let inside = c.exec(&["cat", "/proc/self/cgroup"]).ok();
    assert_eq!(inside.stdout, c.proc("cgroup"));
}

fn exec_in_a_subgroup(rt: &Runtime) -> Checked {
    let c = up(rt);
    let Some(pids) = host::cgroup_of(c.pid(), "pids") else {
        return skip("no cgroup v1 here");
    };
    for controller in ["pids", "memory", "cpu", "cpuacct", "devices", "freezer", "blkio", "systemd"] {
        if let Some(cgroup) = host::cgroup_of(c.pid(), controller) {
            fs::create_dir(cgroup.join("sub")).expect("making a cgroup");
        }
    }
    // With v1, a path for chosen controllers.
    let seen = c.exec_with(&["--cgroup", "pids:/sub"], &["cat", "/proc/self/cgroup"]).ok();
    let line = seen.stdout.lines().find(|line| line.contains(":pids:")).expect("the line of pids");
    assert!(line.ends_with(&format!("{}/sub", c.id)), "{line}");
    assert!(pids.join("sub").is_dir());
    Ok(())
}

fn exec_in_a_subgroup_outside_is_refused(rt: &Runtime) {
    let c = up(rt);
    for path in ["../..", "/../..", "pids:../../.."] {
        let ran = c.exec_with(&["--cgroup", path], &["cat", "/proc/self/cgroup"]);
        let inside = ran.stdout.lines().all(|line| line.contains(&c.id) || line.ends_with(":/"));
        assert!(!ran.status.success() || inside, "{path}: {ran}");
    }
    c.exec_with(&["--cgroup", "/not/there"], &["true"]).exits(255).fails();
}

fn exec_in_a_paused_container_waits_when_told(rt: &Runtime) {
    let c = up(rt);
    c.call("pause", &[]).ok();
    let running = Running::start(c.exec_command(&["--ignore-paused"], &["echo", "thawed"]));
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(running.stdout(), "");
    c.call("resume", &[]).ok();
    assert_eq!(running.finish().ok().out(), "thawed");
}

fn exec_ends_with_the_container(rt: &Runtime) {
    let c = up(rt);
    let running = Running::start(c.exec_command(&[], &["sh", "-c", "echo ready; sleep 1016"]));
    running.wait_for_output("ready");
    c.kill("KILL").ok();
    running.finish().exits(137);
    c.wait_for("stopped");
}

fn many_execs_at_once(rt: &Runtime) {
    let c = up(rt);
    let start = |index: i32| {
        Running::start(c.exec_command(&[], &["sh", "-c", &format!("echo {index}; exit {index}")]))
    };
    let all: Vec<Running> = (0..12).map(start).collect();
    for (index, running) in (0..).zip(all) {
        assert_eq!(running.finish().exits(index).out(), index.to_string());
    }
}

fn exec_keeps_working_after_a_failure(rt: &Runtime) {
    let c = up(rt);
    let before = fs::read_dir(rt.root().join(&c.id)).expect("the state directory").count();
    for _ in 0..5 {
        c.exec(&["nonesuch"]).exits(255);
        c.exec_with(&["--cwd", "/not/there"], &["true"]).exits(255);
    }
    c.exec(&["true"]).ok();
    assert_eq!(fs::read_dir(rt.root().join(&c.id)).expect("the state directory").count(), before);
    let alone = || c.call("ps", &["--format", "json"]).ok().out().matches(',').count() <= 1;
    assert!(eventually(alone), "{}", c.call("ps", &["--format", "json"]));
}

fn exec_in_a_created_container(rt: &Runtime) {
    let bundle = rt.sleeper();
    let c = rt.container(&bundle);
    c.create().ok();
    assert_eq!(c.exec(&["echo", "early"]).ok().out(), "early");
    assert_eq!(c.status(), "created");
    c.start().ok();
}

fn exec_flags_after_the_id_are_the_commands(rt: &Runtime) {
    let c = up(rt);
    assert_eq!(c.exec(&["echo", "--user", "-e", "--", "-t"]).ok().out(), "--user -e -- -t");
    assert_eq!(c.exec(&["ls", "-d", "/etc"]).ok().out(), "/etc");
}

fn exec_umask_is_the_containers(rt: &Runtime) -> Checked {
    rt.coracle_only("runc does so since 1.2")?;
    let c = up_with(rt, |config| config["process"]["user"]["umask"] = json!(0o027));
    assert_eq!(c.exec(&["sh", "-c", "umask"]).ok().out(), "0027");
    Ok(())
}

fn exec_of_a_file_has_the_containers_umask(rt: &Runtime) -> Checked {
    rt.coracle_only("runc does so since 1.2")?;
    let c = up_with(rt, |config| config["process"]["user"]["umask"] = json!(0o027));
    let of_file = |user: Value| {
        let process =
            json!({ "cwd": "/", "args": ["sh", "-c", "umask"], "env": ["PATH=/bin"], "user": user });
        let file = rt.scratch("process");
        fs::write(&file, process.to_string()).expect("writing the process file");
        c.exec_with(&["--process", &file.to_string_lossy()], &[]).ok().out().to_owned()
    };
    assert_eq!(of_file(json!({ "uid": 0, "gid": 0 })), "0027");
    assert_eq!(of_file(json!({ "uid": 0, "gid": 0, "umask": 0o077 })), "0077");
    Ok(())
}

fn exec_stays_in_the_callers_keyring_as_its_container_does(rt: &Runtime) -> Checked {
    if !fs::exists("/proc/keys").unwrap_or(false) {
        return skip("this kernel has no keys");
    }
    for (options, own) in [(&["--no-new-keyring"][..], false), (&[], true)] {
        let bundle = rt.sleeper().edit(|config| config["linux"]["maskedPaths"] = json!([]));
        let c = rt.container(&bundle);
        c.create_with(options).ok();
        c.start().ok();
        let keys = c.exec(&["cat", "/proc/keys"]).ok();
        let name = format!("_ses.{}", c.id);
        let keyring = keys.lines().into_iter().find(|line| line.contains(&name)).map(str::to_owned);
        assert_eq!(keyring.is_some(), own, "{keys}");
        // All for who possesses it; for its user also view, read, search and link.
        assert!(keyring.is_none_or(|line| line.contains(" 3f1b0000 ")), "{keys}");
    }
    Ok(())
}

fn exec_without_final_cpus_stays_where_it_began(rt: &Runtime) -> Checked {
    rt.coracle_only("runc has process.execCPUAffinity since 1.3")?;
    let c = up_with(rt, |config| config["process"]["execCPUAffinity"] = json!({ "initial": "1" }));
    let cpus = ["grep", "Cpus_allowed_list", "/proc/self/status"];
    assert_eq!(c.exec(&cpus).ok().out(), "Cpus_allowed_list:\t1");
    Ok(())
}

fn exec_sees_no_process_of_the_runtime(rt: &Runtime) {
    let c = up_with(rt, |config| without_namespace(config, "ipc"));
    let seen = c.exec(&["sh", "-c", "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; echo; done"]).ok();
    let runtime = rt.binary().file_name().expect("a file name").to_string_lossy().into_owned();
    assert!(!seen.stdout.contains(&format!("{runtime} ")), "{seen}");
}
