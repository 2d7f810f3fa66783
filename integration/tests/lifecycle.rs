//! The life of a container: create, start, state, kill, delete, run, pause, resume, list and ps.

use std::fs;
use std::process::ExitCode;

use coracle_integration::command::{Running, eventually, run};
use coracle_integration::{Checked, Runtime, bundle, host, tests};
use rustix::process::Signal;
use serde_json::{Value, json};

fn main() -> ExitCode {
    coracle_integration::run_tests(tests![
        a_container_goes_through_created_running_stopped,
        the_process_does_not_run_before_start,
        run_gives_output_and_exit_status,
        run_of_a_process_that_a_signal_ends_is_128_and_the_signal,
        run_forwards_signals,
        run_removes_the_container,
        run_keep_leaves_a_stopped_container,
        run_detached_comes_back_while_the_container_runs,
        a_container_outlives_the_shell_that_made_it,
        two_containers_of_one_bundle_run_side_by_side,
        an_id_can_be_used_again_after_delete,
        an_id_in_use_is_refused,
        of_two_creates_of_one_id_one_wins,
        start_of_a_running_container_is_an_error,
        start_of_a_stopped_container_is_an_error,
        start_of_nothing_is_an_error,
        state_of_nothing_is_an_error,
        kill_of_nothing_is_an_error,
        delete_of_nothing_is_an_error,
        delete_force_of_nothing_succeeds,
        kill_of_a_stopped_container_is_an_error,
        kill_takes_names_and_numbers,
        kill_with_an_unknown_signal_is_an_error,
        kill_of_a_created_container_ends_it,
        kill_sends_term_when_no_signal_is_named,
        kill_all_reaches_every_process,
        delete_of_a_running_container_is_an_error,
        delete_of_a_created_container_ends_it,
        delete_force_ends_a_running_container,
        delete_ends_processes_that_outlived_the_first,
        delete_force_cleans_up_after_a_killed_create,
        delete_force_ends_what_a_killed_create_left_without_a_cgroup,
        delete_force_that_cannot_read_the_state_leaves_the_container,
        delete_force_takes_away_what_a_damaged_state_still_names,
        a_container_that_takes_no_calls_has_a_status,
        a_reused_pid_is_not_taken_for_the_container,
        the_pid_file_holds_digits_only,
        the_pid_file_is_absolute_or_of_the_working_directory,
        pause_freezes_and_resume_thaws,
        a_paused_container_can_be_killed_by_delete_force,
        pause_of_a_stopped_container_is_an_error,
        resume_of_a_running_container_is_an_error,
        exec_in_a_paused_container_is_refused,
    ])
}

fn a_container_goes_through_created_running_stopped(rt: &Runtime) {
    let bundle = rt.sleeper();
    let c = rt.container(&bundle);
    c.create().ok();
    assert_eq!(c.status(), "created");
    c.start().ok();
    assert_eq!(c.status(), "running");
    c.kill("KILL").ok();
    c.wait_for("stopped");
    c.delete().ok();
    rt.assert_clean();
}

fn the_process_does_not_run_before_start(rt: &Runtime) {
    let bundle = rt.script("echo here > /proof; echo ran");
    let c = rt.container(&bundle);
    c.create().ok();
    assert!(!bundle.rootfs("proof").exists());
    assert_eq!(c.status(), "created");
    assert!(!bundle.rootfs("proof").exists());
    c.start().ok();
    c.wait_for("stopped");
    assert_eq!(c.output(), "ran\n");
    assert!(bundle.rootfs("proof").exists());
}

fn run_gives_output_and_exit_status(rt: &Runtime) {
    let bundle = rt.script("echo out; echo err >&2; exit 7");
    let finished = rt.container(&bundle).run().exits(7);
    assert_eq!((finished.stdout.as_str(), finished.stderr.as_str()), ("out\n", "err\n"));
}

fn run_of_a_process_that_a_signal_ends_is_128_and_the_signal(rt: &Runtime) {
    // The first process of a pid namespace is spared its own signals, so the host's namespace is shared.
    let bundle = rt.script("kill -KILL $$").edit(|config| bundle::without_namespace(config, "pid"));
    rt.container(&bundle).run().exits(128 + 9);
}

