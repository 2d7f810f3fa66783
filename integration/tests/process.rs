//! What `process` in config.json gives the container's process.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::ExitCode;

use coracle_integration::bundle::{grant, push, set_capabilities, without_namespace};
use coracle_integration::command::{command, run};
use coracle_integration::{Checked, Runtime, host, tests};
use serde_json::{Value, json};

fn main() -> ExitCode {
    coracle_integration::run_tests(tests![
        args_arrive_as_they_are,
        env_arrives_as_it_is_and_nothing_else,
        args_are_looked_up_in_the_path_of_the_container,
        a_relative_program_is_of_the_working_directory,
        a_script_runs_by_its_interpreter,
        cwd_is_where_the_process_starts,
        a_missing_cwd_is_made,
        home_is_of_the_users_entry,
        home_without_an_entry_is_the_root,
        home_that_is_given_is_kept,
        an_empty_home_is_replaced,
        user_and_group_are_as_given,
        additional_groups_are_as_given,
        groups_of_the_runtime_do_not_reach_the_process,
        umask_is_as_given,
        umask_is_022_when_not_given,
        capabilities_are_exactly_those_given,
        an_empty_capability_list_drops_all,
        capabilities_of_a_user_other_than_root_need_the_ambient_set,
        the_inheritable_set_is_as_given,
        no_new_privileges_is_set,
        no_new_privileges_is_not_set_unless_asked,
        a_setuid_program_gains_nothing_with_no_new_privileges,
        resource_limits_are_as_given,
        an_oom_score_adjustment_is_set,
        no_signal_is_blocked_and_none_is_ignored_but_by_the_caller,
        the_process_leads_a_session,
        the_scheduler_is_set,
        the_io_priority_is_set,
        the_cpu_affinity_is_set,
        nothing_is_executed_from_the_working_directory,
        the_personality_is_set,
        a_huge_environment_arrives,
        many_arguments_arrive,
    ])
}

fn args_arrive_as_they_are(rt: &Runtime) {
    let script = "for word; do echo \"[$word]\"; done";
    let bundle = rt.bundle(&["sh", "-c", script, "sh", "one two", "", "$HOME", "ünïcode", "-x", "\"", "*"]);
    let seen = rt.container(&bundle).run().ok();
    assert_eq!(seen.lines(), ["[one two]", "[]", "[$HOME]", "[ünïcode]", "[-x]", "[\"]", "[*]"]);
}

fn env_arrives_as_it_is_and_nothing_else(rt: &Runtime) {
    let bundle = rt.bundle(&["/bin/env"]).edit(|config| {
        config["process"]["env"] = json!(["ONE=1", "EMPTY=", "BLANK= a b ", "TWICE=first", "TWICE=second"]);
    });
    let seen = rt.container(&bundle).run().ok();
    let mut lines = seen.lines();
    lines.retain(|line| !line.starts_with("HOME="));
    lines.dedup_by_key(|line| line.split('=').next().map(str::to_owned));
    assert_eq!(lines.first(), Some(&"ONE=1"));
    for line in ["EMPTY=", "BLANK= a b "] {
        assert!(lines.contains(&line), "{seen}");
    }
    assert!(
        lines
            .iter()
            .all(|line| ["ONE", "EMPTY", "BLANK", "TWICE"].contains(&line.split('=').next().unwrap_or("")))
    );
}

fn args_are_looked_up_in_the_path_of_the_container(rt: &Runtime) {
    let bundle = rt
        .bundle(&["tool"])
        .edit(|config| config["process"]["env"] = json!(["PATH=/nowhere:/opt/one:/opt/two:/bin"]));
    bundle.file("opt/one/tool", "not executable", 0o644);
    bundle.file("opt/two/tool", "#!/bin/sh\necho two\n", 0o755);
    bundle.file("bin/tool", "#!/bin/sh\necho bin\n", 0o755);
    assert_eq!(rt.container(&bundle).run().ok().out(), "two");
}

