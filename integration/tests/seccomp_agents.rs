//! Agents: calls that `linux.seccomp` hands to a process outside, over the socket at `listenerPath`.

use std::fs;
use std::process::{Command, ExitCode, Stdio};

use coracle_integration::command::Running;
use coracle_integration::console::DescriptorSocket;
use coracle_integration::seccomp::{MKDIR, on_mkdir, probe, profile, rule, with_probe};
use coracle_integration::{Checked, Kind, Runtime, tests};
use rustix::process::Signal;
use serde_json::{Value, json};

fn main() -> ExitCode {
    coracle_integration::run_tests(tests![
        an_agent_decides_about_mkdir,
        an_agent_is_told_of_a_created_container,
        an_agent_is_told_of_an_exec,
        notify_for_write_is_refused,
        an_agent_decides_about_every_call,
        an_agent_is_served_with_every_flag,
        an_agent_is_told_by_a_runtime_that_may_not_trace,
        an_agent_that_does_not_listen_is_an_error,
        an_agent_that_went_away_ends_the_container,
        an_agent_is_not_disturbed_before_the_start,
    ])
}

/// Calls that a runtime is likely to make between loading the filter and executing the program, or to end itself.
const LATE: [&str; 17] = [
    "read",
    "close",
    "close_range",
    "execve",
    "exit_group",
    "exit",
    "sendmsg",
    "recvmsg",
    "sendto",
    "recvfrom",
    "futex",
    "mmap",
    "munmap",
    "brk",
    "fcntl",
    "rt_sigprocmask",
    "rt_sigaction",
];

/// An agent's socket, and the profile that sends it the calls of mkdir.
fn agent(rt: &Runtime) -> (DescriptorSocket, Value) {
    let socket = DescriptorSocket::new(rt.scratch("agent.sock"));
    let mut filter = on_mkdir("SCMP_ACT_NOTIFY");
    filter["listenerPath"] = json!(socket.path());
    filter["listenerMetadata"] = json!("of the test");
    (socket, filter)
}

/// Takes the listener that comes to an agent, checks what comes with it, and answers every call with `result`.
fn answer(rt: &Runtime, socket: &DescriptorSocket, id: &str, result: &str, status: &str) -> Running {
    let (listener, text) = socket.receive();
    let told: Value =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("not JSON ({error}): {text}"));
    assert_eq!(told["fds"], json!(["seccompFd"]), "{text}");
    assert_eq!(told["metadata"], "of the test", "{text}");
    assert!(told["pid"].as_i64().is_some_and(|pid| pid > 1), "{text}");
    assert!(told["ociVersion"].is_string(), "{text}");
    assert_eq!(told["state"]["id"], id, "{text}");
    // runc loads the filter while it creates, Coracle when the program is started.
    let status = if rt.kind() == Kind::Other && status == "created" { "creating" } else { status };
    assert_eq!(told["state"]["status"], status, "{text}");
    let path = rt.scratch("answer");
    if !path.exists() {
        fs::write(&path, probe(rt).expect("it was built")).expect("writing the agent");
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("chmod");
    }
    let mut agent = Command::new(&path);
    agent.args(["answer", result]).stdin(Stdio::from(listener));
    Running::start(agent)
}

/// Ends an agent that may still wait, and gives what it wrote.
fn end(agent: Running) -> String {
    agent.signal(Signal::KILL);
    agent.finish().stdout
}

fn an_agent_decides_about_mkdir(rt: &Runtime) -> Checked {
    // The call succeeds without being executed, or fails as the agent says.
    for (result, script, expected) in [
        ("0", "mkdir /new; echo $?; test -d /new; echo $?", "0\n1"),
        (
            "-28",
            "mkdir /new 2>&1; echo $?",
            "mkdir: can't create directory '/new': No space left on device\n1",
        ),
    ] {
        let (socket, filter) = agent(rt);
        let bundle = rt.script(script).edit(|config| config["linux"]["seccomp"] = filter);
        with_probe(rt, &bundle)?;
        let c = rt.container(&bundle);
        let running = Running::start(c.run_command(&[]));
        let agent = answer(rt, &socket, &c.id, result, "created");
        assert_eq!(running.finish().ok().out(), expected);
        assert!(end(agent).contains("asked about"));
        fs::remove_file(socket.path()).expect("removing the socket");
    }
    Ok(())
}

