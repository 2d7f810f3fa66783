//! The options of Create: `containerd.runc.v1.Options`.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use coracle_integration::command::eventually;
use coracle_integration::engine::bench::{Bench, Check};
use coracle_integration::engine::shim::{Hand, Shim};
use coracle_integration::engine::task::{Any, Options, Status};
use coracle_integration::named;
use rustix::process::Signal;
use serde_json::json;
use ttrpc::proto::Code;

pub fn checks() -> Vec<(&'static str, Check)> {
    named![
        binary_name_is_the_runtime_that_is_run,
        the_bundle_has_the_files_that_others_look_for,
        a_binary_name_that_is_not_there_is_an_error,
        root_is_where_the_state_is,
        io_uid_owns_the_pipes,
        no_pivot_root_and_no_new_keyring,
        a_systemd_cgroup_without_systemd_is_an_error,
        a_root_filesystem_of_layers,
    ]
}

pub fn checks_of_ours() -> Vec<(&'static str, Check)> {
    named![
        options_of_an_unknown_type_are_refused,
        an_exec_may_have_the_name_of_a_file_of_the_bundle,
        a_container_is_pausing_until_it_is_paused,
        a_runtime_that_is_killed_at_an_exec_leaves_no_process,
    ]
}

fn binary_name_is_the_runtime_that_is_run(bench: &Bench) {
    let shim = Shim::shared(bench);
    let hand = shim.script("echo ready; sleep 1000");
    let (wrapper, log) = (hand.path("wrapper"), hand.path("calls"));
    let script = format!(
        "#!/bin/sh\necho \"$@\" >>{}\nexec {} \"$@\"\n",
        log.display(),
        bench.engine.program("runc").display()
    );
    fs::write(&wrapper, script).expect("writing a script");
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).expect("chmod");
    let hand =
        hand.options(&Options { binary_name: wrapper.display().to_string(), ..Options::default() }).up();
    hand.wait_for_output("ready");
    assert_eq!(hand.exec_to_end("one", &["sh", "-c", "echo out; exit 9"]), (9, "out\n".to_owned()));
    hand.exec("two", &["sleep", "1000"]);
    shim.tasks.pause(&hand.id).expect("Pause");
    assert_eq!(shim.tasks.state(&hand.id, "").map(|state| state.status), Ok(Status::Paused as i32));
    shim.tasks.resume(&hand.id).expect("Resume");
    shim.tasks.update(&hand.id, &json!({ "pids": { "limit": 50 } })).expect("Update");
    assert!(shim.tasks.pids(&hand.id).expect("Pids").len() >= 2);
    shim.tasks.stats(&hand.id).expect("Stats");
    shim.tasks.kill(&hand.id, "", Signal::KILL, false).expect("Kill");
    hand.exits(137);
    hand.delete();
    let log = fs::read_to_string(log).expect("the wrapper was run");
    for verb in ["create", "start", "exec", "pause", "resume", "update", "delete"] {
        let called = log.lines().any(|line| line.contains(&format!(" {verb} ")) && line.contains(&hand.id));
        assert!(called, "no {verb} in: {log}");
    }
}

/// A container that is run by the runc of the daemon's release, with either shim.
fn by_runc<'s>(bench: &Bench, hand: Hand<'s>) -> Hand<'s> {
    let binary_name = bench.engine.program("runc").display().to_string();
    hand.options(&Options { binary_name, ..Options::default() })
}

