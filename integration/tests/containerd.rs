//! containerd as `ctr` drives it: our shim on every version of the daemon, with containerd's own shim and runc as the
//! yardstick; containerd's own shim with the option `BinaryName` set to the runtime under test; and our shim with that
//! option set to runc and crun.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};

use coracle_integration::command::{Running, eventually};
use coracle_integration::console::Terminal;
use coracle_integration::engine::bench::{Bench, Id, Place, SLEEP, trials};
use coracle_integration::engine::containerd::{Containerd, ShimRuntime};
use coracle_integration::named;

fn main() -> ExitCode {
    let checks = named![
        run_shows_output_and_removes_the_container,
        run_gives_the_exit_status,
        run_in_a_terminal,
        run_with_environment_and_directory,
        run_with_a_readonly_root_and_a_mount,
        run_with_the_networks_and_names_of_the_host,
        run_privileged,
        run_in_a_user_namespace,
        run_with_the_default_seccomp_profile,
        run_with_a_memory_limit,
        run_with_a_cpu_quota,
        run_with_a_device,
        run_of_what_is_not_there_is_an_error,
        a_detached_container_lives_until_it_is_killed,
        a_killed_task_reports_its_signal,
        exec_shows_output_and_exit_status,
        exec_of_what_is_not_there_is_an_error,
        exec_in_a_terminal,
        a_detached_exec_is_listed,
        pause_and_resume,
        ps_lists_processes,
        metrics_come_from_the_containers_cgroup,
        delete_by_force_of_a_running_task,
        kill_all_ends_everything,
        many_containers_at_once,
        a_container_outlives_the_daemon,
    ];
    // Our shim has the runtime in it; only containerd's own is told by an option which one to use.
    let of_option = named![the_runtime_of_the_option_is_the_one_in_use];
    let by_option = Place::of_binary_name();
    let places = [by_option.clone(), Place::of_shims(), Place::of_other_runtimes()].concat();
    let mut tests = trials(&checks, &places, &[]);
    tests.extend(trials(&of_option, &by_option, &[]));
    let code = coracle_integration::run_tests(tests);
    Containerd::stop_shared();
    code
}

fn run_shows_output_and_removes_the_container(bench: &Bench) {
    let id = bench.id();
    let ran = bench.run(&["--rm"], &id, &["sh", "-c", "echo out; echo err >&2"]).ok();
    assert_eq!((ran.out(), ran.stderr.trim()), ("out", "err"), "{ran}");
    bench.engine.assert_gone(&id);
    assert!(!bench.ctr(&["containers", "list", "--quiet"]).ok().stdout.contains(&*id));
}

fn run_gives_the_exit_status(bench: &Bench) {
    let id = bench.id();
    bench.run(&["--rm"], &id, &["sh", "-c", "exit 42"]).exits(42);
    bench.engine.assert_gone(&id);
}

fn run_in_a_terminal(bench: &Bench) {
    let id = bench.id();
    let command = bench.run_command(&["--rm", "--tty"], &id, &["sh"]);
    Terminal::converse(command, "test -t 0 && test -t 1 && echo is-a-\"\"terminal", "is-a-terminal", 5);
    bench.engine.assert_gone(&id);
}

fn run_with_environment_and_directory(bench: &Bench) {
    let id = bench.id();
    let options = ["--rm", "--env", "WORD=value", "--cwd", "/var"];
    let ran = bench.run(&options, &id, &["sh", "-c", "echo $WORD; echo $FROM; pwd"]).ok();
    assert_eq!(ran.lines(), ["value", "image", "/var"]);
}

fn run_with_a_readonly_root_and_a_mount(bench: &Bench) {
    let id = bench.id();
    let directory = tempfile::tempdir().expect("a temporary directory");
    fs::write(directory.path().join("file"), "of the host\n").expect("writing a file");
    let mount = format!("type=bind,src={},dst=/data,options=rbind:ro", directory.path().display());
    let script = "cat /data/file; touch /new || touch /data/new || echo readonly";
    let ran = bench.run(&["--rm", "--read-only", "--mount", &mount], &id, &["sh", "-c", script]).ok();
    assert_eq!(ran.lines(), ["of the host", "readonly"]);
}