fn a_relative_program_is_of_the_working_directory(rt: &Runtime) {
    let bundle = rt.bundle(&["./tool"]).edit(|config| config["process"]["cwd"] = json!("/opt"));
    bundle.file("opt/tool", "#!/bin/sh\npwd\n", 0o755);
    assert_eq!(rt.container(&bundle).run().ok().out(), "/opt");
}

fn a_script_runs_by_its_interpreter(rt: &Runtime) {
    let bundle = rt.bundle(&["/opt/tool", "word"]);
    bundle.file("opt/tool", "#!/bin/sh\necho \"$0 $1\"\n", 0o755);
    assert_eq!(rt.container(&bundle).run().ok().out(), "/opt/tool word");
}

fn cwd_is_where_the_process_starts(rt: &Runtime) {
    let seen = rt.sh("pwd; readlink /proc/self/cwd", |config| config["process"]["cwd"] = json!("/usr/bin"));
    assert_eq!(seen.ok().lines(), ["/usr/bin", "/usr/bin"]);
}

fn a_missing_cwd_is_made(rt: &Runtime) {
    let seen = rt.sh("pwd", |config| config["process"]["cwd"] = json!("/not/there/yet"));
    assert_eq!(seen.ok().out(), "/not/there/yet");
}

fn home_is_of_the_users_entry(rt: &Runtime) {
    assert_eq!(rt.sh("echo $HOME", |_| ()).ok().out(), "/root");
    let user = rt.sh("echo $HOME", |config| config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 }));
    assert_eq!(user.ok().out(), "/home/user");
}

fn home_without_an_entry_is_the_root(rt: &Runtime) {
    let seen = rt.sh("echo $HOME", |config| config["process"]["user"] = json!({ "uid": 4711, "gid": 1000 }));
    assert_eq!(seen.ok().out(), "/");
}

fn home_that_is_given_is_kept(rt: &Runtime) {
    let seen = rt.sh("echo $HOME", |config| push(config, "/process/env", json!("HOME=/elsewhere")));
    assert_eq!(seen.ok().out(), "/elsewhere");
}

fn an_empty_home_is_replaced(rt: &Runtime) -> Checked {
    rt.coracle_only("runc does so since 1.3")?;
    let seen = rt.sh("echo $HOME", |config| push(config, "/process/env", json!("HOME=")));
    assert_eq!(seen.ok().out(), "/root");
    Ok(())
}

fn user_and_group_are_as_given(rt: &Runtime) {
    let script = "grep -E '^(Uid|Gid)' /proc/self/status";
    let seen = rt.sh(script, |config| config["process"]["user"] = json!({ "uid": 1234, "gid": 5678 })).ok();
    assert_eq!(seen.lines(), ["Uid:\t1234\t1234\t1234\t1234", "Gid:\t5678\t5678\t5678\t5678"]);
}

fn additional_groups_are_as_given(rt: &Runtime) {
    let user = json!({ "uid": 1000, "gid": 1000, "additionalGids": [5, 6, 70000] });
    let seen = rt.sh("grep ^Groups /proc/self/status", |config| config["process"]["user"] = user).ok();
    let groups: Vec<&str> = seen.out().split_whitespace().skip(1).collect();
    assert_eq!(groups, ["5", "6", "70000"]);
}

fn groups_of_the_runtime_do_not_reach_the_process(rt: &Runtime) {
    let bundle = rt.script("grep ^Groups /proc/self/status");
    let c = rt.container(&bundle);
    let direct = c.run_command(&[]);
    let mut through = std::process::Command::new("setpriv");
    through.args(["--groups", "4,27", "--"]).arg(direct.get_program()).args(direct.get_args());
    let seen = run(through).ok();
    assert_eq!(seen.out(), "Groups:", "{seen}");
}

