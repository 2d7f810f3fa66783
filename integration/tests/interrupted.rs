//! A `create` that something comes between: a signal, a `delete --force`, a limit of the caller.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use coracle_integration::command::{Running, eventually, run};
use coracle_integration::{Bundle, Checked, Container, Runtime, host, skip, tests};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};
use rustix::process::Signal;
use serde_json::json;

fn main() -> ExitCode {
    coracle_integration::run_tests(tests![
        a_signal_ends_a_create_that_hangs_in_a_hook,
        a_signal_ends_a_run_that_hangs_in_a_hook,
        an_ignored_signal_ends_nothing,
        a_create_whose_container_is_deleted_says_so,
        a_deleted_create_leaves_a_new_container_of_its_id_alone,
        a_create_that_is_deleted_early_leaves_no_cgroup,
        a_signal_ends_a_run_that_hangs_in_a_later_hook,
        a_signal_ends_a_create_whose_console_socket_takes_no_calls,
        a_signal_ends_a_detached_run_that_waits_for_readiness,
        too_few_descriptors_are_told_with_the_limit,
    ])
}

/// A hook that tells that it runs, and then waits for a file.
struct Hanging {
    runs: PathBuf,
    goes_on: PathBuf,
    bundle: Bundle,
}

impl Hanging {
    fn at(rt: &Runtime, hook: &str) -> Self {
        let (runs, goes_on) = (rt.scratch(&format!("{hook}.runs")), rt.scratch(&format!("{hook}.on")));
        let script = format!(
            "cat >/dev/null; echo >{}; while ! test -e {}; do sleep 0.05; done",
            runs.display(),
            goes_on.display()
        );
        let bundle = rt.sleeper().edit(|config| {
            config["hooks"] = json!({ hook: [{ "path": "/bin/sh", "args": ["sh", "-c", script] }] });
        });
        Self { runs, goes_on, bundle }
    }

    #[track_caller]
    fn wait(&self) {
        assert!(eventually(|| self.runs.exists()), "the hook does not run");
    }

    fn go_on(&self) {
        fs::write(&self.goes_on, "").expect("writing a file");
    }
}

