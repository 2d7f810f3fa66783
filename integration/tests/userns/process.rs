//! The process in a user namespace: who it is, what it may, its streams.

use std::fs;
use std::os::unix::fs::MetadataExt;

use coracle_integration::bundle::grant;
use coracle_integration::command::{Running, run};
use coracle_integration::console::{DescriptorSocket, Terminal};
use coracle_integration::{Checked, Runtime, host, tests};
use libtest_mimic::Trial;
use serde_json::json;

use crate::common::{BASE, COUNT, script, sh, sleeper};

pub fn tests() -> Vec<Trial> {
    tests![
        root_inside_is_another_user_outside,
        files_that_the_container_writes_belong_to_mapped_ids,
        the_process_gets_its_user_groups_and_capabilities,
        capabilities_that_the_runtime_lacks_are_granted_inside,
        an_oom_score_is_set_from_outside,
        exec_enters_the_user_namespace,
        exec_takes_a_user_and_an_oom_score,
        hard_limits_above_the_runtimes_own_are_raised_from_outside,
        limits_below_the_runtimes_own_are_set_inside,
        a_console_belongs_to_the_containers_root,
        a_pipe_can_be_opened_again_and_a_file_keeps_its_owner,
        exec_too_gives_pipes_and_a_named_fifo_keeps_its_owner,
    ]
}

fn root_inside_is_another_user_outside(rt: &Runtime) {
    let c = sleeper(rt, |_| ());
    let owner = fs::metadata(format!("/proc/{}", c.pid())).expect("the process's directory");
    assert_eq!((owner.uid(), owner.gid()), (BASE, BASE));
    let seen = c.exec(&["cat", "/proc/self/uid_map", "/proc/self/gid_map"]).ok();
    for line in seen.lines() {
        let numbers: Vec<_> = line.split_whitespace().collect();
        assert_eq!(numbers, ["0", &BASE.to_string(), &COUNT.to_string()]);
    }
}

fn files_that_the_container_writes_belong_to_mapped_ids(rt: &Runtime) {
    let bundle = script(rt, "touch /tmp/a && chown 7:8 /tmp/a && stat -c %u:%g /tmp/a", |config| {
        grant(config, &["CAP_CHOWN"]);
    });
    assert_eq!(rt.container(&bundle).run().ok().out(), "7:8");
    let found = fs::metadata(bundle.rootfs("/tmp/a")).expect("the file");
    assert_eq!((found.uid(), found.gid()), (BASE + 7, BASE + 8));
}

fn the_process_gets_its_user_groups_and_capabilities(rt: &Runtime) {
    let seen = sh(rt, "id -u; id -g; id -G; grep CapBnd /proc/self/status", |config| {
        config["process"]["user"] = json!({ "uid": 5, "gid": 6, "additionalGids": [7, 8] });
    })
    .ok();
    // AUDIT_WRITE, KILL and NET_BIND_SERVICE.
    assert_eq!(seen.lines(), ["5", "6", "6 7 8", "CapBnd:\t0000000020000420"]);
}

fn capabilities_that_the_runtime_lacks_are_granted_inside(rt: &Runtime) {
    let seen = sh(rt, "grep CapEff /proc/self/status; hostname changed && hostname", |config| {
        grant(config, &["CAP_SYS_ADMIN", "CAP_SYS_RESOURCE"]);
    })
    .ok();
    assert_eq!(seen.lines(), ["CapEff:\t0000000001200000", "changed"]);
}

fn an_oom_score_is_set_from_outside(rt: &Runtime) {
    let seen = sh(rt, "cat /proc/self/oom_score_adj", |config| config["process"]["oomScoreAdj"] = json!(321));
    assert_eq!(seen.ok().out(), "321");
}

fn exec_enters_the_user_namespace(rt: &Runtime) {
    let c = sleeper(rt, |_| ());
    let seen =
        c.exec(&["sh", "-c", "id -u; readlink /proc/self/ns/user; touch /tmp/by-exec; echo $PPID"]).ok();
    let inside = host::namespace_of(c.pid(), "user").expect("the container's user namespace");
    assert_eq!(seen.lines(), ["0", &inside, "0"]);
    assert_ne!(Some(inside), host::namespace_of(std::process::id() as i32, "user"));
}

fn exec_takes_a_user_and_an_oom_score(rt: &Runtime) {
    let c = sleeper(rt, |config| config["process"]["oomScoreAdj"] = json!(77));
    let seen =
        c.exec_with(&["--user", "9:10"], &["sh", "-c", "id -u; id -g; cat /proc/self/oom_score_adj"]).ok();
    assert_eq!(seen.lines(), ["9", "10", "77"]);
}