fn run_forwards_signals(rt: &Runtime) {
    let bundle = rt.script("trap 'echo got usr1; exit 5' USR1; echo ready; while :; do sleep 0.05; done");
    let c = rt.container(&bundle);
    let running = Running::start(c.run_command(&[]));
    running.wait_for_output("ready");
    running.signal(Signal::USR1);
    let finished = running.finish().exits(5);
    assert!(finished.stdout.contains("got usr1"), "{finished}");
}

fn run_removes_the_container(rt: &Runtime) {
    let bundle = rt.bundle(&["true"]);
    let c = rt.container(&bundle);
    c.run().ok();
    rt.assert_clean();
    c.call("state", &[]).fails_with("does not exist");
}

fn run_keep_leaves_a_stopped_container(rt: &Runtime) {
    let bundle = rt.bundle(&["true"]);
    let c = rt.container(&bundle);
    c.run_with(&["--keep"]).ok();
    assert_eq!(c.status(), "stopped");
    c.delete().ok();
    rt.assert_clean();
}

fn run_detached_comes_back_while_the_container_runs(rt: &Runtime) {
    let bundle = rt.sleeper();
    let c = rt.container(&bundle);
    c.detached(c.run_command(&["--detach"])).ok();
    assert_eq!(c.status(), "running");
}

fn a_container_outlives_the_shell_that_made_it(rt: &Runtime) {
    let bundle = rt.script("trap 'echo hup' HUP; trap 'exit 0' TERM; while :; do sleep 0.05; done");
    let c = rt.container(&bundle);
    let mut shell = std::process::Command::new("setsid");
    let create = c.create_command(&[]);
    shell.args(["sh", "-c", "\"$@\"; exit $?", "sh"]).arg(create.get_program()).args(create.get_args());
    shell.env(coracle_integration::leftovers::MARK, rt.mark());
    c.detached(shell).ok();
    assert_eq!(c.status(), "created");
    c.start().ok();
    assert_eq!(c.status(), "running");
}

fn two_containers_of_one_bundle_run_side_by_side(rt: &Runtime) {
    let bundle = rt.sleeper();
    let (one, two) = (rt.container(&bundle), rt.container(&bundle));
    one.up();
    two.up();
    assert_ne!(one.pid(), two.pid());
    one.kill("KILL").ok();
    one.wait_for("stopped");
    one.delete().ok();
    assert_eq!(two.status(), "running");
    assert!(two.exec(&["true"]).status.success());
}

fn an_id_can_be_used_again_after_delete(rt: &Runtime) {
    let bundle = rt.script("echo once more");
    let c = rt.container(&bundle);
    for _ in 0..3 {
        c.create().ok();
        c.start().ok();
        c.wait_for("stopped");
        c.delete().ok();
    }
    assert_eq!(c.output().lines().count(), 3);
}

fn an_id_in_use_is_refused(rt: &Runtime) {
    let bundle = rt.sleeper();
    let c = rt.container(&bundle);
    c.up();
    c.create().fails();
    assert_eq!(c.status(), "running", "the first one is untouched");
    assert!(c.exec(&["true"]).status.success());
    let message = run(c.create_command(&[])).fails();
    assert!(message.stderr.contains("exist"), "{message}");
}

fn of_two_creates_of_one_id_one_wins(rt: &Runtime) -> Checked {
    rt.coracle_only("runc's own claim on an id has a window between check and mkdir")?;
    let bundle = rt.sleeper();
    for _ in 0..5 {
        let c = rt.container(&bundle);
        let racers: Vec<Running> = (0..4).map(|_| Running::start(c.create_command(&[]))).collect();
        let won = racers.into_iter().map(Running::finish).filter(|racer| racer.status.success()).count();
        assert_eq!(won, 1, "exactly one create wins");
        assert_eq!(c.status(), "created");
        c.call("delete", &["--force"]).ok();
        rt.assert_clean();
    }
    Ok(())
}

fn start_of_a_running_container_is_an_error(rt: &Runtime) {
    let bundle = rt.sleeper();
    let c = rt.container(&bundle);
    c.up();
    c.start().fails();
    assert_eq!(c.status(), "running");
}

fn start_of_a_stopped_container_is_an_error(rt: &Runtime) {
    let bundle = rt.bundle(&["true"]);
    let c = rt.container(&bundle);
    c.up();
    c.wait_for("stopped");
    c.start().fails_with("stopped");
}

fn start_of_nothing_is_an_error(rt: &Runtime) {
    rt.call(&["start", "nobody"]).exits(1).fails_with("container does not exist");
}