fn run_with_the_networks_and_names_of_the_host(bench: &Bench) {
    let id = bench.id();
    let script = "readlink /proc/self/ns/net; readlink /proc/self/ns/uts";
    let ran = bench.run(&["--rm", "--net-host"], &id, &["sh", "-c", script]).ok();
    let host = fs::read_link("/proc/self/ns/net").expect("our own network namespace");
    assert_eq!(ran.lines().first().copied(), host.to_str());
}

fn run_in_a_user_namespace(bench: &Bench) {
    // `ctr` gives the files of the image to the mapped ids, in a snapshot that is named after them.
    static MAPS: AtomicU32 = AtomicU32::new(0);
    let first = (200_000 + 100_000 * MAPS.fetch_add(1, Ordering::Relaxed)).to_string();
    let id = bench.id();
    let map = format!("0:{first}:65536");
    let options = ["--rm", "--uidmap", &map, "--gidmap", &map];
    let script = "cat /proc/self/uid_map /proc/self/gid_map; stat -c %u:%g /bin; echo >/new && stat -c %u /new; id -u; sleep 0.3";
    let ran = bench.run(&options, &id, &["sh", "-c", script]).ok();
    let words: Vec<_> = ran.stdout.split_whitespace().collect();
    let map = ["0", &first, "65536"];
    assert_eq!(words, [&map[..], &map[..], &["0:0", "0", "0"][..]].concat(), "{ran}");
    bench.engine.assert_gone(&id);
}

fn run_privileged(bench: &Bench) {
    let id = bench.id();
    let script = "grep CapEff /proc/self/status; mount -t tmpfs tmpfs /var && echo mounted";
    let ran = bench.run(&["--rm", "--privileged"], &id, &["sh", "-c", script]).ok();
    assert!(ran.stdout.contains("mounted"), "{ran}");
}

fn run_with_the_default_seccomp_profile(bench: &Bench) {
    let id = bench.id();
    let script = "grep ^Seccomp: /proc/self/status | tr -d '\\t'; unshare -m true 2>/dev/null || echo denied; ls | cat";
    let ran = bench.run(&["--rm", "--seccomp"], &id, &["sh", "-c", script]).ok();
    assert_eq!(ran.lines().get(..2), Some(&["Seccomp:2", "denied"][..]), "{ran}");
    bench.engine.assert_gone(&id);
}

fn run_with_a_memory_limit(bench: &Bench) {
    let id = bench.sleeping(&["--memory-limit", "33554432"]);
    assert_eq!(bench.engine.cgroup_file(&id, "memory", "memory.limit_in_bytes"), "33554432");
    id.end();
}

fn run_with_a_cpu_quota(bench: &Bench) {
    let id = bench.sleeping(&["--cpu-quota", "50000", "--cpu-period", "100000"]);
    assert_eq!(bench.engine.cgroup_file(&id, "cpu", "cpu.cfs_quota_us"), "50000");
    id.end();
}

fn run_with_a_device(bench: &Bench) {
    let id = bench.id();
    let ran = bench.run(&["--rm", "--device", "/dev/tty1"], &id, &["stat", "-c", "%F %t:%T", "/dev/tty1"]);
    assert_eq!(ran.ok().out(), "character special file 4:1");
}

/// In the error of `ctr`, which is the last line: crun writes to the process's standard error, too.
fn tells_of_a_missing_program(errors: &str) -> bool {
    let last = errors.lines().last().unwrap_or_default();
    // runc's words, and crun's, which name the program first.
    last.contains("executable file not found in $PATH")
        || last.contains("executable file `nonesuch` not found in $PATH")
}

