//! What runc does where the specification leaves a choice, and people count on: the terminal's new lines, where hooks
//! run and with what, what an exec takes from its container, how a filter and the runtime's own calls go together.

use std::fs;
use std::process::ExitCode;

use coracle_integration::bundle::{add_mount, without_namespace};
use coracle_integration::command::{command, eventually, run};
use coracle_integration::console::Terminal;
use coracle_integration::{Bundle, Checked, Container, Runtime, host, tests};
use serde_json::{Value, json};

fn main() -> ExitCode {
    coracle_integration::run_tests(tests![
        an_empty_signal_or_user_is_none,
        an_empty_list_is_null,
        limits_of_kernel_memory_are_passed_over,
        a_pid_file_that_cannot_be_written_leaves_nothing,
        a_process_that_comes_to_nothing_leaves_no_pid_file,
        the_log_of_debug_is_not_the_containers_output,
        new_lines_of_a_terminal_come_out_as_written,
        create_container_hooks_run_in_the_rootfs,
        start_container_hooks_have_the_programs_environment,
        start_container_hooks_run_under_the_filter,
        a_filter_may_forbid_what_the_runtime_calls,
        a_created_container_ends_by_sigterm,
        kill_reaches_what_outlived_the_first_process,
        an_exec_takes_what_its_file_does_not_say,
        an_exec_has_the_containers_personality,
        an_added_capability_is_ambient_if_it_is_inheritable,
        scheduler_flags_have_the_names_of_the_spec,
        taking_an_access_time_option_back_changes_nothing,
        a_destination_below_the_rootfs_is_meant_inside,
        a_missing_cwd_is_made_in_a_readonly_rootfs,
        absent_capabilities_are_none_without_a_word,
        a_fifo_may_have_numbers,
        letters_that_mean_nothing_in_a_device_rule_are_ignored,
        an_unknown_controller_of_exec_is_told,
        what_the_caller_ignores_is_not_ignored_inside,
    ])
}

/// A hook that runs a shell script with busybox, which is there on the host and in the container.
fn hook(script: &str) -> Value {
    json!({ "path": "/bin/busybox", "args": ["sh", "-c", script] })
}

/// The value of a line such as `CapAmb:` of what /proc/PID/status has.
fn field<'s>(status: &'s str, name: &str) -> &'s str {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("no {name} in {status}"))
        .trim_matches(|c: char| c == ':' || c.is_whitespace())
}

/// Executes what a process file says, and gives what it wrote.
fn exec_of_file(rt: &Runtime, c: &Container<'_>, process: &Value) -> String {
    let file = rt.scratch(&format!("{}.process", c.id));
    fs::write(&file, process.to_string()).expect("writing the process file");
    c.exec_with(&["--process", &file.to_string_lossy()], &[]).ok().stdout
}

fn new_lines_of_a_terminal_come_out_as_written(rt: &Runtime) {
    let bundle = rt.script("echo one; echo two").edit(|config| config["process"]["terminal"] = json!(true));
    let line = format!(
        "{:?} --root {:?} run --bundle {:?} {}-n | od -c",
        rt.binary(),
        rt.root(),
        bundle.path(),
        rt.mark()
    );
    // A terminal for the runtime's input, a pipe for its output.
    let (running, mut terminal) = Terminal::around(command("sh", &["-c", &line]));
    let seen = terminal.read_to_end();
    running.finish().ok();
    assert!(seen.contains("o   n   e  \\n   t   w   o  \\n"), "{seen}");
}

fn create_container_hooks_run_in_the_rootfs(rt: &Runtime) {
    let bundle = rt.bundle(&["cat", "/made"]).edit(|config| {
        config["hooks"]["createContainer"] = json!([hook("echo by the hook > ./made")]);
    });
    assert_eq!(rt.container(&bundle).run().ok().out(), "by the hook");
}

fn start_container_hooks_have_the_programs_environment(rt: &Runtime) {
    let bundle = rt.bundle(&["cat", "/made"]).edit(|config| {
        config["process"]["env"] = json!(["PATH=/bin", "ONE=two"]);
        config["process"]["cwd"] = json!("/tmp");
        config["hooks"]["startContainer"] = json!([hook("echo $ONE $HOME $PWD > /made")]);
    });
    assert_eq!(rt.container(&bundle).run().ok().out(), "two /root /tmp");
}

