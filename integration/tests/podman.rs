//! Podman 4.3 with conmon and `--runtime` set to the runtime under test. Each check runs with runc too.
//!
//! Podman's default seccomp profile is on in all of them.

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use coracle_integration::checks;
use coracle_integration::command::{Running, eventually, run};
use coracle_integration::console::Terminal;
use coracle_integration::engine::podman::{IMAGE, Podman, private_network};
use coracle_integration::leftovers::cgroups;

fn main() -> ExitCode {
    let tests = checks![
        run_shows_output_and_exit_status,
        run_in_a_terminal,
        run_with_options_of_the_process,
        run_with_mounts_and_a_readonly_root,
        run_with_capabilities,
        run_privileged,
        run_with_limits,
        run_with_a_device,
        run_with_namespaces_of_the_host,
        run_with_hooks,
        run_passes_standard_input,
        run_passes_descriptors,
        run_of_what_is_not_there_is_127,
        run_of_what_is_not_executable_is_126,
        run_on_a_bridge_network,
        a_detached_container_keeps_its_logs,
        stop_ends_it_in_time_and_says_how,
        stop_kills_what_ignores_the_signal,
        kill_sends_a_signal,
        exec_shows_output_and_exit_status,
        exec_of_what_is_not_there_is_127,
        exec_in_a_terminal,
        exec_with_user_and_environment,
        a_detached_exec_runs_on,
        start_again_after_stop,
        restart_gives_a_new_process,
        pause_and_unpause,
        top_lists_processes,
        wait_gives_the_exit_status,
        attach_follows_the_output,
        copy_to_and_from,
        create_start_and_remove,
        rm_by_force_leaves_nothing,
        many_containers_at_once,
    ];
    let listing = std::env::args().any(|argument| argument == "--list");
    if !listing && let Err(error) = private_network() {
        eprintln!("the tests cannot run: {error}");
        return ExitCode::FAILURE;
    }
    let code = coracle_integration::run_tests(tests);
    if let Some(engine) = ENGINE.get() {
        let left = engine.stop();
        if !left.is_empty() {
            eprintln!("left behind: {left:?}");
            return ExitCode::FAILURE;
        }
    }
    code
}

static ENGINE: OnceLock<Podman> = OnceLock::new();

fn engine() -> &'static Podman {
    ENGINE.get_or_init(Podman::start)
}

/// A container's name and runtime, removed when the check ends.
struct Box<'r> {
    name: String,
    runtime: &'r Path,
}

impl<'r> Box<'r> {
    fn new(runtime: &'r Path) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        Self { name: format!("box{}x", COUNT.fetch_add(1, Ordering::Relaxed)), runtime }
    }

    /// A detached container that runs a script.
    #[track_caller]
    fn up(runtime: &'r Path, options: &[&str], script: &str) -> Self {
        let this = Self::new(runtime);
        let mut all = vec!["--detach", "--name", &this.name];
        all.extend(options);
        engine().run(runtime, &all, &["sh", "-c", script]).ok();
        this
    }

    #[track_caller]
    fn call(&self, verb: &str, options: &[&str], after: &[&str]) -> coracle_integration::Finished {
        let mut words = vec![verb];
        words.extend(options);
        words.push(&self.name);
        words.extend(after);
        engine().call(self.runtime, &words)
    }

    #[track_caller]
    fn exec(&self, options: &[&str], args: &[&str]) -> coracle_integration::Finished {
        self.call("exec", options, args)
    }

    fn status(&self) -> String {
        engine().status(self.runtime, &self.name)
    }

    #[track_caller]
    fn inspect(&self, field: &str) -> String {
        self.call("inspect", &["--format", field], &[]).ok().out().to_owned()
    }

    #[track_caller]
    fn wait_for_log(&self, part: &str) {
        let logs = || self.call("logs", &[], &[]);
        assert!(eventually(|| logs().stdout.contains(part)), "{part:?} is not in {}", logs());
    }
}

impl Drop for Box<'_> {
    fn drop(&mut self) {
        engine().remove(self.runtime, &self.name);
    }
}

const LOOP: &str = "trap 'exit 0' TERM; echo ready; while :; do sleep 0.05; done";

fn run_shows_output_and_exit_status(runtime: &Path) {
    let ran = engine().run(runtime, &["--rm"], &["sh", "-c", "echo out; echo err >&2; exit 42"]).exits(42);
    assert_eq!((ran.out(), ran.stderr.trim()), ("out", "err"));
}

fn run_in_a_terminal(runtime: &Path) {
    let command = engine().run_command(runtime, &["--rm", "--tty", "--interactive"], &["sh"]);
    Terminal::converse(command, "test -t 0 && test -t 1 && echo is-a-\"\"terminal", "is-a-terminal", 5);
}