fn umask_is_as_given(rt: &Runtime) {
    let seen = rt.sh("umask; grep Umask /proc/self/status", |config| {
        config["process"]["user"]["umask"] = json!(0o027);
    });
    assert_eq!(seen.ok().lines(), ["0027", "Umask:\t0027"]);
}

fn umask_is_022_when_not_given(rt: &Runtime) {
    let bundle = rt.script("umask");
    let c = rt.container(&bundle);
    let direct = c.run_command(&[]);
    let mut through = std::process::Command::new("sh");
    through.args(["-c", "umask 077; exec \"$@\"", "sh"]).arg(direct.get_program()).args(direct.get_args());
    assert_eq!(run(through).ok().out(), "0022");
}

/// The five sets of the process, in the order of `/proc/PID/status`.
fn capability_sets(rt: &Runtime, edit: impl FnOnce(&mut Value)) -> [u64; 5] {
    let seen = rt.sh("cat /proc/self/status", edit).ok();
    ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].map(|set| {
        let text = host::status_field(&seen.stdout, set).expect("the kernel shows all five sets");
        u64::from_str_radix(text, 16).expect("a hexadecimal set")
    })
}

const KILL: u64 = 1 << 5;
const SETUID: u64 = 1 << 7;
const NET_ADMIN: u64 = 1 << 12;

fn capabilities_are_exactly_those_given(rt: &Runtime) {
    let sets = capability_sets(rt, |config| {
        set_capabilities(config, &["bounding"], &["CAP_KILL", "CAP_SETUID", "CAP_NET_ADMIN"]);
        set_capabilities(config, &["effective", "permitted"], &["CAP_KILL", "CAP_NET_ADMIN"]);
    });
    // execve by root makes permitted the bounding set; no_new_privs limits that to what was permitted.
    let given = KILL | NET_ADMIN;
    assert_eq!(sets[3], given | SETUID);
    assert_eq!((sets[0], sets[4]), (0, 0));
    assert!(sets[1] & !(given | SETUID) == 0 && sets[1] & given == given, "{sets:x?}");
}

fn an_empty_capability_list_drops_all(rt: &Runtime) {
    let none = |config: &mut Value| {
        set_capabilities(config, &["bounding", "effective", "permitted", "inheritable", "ambient"], &[]);
    };
    assert_eq!(capability_sets(rt, none), [0; 5]);
}

fn capabilities_of_a_user_other_than_root_need_the_ambient_set(rt: &Runtime) {
    let user = json!({ "uid": 1000, "gid": 1000 });
    let without = capability_sets(rt, |config| {
        config["process"]["user"] = user.clone();
        grant(config, &["CAP_KILL"]);
    });
    assert_eq!(without, [0, 0, 0, KILL, 0]);
    let with = capability_sets(rt, |config| {
        config["process"]["user"] = user.clone();
        grant(config, &["CAP_KILL"]);
        set_capabilities(config, &["inheritable", "ambient"], &["CAP_KILL"]);
    });
    assert_eq!(with, [KILL; 5]);
}

fn the_inheritable_set_is_as_given(rt: &Runtime) {
    let sets = capability_sets(rt, |config| {
        grant(config, &["CAP_KILL", "CAP_SETUID"]);
        set_capabilities(config, &["inheritable"], &["CAP_KILL"]);
    });
    assert_eq!((sets[0], sets[4]), (KILL, 0));
}

fn no_new_privileges_is_set(rt: &Runtime) {
    assert_eq!(rt.sh("grep NoNewPrivs /proc/self/status", |_| ()).ok().out(), "NoNewPrivs:\t1");
}

fn no_new_privileges_is_not_set_unless_asked(rt: &Runtime) {
    let off = rt.sh("grep NoNewPrivs /proc/self/status", |config| {
        config["process"]["noNewPrivileges"] = json!(false);
    });
    assert_eq!(off.ok().out(), "NoNewPrivs:\t0");
    let unsaid = rt.sh("grep NoNewPrivs /proc/self/status", |config| {
        config["process"].as_object_mut().expect("an object").remove("noNewPrivileges");
    });
    assert_eq!(unsaid.ok().out(), "NoNewPrivs:\t0");
}