fn a_console_belongs_to_the_containers_root(rt: &Runtime) {
    let bundle = script(rt, "tty; stat -c %u /dev/console $(tty); echo end", |config| {
        config["process"]["terminal"] = json!(true);
    });
    let socket = DescriptorSocket::new(rt.scratch("console"));
    let c = rt.container(&bundle);
    let create = Running::start(c.create_command(&["--console-socket", socket.path()]));
    let (master, _) = socket.receive();
    create.finish().ok();
    c.start().ok();
    let seen = Terminal::from_master(master).read_until("end");
    let words: Vec<_> = seen.split_whitespace().collect();
    assert_eq!(words, ["/dev/pts/0", "0", "0", "end"]);
}

fn a_pipe_can_be_opened_again_and_a_file_keeps_its_owner(rt: &Runtime) {
    let bundle = script(rt, "echo through > /proc/self/fd/1", |_| ());
    let c = rt.container(&bundle);
    let errors = rt.scratch("errors");
    let line = format!(
        "{} --root {} run --bundle {} {} 2>{} | cat",
        rt.binary().display(),
        rt.root().display(),
        bundle.path().display(),
        c.id,
        errors.display()
    );
    let seen = run(coracle_integration::command::command("sh", &["-c", &line])).ok();
    assert_eq!(seen.out(), "through");
    assert_eq!(fs::metadata(errors).expect("the file").uid(), 0, "a file is not the container's to own");
}

fn exec_too_gives_pipes_and_a_named_fifo_keeps_its_owner(rt: &Runtime) {
    let c = sleeper(rt, |_| ());
    let line = format!(
        "{} --root {} exec {} sh -c 'echo through > /dev/stdout' | cat",
        rt.binary().display(),
        rt.root().display(),
        c.id
    );
    let seen = run(coracle_integration::command::command("sh", &["-c", &line])).ok();
    assert_eq!(seen.out(), "through", "{seen}");
    let fifo = rt.scratch("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("making a FIFO");
    let open = || fs::File::options().read(true).write(true).open(&fifo).expect("opening the FIFO");
    let mut exec = c.exec_command(&[], &["true"]);
    exec.stdout(open()).stderr(open()).stdin(std::process::Stdio::null());
    assert!(exec.status().expect("running the runtime").success());
    let bundle = script(rt, "true", |_| ());
    let other = rt.container(&bundle);
    let mut run = other.run_command(&[]);
    run.stdout(open()).stderr(open()).stdin(std::process::Stdio::null());
    assert!(run.status().expect("running the runtime").success());
    assert_eq!(fs::metadata(fifo).expect("the FIFO").uid(), 0, "it is not the container's to own");
}

fn limits_below_the_runtimes_own_are_set_inside(rt: &Runtime) {
    let seen = sh(rt, "grep -E 'open files|core' /proc/self/limits", |config| {
        config["process"]["rlimits"] = json!([
            { "type": "RLIMIT_NOFILE", "soft": 100, "hard": 200 },
            { "type": "RLIMIT_CORE", "soft": 0, "hard": 0 },
        ]);
    })
    .ok();
    let words: Vec<_> = seen.stdout.split_whitespace().collect();
    assert_eq!(
        words,
        ["Max", "core", "file", "size", "0", "0", "bytes", "Max", "open", "files", "100", "200", "files"]
    );
}

/// The runtime itself gets a low limit, which it must raise with its own power: root of the namespace has none over it.
fn hard_limits_above_the_runtimes_own_are_raised_from_outside(rt: &Runtime) -> Checked {
    const CAP_SYS_RESOURCE: u64 = 1 << 24;
    let status = fs::read_to_string("/proc/self/status").expect("reading /proc/self/status");
    let own = host::status_field(&status, "CapEff").and_then(|mask| u64::from_str_radix(mask, 16).ok());
    let may = own.is_some_and(|mask| mask & CAP_SYS_RESOURCE != 0);
    let bundle = script(rt, "ulimit -Sn; ulimit -Hn", |config| {
        config["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 700, "hard": 800 }]);
    });
    let c = rt.container(&bundle);
    let run = c.run_command(&[]);
    let mut limited = std::process::Command::new("prlimit");
    limited.arg("--nofile=500:500").arg("--").arg(run.get_program()).args(run.get_args());
    limited.stdin(std::process::Stdio::null());
    let seen = coracle_integration::command::run(limited);
    if may {
        assert_eq!(seen.ok().lines(), ["700", "800"]);
        return Ok(());
    }
    // Without the capability only the refusal can be seen.
    rt.coracle_only("the words are ours")?;
    seen.fails_with("process.rlimits[0]")
        .fails_with("raise the hard limit of RLIMIT_NOFILE")
        .fails_with("CAP_SYS_RESOURCE");
    Ok(())
}