fn run_with_options_of_the_process(runtime: &Path) {
    let options = [
        "--rm",
        "--env",
        "WORD=value",
        "--workdir",
        "/var",
        "--user",
        "1000:7",
        "--group-add",
        "5",
        "--hostname",
        "inside",
        "--umask",
        "0027",
        "--ulimit",
        "core=0:0",
    ];
    let script = "echo $WORD $FROM; pwd; id -u; id -G; hostname; umask; ulimit -c";
    let ran = engine().run(runtime, &options, &["sh", "-c", script]).ok();
    assert_eq!(ran.lines(), ["value image", "/var", "1000", "7 5", "inside", "0027", "0"]);
}

fn run_with_mounts_and_a_readonly_root(runtime: &Path) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    fs::write(directory.path().join("file"), "of the host\n").expect("writing a file");
    let volume = format!("{}:/data:ro", directory.path().display());
    let options = ["--rm", "--read-only", "--volume", &volume, "--tmpfs", "/scratch:size=64k"];
    let script = "cat /data/file; touch /data/new || touch /new || touch /scratch/new && echo scratch";
    let ran = engine().run(runtime, &options, &["sh", "-c", script]).ok();
    assert_eq!(ran.lines(), ["of the host", "scratch"]);
}

fn run_with_capabilities(runtime: &Path) {
    let options = ["--rm", "--cap-drop", "all", "--cap-add", "net_admin"];
    let ran = engine().run(runtime, &options, &["grep", "CapEff", "/proc/self/status"]).ok();
    assert_eq!(ran.out(), "CapEff:\t0000000000001000");
}

fn run_privileged(runtime: &Path) {
    let script = "mount -t tmpfs tmpfs /mnt 2>/dev/null || mount -t tmpfs tmpfs /var && echo mounted";
    let ran = engine().run(runtime, &["--rm", "--privileged"], &["sh", "-c", script]).ok();
    assert_eq!(ran.out(), "mounted");
}

fn run_with_limits(runtime: &Path) {
    let options = ["--rm", "--memory", "64m", "--pids-limit", "33", "--cpus", "0.5"];
    let files = ["memory/memory.limit_in_bytes", "pids/pids.max", "cpu/cpu.cfs_quota_us"];
    let script = format!("cd /sys/fs/cgroup && cat {}", files.join(" "));
    let ran = engine().run(runtime, &options, &["sh", "-c", &script]).ok();
    assert_eq!(ran.lines(), ["67108864", "33", "50000"]);
}

fn run_with_a_device(runtime: &Path) {
    let options = ["--rm", "--device", "/dev/zero:/dev/nought:r"];
    let script = "head -c 4 /dev/nought | wc -c; echo text > /dev/nought";
    let ran = engine().run(runtime, &options, &["sh", "-c", script]);
    assert_eq!(ran.out(), "4");
}

fn run_with_namespaces_of_the_host(runtime: &Path) {
    let options = ["--rm", "--pid", "host", "--ipc", "host", "--uts", "host"];
    let script = "for kind in pid ipc uts; do readlink /proc/self/ns/$kind; done";
    let ran = engine().run(runtime, &options, &["sh", "-c", script]).ok();
    for (line, kind) in ran.lines().iter().zip(["pid", "ipc", "uts"]) {
        let host = fs::read_link(format!("/proc/self/ns/{kind}")).expect("our own namespace");
        assert_eq!(Some(*line), host.to_str());
    }
}

fn run_with_hooks(runtime: &Path) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let log = directory.path().join("log");
    let hook = serde_json::json!({
        "version": "1.0.0",
        "hook": { "path": "/bin/sh", "args": ["sh", "-c", format!("cat > {}", log.display())] },
        "when": { "always": true },
        "stages": ["createRuntime"],
    });
    fs::write(directory.path().join("hook.json"), hook.to_string()).expect("writing a hook");
    let hooks = directory.path().to_string_lossy().into_owned();
    let mut words = vec!["--hooks-dir", &hooks, "run", "--rm", "--network", "none"];
    words.extend(engine().options());
    words.extend([IMAGE, "true"]);
    engine().call(runtime, &words).ok();
    let state = fs::read_to_string(log).expect("the hook ran");
    assert!(state.contains("\"ociVersion\"") && state.contains("\"bundle\""), "{state}");
}

fn run_passes_standard_input(runtime: &Path) {
    let command = engine().run_command(runtime, &["--rm", "--interactive"], &["wc", "-c"]);
    let ran = coracle_integration::command::run_with_input(command, &"x".repeat(100_000)).ok();
    assert_eq!(ran.out(), "100000");
}