/// A filter that allows all but `names`.
fn all_but(names: &[&str], errno: i32) -> Value {
    json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{ "names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": errno }],
    })
}

fn start_container_hooks_run_under_the_filter(rt: &Runtime) {
    for no_new_privileges in [true, false] {
        let bundle = rt.bundle(&["true"]).edit(|config| {
            config["process"]["noNewPrivileges"] = json!(no_new_privileges);
            config["linux"]["seccomp"] = all_but(&["mkdir", "mkdirat"], 1);
            config["hooks"]["startContainer"] = json!([hook("mkdir /made")]);
        });
        let ended = rt.container(&bundle).run().fails_with("error running startContainer hook #0");
        assert!(ended.stderr.contains("Operation not permitted"), "{ended}");
    }
}

fn a_filter_may_forbid_what_the_runtime_calls(rt: &Runtime) {
    let forbidden =
        ["close_range", "fsopen", "fsconfig", "openat2", "open_tree", "move_mount", "mount_setattr"];
    for no_new_privileges in [true, false] {
        let seen = rt.sh("echo here", |config| {
            config["process"]["noNewPrivileges"] = json!(no_new_privileges);
            config["linux"]["seccomp"] = all_but(&forbidden, 38);
        });
        assert_eq!(seen.ok().out(), "here");
    }
}

fn a_created_container_ends_by_sigterm(rt: &Runtime) {
    let c = rt.container(&rt.sleeper());
    c.create().ok();
    c.kill("TERM").ok();
    c.wait_for("stopped");
    c.start().fails_with("cannot start a container that has stopped");
    c.delete().ok();
}

fn kill_reaches_what_outlived_the_first_process(rt: &Runtime) {
    let bundle = rt.script("sleep 1000 & exec sleep 1000").edit(|config| without_namespace(config, "pid"));
    let c = rt.container(&bundle);
    c.up();
    let first = c.pid();
    assert!(eventually(|| pids(&c).len() == 2), "the shell has not begun both: {:?}", pids(&c));
    let other = pids(&c).into_iter().find(|pid| *pid != first).expect("a second process");
    run(command("kill", &["-KILL", &first.to_string()])).ok();
    c.wait_for("stopped");
    assert!(host::is_alive(other), "the other process ended with the first");
    c.kill("KILL").ok();
    assert!(eventually(|| !host::is_alive(other)), "the other process was not reached");
    c.delete().ok();
}

fn pids(c: &Container<'_>) -> Vec<i32> {
    serde_json::from_str(&c.call("ps", &["--format", "json"]).ok().stdout).expect("a list of pids")
}

fn an_exec_takes_what_its_file_does_not_say(rt: &Runtime) {
    let c = rt.container(&rt.sleeper());
    c.up();
    let process = json!({ "cwd": "/", "args": ["cat", "/proc/self/status"], "env": ["PATH=/bin"] });
    let seen = exec_of_file(rt, &c, &process);
    // CAP_KILL, CAP_NET_BIND_SERVICE and CAP_AUDIT_WRITE: 5, 10 and 29.
    assert_eq!(field(&seen, "CapEff"), "0000000020000420");
}

fn an_exec_has_the_containers_personality(rt: &Runtime) {
    let bundle = rt.sleeper().edit(|config| config["linux"]["personality"] = json!({ "domain": "LINUX32" }));
    let c = rt.container(&bundle);
    c.up();
    assert_eq!(c.exec(&["uname", "-m"]).ok().out(), "i686");
}

fn an_added_capability_is_ambient_if_it_is_inheritable(rt: &Runtime) {
    let bundle = rt.sleeper().edit(|config| {
        config["process"]["capabilities"] = json!({
            "bounding": ["CAP_KILL", "CAP_CHOWN", "CAP_SYSLOG"],
            "inheritable": ["CAP_SYSLOG"],
            "permitted": ["CAP_KILL"],
            "effective": ["CAP_KILL"],
        });
    });
    let c = rt.container(&bundle);
    c.up();
    let options = ["--cap", "CAP_SYSLOG", "--cap", "CAP_CHOWN"];
    let status = c.exec_with(&options, &["cat", "/proc/self/status"]).ok().stdout;
    assert_eq!(field(&status, "CapAmb"), "0000000400000000");
    assert_eq!(field(&status, "CapInh"), "0000000400000000");
    assert_eq!(field(&status, "CapEff"), "0000000400000021");
}

