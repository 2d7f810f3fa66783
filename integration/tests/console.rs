//! Terminals: `--console-socket`, a foreground `run` and `exec` on a terminal, and `--pidfd-socket`.

use std::fs;
use std::os::fd::AsFd;
use std::process::ExitCode;

use coracle_integration::command::{Running, eventually};
use coracle_integration::console::{DescriptorSocket, Terminal};
use coracle_integration::{Bundle, Checked, Container, Runtime, host, tests};
use rustix::process::Signal;
use serde_json::json;

fn main() -> ExitCode {
    coracle_integration::run_tests(tests![
        create_sends_the_master_to_the_console_socket,
        the_terminal_is_the_controlling_one,
        the_console_device_is_the_terminal,
        the_console_size_is_as_configured,
        the_size_can_change_later,
        an_interrupt_character_becomes_a_signal,
        the_terminal_hangs_up_when_the_process_ends,
        the_terminal_belongs_to_the_user,
        run_in_the_foreground_shows_the_terminal,
        run_in_the_foreground_takes_the_size_of_the_users_terminal,
        run_in_the_foreground_follows_a_change_of_size,
        run_in_the_foreground_restores_the_users_terminal,
        run_detached_sends_the_master_to_the_console_socket,
        exec_in_the_foreground_has_a_terminal,
        exec_detached_sends_the_master_to_the_console_socket,
        no_output_is_lost_at_the_end,
        a_console_socket_that_nobody_listens_on_is_an_error,
        the_name_of_the_terminal_is_inside,
        a_pidfd_socket_gets_the_process,
        an_exec_pidfd_socket_gets_the_process,
    ])
}

fn with_terminal(rt: &Runtime, script: &str) -> Bundle {
    rt.script(script).edit(|config| config["process"]["terminal"] = json!(true))
}

/// A started container with a terminal, and the terminal's user side.
fn started<'r>(rt: &'r Runtime, bundle: &Bundle) -> (Container<'r>, Terminal) {
    let socket = DescriptorSocket::new(rt.scratch("console"));
    let c = rt.container(bundle);
    let create = Running::start(c.create_command(&["--console-socket", socket.path()]));
    let (master, _) = socket.receive();
    create.finish().ok();
    c.start().ok();
    (c, Terminal::from_master(master))
}

fn create_sends_the_master_to_the_console_socket(rt: &Runtime) {
    let bundle = with_terminal(rt, "for n in 0 1 2; do test -t $n && echo terminal $n; done; echo end");
    let (_c, mut terminal) = started(rt, &bundle);
    let seen = terminal.read_until("end");
    for number in 0..3 {
        assert!(seen.contains(&format!("terminal {number}")), "{seen}");
    }
}

fn the_terminal_is_the_controlling_one(rt: &Runtime) {
    let bundle =
        with_terminal(rt, "echo through-tty > /dev/tty; ps -o pid,tty,args | grep 'PID\\|through'; echo end");
    let (_c, mut terminal) = started(rt, &bundle);
    assert!(terminal.read_until("end").contains("through-tty"));
}

fn the_console_device_is_the_terminal(rt: &Runtime) {
    let bundle = with_terminal(
        rt,
        "stat -c '%t:%T' /dev/console; stat -c '%t:%T' $(tty); grep -c ' /dev/console ' /proc/self/mountinfo; echo end",
    );
    let (_c, mut terminal) = started(rt, &bundle);
    let seen = terminal.read_until("end");
    let lines: Vec<&str> = seen.lines().map(str::trim).collect();
    assert_eq!(lines[0], lines[1]);
    assert_eq!(lines[2], "1");
}

fn the_console_size_is_as_configured(rt: &Runtime) {
    let bundle = with_terminal(rt, "stty size; echo end")
        .edit(|config| config["process"]["consoleSize"] = json!({ "height": 41, "width": 123 }));
    let (_c, mut terminal) = started(rt, &bundle);
    assert_eq!(terminal.size(), (41, 123));
    assert!(terminal.read_until("end").contains("41 123"));
}

fn the_size_can_change_later(rt: &Runtime) {
    let bundle = with_terminal(rt, "trap 'stty size' WINCH; echo ready; while :; do sleep 0.05; done");
    let (_c, mut terminal) = started(rt, &bundle);
    terminal.read_until("ready");
    terminal.resize(17, 71);
    terminal.read_until("17 71");
}