fn state_of_nothing_is_an_error(rt: &Runtime) {
    rt.call(&["state", "nobody"]).exits(1).fails_with("container does not exist");
}

fn kill_of_nothing_is_an_error(rt: &Runtime) {
    rt.call(&["kill", "nobody", "KILL"]).exits(1).fails_with("container does not exist");
}

fn delete_of_nothing_is_an_error(rt: &Runtime) {
    rt.call(&["delete", "nobody"]).exits(1).fails_with("container does not exist");
}

fn delete_force_of_nothing_succeeds(rt: &Runtime) {
    rt.call(&["delete", "--force", "nobody"]).ok();
}

fn kill_of_a_stopped_container_is_an_error(rt: &Runtime) {
    let bundle = rt.bundle(&["true"]);
    let c = rt.container(&bundle);
    c.up();
    c.wait_for("stopped");
    c.kill("TERM").exits(1).fails_with("container not running");
}

fn kill_takes_names_and_numbers(rt: &Runtime) {
    let script = "trap 'echo got' USR1; echo ready; while :; do sleep 0.02; done";
    let bundle = rt.script(script);
    let c = rt.container(&bundle);
    c.up();
    c.wait_for_output("ready");
    for (count, name) in ["USR1", "SIGUSR1", "10", "sigusr1"].iter().enumerate() {
        c.kill(name).ok();
        assert!(eventually(|| c.output().matches("got").count() == count + 1), "{name}: {}", c.output());
    }
}

fn kill_with_an_unknown_signal_is_an_error(rt: &Runtime) {
    let bundle = rt.sleeper();
    let c = rt.container(&bundle);
    c.up();
    c.kill("NOPE").fails_with_any(&["unknown signal", "NOPE"]);
    assert_eq!(c.status(), "running");
}

fn kill_of_a_created_container_ends_it(rt: &Runtime) {
    let bundle = rt.script("echo ran");
    let c = rt.container(&bundle);
    c.create().ok();
    c.kill("KILL").ok();
    c.wait_for("stopped");
    c.delete().ok();
    assert_eq!(c.output(), "");
}

fn kill_sends_term_when_no_signal_is_named(rt: &Runtime) {
    let bundle = rt.script("trap 'echo got term; exit 0' TERM; echo ready; while :; do sleep 0.02; done");
    let c = rt.container(&bundle);
    c.up();
    c.wait_for_output("ready");
    c.call("kill", &[]).ok();
    c.wait_for("stopped");
    assert!(c.output().contains("got term"));
}

fn kill_all_reaches_every_process(rt: &Runtime) {
    // Without a pid namespace of its own, the other processes live on when the first ends.
    let bundle = rt
        .script("sleep 1001 & sleep 1002 & echo ready; wait")
        .edit(|config| bundle::without_namespace(config, "pid"));
    let c = rt.container(&bundle);
    c.up();
    c.wait_for_output("ready");
    c.call("kill", &["--all"]).ok();
    let gone = eventually(|| coracle_integration::leftovers::processes(rt.mark()).is_empty());
    assert!(gone, "alive: {:?}", coracle_integration::leftovers::processes(rt.mark()));
}

fn delete_of_a_running_container_is_an_error(rt: &Runtime) {
    let bundle = rt.sleeper();
    let c = rt.container(&bundle);
    c.up();
    c.delete().exits(1).fails_with_any(&["is not stopped", "running"]);
    assert_eq!(c.status(), "running");
}

fn delete_of_a_created_container_ends_it(rt: &Runtime) {
    let bundle = rt.script("echo ran");
    let c = rt.container(&bundle);
    c.create().ok();
    c.delete().ok();
    rt.assert_clean();
    assert_eq!(c.output(), "");
}

fn delete_force_ends_a_running_container(rt: &Runtime) {
    let bundle = rt.script("trap '' TERM; while :; do sleep 1000; done");
    let c = rt.container(&bundle);
    c.up();
    c.call("delete", &["--force"]).ok();
    rt.assert_clean();
}

fn delete_ends_processes_that_outlived_the_first(rt: &Runtime) {
    let bundle = rt
        .script("sleep 1003 > /dev/null 2>&1 & exit 0")
        .edit(|config| bundle::without_namespace(config, "pid"));
    let c = rt.container(&bundle);
    c.up();
    c.wait_for("stopped");
    c.delete().ok();
    rt.assert_clean();
}