fn the_bundle_has_the_files_that_others_look_for(bench: &Bench) {
    let shim = Shim::shared(bench);
    let hand = by_runc(bench, shim.sleeping_container()).up();
    let read =
        |name: &str| fs::read_to_string(hand.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let state = shim.tasks.state(&hand.id, "").expect("State");
    assert_eq!(read("init.pid").trim(), state.pid.to_string());
    let runc = bench.engine.program("runc").display().to_string();
    assert_eq!(read("runtime"), runc);
    assert!(read("options.json").contains(&runc), "{}", read("options.json"));
    let pid = hand.exec("one", &["sleep", "1000"]);
    assert_eq!(read("one.pid").trim(), pid.to_string());
    shim.tasks.kill(&hand.id, "one", Signal::KILL, false).expect("Kill");
    shim.tasks.wait(&hand.id, "one").expect("Wait");
    shim.tasks.delete(&hand.id, "one").expect("Delete");
    assert!(!hand.path("one.pid").exists());
    let request = hand.exec_request("two", &["/nonesuch"]);
    shim.tasks.exec(&request).expect("Exec");
    shim.tasks.start(&hand.id, "two").expect_err("there is no such program");
    assert!(read("log.json").contains("nonesuch"), "{}", read("log.json"));
    hand.end();
}

// containerd's own shim answers State only when the runtime is done.
fn a_container_is_pausing_until_it_is_paused(bench: &Bench) {
    let shim = Shim::shared(bench);
    let hand = shim.sleeping_container();
    let (wrapper, go) = (hand.path("wrapper"), hand.path("go"));
    let script = format!(
        "#!/bin/sh\ncase $* in *' pause '*) while ! test -e {}; do sleep 0.05; done ;; esac\nexec {} \"$@\"\n",
        go.display(),
        bench.engine.program("runc").display()
    );
    fs::write(&wrapper, script).expect("writing a script");
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).expect("chmod");
    let hand =
        hand.options(&Options { binary_name: wrapper.display().to_string(), ..Options::default() }).up();
    let state = || shim.tasks.state(&hand.id, "").map(|state| state.status);
    std::thread::scope(|scope| {
        let pausing = scope.spawn(|| shim.tasks.pause(&hand.id));
        let seen = eventually(|| state() == Ok(Status::Pausing as i32));
        fs::write(&go, "").expect("writing a file");
        assert!(seen, "{:?}", state());
        pausing.join().expect("no panic").expect("Pause");
    });
    assert_eq!(state(), Ok(Status::Paused as i32));
    shim.tasks.resume(&hand.id).expect("Resume");
    hand.end();
}

fn an_exec_may_have_the_name_of_a_file_of_the_bundle(bench: &Bench) {
    let shim = Shim::shared(bench);
    for hand in [shim.sleeping_container(), by_runc(bench, shim.sleeping_container())] {
        let hand = hand.up();
        let files = ["init.pid", "config.json", "options.json"];
        let read = || files.map(|name| fs::read_to_string(hand.path(name)).expect("a file of the bundle"));
        let before = read();
        for exec in ["init", "config", "options"] {
            assert_eq!(hand.exec_to_end(exec, &["echo", exec]), (0, format!("{exec}\n")));
            assert_eq!(read(), before, "after the exec {exec}");
        }
        hand.end();
    }
}

fn a_runtime_that_is_killed_at_an_exec_leaves_no_process(bench: &Bench) {
    let shim = Shim::shared(bench);
    let hand = shim.sleeping_container();
    let wrapper = hand.path("wrapper");
    let runc = bench.engine.program("runc").display().to_string();
    let script = format!("#!/bin/sh\n{runc} \"$@\"\ncase $* in *' exec '*) kill -9 $$ ;; esac\n");
    fs::write(&wrapper, script).expect("writing a script");
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).expect("chmod");
    let hand =
        hand.options(&Options { binary_name: wrapper.display().to_string(), ..Options::default() }).up();
    shim.tasks.exec(&hand.exec_request("one", &["sleep", "1000"])).expect("Exec");
    shim.tasks.start(&hand.id, "one").expect_err("the runtime was killed");
    let count = || shim.tasks.pids(&hand.id).expect("Pids").len();
    assert!(eventually(|| count() == 1), "{:?}", shim.tasks.pids(&hand.id));
    shim.tasks.delete(&hand.id, "one").expect("Delete");
    hand.end();
}

fn a_binary_name_that_is_not_there_is_an_error(bench: &Bench) {
    let shim = Shim::shared(bench);
    let hand = shim.sleeping_container();
    let hand = hand.options(&Options { binary_name: "/nonesuch/runc".into(), ..Options::default() });
    let failure = shim.tasks.create(&hand.request).expect_err("there is no such runtime");
    assert!(failure.message.contains("/nonesuch/runc"), "{failure:?}");
    assert_eq!(shim.tasks.state(&hand.id, "").expect_err("not made").code, Code::NOT_FOUND);
    hand.assert_nothing_left();
}

fn root_is_where_the_state_is(bench: &Bench) {
    let shim = Shim::shared(bench);
    let hand = shim.sleeping_container();
    let root = hand.path("state");
    let hand = hand.options(&Options { root: root.display().to_string(), ..Options::default() }).up();
    let state = root.join(bench.engine.namespace()).join(&hand.id);
    assert!(state.join("state.json").is_file(), "nothing at {}", state.display());
    assert_eq!(hand.exec_to_end("one", &["true"]).0, 0);
    hand.end();
    assert!(!state.exists());
}

