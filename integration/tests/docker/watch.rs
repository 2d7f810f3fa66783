//! What Docker tells about a running container: logs, processes, statistics, events, health.

use coracle_integration::command::{Running, eventually, run};
use coracle_integration::engine::docker::Docker;

const LOOP: &str = "trap 'exit 0' TERM; while :; do sleep 0.1; done";

pub fn logs(docker: &Docker) {
    let one = docker.up(&[], "echo one; echo two >&2; until test -e /go; do sleep 0.05; done; printf three");
    one.wait_for_log("one");
    let follow = Running::start(one.command("logs", &["--follow"], &[]));
    follow.wait_for_output("one");
    // The container ends as soon as the file is there, perhaps before the process that makes it, which ends with it.
    one.exec(&[], &["touch", "/go"]);
    let followed = follow.finish().ok();
    assert_eq!((followed.stdout.as_str(), followed.stderr.as_str()), ("one\nthree", "two\n"), "{followed}");
    assert_eq!(one.call("logs", &["--tail", "1"], &[]).ok().stdout, "three");
    let stamped = one.call("logs", &["--timestamps"], &[]).ok();
    assert!(stamped.lines().iter().all(|line| line.contains('T') && line.contains("Z ")), "{stamped}");

    let long = docker.container();
    let options = ["--name", &long.name, "--log-driver", "local", "--detach"];
    run(docker.run_command(&options, &["seq", "1", "20000"])).ok();
    long.wait_for("exited");
    let all = long.call("logs", &[], &[]).ok();
    assert_eq!((all.lines().len(), all.lines().last()), (20_000, Some(&"20000")));
}

pub fn top(docker: &Docker) {
    let one = docker.up(&[], "sleep 1013 & sleep 1014");
    let listed = || one.call("top", &[], &["-o", "pid,args"]).ok();
    let both = || ["sleep 1013", "sleep 1014"].iter().all(|part| listed().stdout.contains(part));
    assert!(eventually(both), "{}", listed());
    // By the first process's id on the host.
    assert!(listed().stdout.contains(&one.inspect("{{.State.Pid}}")), "{}", listed());
}

pub fn stats(docker: &Docker) {
    let one = docker.up(&["--memory", "64m"], "while :; do :; done");
    let format = "{{.PIDs}} {{.MemUsage}} {{.CPUPerc}}";
    let ran = || one.call("stats", &["--no-stream", "--format", format], &[]).ok();
    // The first number is of the very first moment, and may be nought.
    let busy = || ran().stdout.split_whitespace().last().is_some_and(|cpu| cpu != "0.00%");
    assert!(eventually(busy), "{}", ran());
    let shown = ran();
    assert!(shown.stdout.starts_with("1 ") && shown.stdout.contains("/ 64MiB"), "{shown}");
    assert!(!shown.stdout.contains(" 0B"), "{shown}");
}

pub fn events(docker: &Docker) {
    let since = docker.call(&["info", "--format", "{{.SystemTime}}"]).ok().out().to_owned();
    let one = docker.up(
        &["--memory", "16m", "--memory-swap", "16m"],
        "trap 'exit 9' USR1; echo up; while :; do sleep 0.1; done",
    );
    one.wait_for_log("up");
    one.call("pause", &[], &[]).ok();
    one.call("unpause", &[], &[]).ok();
    one.exec(&[], &["true"]).ok();
    one.exec(&[], &["tail", "/dev/zero"]).exits(137);
    one.call("kill", &["--signal", "USR1"], &[]).ok();
    one.wait_for("exited");
    let seen = || {
        let until = docker.call(&["info", "--format", "{{.SystemTime}}"]).ok().out().to_owned();
        let filter = format!("container={}", one.name);
        let format = "{{.Action}} {{index .Actor.Attributes \"exitCode\"}}";
        docker
            .call(&["events", "--since", &since, "--until", &until, "--filter", &filter, "--format", format])
            .ok()
    };
    let all = [
        "create",
        "start",
        "pause",
        "unpause",
        "exec_start: true",
        "exec_die 0",
        "oom",
        "exec_die 137",
        "kill",
        "die 9",
    ];
    let complete = || all.iter().all(|&event| seen().lines().iter().any(|line| line.starts_with(event)));
    assert!(eventually(complete), "{}", seen());
    let lines = seen();
    let at = |event: &str| lines.lines().iter().position(|line| line.starts_with(event));
    assert!(at("create") < at("start") && at("start") < at("pause") && at("unpause") < at("die"), "{lines}");
}

pub fn health(docker: &Docker) {
    let options = ["--health-cmd", "test -e /well", "--health-interval", "200ms", "--health-retries", "2"];
    let one = docker.up(&options, LOOP);
    let is = |state: &str| eventually(|| one.inspect("{{.State.Health.Status}}") == state);
    assert!(is("unhealthy"), "{}", one.inspect("{{json .State.Health}}"));
    one.exec(&[], &["touch", "/well"]).ok();
    assert!(is("healthy"), "{}", one.inspect("{{json .State.Health}}"));
}
