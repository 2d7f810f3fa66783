//! The six hooks of spec 1.3: where, when, with what, and what their failure does.

use std::fs;
use std::process::ExitCode;

use coracle_integration::bundle::push;
use coracle_integration::command::{command, eventually, in_shell, run};
use coracle_integration::{Bundle, Checked, Container, Runtime, host, tests};
use serde_json::{Value, json};

fn main() -> ExitCode {
    coracle_integration::run_tests(tests![
        hooks_run_in_the_order_of_the_spec,
        hooks_of_one_point_run_in_their_order,
        hooks_get_the_state_with_the_right_status,
        hooks_get_args_and_environment_as_given,
        hooks_of_the_runtime_are_in_its_namespaces,
        create_container_hooks_are_in_the_containers_namespaces,
        create_container_hooks_run_before_the_root_is_changed,
        start_container_hooks_are_in_the_containers_root,
        a_create_runtime_hook_can_prepare_the_network,
        a_failing_prestart_hook_stops_create,
        a_failing_create_runtime_hook_stops_create,
        a_failing_create_container_hook_stops_create,
        a_failing_start_container_hook_stops_start,
        a_failing_poststart_hook_ends_the_container,
        a_failing_poststop_hook_does_not_stop_delete,
        poststop_hooks_run_when_create_fails,
        a_hook_that_does_not_exist_stops_create,
        a_relative_hook_path_is_an_error,
        a_hook_out_of_time_is_killed,
        a_hook_in_time_is_not_killed,
        the_longest_timeout_is_none,
        the_message_has_what_the_hook_wrote,
        hooks_get_no_descriptors,
        hooks_get_no_descriptors_of_the_caller,
        the_end_of_a_long_output_is_shown,
        hooks_have_no_signal_blocked_or_ignored,
        hooks_without_an_environment_have_the_one_of_their_side,
        a_hook_may_leave_its_input_unread,
    ])
}

const POINTS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// A hook that runs a shell script with busybox, which is there in the container's root too.
fn hook(script: &str) -> Value {
    json!({ "path": "/bin/busybox", "args": ["sh", "-c", script] })
}

fn set(config: &mut Value, point: &str, hooks: Value) {
    config["hooks"][point] = hooks;
}

/// A bundle with a log directory that is at the same path on the host and in the container.
fn logged(
    rt: &Runtime,
    args: &[&str],
    script: impl Fn(&str, &str) -> String,
) -> (Bundle, std::path::PathBuf) {
    let directory = rt.own("log");
    fs::create_dir(&directory).expect("making a directory");
    let path = directory.display().to_string();
    let bundle = rt.bundle(args).edit(|config| {
        coracle_integration::bundle::add_mount(config, &path, "bind", &path, &["bind"]);
        for point in POINTS {
            set(config, point, json!([hook(&script(&path, point))]));
        }
    });
    (bundle, directory)
}

fn create_to_delete(c: &Container) {
    c.create().ok();
    c.start().ok();
    c.wait_for("stopped");
    c.delete().ok();
}