fn io_uid_owns_the_pipes(bench: &Bench) {
    let shim = Shim::shared(bench);
    let hand = shim.script(
        "stat -L -c %u:%g /proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2 >/tmp/of; echo again >/proc/self/fd/2; cat /tmp/of",
    );
    let hand = hand.config(|config| {
        config["process"]["user"] = json!({ "uid": 1000, "gid": 1001 });
        coracle_integration::bundle::add_mount(config, "/tmp", "tmpfs", "tmpfs", &["mode=1777"]);
    });
    let (input, output) = (hand.fifo("fifo.in"), hand.fifo("fifo.out"));
    let mut reader = fs::OpenOptions::new().read(true).write(true).open(&output).expect("opening a FIFO");
    let hand = hand.request(|request| {
        request.stdin = input.display().to_string();
        (request.stdout, request.stderr) = (output.display().to_string(), output.display().to_string());
    });
    let hand = hand.options(&Options { io_uid: 1000, io_gid: 1001, ..Options::default() }).up();
    hand.exits(0);
    hand.delete();
    let expected = "again\n1000:1001\n1000:1001\n1000:1001\n";
    let mut bytes = vec![0; expected.len()];
    reader.read_exact(&mut bytes).expect("reading a FIFO");
    let mut lines: Vec<&str> = std::str::from_utf8(&bytes).expect("text").lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["1000:1001", "1000:1001", "1000:1001", "again"]);
}

fn no_pivot_root_and_no_new_keyring(bench: &Bench) {
    let shim = Shim::shared(bench);
    let hand = shim.script("ls /bin/busybox; keyctl 2>/dev/null; exit 0");
    let options = Options { no_pivot_root: true, no_new_keyring: true, ..Options::default() };
    let hand = hand.options(&options).up();
    hand.exits(0);
    hand.delete();
    assert_eq!(hand.output(), "/bin/busybox\n");
}

fn a_systemd_cgroup_without_systemd_is_an_error(bench: &Bench) {
    // The tests have a /run of their own, where nobody finds systemd.
    let shim = Shim::shared(bench);
    let hand = shim.sleeping_container();
    let path = format!("user.slice:coracle:{}", hand.id);
    let hand = hand.config(|config| config["linux"]["cgroupsPath"] = path.into());
    let hand = hand.options(&Options { systemd_cgroup: true, ..Options::default() });
    let failure = shim.tasks.create(&hand.request).expect_err("there is no systemd");
    assert!(failure.message.contains("systemd"), "{failure:?}");
    hand.assert_nothing_left();
}

fn options_of_an_unknown_type_are_refused(bench: &Bench) {
    let shim = Shim::shared(bench);
    let hand = shim.sleeping_container();
    let hand = hand.request(|request| {
        request.options = Some(Any { type_url: "no.such.Type".into(), value: vec![8, 1] });
    });
    let failure = shim.tasks.create(&hand.request).expect_err("what they ask for is not known");
    assert!(failure.message.contains("no.such.Type"), "{failure:?}");
    hand.assert_nothing_left();
}

fn a_root_filesystem_of_layers(bench: &Bench) {
    let shim = Shim::shared(bench);
    let hand = shim.script("cat /layer; echo new >/written; cat /written");
    let layers: Vec<PathBuf> = ["upper", "work", "middle"].map(|name| hand.path(name)).to_vec();
    for layer in &layers {
        fs::create_dir(layer).expect("making a layer");
    }
    fs::write(layers[2].join("layer"), "of the middle\n").expect("writing into a layer");
    let hand = hand.request(|request| {
        let overlay = &mut request.rootfs[0];
        (overlay.kind, overlay.source) = ("overlay".into(), "overlay".into());
        overlay.options = vec![
            format!("upperdir={}", layers[0].display()),
            format!("workdir={}", layers[1].display()),
            format!("lowerdir={}:{}", layers[2].display(), shim.busybox().display()),
        ];
    });
    let hand = hand.up();
    hand.exits(0);
    hand.delete();
    assert_eq!(hand.output(), "of the middle\nnew\n");
    assert_eq!(fs::read_to_string(layers[0].join("written")).expect("the upper layer"), "new\n");
}