fn delete_force_cleans_up_after_a_killed_create(rt: &Runtime) -> Checked {
    rt.coracle_only("runc cannot delete what has no state yet")?;
    let bundle = rt.sleeper();
    // Kill later and later in the course of create, so that most of its phases are hit.
    for delay in 0..24 {
        let c = rt.container(&bundle);
        let create = Running::start(c.create_command(&[]));
        std::thread::sleep(std::time::Duration::from_micros(delay * 400));
        create.signal(Signal::KILL);
        drop(create.finish());
        c.call("delete", &["--force"]).ok();
        rt.assert_clean();
    }
    Ok(())
}

fn delete_force_ends_what_a_killed_create_left_without_a_cgroup(rt: &Runtime) -> Checked {
    rt.coracle_only("runc cannot delete what has no state yet")?;
    let runs = rt.own("log");
    fs::create_dir(&runs).expect("making a directory");
    let bundle = rt.sleeper().edit(|config| {
        let path = runs.display().to_string();
        bundle::add_mount(config, &path, "bind", &path, &["bind"]);
        let hook = json!({ "path": "/bin/busybox", "args": ["sh", "-c", format!("echo >{path}/runs; exec sleep 1020")] });
        config["hooks"] = json!({ "createContainer": [hook] });
    });
    let c = rt.container(&bundle);
    let mut create = rt.command(["--cgroup-manager", "disabled"]);
    create.args(c.create_command(&[]).get_args().skip(2));
    let create = Running::start(create);
    assert!(eventually(|| runs.join("runs").exists()), "the hook does not run");
    create.signal(Signal::KILL);
    drop(create.finish());
    c.call("delete", &["--force"]).ok();
    rt.assert_clean();
    Ok(())
}

fn delete_force_that_cannot_read_the_state_leaves_the_container(rt: &Runtime) -> Checked {
    rt.coracle_only("Go's runtime itself needs more descriptors")?;
    let bundle = rt.sleeper();
    let c = rt.container(&bundle);
    c.up();
    for limit in 3..6 {
        let delete = rt.command(["delete", "--force", &c.id]);
        let mut limited = std::process::Command::new("prlimit");
        limited
            .arg(format!("--nofile={limit}:1024"))
            .arg("--")
            .arg(delete.get_program())
            .args(delete.get_args());
        limited.stdin(std::process::Stdio::null());
        run(limited).fails_with("too many open files");
        assert_eq!(c.status(), "running");
    }
    Ok(())
}

fn delete_force_takes_away_what_a_damaged_state_still_names(rt: &Runtime) -> Checked {
    rt.coracle_only("the state file of another runtime has other names")?;
    let bundle = rt.sleeper();
    for paused in [false, true] {
        let c = rt.container(&bundle);
        c.up();
        if paused {
            c.call("pause", &[]).ok();
        }
        let path = rt.root().join(&c.id).join("state.json");
        let text = fs::read_to_string(&path).expect("the state file");
        let mut state: Value = serde_json::from_str(&text).expect("the state file is JSON");
        state["phase"] = json!("of a later version");
        fs::write(&path, state.to_string()).expect("writing the state file");
        c.call("state", &[]).fails_with("is damaged");
        c.call("delete", &["--force"]).ok();
        rt.assert_clean();
    }
    Ok(())
}

fn a_container_that_takes_no_calls_has_a_status(rt: &Runtime) {
    let bundle = rt.sleeper();
    let c = rt.container(&bundle);
    c.create().ok();
    let pid = c.pid();
    c.kill("STOP").ok();
    for _ in 0..6 {
        assert_eq!(c.status(), "created");
    }
    assert!(rt.call(&["list"]).ok().stdout.contains(&c.id));
    c.kill("CONT").ok();
    c.start().ok();
    assert_eq!(c.status(), "running");
    c.kill("STOP").ok();
    c.call("delete", &["--force"]).ok();
    assert!(!host::is_alive(pid));
}