fn run_passes_descriptors(runtime: &Path) {
    let direct = engine().run_command(runtime, &["--rm", "--preserve-fds", "1"], &["sh", "-c", "cat <&3"]);
    let mut through = std::process::Command::new("bash");
    through
        .args(["-c", "exec 3<<<passed; exec \"$@\"", "sh"])
        .arg(direct.get_program())
        .args(direct.get_args());
    assert_eq!(run(through).ok().out(), "passed");
}

fn run_of_what_is_not_there_is_127(runtime: &Path) {
    let ran = engine().run(runtime, &["--rm"], &["nonesuch"]).exits(127);
    assert!(ran.stderr.contains("executable file not found in $PATH"), "{ran}");
}

fn run_of_what_is_not_executable_is_126(runtime: &Path) {
    engine().run(runtime, &["--rm"], &["/etc/passwd"]).exits(126);
}

fn run_on_a_bridge_network(runtime: &Path) {
    let ran = engine().run(runtime, &["--rm", "--network", "bridge"], &["ip", "-o", "addr"]).ok();
    assert!(ran.stdout.contains("eth0") && ran.stdout.contains("inet "), "{ran}");
}

fn a_detached_container_keeps_its_logs(runtime: &Path) {
    let one = Box::up(runtime, &[], "echo first; echo second >&2; exit 3");
    assert_eq!(one.call("wait", &[], &[]).ok().out(), "3");
    let logs = one.call("logs", &[], &[]).ok();
    assert_eq!((logs.out(), logs.stderr.trim()), ("first", "second"));
    assert_eq!(one.status(), "exited");
}

fn stop_ends_it_in_time_and_says_how(runtime: &Path) {
    let one = Box::up(runtime, &[], LOOP);
    one.wait_for_log("ready");
    one.call("stop", &["--time", "20"], &[]).ok();
    assert_eq!(one.status(), "exited");
    assert_eq!(one.inspect("{{.State.ExitCode}}"), "0");
}

fn stop_kills_what_ignores_the_signal(runtime: &Path) {
    let one = Box::up(runtime, &[], "trap '' TERM; echo ready; while :; do sleep 0.05; done");
    one.wait_for_log("ready");
    one.call("stop", &["--time", "1"], &[]).ok();
    assert_eq!(one.inspect("{{.State.ExitCode}}"), "137");
}

fn kill_sends_a_signal(runtime: &Path) {
    let one = Box::up(runtime, &[], "trap 'echo got; exit 6' USR1; echo ready; while :; do sleep 0.05; done");
    one.wait_for_log("ready");
    one.call("kill", &["--signal", "USR1"], &[]).ok();
    assert_eq!(one.call("wait", &[], &[]).ok().out(), "6");
    one.wait_for_log("got");
}

fn exec_shows_output_and_exit_status(runtime: &Path) {
    let one = Box::up(runtime, &[], LOOP);
    let ran = one.exec(&[], &["sh", "-c", "echo out; echo err >&2; exit 9"]).exits(9);
    assert_eq!(ran.out(), "out");
    assert!(ran.stderr.contains("err"), "{ran}");
    assert_eq!(one.status(), "running");
}

fn exec_of_what_is_not_there_is_127(runtime: &Path) {
    let one = Box::up(runtime, &[], LOOP);
    let ran = one.exec(&[], &["nonesuch"]).exits(127);
    assert!(ran.stderr.contains("executable file not found in $PATH"), "{ran}");
    one.exec(&[], &["/etc/passwd"]).exits(126);
}

fn exec_in_a_terminal(runtime: &Path) {
    let one = Box::up(runtime, &[], LOOP);
    let command = engine().command(runtime, &["exec", "--tty", "--interactive", &one.name, "sh"]);
    Terminal::converse(command, "tty", "/dev/pts/", 3);
}

fn exec_with_user_and_environment(runtime: &Path) {
    let one = Box::up(runtime, &["--env", "FIRST=one"], LOOP);
    let options = ["--user", "1000", "--workdir", "/etc", "--env", "SECOND=two"];
    let ran = one.exec(&options, &["sh", "-c", "id -u; pwd; echo $FIRST $SECOND"]).ok();
    assert_eq!(ran.lines(), ["1000", "/etc", "one two"]);
}

fn a_detached_exec_runs_on(runtime: &Path) {
    let one = Box::up(runtime, &[], LOOP);
    one.exec(&["--detach"], &["sh", "-c", "echo done > /proof; sleep 1011"]).ok();
    let proof = || one.exec(&[], &["cat", "/proof"]).out() == "done";
    assert!(eventually(proof));
    assert!(one.exec(&[], &["ps"]).ok().stdout.contains("sleep 1011"));
}