fn a_setuid_program_gains_nothing_with_no_new_privileges(rt: &Runtime) {
    for (set, owner) in [(true, "1000"), (false, "0")] {
        // A program that gained rights is not dumpable, so that its files in /proc belong to root.
        let bundle = rt.bundle(&["/opt/busybox", "stat", "-c", "%u", "/proc/self/environ"]).edit(|config| {
            config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
            config["process"]["noNewPrivileges"] = json!(set);
        });
        let program = bundle.file("opt/busybox", "", 0o755);
        fs::copy(bundle.rootfs("bin/busybox"), &program).expect("copying busybox");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).expect("chmod");
        assert_eq!(rt.container(&bundle).run().ok().out(), owner);
    }
}

fn resource_limits_are_as_given(rt: &Runtime) {
    let seen = rt.sh("cat /proc/self/limits", |config| {
        config["process"]["rlimits"] = json!([
            { "type": "RLIMIT_NOFILE", "soft": 100, "hard": 200 },
            { "type": "RLIMIT_CORE", "soft": 0, "hard": 4096 },
            { "type": "RLIMIT_FSIZE", "soft": 1_048_576, "hard": 2_097_152 },
            { "type": "RLIMIT_NPROC", "soft": 500, "hard": 600 },
            { "type": "RLIMIT_STACK", "soft": 1_048_576, "hard": u64::MAX },
        ]);
    });
    let seen = seen.ok();
    for (name, soft, hard) in [
        ("Max open files", "100", "200"),
        ("Max core file size", "0", "4096"),
        ("Max file size", "1048576", "2097152"),
        ("Max processes", "500", "600"),
        ("Max stack size", "1048576", "unlimited"),
    ] {
        let line =
            seen.stdout.lines().find_map(|line| line.strip_prefix(name)).expect("a line for each limit");
        let values: Vec<&str> = line.split_whitespace().take(2).collect();
        assert_eq!(values, [soft, hard], "{name}");
    }
}

fn an_oom_score_adjustment_is_set(rt: &Runtime) {
    let seen = rt.sh("cat /proc/self/oom_score_adj", |config| config["process"]["oomScoreAdj"] = json!(345));
    assert_eq!(seen.ok().out(), "345");
}

fn no_signal_is_blocked_and_none_is_ignored_but_by_the_caller(rt: &Runtime) {
    let set = |text: &str, name: &str| {
        let set = host::status_field(text, name).expect("the kernel shows the set");
        u64::from_str_radix(set, 16).expect("a hexadecimal set")
    };
    // What any command is started with here: the C library ignores two signals of its own in what it spawns.
    let callers = run(command("cat", &["/proc/self/status"])).ok();
    let bundle = rt.bundle(&["cat", "/proc/self/status"]);
    let seen = rt.container(&bundle).run().ok();
    assert_eq!(set(&seen.stdout, "SigBlk"), 0);
    let ignored = set(&seen.stdout, "SigIgn");
    assert_eq!(ignored & !set(&callers.stdout, "SigIgn"), 0, "ignored: {ignored:x}");
}

fn the_process_leads_a_session(rt: &Runtime) {
    // Fields 5 and 6 of stat: process group and session.
    let seen = rt.sh("set -- $(cat /proc/1/stat); echo $5 $6", |_| ()).ok();
    assert_eq!(seen.out(), "1 1");
}

fn the_scheduler_is_set(rt: &Runtime) -> Checked {
    rt.coracle_only("runc has process.scheduler since 1.2")?;
    // Fields 19 and 41 of stat: nice value and policy (3 is SCHED_BATCH).
    let seen = rt.sh("set -- $(cat /proc/1/stat); shift 9; echo ${10}; shift 22; echo ${10}", |config| {
        config["process"]["scheduler"] = json!({ "policy": "SCHED_BATCH", "nice": 7 });
    });
    assert_eq!(seen.ok().lines(), ["7", "3"]);
    Ok(())
}

