//! What a process sees that is added to a container with a user namespace, made or joined.

use std::fs;

use coracle_integration::beside::{compare, seen};
use coracle_integration::bundle::{grant, join_namespace, push};
use coracle_integration::{Checked, Container, Runtime, trial_without_runtime};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::{give, map, own_pid, probe_and};

type Edit = fn(&mut Value);

const BY_OPTIONS: [(&str, &[&str]); 12] = [
    ("nothing_more", &[]),
    ("a_user", &["--user", "9:10"]),
    ("a_user_alone", &["--user", "9"]),
    ("additional_groups", &["--additional-gids", "5", "--additional-gids", "7"]),
    // Not with an additional group alone: runc adds that one twice.
    ("a_user_and_groups", &["--user", "1000:1000", "--additional-gids", "5", "--additional-gids", "7"]),
    ("a_capability", &["--cap", "CAP_SYS_ADMIN"]),
    ("a_capability_of_a_user", &["--user", "9:10", "--cap", "CAP_NET_ADMIN"]),
    ("a_working_directory", &["--cwd", "/tmp"]),
    ("a_working_directory_that_is_not_there", &["--cwd", "/nowhere"]),
    ("a_variable", &["--env", "A=b", "--env", "PATH=/bin"]),
    ("no_new_privileges", &["--no-new-privs"]),
    ("a_user_that_is_not_mapped", &["--user", "70000:0"]),
];

/// Process files: what is changed in one that runs the probe. A file's umask and OOM score are left out: runc passes over
/// them, against the specification.
const BY_FILE: [(&str, Edit); 6] = [
    ("nothing_more", |_| ()),
    ("a_user", |process| {
        process["user"] = json!({ "uid": 7, "gid": 8, "additionalGids": [5, 1000] });
    }),
    ("a_group_that_is_not_mapped", |process| {
        process["user"]["additionalGids"] = json!([70_000]);
    }),
    ("capabilities", |process| {
        let some = json!(["CAP_CHOWN", "CAP_SYS_ADMIN"]);
        process["capabilities"] = json!({ "bounding": some, "effective": some, "permitted": some,
            "inheritable": some, "ambient": ["CAP_CHOWN"] });
    }),
    ("no_capabilities", |process| process["capabilities"] = json!({})),
    ("limits", |process| {
        process["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 50, "hard": 60 }]);
    }),
];

pub fn tests() -> Vec<Trial> {
    let options = BY_OPTIONS.iter().map(|&(name, options)| {
        trial_without_runtime(format!("exec_with_{name}"), move || by_options(options, map))
    });
    let files = BY_FILE.iter().map(|&(name, edit)| {
        trial_without_runtime(format!("exec_of_a_file_with_{name}"), move || by_file(edit))
    });
    let mut tests: Vec<Trial> = options.chain(files).collect();
    tests.push(trial_without_runtime("exec_with_all_namespaces", || {
        by_options(&[], |config| {
            map(config);
            more_namespaces(config);
        })
    }));
    tests.push(trial_without_runtime("exec_with_all_namespaces_but_the_users", || {
        by_options(&[], more_namespaces)
    }));
    tests.push(trial_without_runtime("exec_with_capabilities_of_the_container", || {
        by_options(&[], |config| {
            map(config);
            grant(config, &["CAP_SYS_ADMIN", "CAP_NET_ADMIN"]);
            config["process"]["noNewPrivileges"] = json!(false);
            config["process"]["user"] = json!({ "uid": 0, "gid": 0, "additionalGids": [5, 7] });
            config["process"]["cwd"] = json!("/tmp");
        })
    }));
    tests.push(trial_without_runtime("exec_with_the_containers_user", || {
        by_options(&[], |config| {
            map(config);
            config["process"]["user"] =
                json!({ "uid": 1000, "gid": 1001, "additionalGids": [5], "umask": 0o077 });
        })
    }));
    tests.push(trial_without_runtime("exec_where_namespaces_are_joined", joined));
    tests
}

fn more_namespaces(config: &mut Value) {
    push(config, "/linux/namespaces", json!({ "type": "cgroup" }));
    push(config, "/linux/namespaces", json!({ "type": "time" }));
    config["linux"]["timeOffsets"] = json!({ "boottime": { "secs": 1_000_000 } });
}

fn up(rt: &Runtime, edit: impl FnOnce(&mut Value)) -> Container<'_> {
    let bundle = rt.sleeper().edit(edit);
    give(&bundle);
    let c = rt.container(&bundle);
    c.up();
    c
}

/// Told of what an exec sees, or that it is refused, and with which status.
#[track_caller]
fn look(
    rt: &Runtime,
    c: &Container<'_>,
    known: &[(&str, i32)],
    options: &[&str],
    args: &[&str],
) -> Vec<String> {
    let ran = c.exec_with(options, args);
    if !ran.status.success() && ran.stdout.is_empty() {
        assert!(!ran.stderr.trim().is_empty(), "a refusal needs a reason: {ran}");
        return vec![format!("it is refused with {:?}", ran.status.code())];
    }
    let known = [known, &[("the container's", c.pid()), ("the host's", own_pid())]].concat();
    seen(&ran.stdout, rt, &c.id, &known)
}

/// What is told at the end: the first process, and whether the cgroups are the container's.
const MORE: &str = "cut -c1-9 /proc/1/cmdline | tr '\\000' ' '; echo; cut -d: -f3 /proc/self/cgroup | sort -u | wc -l; \
    cmp /proc/self/cgroup /proc/1/cgroup && echo same";

fn by_options(options: &'static [&'static str], edit: Edit) -> Checked {
    compare(|rt| {
        let c = up(rt, edit);
        look(rt, &c, &[], options, &["sh", "-c", &probe_and(MORE)])
    })
}

fn by_file(edit: Edit) -> Checked {
    compare(|rt| {
        let c = up(rt, map);
        let mut process = json!({ "args": ["sh", "-c", probe_and(MORE)], "cwd": "/", "env": ["PATH=/bin"],
            "user": { "uid": 0, "gid": 0 } });
        edit(&mut process);
        let file = rt.scratch("process");
        fs::write(&file, process.to_string()).expect("writing the process file");
        look(rt, &c, &[], &["--process", &file.to_string_lossy()], &[])
    })
}

/// A pod's second container.
fn joined() -> Checked {
    compare(|rt| {
        let donor = up(rt, map);
        let c = up(rt, |config| {
            for (kind, link) in [("user", "user"), ("network", "net"), ("ipc", "ipc"), ("uts", "uts")] {
                join_namespace(config, kind, &format!("/proc/{}/ns/{link}", donor.pid()));
            }
            config.as_object_mut().expect("an object").remove("hostname");
        });
        let known = [("the donor's", donor.pid())];
        look(rt, &c, &known, &["--user", "5:6"], &["sh", "-c", &probe_and(MORE)])
    })
}