fn an_agent_is_told_of_a_created_container(rt: &Runtime) -> Checked {
    let (socket, filter) = agent(rt);
    let bundle = rt.script("mkdir /new && echo made; sleep 1000").edit(|config| {
        config["process"]["noNewPrivileges"] = json!(false);
        config["linux"]["seccomp"] = filter;
    });
    with_probe(rt, &bundle)?;
    let c = rt.container(&bundle);
    c.create().ok();
    let starting = Running::start(rt.command(["start", &c.id]));
    let agent = answer(rt, &socket, &c.id, "0", "created");
    starting.finish().ok();
    c.wait_for_output("made");
    c.call("delete", &["--force"]).ok();
    end(agent);
    Ok(())
}

fn an_agent_is_told_of_an_exec(rt: &Runtime) -> Checked {
    let (socket, filter) = agent(rt);
    let bundle = rt.sleeper().edit(|config| config["linux"]["seccomp"] = filter);
    with_probe(rt, &bundle)?;
    let c = rt.container(&bundle);
    c.create().ok();
    let starting = Running::start(rt.command(["start", &c.id]));
    let first = answer(rt, &socket, &c.id, "0", "created");
    starting.finish().ok();
    let executing = Running::start(c.exec_command(&[], &["mkdir", "/new"]));
    let second = answer(rt, &socket, &c.id, "-28", "running");
    executing.finish().exits(1).fails_with("No space left");
    assert!(end(second).contains("asked about"));
    c.call("delete", &["--force"]).ok();
    assert!(!end(first).contains("asked about"));
    Ok(())
}

fn notify_for_write_is_refused(rt: &Runtime) {
    let mut filter = profile("SCMP_ACT_ALLOW", &[rule(&["write"], "SCMP_ACT_NOTIFY")]);
    filter["listenerPath"] = json!("/run/nobody.sock");
    rt.sh("true", |config| config["linux"]["seccomp"] = filter)
        .fails_with("SCMP_ACT_NOTIFY cannot be used for");
    rt.assert_clean();
}

fn an_agent_decides_about_every_call(rt: &Runtime) -> Checked {
    rt.coracle_only("runc's process waits for itself with some of them")?;
    for no_new_privileges in [true, false] {
        let (socket, mut filter) = agent(rt);
        filter["syscalls"] = json!([rule(&LATE, "SCMP_ACT_NOTIFY")]);
        let bundle = rt.script("echo ran").edit(|config| {
            config["process"]["noNewPrivileges"] = json!(no_new_privileges);
            config["linux"]["seccomp"] = filter;
        });
        with_probe(rt, &bundle)?;
        let c = rt.container(&bundle);
        let running = Running::start(c.run_command(&[]));
        let agent = answer(rt, &socket, &c.id, "continue", "created");
        assert_eq!(running.finish().ok().out(), "ran");
        assert!(end(agent).contains("asked about"));
        fs::remove_file(socket.path()).expect("removing the socket");
    }
    Ok(())
}

fn an_agent_is_served_with_every_flag(rt: &Runtime) -> Checked {
    rt.coracle_only("runc before 1.2 has no flags")?;
    for flag in ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"] {
        let (socket, mut filter) = agent(rt);
        filter["flags"] = json!([flag]);
        let bundle = rt.script("mkdir /new; echo $?").edit(|config| config["linux"]["seccomp"] = filter);
        with_probe(rt, &bundle)?;
        let c = rt.container(&bundle);
        let running = Running::start(c.run_command(&[]));
        let agent = answer(rt, &socket, &c.id, "0", "created");
        assert_eq!(running.finish().ok().out(), "0", "{flag}");
        assert!(end(agent).contains("asked about"));
        fs::remove_file(socket.path()).expect("removing the socket");
    }
    Ok(())
}

