//! Terminals: of the container's first process and of one that is added, with a user namespace and without.

use std::process::Command;

use coracle_integration::beside::{compare, seen};
use coracle_integration::command::{Finished, Running, in_shell, run};
use coracle_integration::console::{DescriptorSocket, Terminal};
use coracle_integration::{Checked, Runtime, trial_without_runtime};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::{give, map, own_pid, probe_and};

type Edit = fn(&mut Value);

const CASES: [(&str, Edit); 6] = [
    ("nothing_more", |_| ()),
    ("a_user_namespace", map),
    ("a_user", user),
    ("a_user_of_a_user_namespace", |config| {
        map(config);
        user(config);
    }),
    ("a_size", |config| {
        map(config);
        config["process"]["consoleSize"] = json!({ "height": 33, "width": 99 });
    }),
    ("no_devpts_of_its_group", |config| {
        map(config);
        config["mounts"][2]["options"] =
            json!(["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0600"]);
    }),
];

fn user(config: &mut Value) {
    config["process"]["user"] = json!({ "uid": 1000, "gid": 1001, "additionalGids": [7] });
}

pub fn tests() -> Vec<Trial> {
    CASES
        .iter()
        .flat_map(|&(name, edit)| {
            [
                trial_without_runtime(format!("a_terminal_with_{name}"), move || first(edit)),
                trial_without_runtime(format!("a_terminal_of_exec_with_{name}"), move || added(edit)),
            ]
        })
        .chain([
            trial_without_runtime("pipes_with_nothing_more", || streams(|_| ())),
            trial_without_runtime("pipes_with_a_user", || streams(user)),
        ])
        .collect()
}

/// Who owns pipes that the container is given, and the ones of an exec; nobody owns /dev/null anew. Not with a user namespace:
/// there runc leaves them to the host's root, and nothing inside can open them again.
fn streams(edit: Edit) -> Checked {
    compare(|rt| {
        let look =
            "for f in 0 1 2; do stat -L -c '%F %a %u:%g' /proc/self/fd/$f; done; echo again >/proc/self/fd/1";
        let bundle = rt.script(&format!("{look}; exec sleep 1000 >/dev/null 2>&1")).edit(edit);
        give(&bundle);
        let c = rt.container(&bundle);
        let run = c.run_command(&["--detach"]);
        let exec = c.exec_command(&["--detach"], &["sh", "-c", look]);
        [run, exec]
            .iter()
            .flat_map(|command| {
                let ran = run_in_pipes(command).ok();
                assert!(ran.lines().contains(&"again"), "{ran}");
                ran.stdout.lines().map(str::to_owned).collect::<Vec<_>>()
            })
            .collect()
    })
}

fn run_in_pipes(inner: &Command) -> Finished {
    run(in_shell("\"$@\" </dev/null 2>&1 | cat", inner))
}

/// Who owns the terminal, and what it is set to.
const MORE: &str = "tty; stat -c '%n %F %a %u:%g' /dev/console $(tty) /dev/ptmx /dev/pts/ptmx; stty -a; \
    echo x > /dev/tty && echo controls";

/// The shell's own terminal says nothing until it is asked to: what it shows is the probe's alone.
fn read(rt: &Runtime, socket: &DescriptorSocket, command: Running, id: &str) -> Vec<String> {
    let (master, name) = socket.receive();
    let text = Terminal::from_master(master).read_until("== end");
    command.finish().ok();
    let mut told = seen(&text, rt, id, &[("the host's", own_pid())]);
    told.push(format!("the socket is told: {name}"));
    told
}

fn first(edit: Edit) -> Checked {
    compare(|rt| {
        let bundle = rt.script(&probe_and(MORE)).edit(|config| {
            config["process"]["terminal"] = json!(true);
            edit(config);
        });
        give(&bundle);
        let socket = DescriptorSocket::new(rt.scratch("console"));
        let c = rt.container(&bundle);
        let run = Running::start(c.run_command(&["--detach", "--console-socket", socket.path()]));
        read(rt, &socket, run, &c.id)
    })
}

fn added(edit: Edit) -> Checked {
    compare(|rt| {
        let bundle = rt.sleeper().edit(edit);
        give(&bundle);
        let c = rt.container(&bundle);
        c.up();
        let socket = DescriptorSocket::new(rt.scratch("console"));
        let options = ["--tty", "--detach", "--console-socket", socket.path()];
        let run = Running::start(c.exec_command(&options, &["sh", "-c", &probe_and(MORE)]));
        read(rt, &socket, run, &c.id)
    })
}