#[track_caller]
fn ends_by(
    rt: &Runtime,
    hook: &str,
    (signal, name): (Signal, &str),
    start: impl FnOnce(&Container<'_>) -> Running,
) {
    let hanging = Hanging::at(rt, hook);
    let c = rt.container(&hanging.bundle);
    let running = start(&c);
    hanging.wait();
    running.signal(signal);
    running.finish().fails_with(&format!("interrupted by {name}"));
    c.call("state", &[]).fails_with("does not exist");
    // A hook in the runtime's namespaces may have a child of its own, which waits for this.
    hanging.go_on();
    rt.assert_clean();
}

/// Whether this program, and so what it starts, ignores a signal: a shell does that to what it puts into the background.
fn is_ignored(signal: Signal) -> bool {
    let status = fs::read_to_string("/proc/self/status").expect("the status of this program");
    let ignored =
        coracle_integration::host::status_field(&status, "SigIgn").expect("the kernel shows the set");
    let ignored = u64::from_str_radix(ignored, 16).expect("a hexadecimal set");
    ignored & (1 << (signal.as_raw() - 1)) != 0
}

fn a_signal_ends_a_create_that_hangs_in_a_hook(rt: &Runtime) -> Checked {
    rt.coracle_only("runc holds the signal until the hook is done")?;
    for hook in ["prestart", "createRuntime", "createContainer"] {
        for signal in [(Signal::TERM, "SIGTERM"), (Signal::INT, "SIGINT")] {
            if is_ignored(signal.0) {
                continue;
            }
            fs::remove_file(rt.scratch(&format!("{hook}.runs"))).ok();
            fs::remove_file(rt.scratch(&format!("{hook}.on"))).ok();
            ends_by(rt, hook, signal, |c| Running::start(c.create_command(&[])));
        }
    }
    Ok(())
}

fn a_signal_ends_a_run_that_hangs_in_a_hook(rt: &Runtime) -> Checked {
    rt.coracle_only("runc holds the signal until the hook is done")?;
    ends_by(rt, "createRuntime", (Signal::TERM, "SIGTERM"), |c| Running::start(c.run_command(&[])));
    Ok(())
}

fn an_ignored_signal_ends_nothing(rt: &Runtime) {
    let hanging = Hanging::at(rt, "createRuntime");
    let c = rt.container(&hanging.bundle);
    let create = c.create_command(&[]);
    let mut ignoring = Command::new("sh");
    ignoring.args(["-c", "trap '' HUP; exec \"$@\"", "sh"]).arg(create.get_program()).args(create.get_args());
    ignoring.envs(create.get_envs().filter_map(|(name, value)| Some((name, value?)))).stdin(Stdio::null());
    let open = |kind: &str| fs::File::create(c.file(kind)).expect("opening an output file");
    let running = Running::start_into(ignoring, open("out"), open("err"));
    hanging.wait();
    running.signal(Signal::HUP);
    hanging.go_on();
    running.finish().ok();
    assert_eq!(c.status(), "created");
}

fn a_create_whose_container_is_deleted_says_so(rt: &Runtime) -> Checked {
    rt.coracle_only("the words are ours")?;
    for hook in ["createRuntime", "createContainer"] {
        let hanging = Hanging::at(rt, hook);
        let c = rt.container(&hanging.bundle);
        let running = Running::start(c.create_command(&[]));
        hanging.wait();
        c.call("delete", &["--force"]).ok();
        hanging.go_on();
        running.finish().fails_with("was deleted while it was being created");
        rt.assert_clean();
    }
    Ok(())
}

fn a_deleted_create_leaves_a_new_container_of_its_id_alone(rt: &Runtime) -> Checked {
    rt.coracle_only("runc takes the new container's cgroup away")?;
    let hanging = Hanging::at(rt, "createRuntime");
    let c = rt.container(&hanging.bundle);
    let running = Running::start(c.create_command(&[]));
    hanging.wait();
    c.call("delete", &["--force"]).ok();
    let new = rt.container_named(&rt.sleeper(), &c.id);
    new.up();
    hanging.go_on();
    running.finish().fails();
    assert_eq!(new.status(), "running");
    new.exec(&["true"]).ok();
    Ok(())
}

fn a_create_that_is_deleted_early_leaves_no_cgroup(rt: &Runtime) -> Checked {
    rt.coracle_only("the words are ours")?;
    if !host::has_program("strace") {
        return skip("no strace to slow the making of cgroups down with");
    }
    let bundle = rt.sleeper();
    for early in [true, false] {
        let c = rt.container(&bundle);
        let create = c.create_command(&[]);
        let mut slow = Command::new("strace");
        slow.args([
            "-o",
            "/dev/null",
            "-e",
            "trace=mkdirat,mkdir",
            "-e",
            "inject=mkdirat,mkdir:delay_exit=60000",
        ]);
        slow.arg(create.get_program()).args(create.get_args()).stdin(Stdio::null());
        slow.envs(create.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let running = Running::start(slow);
        let home = rt.root().join(&c.id);
        let unfinished = home.join(".state.json.new");
        let begun = || if early { home.exists() } else { unfinished.exists() };
        assert!(eventually(begun), "nothing is made");
        c.call("delete", &["--force"]).ok();
        let said = running.finish().fails();
        // The directory alone may be there yet, and be gone before it is opened.
        assert!(early || said.stderr.contains("was deleted while it was being created"), "{said}");
        rt.assert_clean();
    }
    Ok(())
}

fn a_signal_ends_a_run_that_hangs_in_a_later_hook(rt: &Runtime) -> Checked {
    rt.coracle_only("runc holds the signal until the hook is done")?;
    ends_by(rt, "poststart", (Signal::TERM, "SIGTERM"), |c| Running::start(c.run_command(&[])));
    let runs = rt.own("later");
    fs::create_dir(&runs).expect("making a directory");
    let bundle = rt.sleeper().edit(|config| {
        let path = runs.display().to_string();
        coracle_integration::bundle::add_mount(config, &path, "bind", &path, &["bind"]);
        let script = format!("echo >{path}/runs; exec sleep 1021");
        let hook = json!({ "path": "/bin/busybox", "args": ["sh", "-c", script] });
        config["hooks"] = json!({ "startContainer": [hook] });
    });
    let c = rt.container(&bundle);
    let running = Running::start(c.run_command(&[]));
    assert!(eventually(|| runs.join("runs").exists()), "the hook does not run");
    running.signal(Signal::TERM);
    running.finish().fails_with("interrupted by SIGTERM");
    rt.assert_clean();
    Ok(())
}

fn a_signal_ends_a_create_whose_console_socket_takes_no_calls(rt: &Runtime) -> Checked {
    rt.coracle_only("runc's Go ends at once")?;
    let path = rt.scratch("full");
    let socket =
        socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).expect("a socket");
    let address = SocketAddrUnix::new(&path).expect("a short path");
    bind(&socket, &address).and_then(|()| listen(&socket, 0)).expect("listening");
    let caller =
        socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).expect("a socket");
    connect(&caller, &address).expect("the first call is taken");
    let bundle = rt.sleeper().edit(|config| config["process"]["terminal"] = json!(true));
    let c = rt.container(&bundle);
    let running = Running::start(c.create_command(&["--console-socket", &path.to_string_lossy()]));
    assert!(eventually(|| rt.root().join(&c.id).join(".state.json.new").exists()), "nothing is made");
    running.signal(Signal::TERM);
    running.finish().fails_with("interrupted by SIGTERM");
    rt.assert_clean();
    Ok(())
}

fn a_signal_ends_a_detached_run_that_waits_for_readiness(rt: &Runtime) -> Checked {
    rt.coracle_only("runc leaves the container")?;
    let path = rt.scratch("notify");
    let _manager = std::os::unix::net::UnixDatagram::bind(&path).expect("bind");
    let c = rt.container(&rt.sleeper());
    let mut command = c.run_command(&["--detach"]);
    command.env("NOTIFY_SOCKET", &path);
    let running = Running::start(command);
    let running_now = || c.call("state", &[]).stdout.contains("\"running\"");
    assert!(eventually(running_now), "it does not run");
    running.signal(Signal::TERM);
    running.finish().fails_with("interrupted by SIGTERM");
    rt.assert_clean();
    Ok(())
}

fn too_few_descriptors_are_told_with_the_limit(rt: &Runtime) -> Checked {
    rt.coracle_only("the words are ours")?;
    let c = rt.container(&rt.script("true"));
    let create = c.run_command(&[]);
    let mut limited = Command::new("prlimit");
    limited.arg("--nofile=9:1024").arg("--").arg(create.get_program()).args(create.get_args());
    limited.stdin(Stdio::null());
    run(limited).fails_with("too many open files").fails_with("ulimit -n");
    assert!(!Path::new(&rt.root()).join(&c.id).exists());
    Ok(())
}
