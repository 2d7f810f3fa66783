//! What a process gets from the runtime's caller, and what it doesn't: streams, descriptors, sockets, the keyring.

use std::fs;
use std::process::ExitCode;

use coracle_integration::command::{Running, command, run, run_with_input};
use coracle_integration::{Checked, Runtime, host, skip, tests};
use serde_json::{Value, json};

fn main() -> ExitCode {
    coracle_integration::run_tests(tests![
        standard_input_arrives,
        nothing_but_standard_descriptors_is_open,
        preserved_descriptors_are_open,
        descriptors_of_socket_activation_are_passed_on,
        socket_activation_of_another_process_counts_for_nothing,
        a_missing_descriptor_of_socket_activation_is_not_replaced,
        a_manager_that_has_gone_does_not_keep_a_container_from_running,
        the_readiness_socket_is_passed_on,
        a_session_keyring_of_its_own,
        the_keyring_of_the_caller_with_no_new_keyring,
        what_the_caller_waits_at_stays_its_owners,
        a_program_of_a_user_can_open_its_pipe_again,
        few_descriptors_are_enough,
    ])
}

fn standard_input_arrives(rt: &Runtime) {
    let bundle = rt.bundle(&["wc", "-c"]);
    let text = "x".repeat(200_000);
    let seen = run_with_input(rt.container(&bundle).run_command(&[]), &text).ok();
    assert_eq!(seen.out(), "200000");
}

fn nothing_but_standard_descriptors_is_open(rt: &Runtime) {
    // `ls` itself opens the directory as 3.
    let bundle = rt.bundle(&["ls", "/proc/self/fd"]);
    let c = rt.container(&bundle);
    let direct = c.run_command(&[]);
    let mut through = std::process::Command::new("bash");
    through.args(["-c", "exec 5</etc 9</dev/null 77</etc/passwd; exec \"$@\"", "sh"]);
    through.arg(direct.get_program()).args(direct.get_args());
    assert_eq!(run(through).ok().lines(), ["0", "1", "2", "3"]);
}

fn preserved_descriptors_are_open(rt: &Runtime) {
    let bundle = rt.script("cat <&3; cat <&4; ls /proc/self/fd | wc -l");
    bundle.file("etc/one", "one\n", 0o644);
    bundle.file("etc/two", "two\n", 0o644);
    let c = rt.container(&bundle);
    let direct = c.run_command(&["--preserve-fds", "2"]);
    let mut through = std::process::Command::new("bash");
    let (one, two) = (bundle.rootfs("etc/one"), bundle.rootfs("etc/two"));
    let script = format!("exec 3<{} 4<{} 5</dev/null; exec \"$@\"", one.display(), two.display());
    through.args(["-c", &script, "sh"]).arg(direct.get_program()).args(direct.get_args());
    // 0 to 4, and the directory that ls opens.
    assert_eq!(run(through).ok().lines(), ["one", "two", "6"]);
}

fn descriptors_of_socket_activation_are_passed_on(rt: &Runtime) {
    let bundle = rt.script("echo $LISTEN_FDS $LISTEN_PID $$; cat <&3");
    bundle.file("etc/one", "one\n", 0o644);
    let c = rt.container(&bundle);
    let direct = c.run_command(&[]);
    let mut through = std::process::Command::new("bash");
    let script = format!(
        "exec 3<{}; export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$@\"",
        bundle.rootfs("etc/one").display()
    );
    through.args(["-c", &script, "sh"]).arg(direct.get_program()).args(direct.get_args());
    assert_eq!(run(through).ok().lines(), ["1 1 1", "one"]);
}

/// A command through a shell that opens or sets something first.
fn through(direct: &std::process::Command, first: &str) -> std::process::Command {
    let mut through = std::process::Command::new("bash");
    through.args(["-c", &format!("{first}; exec \"$@\""), "sh"]);
    through.arg(direct.get_program()).args(direct.get_args());
    through
}