fn scheduler_flags_have_the_names_of_the_spec(rt: &Runtime) {
    let c = rt.container(&rt.sleeper());
    c.up();
    let process = json!({
        "cwd": "/", "args": ["cat", "/proc/self/sched"], "env": ["PATH=/bin"],
        "scheduler": { "policy": "SCHED_BATCH", "nice": 5, "flags": ["SCHED_FLAG_RESET_ON_FORK"] },
    });
    let seen = exec_of_file(rt, &c, &process);
    let policy = seen.lines().find(|line| line.starts_with("policy")).expect("a policy");
    assert!(policy.trim_end().ends_with('3'), "SCHED_BATCH is 3: {policy}");
}

fn taking_an_access_time_option_back_changes_nothing(rt: &Runtime) {
    let source = rt.own("source");
    fs::create_dir(&source).expect("making a directory");
    let path = source.to_string_lossy();
    run(command("mount", &["-t", "tmpfs", "-o", "noatime,nodiratime", "tmpfs", &path])).ok();
    let options = |wanted: &'static str| {
        let seen = rt.sh("awk '$2 == \"/mnt\" { print $4 }' /proc/self/mounts", |config| {
            add_mount(config, "/mnt", "bind", &source.to_string_lossy(), &["bind", wanted]);
        });
        seen.ok().out().to_owned()
    };
    for kept in ["atime", "norelatime", "dev"] {
        let seen = options(kept);
        assert!(seen.contains("noatime") && seen.contains("nodiratime"), "{kept}: {seen}");
    }
    let changed = options("relatime");
    assert!(changed.contains("relatime") && !changed.contains("noatime"), "{changed}");
    assert!(!changed.contains("nodiratime"), "{changed}");
}

fn a_destination_below_the_rootfs_is_meant_inside(rt: &Runtime) {
    let bundle = rt.bundle(&["grep", "-c", " /mnt ", "/proc/self/mounts"]);
    let inside = bundle.rootfs("mnt");
    let bundle = bundle.edit(|config| add_mount(config, &inside.to_string_lossy(), "tmpfs", "tmpfs", &[]));
    assert_eq!(rt.container(&bundle).run().ok().out(), "1");
}

fn a_missing_cwd_is_made_in_a_readonly_rootfs(rt: &Runtime) {
    let seen = rt.sh("pwd; touch /x 2>/dev/null || echo read-only", |config| {
        config["process"]["cwd"] = json!("/not/there");
        config["root"]["readonly"] = json!(true);
    });
    assert_eq!(seen.ok().lines(), ["/not/there", "read-only"]);
}

fn absent_capabilities_are_none_without_a_word(rt: &Runtime) -> Checked {
    rt.coracle_only("runc leaves such a process all of its own capabilities")?;
    let seen = rt.sh("grep CapEff /proc/self/status", |config| {
        config["process"].as_object_mut().expect("a process").remove("capabilities");
    });
    let seen = seen.ok();
    assert_eq!(field(&seen.stdout, "CapEff"), "0000000000000000");
    assert_eq!(seen.stderr, "");
    Ok(())
}

fn a_fifo_may_have_numbers(rt: &Runtime) -> Checked {
    rt.coracle_only("runc 1.1 takes them, and 1.3 refuses them after it has made the node")?;
    let seen = rt.sh("test -p /dev/pipe && echo a FIFO", |config| {
        config["linux"]["devices"] =
            json!([{ "path": "/dev/pipe", "type": "p", "major": 8, "minor": 666, "fileMode": 0o600 }]);
    });
    assert_eq!(seen.ok().out(), "a FIFO");
    Ok(())
}

fn letters_that_mean_nothing_in_a_device_rule_are_ignored(rt: &Runtime) {
    let bundle: Bundle = rt.bundle(&["echo", "here"]).edit(|config| {
        config["linux"]["resources"]["devices"] = json!([
            { "allow": false, "access": "rwm" },
            { "allow": false, "type": "c", "major": 1, "minor": 11, "access": "rwa" },
        ]);
    });
    assert_eq!(rt.container(&bundle).run().ok().out(), "here");
}

