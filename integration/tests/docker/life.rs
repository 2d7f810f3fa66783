//! A container's life as Docker leads it: start, stop, restart, pause, update, attach, remove.

use coracle_integration::command::{Running, eventually, run};
use coracle_integration::console::Terminal;
use coracle_integration::engine::docker::{Docker, IMAGE};
use coracle_integration::host::is_alive;
use coracle_integration::leftovers::cgroups;
use rustix::process::{Pid, Signal, kill_process};

const LOOP: &str = "trap 'exit 0' TERM; while :; do sleep 0.1; done";

pub fn create_start_and_remove(docker: &Docker) {
    let one = docker.container();
    let words =
        ["create", "--name", &one.name, "--network", "none", IMAGE, "sh", "-c", "echo started; exit 3"];
    docker.call(&words).ok();
    assert_eq!(one.status(), "created");
    assert_eq!(one.call("start", &["--attach"], &[]).exits(3).out(), "started");
    assert_eq!(one.inspect("{{.State.Status}} {{.State.ExitCode}}"), "exited 3");
    one.call("rm", &[], &[]).ok();
    assert_eq!(one.status(), "");
}

pub fn stop_ends_it_in_time_and_says_how(docker: &Docker) {
    let one = docker.up(
        &["--stop-signal", "USR1"],
        "trap 'echo asked; exit 6' USR1; echo ready; while :; do sleep 0.05; done",
    );
    one.wait_for_log("ready");
    one.call("stop", &["--time", "30"], &[]).ok();
    assert_eq!(one.inspect("{{.State.Status}} {{.State.ExitCode}}"), "exited 6");
    one.wait_for_log("asked");
}

pub fn stop_kills_what_ignores_the_signal(docker: &Docker) {
    let one = docker.up(&[], "trap '' TERM; echo ready; while :; do sleep 0.05; done");
    one.wait_for_log("ready");
    one.call("stop", &["--time", "1"], &[]).ok();
    assert_eq!(one.inspect("{{.State.Status}} {{.State.ExitCode}}"), "exited 137");
}

pub fn kill_sends_a_signal(docker: &Docker) {
    let one = docker.up(&[], "trap 'echo got; exit 5' USR2; echo ready; while :; do sleep 0.05; done");
    one.wait_for_log("ready");
    one.call("kill", &["--signal", "SIGUSR2"], &[]).ok();
    one.wait_for("exited");
    assert_eq!(one.inspect("{{.State.ExitCode}}"), "5");
    one.call("kill", &[], &[]).fails_with("is not running");
}

pub fn restart_gives_a_new_process(docker: &Docker) {
    let one = docker.up(&[], LOOP);
    let before = one.inspect("{{.State.Pid}}");
    one.exec(&[], &["sh", "-c", "echo kept > /kept"]).ok();
    one.call("restart", &["--time", "5"], &[]).ok();
    assert_eq!(one.status(), "running");
    assert_ne!(one.inspect("{{.State.Pid}}"), before);
    assert_eq!(one.exec(&[], &["cat", "/kept"]).ok().out(), "kept");
}

pub fn restart_policies(docker: &Docker) {
    let failing = docker.up(&["--restart", "on-failure:2"], "echo tried; exit 3");
    let over = || failing.inspect("{{.State.Status}} {{.RestartCount}} {{.State.ExitCode}}") == "exited 2 3";
    assert!(eventually(over), "{}", failing.inspect("{{json .State}}"));
    assert_eq!(failing.call("logs", &[], &[]).ok().lines(), ["tried"; 3]);

    let always = docker.up(&["--restart", "always"], LOOP);
    let pid = always.inspect("{{.State.Pid}}");
    let process = Pid::from_raw(pid.parse().expect("a process id")).expect("a process id is positive");
    kill_process(process, Signal::KILL).expect("killing the first process");
    let back = || always.status() == "running" && always.inspect("{{.State.Pid}}") != pid;
    assert!(eventually(back), "{}", always.inspect("{{json .State}}"));
    assert_eq!(always.inspect("{{.RestartCount}}"), "1");
}

pub fn pause_and_unpause(docker: &Docker) {
    let one = docker.up(&[], LOOP);
    one.call("pause", &[], &[]).ok();
    assert_eq!(one.status(), "paused");
    assert_eq!(one.cgroup_file("freezer", "freezer.state"), "FROZEN");
    one.exec(&[], &["true"]).fails_with("is paused");
    one.call("unpause", &[], &[]).ok();
    assert_eq!(one.status(), "running");
    one.exec(&[], &["true"]).ok();
    // A paused container can be removed as well.
    one.call("pause", &[], &[]).ok();
    one.call("rm", &["--force"], &[]).ok();
    assert_eq!(one.status(), "");
}