fn start_again_after_stop(runtime: &Path) {
    let one = Box::up(runtime, &[], LOOP);
    one.call("stop", &["--time", "5"], &[]).ok();
    one.call("start", &[], &[]).ok();
    assert_eq!(one.status(), "running");
    assert_eq!(one.exec(&[], &["echo", "again"]).ok().out(), "again");
}

fn restart_gives_a_new_process(runtime: &Path) {
    let one = Box::up(runtime, &[], LOOP);
    let before = one.inspect("{{.State.Pid}}");
    one.call("restart", &["--time", "5"], &[]).ok();
    assert_eq!(one.status(), "running");
    assert_ne!(one.inspect("{{.State.Pid}}"), before);
}

fn pause_and_unpause(runtime: &Path) {
    let one = Box::up(runtime, &[], LOOP);
    one.call("pause", &[], &[]).ok();
    assert_eq!(one.status(), "paused");
    one.call("unpause", &[], &[]).ok();
    assert_eq!(one.status(), "running");
    one.exec(&[], &["true"]).ok();
}

fn top_lists_processes(runtime: &Path) {
    let one = Box::up(runtime, &[], LOOP);
    let top = one.call("top", &[], &[]).ok();
    assert!(top.stdout.contains("PID") && top.stdout.contains("sh -c"), "{top}");
}

fn wait_gives_the_exit_status(runtime: &Path) {
    let one = Box::up(runtime, &[], "sleep 0.3; exit 11");
    assert_eq!(one.call("wait", &[], &[]).ok().out(), "11");
}

fn attach_follows_the_output(runtime: &Path) {
    let script = "until test -e /go; do sleep 0.05; done; echo after";
    let one = Box::up(runtime, &[], script);
    let attach = Running::start(engine().command(runtime, &["attach", "--no-stdin", &one.name]));
    // attach is there when conmon has a connection; the output that follows must arrive.
    std::thread::sleep(std::time::Duration::from_millis(500));
    // The container ends as soon as the file is there, perhaps before the process that makes it, which ends with it.
    one.exec(&[], &["touch", "/go"]);
    assert_eq!(attach.finish().out(), "after");
}

fn copy_to_and_from(runtime: &Path) {
    let one = Box::up(runtime, &[], LOOP);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("file").display().to_string();
    fs::write(&file, "there and back\n").expect("writing a file");
    let inside = format!("{}:/tmp/file", one.name);
    engine().call(runtime, &["cp", &file, &inside]).ok();
    assert_eq!(one.exec(&[], &["cat", "/tmp/file"]).ok().out(), "there and back");
    engine().call(runtime, &["cp", &inside, &format!("{file}.back")]).ok();
    assert_eq!(fs::read_to_string(format!("{file}.back")).expect("it came back"), "there and back\n");
}

fn create_start_and_remove(runtime: &Path) {
    let one = Box::new(runtime);
    let mut words = vec!["create", "--name", &one.name, "--network", "none"];
    words.extend(engine().options());
    words.extend([IMAGE, "sh", "-c", "echo started"]);
    engine().call(runtime, &words).ok();
    assert_eq!(one.status(), "created");
    assert_eq!(one.call("start", &["--attach"], &[]).ok().out(), "started");
    one.call("rm", &[], &[]).ok();
    assert_eq!(one.status(), "");
}

fn rm_by_force_leaves_nothing(runtime: &Path) {
    let one = Box::up(runtime, &[], LOOP);
    let id = one.inspect("{{.Id}}");
    assert!(!cgroups(&id).is_empty(), "a running container has a cgroup");
    one.call("rm", &["--force", "--time", "0"], &[]).ok();
    assert_eq!(one.status(), "");
    // conmon's own cgroups carry the id too; conmon leaves a little after the container.
    let left = || cgroups(&id).into_iter().filter(|path| !path.to_string_lossy().contains("conmon")).count();
    assert!(eventually(|| left() == 0), "{:?}", cgroups(&id));
}

fn many_containers_at_once(runtime: &Path) {
    let start = |index: usize| {
        let script = format!("echo {index}; exit {index}");
        Running::start(engine().run_command(runtime, &["--rm"], &["sh", "-c", &script]))
    };
    let running: Vec<Running> = (0..6).map(start).collect();
    for (index, one) in running.into_iter().enumerate() {
        let ran = one.finish().exits(i32::try_from(index).unwrap_or_default());
        assert_eq!(ran.out(), index.to_string());
    }
}