fn an_unknown_controller_of_exec_is_told(rt: &Runtime) {
    let c = rt.container(&rt.sleeper());
    c.up();
    let exec = |cgroup: &str| c.exec_with(&["--cgroup", cgroup], &["true"]);
    exec("whatever:/").fails_with("unknown controller ");
    exec("..").fails_with(" .. is not a sub cgroup path");
    exec("nonexistent").fails_with("adding pid ");
    exec("nonexistent").fails_with("/nonexistent/cgroup.procs: no such file ");
}

fn what_the_caller_ignores_is_not_ignored_inside(rt: &Runtime) {
    let bundle = rt.bundle(&["cat", "/proc/self/status"]);
    let call =
        format!("{:?} --root {:?} run --bundle {:?} {}-i", rt.binary(), rt.root(), bundle.path(), rt.mark());
    let line = format!("trap '' HUP INT QUIT TERM; exec {call}");
    let seen = run(command("sh", &["-c", &line])).ok().stdout;
    assert_eq!(field(&seen, "SigIgn"), "0000000000000000");
}

fn an_empty_signal_or_user_is_none(rt: &Runtime) {
    let bundle = rt.sleeper();
    let c = rt.container(&bundle);
    c.up();
    assert_eq!(c.exec_with(&["--user", ""], &["id", "-u"]).ok().out(), "0");
    c.kill("").ok();
    c.wait_for("stopped");
}

fn an_empty_list_is_null(rt: &Runtime) {
    fs::create_dir_all(rt.root()).expect("making a directory");
    assert_eq!(rt.call(&["list", "--format", "json"]).ok().out(), "null");
    let bundle = rt.bundle(&["true"]);
    let c = rt.container(&bundle);
    c.up();
    c.wait_for("stopped");
    assert_eq!(c.call("ps", &["--format", "json"]).ok().out(), "null");
}

fn limits_of_kernel_memory_are_passed_over(rt: &Runtime) {
    let bundle = rt.sleeper();
    let c = rt.container(&bundle);
    c.up();
    let said = c.call("update", &["--kernel-memory", "50M", "--kernel-memory-tcp", "50M"]).ok();
    assert!(said.stderr.contains("Kernel memory settings are ignored"), "{said}");
}

/// The names in a directory.
fn names(directory: &std::path::Path) -> Vec<std::ffi::OsString> {
    let entries = fs::read_dir(directory).expect("reading a directory");
    entries.map(|entry| entry.expect("reading a directory").file_name()).collect()
}

fn a_pid_file_that_cannot_be_written_leaves_nothing(rt: &Runtime) -> Checked {
    rt.coracle_only("runc leaves it")?;
    let place = rt.scratch("place");
    fs::create_dir_all(place.join("pid")).expect("making a directory");
    let bundle = rt.sleeper();
    rt.container(&bundle).create_with(&["--pid-file", &place.join("pid").to_string_lossy()]).fails();
    assert_eq!(names(&place), ["pid"]);
    rt.assert_clean();
    Ok(())
}

fn a_process_that_comes_to_nothing_leaves_no_pid_file(rt: &Runtime) -> Checked {
    rt.coracle_only("runc leaves it")?;
    let bundle = rt.sleeper();
    bundle.file("bin/broken", "neither a program nor a script", 0o755);
    let place = rt.scratch("place");
    fs::create_dir(&place).expect("making a directory");
    let c = rt.container(&bundle);
    c.up();
    c.exec_with(&["--pid-file", &place.join("pid").to_string_lossy()], &["/bin/broken"]).fails();
    assert!(names(&place).is_empty(), "{:?}", names(&place));
    Ok(())
}

fn the_log_of_debug_is_not_the_containers_output(rt: &Runtime) {
    let bundle = rt.sleeper();
    let c = rt.container(&bundle);
    let log = rt.scratch("debug.log");
    let mut create = rt.command(["--debug", "--log", &log.to_string_lossy()]);
    create.args(c.create_command(&[]).get_args().skip(2));
    c.detached(create).ok();
    c.start().ok();
    assert_eq!(c.output(), "");
    assert!(fs::read_to_string(&log).expect("the log").contains("level=debug"));
}