fn an_interrupt_character_becomes_a_signal(rt: &Runtime) {
    let bundle =
        with_terminal(rt, "trap 'echo interrupted; exit 3' INT; echo ready; while :; do sleep 0.05; done");
    let (c, mut terminal) = started(rt, &bundle);
    terminal.read_until("ready");
    terminal.type_in("\x03");
    terminal.read_until("interrupted");
    c.wait_for("stopped");
}

fn the_terminal_hangs_up_when_the_process_ends(rt: &Runtime) {
    let bundle = with_terminal(rt, "echo last words");
    let (c, mut terminal) = started(rt, &bundle);
    assert!(terminal.read_to_end().contains("last words"));
    c.wait_for("stopped");
}

fn the_terminal_belongs_to_the_user(rt: &Runtime) {
    let bundle = with_terminal(rt, "stat -c 'owner %u' $(tty); echo again > /dev/stderr; echo end")
        .edit(|config| config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 }));
    let (_c, mut terminal) = started(rt, &bundle);
    let seen = terminal.read_until("end");
    assert!(seen.contains("owner 1000"), "{seen}");
    assert!(seen.contains("again"), "{seen}");
}

/// A command of the runtime on a terminal of 25 rows and 90 columns.
fn on_terminal(command: std::process::Command) -> (Running, Terminal) {
    let (terminal, slave) = Terminal::new();
    terminal.resize(25, 90);
    (Running::start_on_terminal(command, &slave), terminal)
}

fn run_in_the_foreground_shows_the_terminal(rt: &Runtime) {
    let bundle = with_terminal(rt, "test -t 0 && echo terminal; read line; echo \"got $line\"; exit 6");
    let c = rt.container(&bundle);
    let (running, mut terminal) = on_terminal(c.run_command(&[]));
    terminal.read_until("terminal");
    terminal.type_in("typed\n");
    terminal.read_until("got typed");
    terminal.read_to_end();
    running.finish().exits(6);
}

fn run_in_the_foreground_takes_the_size_of_the_users_terminal(rt: &Runtime) {
    // With runc the size may come a moment after the start.
    let patience = if rt.kind() == coracle_integration::Kind::Coracle { "false" } else { "sleep 0.05" };
    let script = format!("until test \"$(stty size)\" = '25 90'; do {patience} || exit 7; done; echo sized");
    let bundle = with_terminal(rt, &script);
    let c = rt.container(&bundle);
    let (running, mut terminal) = on_terminal(c.run_command(&[]));
    terminal.read_until("sized");
    terminal.read_to_end();
    running.finish().ok();
    // Any of the streams will do.
    let (terminal, slave) = coracle_integration::console::Terminal::new();
    terminal.resize(25, 90);
    let mut command = c.run_command(&[]);
    command.stdin(slave);
    let finished = Running::start(command).finish().ok();
    assert!(finished.stdout.contains("sized"), "{finished}");
}

fn run_in_the_foreground_follows_a_change_of_size(rt: &Runtime) {
    let bundle = with_terminal(
        rt,
        "echo ready; until test \"$(stty size)\" = '44 111'; do sleep 0.05; done; echo sized",
    );
    let c = rt.container(&bundle);
    let (running, mut terminal) = on_terminal(c.run_command(&[]));
    terminal.read_until("ready");
    terminal.resize(44, 111);
    // The runtime is not in the foreground group of this terminal, so the kernel does not tell it.
    running.signal(Signal::WINCH);
    terminal.read_until("sized");
    terminal.read_to_end();
    running.finish().ok();
}

fn run_in_the_foreground_restores_the_users_terminal(rt: &Runtime) {
    let (terminal, slave) = Terminal::new();
    let modes = || rustix::termios::tcgetattr(slave.as_fd()).expect("the modes of a terminal");
    let before = modes();
    let bundle = with_terminal(rt, "echo hello");
    let c = rt.container(&bundle);
    Running::start_on_terminal(c.run_command(&[]), &slave).finish().ok();
    let after = modes();
    assert_eq!((before.local_modes, before.input_modes), (after.local_modes, after.input_modes));
    drop(terminal);
}

fn run_detached_sends_the_master_to_the_console_socket(rt: &Runtime) {
    let bundle = with_terminal(rt, "echo hello; sleep 1017");
    let socket = DescriptorSocket::new(rt.scratch("console"));
    let c = rt.container(&bundle);
    let running = Running::start(c.run_command(&["--detach", "--console-socket", socket.path()]));
    let (master, _) = socket.receive();
    running.finish().ok();
    Terminal::from_master(master).read_until("hello");
    assert_eq!(c.status(), "running");
}