fn hooks_run_in_the_order_of_the_spec(rt: &Runtime) {
    let (bundle, log) = logged(rt, &["true"], |path, point| format!("echo {point} >> {path}/order"));
    let c = rt.container(&bundle);
    let order = || -> Vec<String> {
        let text = fs::read_to_string(log.join("order")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    };
    c.create().ok();
    let mut created = order();
    if rt.kind() != coracle_integration::Kind::Coracle {
        // runc 1.1 runs poststart hooks at the end of create.
        created.retain(|point| point != "poststart");
    }
    assert_eq!(created, ["prestart", "createRuntime", "createContainer"]);
    c.start().ok();
    c.wait_for("stopped");
    let mut started = order();
    // poststart runs beside the process, whose last step startContainer is.
    started.sort_unstable();
    assert_eq!(started.len(), 5);
    c.delete().ok();
    assert_eq!(order().last().map(String::as_str), Some("poststop"));
}

fn hooks_of_one_point_run_in_their_order(rt: &Runtime) {
    let file = rt.scratch("order");
    let bundle = rt.bundle(&["true"]).edit(|config| {
        let hooks: Vec<Value> = (0..5).map(|n| hook(&format!("echo {n} >> {}", file.display()))).collect();
        set(config, "createRuntime", json!(hooks));
    });
    rt.container(&bundle).run().ok();
    assert_eq!(fs::read_to_string(file).expect("they ran"), "0\n1\n2\n3\n4\n");
}

fn hooks_get_the_state_with_the_right_status(rt: &Runtime) {
    let (bundle, log) = logged(rt, &["true"], |path, point| format!("cat > {path}/{point}"));
    let bundle = bundle.edit(|config| config["annotations"] = json!({ "key": "value" }));
    let c = rt.container(&bundle);
    c.create().ok();
    let pid = c.pid();
    c.start().ok();
    c.wait_for("stopped");
    c.delete().ok();
    for point in POINTS {
        let text = fs::read_to_string(log.join(point)).unwrap_or_else(|error| panic!("{point}: {error}"));
        let state: Value =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{point}: {error}: {text}"));
        assert_eq!(state["id"], json!(c.id), "{point}");
        assert_eq!(state["bundle"], json!(bundle.path()), "{point}");
        assert_eq!(state["annotations"]["key"], "value", "{point}");
        assert!(state["ociVersion"].is_string(), "{point}");
        let status = match point {
            "poststop" => "stopped",
            "poststart" => "running",
            "startContainer" => "created",
            _ => "creating",
        };
        // runc says `created` to createContainer hooks and `running` to some: only ours is held to the spec.
        if rt.kind() == coracle_integration::Kind::Coracle {
            assert_eq!(state["status"], status, "{point}");
        }
        if ["prestart", "createRuntime"].contains(&point) {
            assert_eq!(state["pid"], pid, "{point}");
        }
    }
}

fn hooks_get_args_and_environment_as_given(rt: &Runtime) {
    let file = rt.scratch("seen");
    let bundle = rt.bundle(&["true"]).edit(|config| {
        let script = format!("for word; do echo \"[$word]\"; done > {0}; env >> {0}", file.display());
        let args = json!(["sh", "-c", script, "sh", "one two", "", "$x"]);
        let path = "/bin/busybox";
        set(config, "createRuntime", json!([{ "path": path, "args": args, "env": ["A=1", "B=two words"] }]));
    });
    rt.container(&bundle).run().ok();
    let text = fs::read_to_string(file).expect("it ran");
    let mut lines: Vec<&str> = text
        .lines()
        .filter(|line| !["PWD", "SHLVL", "OLDPWD", "PATH"].iter().any(|own| line.starts_with(own)))
        .collect();
    lines.sort_unstable();
    assert_eq!(lines, ["A=1", "B=two words", "[$x]", "[]", "[one two]"]);
}

/// What a hook at this point says of its namespaces, one line each.
fn namespaces_of(rt: &Runtime, points: &[&str]) -> Vec<(String, Vec<String>)> {
    let kinds = "pid net ipc uts mnt";
    let (bundle, log) = logged(
        rt,
        &["sh", "-c", &format!("for n in {kinds}; do readlink /proc/self/ns/$n; done")],
        |path, point| format!("for n in {kinds}; do readlink /proc/self/ns/$n; done > {path}/{point}"),
    );
    let c = rt.container(&bundle);
    create_to_delete(&c);
    let lines = |text: String| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let mut all = vec![("process".to_owned(), lines(c.output()))];
    for point in points {
        all.push(((*point).to_owned(), lines(fs::read_to_string(log.join(point)).expect("it ran"))));
    }
    all
}

fn hooks_of_the_runtime_are_in_its_namespaces(rt: &Runtime) {
    let ours: Vec<String> = ["pid", "net", "ipc", "uts", "mnt"]
        .map(|kind| {
            host::namespace_of(i32::try_from(std::process::id()).unwrap_or_default(), kind)
                .unwrap_or_default()
        })
        .to_vec();
    for (point, seen) in
        namespaces_of(rt, &["prestart", "createRuntime", "poststart", "poststop"]).iter().skip(1)
    {
        assert_eq!(*seen, ours, "{point}");
    }
}

fn create_container_hooks_are_in_the_containers_namespaces(rt: &Runtime) {
    let all = namespaces_of(rt, &["createContainer", "startContainer"]);
    let process = &all[0].1;
    for (point, seen) in &all[1..] {
        assert_eq!(seen, process, "{point}");
    }
}

fn create_container_hooks_run_before_the_root_is_changed(rt: &Runtime) {
    let file = rt.scratch("seen");
    let bundle = rt.bundle(&["true"]).edit(|config| {
        let script = format!("test -d {} && echo host > {}", rt.root().display(), file.display());
        set(config, "createContainer", json!([hook(&script)]));
    });
    rt.container(&bundle).run().ok();
    assert_eq!(fs::read_to_string(file).expect("it ran"), "host\n");
}

fn start_container_hooks_are_in_the_containers_root(rt: &Runtime) {
    let bundle = rt.script("cat /proof").edit(|config| {
        set(config, "startContainer", json!([hook("grep user /etc/passwd > /proof; pwd >> /proof")]));
    });
    let c = rt.container(&bundle);
    c.create().ok();
    assert!(!bundle.rootfs("proof").exists(), "it runs at start");
    c.start().ok();
    c.wait_for("stopped");
    assert!(c.output().starts_with("user:x:1000"), "{}", c.output());
}

fn a_create_runtime_hook_can_prepare_the_network(rt: &Runtime) {
    let bundle = rt.script("ip -o link; ip -o addr show inside").edit(|config| {
        // What a network plugin does: the process's id comes with the state.
        let name = format!("v{}", std::process::id() % 100_000);
        let script = format!(
            "pid=$(sed 's/.*\"pid\": *\\([0-9]*\\).*/\\1/' | head -n 1); \
             ip link add {name} type veth peer name inside netns $pid && \
             nsenter -t $pid -n ip addr add 10.99.0.2/24 dev inside"
        );
        let env = json!(["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]);
        set(
            config,
            "createRuntime",
            json!([{ "path": "/bin/sh", "args": ["sh", "-c", script], "env": env }]),
        );
    });
    let seen = rt.container(&bundle).run().ok();
    assert!(seen.stdout.contains("10.99.0.2/24"), "{seen}");
}

/// With a failing hook at this point `create` must fail and leave nothing.
#[track_caller]
fn stops_create(rt: &Runtime, point: &str) {
    let bundle = rt.script("echo ran > /ran").edit(|config| set(config, point, json!([hook("exit 3")])));
    let c = rt.container(&bundle);
    let create = c.create_command(&[]);
    let refused = coracle_integration::command::run(create).exits(1).fails();
    assert!(refused.stderr.contains("hook"), "{refused}");
    rt.assert_clean();
    c.run().exits(1).fails();
    rt.assert_clean();
    assert!(!bundle.rootfs("ran").exists());
}

fn a_failing_prestart_hook_stops_create(rt: &Runtime) {
    stops_create(rt, "prestart");
}

fn a_failing_create_runtime_hook_stops_create(rt: &Runtime) {
    stops_create(rt, "createRuntime");
}

fn a_failing_create_container_hook_stops_create(rt: &Runtime) {
    stops_create(rt, "createContainer");
}

fn a_failing_start_container_hook_stops_start(rt: &Runtime) {
    let stopped = rt.scratch("stopped");
    let bundle = rt.script("echo ran > /ran").edit(|config| {
        set(config, "startContainer", json!([hook("exit 3")]));
        set(config, "poststop", json!([hook(&format!("echo ran > {}", stopped.display()))]));
    });
    let c = rt.container(&bundle);
    c.create().ok();
    // runc's start has gone by then, so only the end is the same for all.
    let start = c.start();
    if rt.kind() == coracle_integration::Kind::Coracle {
        let start = start.fails();
        assert!(start.stderr.contains("startContainer"), "{start}");
        c.call("state", &[]).fails_with("does not exist");
        assert!(stopped.exists(), "poststop hooks are part of what follows");
    }
    // The spec destroys the container then; runc leaves it stopped. Either way it is over.
    let over = || {
        let state = c.call("state", &[]);
        state.stderr.contains("does not exist") || state.stdout.contains("\"stopped\"")
    };
    assert!(eventually(over));
    assert!(!bundle.rootfs("ran").exists());
    c.call("delete", &["--force"]).ok();
    rt.assert_clean();
    rt.container(&bundle).run().fails();
    rt.assert_clean();
}

fn a_failing_poststart_hook_ends_the_container(rt: &Runtime) -> Checked {
    rt.coracle_only("runc 1.1 runs poststart hooks before the process and keeps the container")?;
    let file = rt.scratch("stopped");
    let bundle = rt.sleeper().edit(|config| {
        set(config, "poststart", json!([hook("exit 3")]));
        set(config, "poststop", json!([hook(&format!("echo ran > {}", file.display()))]));
    });
    let c = rt.container(&bundle);
    c.create().ok();
    c.start().fails_with("poststart");
    // The spec goes on where a container is destroyed.
    c.call("state", &[]).fails_with("does not exist");
    rt.assert_clean();
    assert!(file.exists(), "poststop hooks are part of that");
    Ok(())
}

fn a_failing_poststop_hook_does_not_stop_delete(rt: &Runtime) {
    let file = rt.scratch("second");
    let bundle = rt.bundle(&["true"]).edit(|config| {
        set(config, "poststop", json!([hook("exit 3"), hook(&format!("echo ran > {}", file.display()))]));
    });
    let c = rt.container(&bundle);
    c.up();
    c.wait_for("stopped");
    let _ = c.delete();
    rt.assert_clean();
    // runc 1.1 leaves out the hooks after it, against the spec.
    let others = rt.kind() != coracle_integration::Kind::Coracle;
    assert!(others || file.exists(), "the hooks after it run all the same");
}

fn poststop_hooks_run_when_create_fails(rt: &Runtime) -> Checked {
    rt.coracle_only("runc does so in some of the cases only")?;
    let file = rt.scratch("stopped");
    let bundle = rt.bundle(&["nonesuch"]).edit(|config| {
        set(config, "poststop", json!([hook(&format!("echo ran > {}", file.display()))]));
    });
    rt.container(&bundle).create().fails();
    assert!(file.exists());
    rt.assert_clean();
    Ok(())
}

fn a_hook_that_does_not_exist_stops_create(rt: &Runtime) {
    let bundle =
        rt.bundle(&["true"]).edit(|config| set(config, "createRuntime", json!([{ "path": "/not/there" }])));
    let refused = rt.container(&bundle).run().exits(1).fails();
    assert!(refused.stderr.contains("/not/there"), "{refused}");
    rt.assert_clean();
}

fn a_relative_hook_path_is_an_error(rt: &Runtime) -> Checked {
    rt.coracle_only("runc does not check the path")?;
    let bundle = rt.bundle(&["true"]).edit(|config| set(config, "poststop", json!([{ "path": "bin/true" }])));
    let refused = rt.container(&bundle).run().exits(1).fails();
    assert!(refused.stderr.contains("hooks.poststop[0].path"), "{refused}");
    rt.assert_clean();
    Ok(())
}

fn a_hook_out_of_time_is_killed(rt: &Runtime) {
    let bundle = rt.bundle(&["true"]).edit(|config| {
        let mut slow = hook("exec sleep 1014");
        slow["timeout"] = json!(1);
        set(config, "createRuntime", json!([slow]));
    });
    let refused = rt.container(&bundle).run().exits(1).fails();
    assert!(refused.stderr.contains("hook"), "{refused}");
    rt.assert_clean();
}

fn a_hook_in_time_is_not_killed(rt: &Runtime) {
    let file = rt.scratch("done");
    let bundle = rt.bundle(&["true"]).edit(|config| {
        let mut slow = hook(&format!("sleep 0.2; echo done > {}", file.display()));
        slow["timeout"] = json!(30);
        set(config, "createRuntime", json!([slow]));
    });
    rt.container(&bundle).run().ok();
    assert!(file.exists());
}

fn the_longest_timeout_is_none(rt: &Runtime) -> Checked {
    rt.coracle_only("it overflows what Go counts in")?;
    let bundle = rt.bundle(&["true"]).edit(|config| {
        for point in POINTS {
            let mut patient = hook("true");
            patient["timeout"] = json!(i64::MAX);
            set(config, point, json!([patient]));
        }
    });
    rt.container(&bundle).run().ok();
    rt.assert_clean();
    Ok(())
}

fn the_message_has_what_the_hook_wrote(rt: &Runtime) {
    let bundle = rt
        .bundle(&["true"])
        .edit(|config| set(config, "createRuntime", json!([hook("echo no coffee left >&2; exit 1")])));
    rt.container(&bundle).run().exits(1).fails_with("no coffee left");
}

fn the_end_of_a_long_output_is_shown(rt: &Runtime) -> Checked {
    rt.coracle_only("runc shows all of it")?;
    let script = "yes progress | head -n 100000; echo the reason >&2; exit 1";
    let bundle = rt.bundle(&["true"]).edit(|config| set(config, "createRuntime", json!([hook(script)])));
    let refused = rt.container(&bundle).run().exits(1).fails_with("the reason");
    assert!(refused.stderr.len() < 10_000, "{}", refused.stderr.len());
    Ok(())
}

fn hooks_have_no_signal_blocked_or_ignored(rt: &Runtime) {
    let (bundle, log) = logged(rt, &["true"], |_, _| String::new());
    let bundle = bundle.edit(|config| {
        for point in POINTS {
            // Without a shell, which ignores some by itself.
            let copy = ["cp", "/proc/self/status", &format!("{}/{point}", log.display())].map(str::to_owned);
            set(config, point, json!([{ "path": "/bin/busybox", "args": copy }]));
        }
    });
    let check = |how: &str| {
        for point in POINTS {
            let seen = fs::read_to_string(log.join(point)).expect("it ran");
            let masks = seen.lines().filter(|line| line.starts_with("SigBlk") || line.starts_with("SigIgn"));
            let masks: Vec<&str> = masks.filter_map(|line| line.split('\t').nth(1)).collect();
            assert_eq!(masks.first(), Some(&"0000000000000000"), "blocked: {point} of {how}");
            if rt.kind() == coracle_integration::Kind::Coracle {
                // runc passes on what it was started with.
                assert_eq!(masks.last(), Some(&"0000000000000000"), "ignored: {point} of {how}");
            }
            fs::remove_file(log.join(point)).expect("removing what it wrote");
        }
    };
    create_to_delete(&rt.container(&bundle));
    check("create");
    rt.container(&bundle).run().ok();
    check("run");
}

fn hooks_without_an_environment_have_the_one_of_their_side(rt: &Runtime) {
    let (bundle, log) = logged(rt, &["true"], |path, point| format!("env > {path}/{point}"));
    let bundle = bundle.edit(|config| {
        push(config, "/process/env", json!("OF=program"));
    });
    let c = rt.container(&bundle);
    let mut run = c.run_command(&[]);
    run.env("OF", "caller");
    coracle_integration::command::run(run).ok();
    for point in POINTS {
        let seen = fs::read_to_string(log.join(point)).expect("it ran");
        let expected = match point {
            "createContainer" => None,
            "startContainer" => Some("OF=program"),
            _ => Some("OF=caller"),
        };
        assert_eq!(seen.lines().find(|line| line.starts_with("OF=")), expected, "{point}");
    }
}

fn hooks_get_no_descriptors(rt: &Runtime) {
    let (bundle, log) = logged(rt, &["true"], |path, point| format!("ls /proc/self/fd > {path}/{point}"));
    create_to_delete(&rt.container(&bundle));
    // What the test program itself was started with and passes on is not the runtime's doing.
    let inherited = run(command("ls", &["/proc/self/fd"])).ok();
    for point in POINTS {
        if point == "createContainer" && rt.kind() != coracle_integration::Kind::Coracle {
            // runc 1.1 leaves its own pipes open there.
            continue;
        }
        let seen = fs::read_to_string(log.join(point)).expect("it ran");
        let beyond: Vec<&str> = seen.lines().filter(|number| !inherited.lines().contains(number)).collect();
        assert!(beyond.is_empty(), "{point}: {beyond:?}");
    }
}

fn hooks_get_no_descriptors_of_the_caller(rt: &Runtime) -> Checked {
    rt.coracle_only("runc passes them on")?;
    let (bundle, log) = logged(rt, &["true"], |path, point| format!("ls /proc/self/fd > {path}/{point}"));
    let c = rt.container(&bundle);
    // Descriptor 9 is open in every command of the runtime.
    let with_one_more = |inner| in_shell("exec 9< /etc/passwd; exec \"$@\"", &inner);
    c.detached(with_one_more(c.create_command(&[]))).ok();
    run(with_one_more(rt.command(["start", &c.id]))).ok();
    c.wait_for("stopped");
    run(with_one_more(rt.command(["delete", &c.id]))).ok();
    for point in POINTS {
        let seen = fs::read_to_string(log.join(point)).expect("it ran");
        // The last one is ls's own.
        assert_eq!(seen.lines().collect::<Vec<_>>(), ["0", "1", "2", "3"], "{point}");
    }
    Ok(())
}

fn a_hook_may_leave_its_input_unread(rt: &Runtime) {
    let bundle = rt.bundle(&["true"]).edit(|config| {
        // A state larger than a pipe holds.
        config["annotations"] = json!({ "large": "x".repeat(200_000) });
        for point in ["prestart", "createRuntime", "createContainer", "poststop"] {
            set(config, point, json!([{ "path": "/bin/true" }]));
        }
    });
    let run = rt.container(&bundle).run();
    // The container's side of runc has no pipe to take so much.
    assert!(run.status.success() || rt.kind() != coracle_integration::Kind::Coracle, "{run}");
    rt.assert_clean();
}