fn socket_activation_of_another_process_counts_for_nothing(rt: &Runtime) {
    let bundle = rt.script("echo \"$LISTEN_FDS\"; cat <&3; ls /proc/self/fd | wc -l");
    bundle.file("etc/one", "one\n", 0o644);
    let open = format!("exec 3<{}", bundle.rootfs("etc/one").display());
    let c = rt.container(&bundle);
    let other = through(
        &c.run_command(&["--preserve-fds", "1"]),
        &format!("{open}; export LISTEN_FDS=2 LISTEN_PID=1"),
    );
    assert_eq!(run(other).ok().lines(), ["", "one", "5"]);
    // A process that is added is not what is activated.
    let sleeper = rt.sleeper();
    let c = rt.container(&sleeper);
    c.up();
    let exec = c.exec_command(&[], &["sh", "-c", "echo \"$LISTEN_FDS\"; ls /proc/self/fd | wc -l"]);
    let activated = through(&exec, &format!("{open}; export LISTEN_FDS=1 LISTEN_PID=$$"));
    assert_eq!(run(activated).ok().lines(), ["", "4"]);
}

fn a_missing_descriptor_of_socket_activation_is_not_replaced(rt: &Runtime) -> Checked {
    rt.coracle_only("the words are ours")?;
    let c = rt.container(&rt.script("ls -l /proc/self/fd"));
    let mut direct = rt.command(["--log", &rt.scratch("log").to_string_lossy()]);
    direct.args(c.run_command(&[]).get_args().skip(2));
    run(through(&direct, "export LISTEN_FDS=1 LISTEN_PID=$$")).fails_with("descriptor 3 is not open");
    rt.assert_clean();
    Ok(())
}

fn a_manager_that_has_gone_does_not_keep_a_container_from_running(rt: &Runtime) -> Checked {
    let path = rt.scratch("gone");
    drop(std::os::unix::net::UnixDatagram::bind(&path).expect("bind"));
    // While it is created the manager only has a name.
    let bundle = rt.script("exit 3");
    let c = rt.container(&bundle);
    let mut command = c.run_command(&[]);
    command.env("NOTIFY_SOCKET", &path);
    run(command).exits(3);
    let c = rt.container(&bundle);
    let mut create = c.create_command(&[]);
    create.env("NOTIFY_SOCKET", &path);
    c.detached(create).ok();
    c.start().ok();
    c.wait_for("stopped");
    // It ends while the container runs.
    if !host::has_program("python3") {
        return skip("no python3 to send a datagram with");
    }
    fs::remove_file(&path).expect("removing the socket");
    let manager = std::os::unix::net::UnixDatagram::bind(&path).expect("bind");
    let bundle = rt.script("until test -e /go; do sleep 0.05; done; exit 4");
    let c = rt.container(&bundle);
    let mut command = c.run_command(&[]);
    command.env("NOTIFY_SOCKET", &path);
    let running = Running::start(command);
    let runs = || c.call("state", &[]).stdout.contains("\"running\"");
    assert!(coracle_integration::command::eventually(runs), "it does not run");
    drop(manager);
    let send = format!(
        "import os, socket\nos.chroot('/proc/{}/root')\nsocket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\
         .sendto(b'READY=1\\n', '/run/notify/notify.sock')",
        c.pid()
    );
    // Refused where the runtime has found that the manager is gone, taken where it is about to: no matter which.
    run(coracle_integration::command::command("python3", &["-c", &send]));
    fs::write(bundle.rootfs("go"), "").expect("writing a file");
    running.finish().exits(4);
    Ok(())
}