fn a_reused_pid_is_not_taken_for_the_container(rt: &Runtime) -> Checked {
    rt.coracle_only("the state file of another runtime has other names")?;
    let bundle = rt.sleeper();
    let c = rt.container(&bundle);
    c.up();
    c.kill("KILL").ok();
    c.wait_for("stopped");

    let path = rt.root().join(&c.id).join("state.json");
    let text = fs::read_to_string(&path).expect("the state file");
    let mut state: Value = serde_json::from_str(&text).expect("the state file is JSON");

    // Write the pid of a process that is not the container into the state, as if the number had been used again. The
    // kernel counts start times in ticks of 10 ms, in which no pid comes round: the bystander is of a later one.
    let started = state["init"]["start_time"].as_u64().expect("the start time in the state file");
    let bystander = loop {
        let mut sleep = coracle_integration::command::command("sleep", &["1004"]);
        sleep.env(coracle_integration::leftovers::MARK, rt.mark());
        let sleep = Running::start(sleep);
        if start_time(sleep.pid()) > started {
            break sleep;
        }
    };
    let replaced = replace_pid(&mut state, bystander.pid());
    assert!(replaced, "no pid in the state file: {text}");
    fs::write(&path, state.to_string()).expect("writing the state file");

    assert_eq!(c.status(), "stopped", "the start time tells the processes apart");
    c.kill("KILL").fails_with("container not running");
    c.call("delete", &["--force"]).ok();
    assert!(host::is_alive(bystander.pid()), "the bystander was killed");
    Ok(())
}

/// Replaces every number under a key that names the container process.
/// Field 22 of proc_pid_stat(5). The fields are counted from the name's closing parenthesis, which ends field 2.
fn start_time(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process's stat");
    let (_, rest) = stat.rsplit_once(')').expect("a name in parentheses");
    rest.split_ascii_whitespace().nth(19).and_then(|field| field.parse().ok()).expect("field 22")
}

fn replace_pid(state: &mut Value, pid: i32) -> bool {
    let Value::Object(fields) = state else {
        return false;
    };
    let mut replaced = false;
    for (key, value) in fields {
        if (key == "pid" || key == "init_process_pid") && value.is_number() {
            *value = json!(pid);
            replaced = true;
        } else {
            replaced |= replace_pid(value, pid);
        }
    }
    replaced
}

fn the_pid_file_holds_digits_only(rt: &Runtime) {
    let bundle = rt.sleeper();
    let c = rt.container(&bundle);
    let pid_file = rt.scratch("pid");
    c.create_with(&["--pid-file", &pid_file.to_string_lossy()]).ok();
    let text = fs::read_to_string(&pid_file).expect("the pid file");
    assert_eq!(text, c.pid().to_string());
}

fn the_pid_file_is_absolute_or_of_the_working_directory(rt: &Runtime) {
    let bundle = rt.sleeper();
    let c = rt.container(&bundle);
    let mut create = c.create_command(&["--pid-file", "relative.pid"]);
    create.current_dir(rt.scratch(""));
    c.detached(create).ok();
    assert!(rt.scratch("relative.pid").exists());
}

fn pause_freezes_and_resume_thaws(rt: &Runtime) {
    let bundle = rt.script("while :; do echo tick; sleep 0.02; done");
    let c = rt.container(&bundle);
    c.up();
    c.wait_for_output("tick");
    c.call("pause", &[]).ok();
    assert_eq!(c.status(), "paused");
    let frozen = c.output();
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert_eq!(c.output(), frozen, "a frozen process writes nothing");
    c.call("resume", &[]).ok();
    assert_eq!(c.status(), "running");
    assert!(eventually(|| c.output().len() > frozen.len()), "it goes on where it was");
}

fn a_paused_container_can_be_killed_by_delete_force(rt: &Runtime) {
    let bundle = rt.sleeper();
    let c = rt.container(&bundle);
    c.up();
    c.call("pause", &[]).ok();
    c.call("delete", &["--force"]).ok();
    rt.assert_clean();
}

fn pause_of_a_stopped_container_is_an_error(rt: &Runtime) {
    let bundle = rt.bundle(&["true"]);
    let c = rt.container(&bundle);
    c.up();
    c.wait_for("stopped");
    c.call("pause", &[]).exits(1).fails_with("container not running");
}

fn resume_of_a_running_container_is_an_error(rt: &Runtime) {
    let bundle = rt.sleeper();
    let c = rt.container(&bundle);
    c.up();
    c.call("resume", &[]).exits(1).fails_with("container not paused");
}

fn exec_in_a_paused_container_is_refused(rt: &Runtime) {
    let bundle = rt.sleeper();
    let c = rt.container(&bundle);
    c.up();
    c.call("pause", &[]).ok();
    c.exec(&["true"]).exits(255).fails_with("cannot exec in a paused container");
    assert_eq!(c.status(), "paused");
}