fn the_io_priority_is_set(rt: &Runtime) -> Checked {
    rt.coracle_only("runc has process.ioPriority since 1.2")?;
    let seen = rt.sh("ionice -p $$", |config| {
        config["process"]["ioPriority"] = json!({ "class": "IOPRIO_CLASS_BE", "priority": 6 });
    });
    let seen = seen.ok();
    assert!(seen.stdout.contains("best-effort") && seen.stdout.contains('6'), "{seen}");
    Ok(())
}

fn the_cpu_affinity_is_set(rt: &Runtime) -> Checked {
    rt.coracle_only("runc has process.execCPUAffinity since 1.3")?;
    let bundle = rt.sleeper().edit(|config| {
        config["process"]["execCPUAffinity"] = json!({ "initial": "0-1", "final": "1" });
    });
    let c = rt.container(&bundle);
    c.up();
    let seen = c.exec(&["grep", "Cpus_allowed_list", "/proc/self/status"]).ok();
    assert_eq!(seen.out(), "Cpus_allowed_list:\t1");
    Ok(())
}

fn nothing_is_executed_from_the_working_directory(rt: &Runtime) {
    const NOT_FOUND: &str = "executable file not found in $PATH";
    const RELATIVE: &str = "cannot run executable found relative to current directory";
    let with_path = |path: Option<&str>, args: &[&str]| {
        let bundle = rt.bundle(args).edit(|config| {
            let marked = config["process"]["env"].as_array().expect("a list").iter();
            let mut env: Vec<Value> = marked
                .filter(|entry| !entry.as_str().unwrap_or_default().starts_with("PATH="))
                .cloned()
                .collect();
            env.extend(path.map(|path| json!(format!("PATH={path}"))));
            config["process"]["env"] = json!(env);
            config["process"]["cwd"] = json!("/work");
        });
        bundle.file("work/prog", "#!/bin/sh\necho ran\n", 0o755);
        rt.container(&bundle).run()
    };
    for path in [None, Some("")] {
        with_path(path, &["prog"]).fails_with(NOT_FOUND);
    }
    for path in [":/bin", ".", "/bin:.", "../work:/bin", "/bin::/usr/bin"] {
        with_path(Some(path), &["prog"]).fails_with_any(&[RELATIVE, NOT_FOUND]);
    }
    with_path(Some("."), &["sh"]).fails_with(NOT_FOUND);
    assert_eq!(with_path(Some(".:/work"), &["./prog"]).ok().out(), "ran");
    assert_eq!(with_path(Some("none:/work"), &["prog"]).ok().out(), "ran");
}

fn the_personality_is_set(rt: &Runtime) -> Checked {
    rt.coracle_only("runc has linux.personality since 1.2")?;
    let seen = rt.sh("uname -m", |config| config["linux"]["personality"] = json!({ "domain": "LINUX32" }));
    assert_eq!(seen.ok().out(), "i686");
    Ok(())
}

fn a_huge_environment_arrives(rt: &Runtime) {
    // Above 64 KiB in all, where lengths in 16 bits would overflow; one string may have 128 KiB.
    let seen = rt.sh("echo ${#BIG0} ${#BIG7}", |config| {
        for index in 0..8 {
            push(config, "/process/env", json!(format!("BIG{index}={}", "x".repeat(100_000))));
        }
    });
    assert_eq!(seen.ok().out(), "100000 100000");
}

fn many_arguments_arrive(rt: &Runtime) {
    let mut args = vec!["sh", "-c", "echo $#", "sh"];
    args.resize(args.len() + 5000, "word");
    let bundle = rt.bundle(&args).edit(|config| without_namespace(config, "network"));
    assert_eq!(rt.container(&bundle).run().ok().out(), "5000");
}