fn the_readiness_socket_is_passed_on(rt: &Runtime) -> Checked {
    if !host::has_program("python3") {
        return skip("no python3 to send a datagram with");
    }
    let path = rt.scratch("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).expect("bind");
    socket.set_read_timeout(Some(std::time::Duration::from_secs(20))).expect("a time limit");
    // The container's side is a datagram socket whose path is in NOTIFY_SOCKET; busybox cannot write to one, so the
    // host does, through the container's root.
    let bundle = rt.script("echo $NOTIFY_SOCKET; while :; do sleep 0.05; done");
    let c = rt.container(&bundle);
    let mut create = c.create_command(&[]);
    create.env("NOTIFY_SOCKET", &path);
    c.detached(create).ok();
    // start holds the host's end until the service says that it is ready.
    let mut start = rt.command(["start", &c.id]);
    start.env("NOTIFY_SOCKET", &path);
    let start = Running::start(start);
    c.wait_for_output("/");
    let inside = c.output().trim().to_owned();
    let pid = c.pid();
    let send = format!(
        "import os, socket\nos.chroot('/proc/{pid}/root')\nsocket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\
         .sendto(b'READY=1\\nSTATUS=warm\\n', '{inside}')"
    );
    run(command("python3", &["-c", &send])).ok();
    let receive = |part: &str| {
        let mut text = String::new();
        while !text.contains(part) {
            let mut buffer = [0; 1024];
            let count =
                socket.recv(&mut buffer).unwrap_or_else(|error| panic!("{part} did not arrive: {error}"));
            text.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
    };
    receive("READY=1");
    if rt.kind() == coracle_integration::Kind::Coracle {
        // The descriptor that comes with it is closed at once, since nothing here takes it: that is the answer.
        receive("BARRIER=1");
    }
    start.finish().ok();
    Ok(())
}

fn a_session_keyring_of_its_own(rt: &Runtime) -> Checked {
    if !fs::exists("/proc/keys").unwrap_or(false) {
        return skip("this kernel has no keys");
    }
    let bundle = rt.script("cat /proc/keys").edit(unmask_keys);
    let c = rt.container(&bundle);
    let seen = c.run().ok();
    assert!(seen.stdout.contains(&format!("_ses.{}", c.id)), "{seen}");
    Ok(())
}

fn the_keyring_of_the_caller_with_no_new_keyring(rt: &Runtime) -> Checked {
    if !fs::exists("/proc/keys").unwrap_or(false) {
        return skip("this kernel has no keys");
    }
    let bundle = rt.script("cat /proc/keys").edit(unmask_keys);
    let c = rt.container(&bundle);
    let seen = c.run_with(&["--no-new-keyring"]).ok();
    assert!(!seen.stdout.contains(&format!("_ses.{}", c.id)), "{seen}");
    Ok(())
}

fn unmask_keys(config: &mut Value) {
    config["linux"]["maskedPaths"] = json!([]);
}

fn what_the_caller_waits_at_stays_its_owners(rt: &Runtime) {
    use std::os::unix::fs::MetadataExt;
    let bundle = rt.script("cat; echo said").edit(|config| config["process"]["user"]["uid"] = json!(1000));
    let open = |name: &str| {
        let file = rt.scratch(name);
        fs::write(&file, "heard\n").expect("a file");
        fs::File::options().read(true).append(true).open(file).expect("a file")
    };
    let owners = || ["in", "out", "err"].map(|name| fs::metadata(rt.scratch(name)).expect("a file").uid());
    let c = rt.container(&bundle);
    let mut in_foreground = c.run_command(&[]);
    in_foreground.stdin(open("in"));
    Running::start_into(in_foreground, open("out"), open("err")).finish().ok();
    assert_eq!(fs::read_to_string(rt.scratch("out")).expect("its output"), "heard\nheard\nsaid\n");
    assert_eq!(owners(), [0; 3]);
    let bundle = rt.sleeper().edit(|config| config["process"]["user"]["uid"] = json!(1000));
    let c = rt.container(&bundle);
    c.up();
    let mut in_foreground = c.exec_command(&[], &["cat"]);
    in_foreground.stdin(open("in"));
    Running::start_into(in_foreground, open("out"), open("err")).finish().ok();
    assert_eq!(owners(), [0; 3]);
    // Nobody else has what a detached one gets.
    let mut detached = c.exec_command(&["--detach"], &["true"]);
    detached.stdin(open("in"));
    Running::start_into(detached, open("out"), open("err")).finish().ok();
    assert_eq!(owners(), [1000; 3]);
}

fn a_program_of_a_user_can_open_its_pipe_again(rt: &Runtime) {
    use std::io::Read;
    let bundle = rt
        .script("echo one > /proc/self/fd/1; echo two > /dev/stderr")
        .edit(|config| config["process"]["user"]["uid"] = json!(1000));
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    let c = rt.container(&bundle);
    let mut run = c.run_command(&[]);
    run.stdout(writer.try_clone().expect("dup")).stderr(writer);
    let status = run.status().expect("running the runtime");
    drop(run);
    let mut said = String::new();
    reader.read_to_string(&mut said).expect("reading the pipe");
    assert!(status.success(), "{said}");
    assert!(said.contains("one") && said.contains("two"), "{said}");
}

fn few_descriptors_are_enough(rt: &Runtime) -> Checked {
    rt.coracle_only("Go's runtime raises the limit for itself")?;
    let bundle = rt.script("echo here");
    for limit in [32, 48, 1024] {
        let c = rt.container(&bundle);
        let run_it = c.run_command(&[]);
        let mut limited = command("prlimit", &[&format!("--nofile={limit}:1024"), "--"]);
        limited.arg(run_it.get_program()).args(run_it.get_args());
        assert_eq!(run(limited).ok().out(), "here", "with {limit}");
    }
    Ok(())
}
