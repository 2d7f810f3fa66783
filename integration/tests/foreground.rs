//! The foreground of `run` and `exec`: streams of the caller that end, stall or are read slowly, and signals.

use std::fs;
use std::process::{Command, ExitCode, Stdio};

use coracle_integration::command::{Running, eventually, run};
use coracle_integration::{Bundle, Checked, Runtime, bundle, host, tests};
use rustix::process::Signal;
use serde_json::json;

fn main() -> ExitCode {
    coracle_integration::run_tests(tests![
        a_terminal_whose_input_has_ended_costs_no_time,
        a_terminal_whose_reader_has_gone_costs_no_time,
        a_slow_reader_gets_the_last_output,
        a_signal_ends_the_wait_for_a_reader,
        a_signal_that_the_program_sends_at_once_is_passed_on,
        a_signal_after_the_end_leaves_the_exit_status,
        an_ignored_sigchld_does_not_hide_the_end,
    ])
}

/// A program that writes its first word, does something again and again until the file `go` is in its root, and ends
/// with 3.
fn until_go(rt: &Runtime, again: &str) -> Bundle {
    rt.script(&format!("echo ready; until test -e /go; do {again} sleep 0.05; done; exit 3"))
        .edit(|config| config["process"]["terminal"] = json!(true))
}

fn go(bundle: &Bundle) {
    fs::write(bundle.rootfs("go"), "").expect("writing a file");
}

/// A command whose standard output is read by a shell script.
fn read_by(command: &Command, reader: &str) -> Command {
    let mut through = Command::new("bash");
    through.args(["-c", &format!("exec \"$@\" > >({reader})"), "bash"]);
    through.arg(command.get_program()).args(command.get_args());
    through.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?)))).stdin(Stdio::null());
    through
}

fn a_terminal_whose_input_has_ended_costs_no_time(rt: &Runtime) -> Checked {
    rt.coracle_only("runc wants a terminal of the caller's own")?;
    let bundle = until_go(rt, "");
    let c = rt.container(&bundle);
    let (input, writer) = std::io::pipe().expect("a pipe");
    drop(writer);
    let mut command = c.run_command(&[]);
    command.stdin(input);
    let running = Running::start(command);
    running.wait_for_output("ready");
    assert!(eventually(|| host::is_asleep(running.pid())), "the runtime is always at work");
    go(&bundle);
    running.finish().exits(3);
    Ok(())
}

fn a_terminal_whose_reader_has_gone_costs_no_time(rt: &Runtime) -> Checked {
    rt.coracle_only("runc passes its own SIGPIPE on to the container")?;
    let bundle = until_go(rt, "trap 'exit 9' PIPE; echo more;");
    let c = rt.container(&bundle);
    let gone = rt.scratch("gone");
    let running =
        Running::start(read_by(&c.run_command(&[]), &format!("read line; echo >{}", gone.display())));
    assert!(eventually(|| gone.exists()), "nothing was written");
    assert!(eventually(|| host::is_asleep(running.pid())), "the runtime is always at work");
    go(&bundle);
    running.finish().exits(3);
    Ok(())
}

/// A script that writes more than a pipe and a terminal hold.
const WRITER: &str = "head -c 120000 /dev/zero | tr '\\0' x";

fn a_slow_reader_gets_the_last_output(rt: &Runtime) -> Checked {
    rt.coracle_only("runc wants a terminal of the caller's own")?;
    let bundle = rt.sleeper();
    let c = rt.container(&bundle);
    c.up();
    let read = rt.scratch("read");
    // Little by little, so that the runtime has more than is taken when the program ends.
    let slowly = format!("for n in {{1..64}}; do head -c 2000; sleep 0.01; done >{}", read.display());
    let command = c.exec_command(&["--tty"], &["sh", "-c", &format!("{WRITER}; exit 3")]);
    Running::start(read_by(&command, &slowly)).finish().exits(3);
    let size = || fs::metadata(&read).map(|read| read.len()).unwrap_or_default();
    assert!(eventually(|| size() == 120_000), "{} bytes of 120000 arrived", size());
    Ok(())
}

fn a_signal_ends_the_wait_for_a_reader(rt: &Runtime) -> Checked {
    rt.coracle_only("runc waits for ever")?;
    let bundle = rt.sleeper();
    let c = rt.container(&bundle);
    c.up();
    let over = rt.scratch("over");
    let never = format!("until test -e {}; do sleep 0.05; done", over.display());
    // The pause lets the writer fill all that holds something.
    let script = format!("trap '' TERM; ({WRITER}) & sleep 0.3; echo >/done; exit 3");
    let running = Running::start(read_by(&c.exec_command(&["--tty"], &["sh", "-c", &script]), &never));
    assert!(eventually(|| bundle.rootfs("done").exists()), "the program waits for a reader");
    // The first ones may still be passed on to the program.
    let ended = eventually(|| {
        running.signal(Signal::TERM);
        !host::is_alive(running.pid())
    });
    assert!(ended, "the runtime waits for a reader");
    running.finish().exits(3);
    fs::write(&over, "").expect("writing a file");
    Ok(())
}

fn a_signal_that_the_program_sends_at_once_is_passed_on(rt: &Runtime) {
    // In the host's pid namespace it sees the runtime.
    let bundle = rt.sleeper().edit(|config| bundle::without_namespace(config, "pid"));
    let c = rt.container(&bundle);
    c.up();
    let script = "trap 'exit 5' TERM; kill -TERM $PPID; while :; do sleep 0.05; done";
    for _ in 0..8 {
        c.exec(&["sh", "-c", script]).exits(5);
    }
}

fn a_signal_after_the_end_leaves_the_exit_status(rt: &Runtime) {
    let (runs, goes_on) = (rt.scratch("runs"), rt.scratch("on"));
    let script = format!(
        "cat >/dev/null; echo >{}; until test -e {}; do sleep 0.05; done",
        runs.display(),
        goes_on.display()
    );
    let bundle = rt.script("exit 3").edit(|config| {
        config["hooks"] = json!({ "poststop": [{ "path": "/bin/sh", "args": ["sh", "-c", script] }] });
    });
    let c = rt.container(&bundle);
    let running = Running::start(c.run_command(&[]));
    assert!(eventually(|| runs.exists()), "the hook does not run");
    running.signal(Signal::TERM);
    fs::write(&goes_on, "").expect("writing a file");
    running.finish().exits(3);
}

fn an_ignored_sigchld_does_not_hide_the_end(rt: &Runtime) {
    let bundle = rt.script("exit 3").edit(|config| {
        let hook = json!({ "path": "/bin/true", "timeout": 20 });
        config["hooks"] = json!({ "createRuntime": [hook], "createContainer": [{ "path": "/bin/busybox",
            "args": ["true"] }] });
    });
    let c = rt.container(&bundle);
    let direct = c.run_command(&[]);
    let mut ignoring = Command::new("env");
    ignoring.arg("--ignore-signal=CHLD").arg(direct.get_program()).args(direct.get_args());
    run(ignoring).exits(3);
}