fn run_of_what_is_not_there_is_an_error(bench: &Bench) {
    let id = bench.id();
    let ran = bench.run(&["--rm"], &id, &["nonesuch"]).fails();
    assert!(tells_of_a_missing_program(&ran.stderr), "{ran}");
    bench.engine.remove(&id);
    bench.engine.assert_gone(&id);
}

fn a_detached_container_lives_until_it_is_killed(bench: &Bench) {
    let id = bench.sleeping(&[]);
    bench.ctr(&["tasks", "kill", "--signal", "SIGTERM", &id]).ok();
    bench.engine.wait_for(&id, "STOPPED");
    bench.ctr(&["tasks", "delete", &id]).ok();
    bench.ctr(&["containers", "delete", &id]).ok();
    bench.engine.assert_gone(&id);
}

fn a_killed_task_reports_its_signal(bench: &Bench) {
    let id = bench.sleeping(&[]);
    bench.ctr(&["tasks", "kill", "--signal", "SIGKILL", &id]).ok();
    bench.engine.wait_for(&id, "STOPPED");
    let deleted = bench.ctr(&["tasks", "delete", &id]);
    assert!(deleted.stderr.contains("exit code 137"), "{deleted}");
}

fn exec_shows_output_and_exit_status(bench: &Bench) {
    let id = bench.sleeping(&[]);
    // ctr stops reading when the process ends: what a very short one wrote can be lost, whatever the runtime.
    let script = "echo out; echo err >&2; sleep 0.3; exit 9";
    let ran = bench.ctr(&["tasks", "exec", "--exec-id", "one", &id, "sh", "-c", script]).exits(9);
    assert_eq!(ran.out(), "out");
    assert!(ran.stderr.contains("err"), "{ran}");
    let options = ["tasks", "exec", "--exec-id", "two", "--user", "1000", "--cwd", "/etc"];
    let mut words = options.to_vec();
    words.extend([&*id, "sh", "-c", "id -u; pwd; sleep 0.3"]);
    assert_eq!(bench.ctr(&words).ok().lines(), ["1000", "/etc"]);
    id.end();
}

fn exec_of_what_is_not_there_is_an_error(bench: &Bench) {
    let id = bench.sleeping(&[]);
    let ran = bench.ctr(&["tasks", "exec", "--exec-id", "one", &id, "nonesuch"]).fails();
    assert!(tells_of_a_missing_program(&ran.stderr), "{ran}");
    assert_eq!(bench.engine.status(&id), "RUNNING");
    id.end();
}

fn exec_in_a_terminal(bench: &Bench) {
    let id = bench.sleeping(&[]);
    let command = bench.engine.ctr_command(&["tasks", "exec", "--exec-id", "one", "--tty", &id, "sh"]);
    Terminal::converse(command, "tty", "/dev/pts/", 3);
    id.end();
}

fn a_detached_exec_is_listed(bench: &Bench) {
    let id = bench.sleeping(&[]);
    let words = ["tasks", "exec", "--detach", "--exec-id", "back", &*id, "sleep", "1009"];
    bench.ctr(&words).ok();
    let listed = || bench.ctr(&["tasks", "ps", &id]).ok().stdout.contains("back");
    assert!(eventually(listed), "{}", bench.ctr(&["tasks", "ps", &id]));
    id.end();
}

fn pause_and_resume(bench: &Bench) {
    let id = bench.sleeping(&[]);
    bench.ctr(&["tasks", "pause", &id]).ok();
    bench.engine.wait_for(&id, "PAUSED");
    bench.ctr(&["tasks", "resume", &id]).ok();
    bench.engine.wait_for(&id, "RUNNING");
    bench.ctr(&["tasks", "exec", "--exec-id", "after", &id, "true"]).ok();
    id.end();
}