pub fn update_of_limits(docker: &Docker) {
    let one = docker.up(&["--memory", "64m", "--memory-swap", "64m"], LOOP);
    let options = [
        "--memory",
        "128m",
        "--memory-swap",
        "128m",
        "--cpus",
        "0.25",
        "--pids-limit",
        "77",
        "--cpu-shares",
        "300",
    ];
    one.call("update", &options, &[]).ok();
    assert_eq!(one.cgroup_file("memory", "memory.limit_in_bytes"), (128 << 20).to_string());
    assert_eq!(one.cgroup_file("cpu", "cpu.cfs_quota_us"), "25000");
    assert_eq!(one.cgroup_file("cpu", "cpu.shares"), "300");
    assert_eq!(one.cgroup_file("pids", "pids.max"), "77");
    // A value that isn't given stays.
    one.call("update", &["--pids-limit", "88"], &[]).ok();
    assert_eq!(one.cgroup_file("cpu", "cpu.cfs_quota_us"), "25000");
    assert_eq!(one.cgroup_file("pids", "pids.max"), "88");
    // What the kernel refuses is an error, and the container lives on.
    one.call("update", &["--cpuset-cpus", "4000"], &[]).fails();
    one.exec(&[], &["true"]).ok();
}

pub fn attach_and_detach(docker: &Docker) {
    let one = docker.container();
    let options = ["--detach", "--interactive", "--tty", "--name", &one.name];
    // What it says again and again shows that the client is attached, and takes what is typed.
    let script = "while :; do echo tick; read -r -t 1 word; test \"$word\" = end && exit 8; done";
    run(docker.run_command(&options, &["sh", "-c", script])).ok();
    let command = one.command("attach", &["--detach-keys", "ctrl-x"], &[]);
    let (attached, mut terminal) = Terminal::around(command);
    terminal.read_until("tick");
    terminal.type_in("\u{18}");
    attached.finish();
    assert_eq!(one.status(), "running");
    let (attached, mut terminal) = Terminal::around(one.command("attach", &[], &[]));
    terminal.read_until("tick");
    terminal.type_in("end\n");
    attached.finish().exits(8);
    assert_eq!(one.status(), "exited");
}

pub fn signals_of_the_client_are_passed_on(docker: &Docker) {
    let one = docker.container();
    let script = "trap 'echo asked; exit 6' TERM; echo ready; while :; do sleep 0.05; done";
    let running = Running::start(docker.run_command(&["--name", &one.name], &["sh", "-c", script]));
    running.wait_for_output("ready");
    running.signal(Signal::TERM);
    assert_eq!(running.finish().exits(6).lines(), ["ready", "asked"]);
    assert_eq!(one.inspect("{{.State.Status}} {{.State.ExitCode}}"), "exited 6");
}

pub fn wait_gives_the_exit_status(docker: &Docker) {
    let one = docker.up(&[], "until test -e /go; do sleep 0.05; done; exit 11");
    let waiting = Running::start(one.command("wait", &[], &[]));
    // The container ends as soon as the file is there, perhaps before the process that makes it, which ends with it.
    one.exec(&[], &["touch", "/go"]);
    assert_eq!(waiting.finish().ok().out(), "11");
    assert_eq!(one.call("wait", &[], &[]).ok().out(), "11");
}

pub fn rm_by_force_leaves_nothing(docker: &Docker) {
    let one = docker.up(&[], LOOP);
    let id = one.inspect("{{.Id}}");
    let pid: i32 = one.inspect("{{.State.Pid}}").parse().expect("a process id");
    assert!(!cgroups(&id).is_empty(), "a running container has a cgroup");
    one.call("rm", &["--force"], &[]).ok();
    assert_eq!(one.status(), "");
    assert!(eventually(|| cgroups(&id).is_empty()), "{:?}", cgroups(&id));
    assert!(!is_alive(pid));
}

/// Start, exec, stop and remove of one container by several clients at once: each gets an answer, and what remains is a
/// container that works or none.
pub fn starts_that_race(docker: &Docker) {
    for _ in 0..3 {
        let one = docker.container();
        docker.call(&["create", "--name", &one.name, "--network", "none", IMAGE, "sh", "-c", LOOP]).ok();
        let starts: Vec<Running> = (0..4).map(|_| Running::start(one.command("start", &[], &[]))).collect();
        for start in starts {
            start.finish().ok();
        }
        assert_eq!(one.status(), "running");
        let stop = Running::start(one.command("stop", &["--time", "5"], &[]));
        let execs: Vec<Running> =
            (0..4).map(|_| Running::start(one.command("exec", &[], &["true"]))).collect();
        stop.finish().ok();
        for exec in execs {
            exec.finish();
        }
        assert_eq!(one.status(), "exited");
        one.call("start", &[], &[]).ok();
        one.exec(&[], &["true"]).ok();
        let removes: Vec<Running> =
            (0..3).map(|_| Running::start(one.command("rm", &["--force"], &[]))).collect();
        for remove in removes {
            remove.finish();
        }
        assert_eq!(one.status(), "");
    }
}