/// A command of root without the right to trace others' processes.
fn without_ptrace(command: &Command) -> Command {
    let mut confined = Command::new("setpriv");
    confined.args(["--inh-caps", "-sys_ptrace", "--bounding-set", "-sys_ptrace"]);
    confined.arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
    for (name, value) in command.get_envs() {
        confined.env(name, value.unwrap_or_default());
    }
    confined
}

fn an_agent_is_told_by_a_runtime_that_may_not_trace(rt: &Runtime) -> Checked {
    let (socket, filter) = agent(rt);
    let bundle = rt.sleeper().edit(|config| config["linux"]["seccomp"] = filter);
    with_probe(rt, &bundle)?;
    let c = rt.container(&bundle);
    let running = Running::start(without_ptrace(&c.run_command(&[])));
    let first = answer(rt, &socket, &c.id, "0", "created");
    c.wait_for("running");
    let executing = Running::start(without_ptrace(&c.exec_command(&[], &["mkdir", "/new"])));
    let second = answer(rt, &socket, &c.id, "-28", "running");
    executing.finish().exits(1).fails_with("No space left");
    c.kill("TERM").ok();
    running.finish().ok();
    end(first);
    end(second);

    // A process of another user is one that it might not even look into. (Nor may it exec there.)
    let bundle = rt.script("mkdir /new; echo $?").edit(|config| {
        config["linux"]["seccomp"] = bundle.config["linux"]["seccomp"].clone();
        config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    });
    let c = rt.container(&bundle);
    let running = Running::start(without_ptrace(&c.run_command(&[])));
    let agent = answer(rt, &socket, &c.id, "0", "created");
    assert_eq!(running.finish().ok().out(), "0");
    end(agent);
    Ok(())
}

fn an_agent_that_does_not_listen_is_an_error(rt: &Runtime) -> Checked {
    let missing = rt.scratch("nobody.sock");
    let mut filter = on_mkdir("SCMP_ACT_NOTIFY");
    filter["listenerPath"] = json!(missing);
    let bundle = rt.script("true").edit(|config| config["linux"]["seccomp"] = filter);
    rt.container(&bundle).run().fails_with(&missing.to_string_lossy());
    rt.assert_clean();
    rt.container(&bundle).create().fails();
    rt.assert_clean();
    rt.coracle_only("runc tells a missing listenerPath otherwise")?;
    rt.sh("true", |config| config["linux"]["seccomp"] = on_mkdir("SCMP_ACT_NOTIFY"))
        .fails_with("linux.seccomp.listenerPath");
    rt.assert_clean();
    Ok(())
}

fn an_agent_that_went_away_ends_the_container(rt: &Runtime) -> Checked {
    rt.coracle_only("runc hands the listener over when it creates")?;
    // Calls that the process could end itself by, too.
    for calls in [&MKDIR[..], &LATE[..]] {
        let (socket, mut filter) = agent(rt);
        filter["syscalls"] = json!([rule(calls, "SCMP_ACT_NOTIFY")]);
        let bundle = rt.script("true").edit(|config| config["linux"]["seccomp"] = filter);
        let c = rt.container(&bundle);
        c.create().ok();
        let path = socket.path().to_owned();
        drop(socket);
        c.start().fails_with("failed to connect with seccomp agent").fails_with(&path);
        rt.assert_clean();
        fs::remove_file(path).expect("removing the socket");
    }
    Ok(())
}

fn an_agent_is_not_disturbed_before_the_start(rt: &Runtime) -> Checked {
    rt.coracle_only("runc hands the listener over when it creates")?;
    let (socket, filter) = agent(rt);
    let bundle = rt.sleeper().edit(|config| config["linux"]["seccomp"] = filter);
    let c = rt.container(&bundle);
    c.create().ok();
    assert!(!socket.is_called(), "create only looks whether the agent is there");
    c.delete().ok();
    Ok(())
}