fn exec_in_the_foreground_has_a_terminal(rt: &Runtime) {
    let bundle = rt.sleeper();
    let c = rt.container(&bundle);
    c.up();
    let script = "test -t 0 && test -t 1 && tty; read line; echo \"got $line\"; exit 4";
    let (running, mut terminal) = on_terminal(c.exec_command(&["--tty"], &["sh", "-c", script]));
    terminal.read_until("/dev/pts/");
    terminal.type_in("typed\n");
    terminal.read_until("got typed");
    terminal.read_to_end();
    running.finish().exits(4);
}

fn exec_detached_sends_the_master_to_the_console_socket(rt: &Runtime) {
    let bundle = rt.sleeper();
    let c = rt.container(&bundle);
    c.up();
    let socket = DescriptorSocket::new(rt.scratch("console"));
    let options = ["--tty", "--detach", "--console-socket", socket.path()];
    let running = Running::start(c.exec_command(&options, &["sh", "-c", "tty; echo end; sleep 1018"]));
    let (master, _) = socket.receive();
    running.finish().ok();
    assert!(Terminal::from_master(master).read_until("end").contains("/dev/pts/"));
}

fn no_output_is_lost_at_the_end(rt: &Runtime) {
    let bundle = with_terminal(rt, "seq 1 20000; echo the-end");
    for _ in 0..3 {
        let c = rt.container(&bundle);
        let (running, mut terminal) = on_terminal(c.run_command(&[]));
        let seen = terminal.read_until("the-end");
        assert_eq!(seen.lines().filter(|line| line.trim().parse::<u32>().is_ok()).count(), 20_000);
        terminal.read_to_end();
        running.finish().ok();
    }
}

fn a_console_socket_that_nobody_listens_on_is_an_error(rt: &Runtime) {
    let bundle = with_terminal(rt, "true");
    let c = rt.container(&bundle);
    let path = rt.scratch("nobody");
    let create = c.create_command(&["--console-socket", &path.to_string_lossy()]);
    let refused = coracle_integration::command::run(create).exits(1).fails();
    assert!(refused.stderr.contains("nobody"), "{refused}");
    fs::write(&path, "").expect("writing a file");
    coracle_integration::command::run(c.create_command(&["--console-socket", &path.to_string_lossy()]))
        .exits(1)
        .fails();
    rt.assert_clean();
}

fn the_name_of_the_terminal_is_inside(rt: &Runtime) {
    let bundle = with_terminal(rt, "ls /dev/pts; tty; readlink /proc/self/fd/0; echo end");
    let (_c, mut terminal) = started(rt, &bundle);
    let seen = terminal.read_until("end");
    assert!(seen.contains("/dev/pts/0") && !seen.contains("unreachable"), "{seen}");
}

fn a_pidfd_socket_gets_the_process(rt: &Runtime) -> Checked {
    rt.coracle_only("runc has --pidfd-socket since 1.2")?;
    let bundle = rt.sleeper();
    let socket = DescriptorSocket::new(rt.scratch("pidfd"));
    let c = rt.container(&bundle);
    let create = Running::start(c.create_command(&["--pidfd-socket", socket.path()]));
    let (pidfd, said) = socket.receive();
    assert_eq!(said, "standard");
    create.finish().ok();
    c.start().ok();
    rustix::process::pidfd_send_signal(pidfd.as_fd(), Signal::KILL).expect("it is a pidfd");
    c.wait_for("stopped");
    Ok(())
}

fn an_exec_pidfd_socket_gets_the_process(rt: &Runtime) -> Checked {
    rt.coracle_only("runc has --pidfd-socket since 1.2")?;
    let bundle = rt.sleeper();
    let c = rt.container(&bundle);
    c.up();
    let socket = DescriptorSocket::new(rt.scratch("pidfd"));
    let running = Running::start(
        c.exec_command(&["--pidfd-socket", socket.path()], &["sh", "-c", "echo ready; exec sleep 1019"]),
    );
    let (pidfd, said) = socket.receive();
    assert_eq!(said, "setns");
    running.wait_for_output("ready");
    rustix::process::pidfd_send_signal(pidfd.as_fd(), Signal::KILL).expect("it is a pidfd");
    running.finish().exits(137);
    assert!(eventually(|| host::is_alive(c.pid())));
    Ok(())
}