fn ps_lists_processes(bench: &Bench) {
    let id = bench.sleeping(&[]);
    let listed = bench.ctr(&["tasks", "ps", &id]).ok();
    let pids: Vec<i32> = listed
        .lines()
        .iter()
        .skip(1)
        .filter_map(|line| line.split_whitespace().next()?.parse().ok())
        .collect();
    assert!(!pids.is_empty(), "{listed}");
    id.end();
}

fn metrics_come_from_the_containers_cgroup(bench: &Bench) {
    let id = bench.sleeping(&["--memory-limit", "33554432"]);
    let metrics = bench.ctr(&["tasks", "metrics", &id]).ok();
    let limit = metrics.stdout.lines().any(|line| line.contains("limit") && line.contains("33554432"));
    assert!(limit, "{metrics}");
    id.end();
}

fn delete_by_force_of_a_running_task(bench: &Bench) {
    let id = bench.sleeping(&[]);
    bench.ctr(&["tasks", "delete", "--force", &id]);
    bench.ctr(&["containers", "delete", &id]).ok();
    bench.engine.assert_gone(&id);
}

fn kill_all_ends_everything(bench: &Bench) {
    let id = bench.sleeping(&[]);
    bench.ctr(&["tasks", "exec", "--detach", "--exec-id", "more", &id, "sleep", "1010"]).ok();
    bench.ctr(&["tasks", "kill", "--all", "--signal", "SIGKILL", &id]).ok();
    bench.engine.wait_for(&id, "STOPPED");
    bench.ctr(&["tasks", "delete", &id]);
    bench.ctr(&["containers", "delete", &id]).ok();
    bench.engine.assert_gone(&id);
}

fn many_containers_at_once(bench: &Bench) {
    let ids: Vec<Id> = (0..8).map(|_| bench.id()).collect();
    let start = |(index, id): (usize, &Id)| {
        let script = format!("echo {index}; sleep 0.3; exit {index}");
        Running::start(bench.run_command(&["--rm"], id, &["sh", "-c", &script]))
    };
    let running: Vec<Running> = ids.iter().enumerate().map(start).collect();
    for (index, one) in running.into_iter().enumerate() {
        let ran = one.finish().exits(i32::try_from(index).unwrap_or_default());
        assert_eq!(ran.out(), index.to_string());
    }
    for id in &ids {
        bench.engine.assert_gone(id);
    }
}

fn a_container_outlives_the_daemon(bench: &Bench) {
    // A daemon of its own: the other checks go on with theirs.
    let own = Containerd::of(bench.engine.version());
    let id = format!("ct-{}-outlives", std::process::id());
    own.run(&bench.runtime, &["--detach"], &id, &SLEEP).ok();
    own.restart();
    own.wait_for(&id, "RUNNING");
    let words = ["tasks", "exec", "--exec-id", "one", &*id, "sh", "-c", "echo alive; sleep 0.3"];
    assert_eq!(own.ctr(&words).ok().out(), "alive");
    own.remove(&id);
    own.assert_gone(&id);
    own.stop();
}

fn the_runtime_of_the_option_is_the_one_in_use(bench: &Bench) {
    let Some(tested) = &bench.runtime.binary else { panic!("this bench is for the option") };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (wrapper, log) = (directory.path().join("wrapper"), directory.path().join("log"));
    let script = format!("#!/bin/sh\necho \"$@\" >> {}\nexec {} \"$@\"\n", log.display(), tested.display());
    fs::write(&wrapper, script).expect("writing a script");
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).expect("chmod");
    let id = bench.id();
    let wrapped = ShimRuntime { binary: Some(wrapper), ..bench.runtime.clone() };
    bench.engine.run(&wrapped, &["--rm"], &id, &["true"]).ok();
    let log = fs::read_to_string(log).expect("the wrapper was used");
    for verb in [" create ", " start ", " delete "] {
        assert!(log.lines().any(|line| line.contains(verb) && line.contains(&*id)), "no{verb}in: {log}");
    }
}
