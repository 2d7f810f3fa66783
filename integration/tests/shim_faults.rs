//! The shim when something goes wrong around it: containerd is killed and comes back, the shim itself is killed, nobody
//! reads, a logger dies, calls come by the hundred and the thousand.
//!
//! `CORACLE_EXEC_CYCLES` says how many execs the long check makes; without it 1000, and 200 with containerd's own shim.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use coracle_integration::command::{Running, eventually};
use coracle_integration::engine::bench::{Bench, Own, Place, trials};
use coracle_integration::engine::by_hand::ByHand;
use coracle_integration::engine::containerd::{Containerd, Version};
use coracle_integration::engine::event_sink::EventSink;
use coracle_integration::engine::shim::Shim;
use coracle_integration::engine::task::{Any, Exec, PROCESS, Status};
use coracle_integration::{host, leftovers, named};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

fn main() -> ExitCode {
    let on_each_version =
        named![containers_outlive_a_daemon_that_is_terminated, containers_outlive_a_daemon_that_is_killed];
    let checks = named![
        a_killed_shim_is_cleaned_up_after,
        a_daemon_that_is_killed_during_creates_leaves_nothing,
        execs_leave_nothing_in_the_shim,
        containers_leave_nothing_in_the_shim,
        output_that_nobody_reads_stops_only_its_writer,
        nonsense_on_the_socket_harms_nobody,
    ];
    let of_ours = named![
        a_hundred_containers_are_made_at_once,
        a_logger_that_dies_stops_nobody,
        much_output_costs_no_memory,
        events_wait_for_a_daemon_that_is_away,
        a_disk_that_hangs_stops_only_who_writes_to_it,
        a_worker_that_is_killed_at_an_exec_leaves_no_process,
    ];
    let mut tests = trials(&on_each_version, &Place::of_shims(), &[]);
    tests.extend(trials(&checks, &Place::newest(), KNOWN_OF_RUNC));
    tests.extend(trials(&of_ours, &Place::newest()[1..], &[]));
    let code = coracle_integration::run_tests(tests);
    Shim::end_shared();
    Containerd::stop_shared();
    code
}

/// What containerd's own shim does otherwise, and why ours does not follow it.
const KNOWN_OF_RUNC: &[(&str, &str)] =
    &[("a_daemon_that_is_killed_during_creates_leaves_nothing", "a shim that was being started can stay")];

fn signal(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).expect("a pid"), signal).expect("signalling a process of ours");
}

fn exits_by_term(status: u32) -> String {
    format!("trap 'exit {status}' TERM; while :; do sleep 0.05; done")
}

fn containers_outlive_a_daemon_that_is_terminated(bench: &Bench) {
    outlive(bench, true);
}

fn containers_outlive_a_daemon_that_is_killed(bench: &Bench) {
    outlive(bench, false);
}

#[track_caller]
fn outlive(bench: &Bench, politely: bool) {
    let own = Own::like(bench, Containerd::of);
    let ends = own.id();
    own.run(&["--detach"], &ends, &["sh", "-c", &exits_by_term(7)]).ok();
    let ends_pid = own.engine.pid_of(&ends);
    let shim = Shim::own(&own);
    let process = json!({ "args": ["sh", "-c", exits_by_term(9)], "cwd": "/", "env": ["PATH=/bin"], "user": { "uid": 0, "gid": 0 } });
    let request = Exec {
        id: shim.anchor().to_string(),
        exec_id: "one".into(),
        spec: Some(Any::json(PROCESS, &process)),
        ..Exec::default()
    };
    shim.tasks.exec(&request).expect("Exec");
    let exec_pid = shim.tasks.start(shim.anchor(), "one").expect("Start").cast_signed();
    for pid in [ends_pid, exec_pid] {
        assert!(eventually(|| host::catches(pid, Signal::TERM)));
    }

    own.engine.stop_daemon(politely);
    for pid in [ends_pid, exec_pid] {
        signal(pid, Signal::TERM);
        assert!(eventually(|| !host::is_alive(pid)));
    }
    assert_eq!(shim.tasks.wait(shim.anchor(), "one").map(|end| end.exit_status), Ok(9));
    own.engine.start_again();

    own.engine.wait_for(shim.anchor(), "RUNNING");
    if own.engine.version() == Version::V1_6 {
        own.engine.wait_for(&ends, "STOPPED");
        let deleted = own.ctr(&["tasks", "delete", &ends]);
        assert!(deleted.stderr.contains("exit code 7"), "{deleted}");
    } else {
        // Newer ones delete on their way up what has no process any more.
        own.engine.wait_for(&ends, "");
    }
    own.ctr(&["containers", "delete", &ends]).ok();
    let words = ["tasks", "exec", "--exec-id", "two", &**shim.anchor(), "sh", "-c", "echo alive; sleep 0.3"];
    assert_eq!(own.ctr(&words).ok().out(), "alive");
    own.run(&["--rm"], &own.id(), &["true"]).ok();
    shim.anchor().end();
    own.engine.assert_gone(&ends);
}

fn a_killed_shim_is_cleaned_up_after(bench: &Bench) {
    bench.engine.events();
    let shim = Shim::own(bench);
    let id = shim.anchor().to_string();
    let pid = bench.engine.pid_of(&id);
    signal(shim.pid(), Signal::KILL);
    let events = bench.engine.events().until(&id, "/tasks/exit");
    let exit = events.iter().find(|event| event.topic == "/tasks/exit").expect("it came");
    assert_eq!(
        (exit.number("exit_status"), exit.number("pid")),
        (137, u64::try_from(pid).unwrap_or_default())
    );
    assert!(eventually(|| !host::is_alive(pid)), "the container's process is still there");
    assert!(
        eventually(|| ["", "STOPPED"].contains(&&*bench.engine.status(&id))),
        "{}",
        bench.engine.status(&id)
    );
    bench.ctr(&["tasks", "delete", &id]);
    bench.ctr(&["containers", "delete", &id]).ok();
    bench.engine.assert_gone(&id);
    let bundle = bench.engine.bundle(&id);
    assert!(eventually(|| host::mounts_below(&bundle).is_empty()), "{:?}", host::mounts_below(&bundle));
    // The id can be used again.
    bench.run(&["--rm"], &id, &["true"]).ok();
    bench.engine.assert_gone(&id);
}

fn a_daemon_that_is_killed_during_creates_leaves_nothing(bench: &Bench) {
    let own = Own::like(bench, Containerd::of);
    let ids: Vec<_> = (0..6).map(|_| own.id()).collect();
    for (index, id) in ids.iter().enumerate() {
        let mut ctr = own.run_command(&["--detach", "--null-io"], id, &["sleep", "1000"]);
        ctr.stdin(std::process::Stdio::null());
        let ctr = coracle_integration::command::Running::start(ctr);
        // A later point of the way with each of them: a moment is all that tells them apart.
        std::thread::sleep(std::time::Duration::from_millis(40 * u64::try_from(index).unwrap_or_default()));
        own.engine.stop_daemon(false);
        let _ = ctr.finish();
        own.engine.start_again();
        let status = own.engine.status(id);
        assert!(["", "CREATED", "RUNNING", "STOPPED"].contains(&&*status), "{status}");
    }
    for id in &ids {
        id.remove();
        own.engine.assert_gone(id);
    }
    let mounts = host::mounts_below(&own.engine.path("state"));
    assert!(mounts.is_empty(), "{mounts:?}");
}

/// The number of a process's open descriptors.
fn descriptors(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).expect("the shim is there").count()
}

/// A field of `/proc/PID/status`, in KiB. What a process has of its own is `RssAnon`: the pages of its program are
/// counted in other numbers, and are shared.
fn kibibytes(pid: i32, field: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("the shim is there");
    let value =
        host::status_field(&text, field).and_then(|value| value.trim_end_matches(" kB").trim().parse().ok());
    value.unwrap_or_else(|| panic!("no {field} in {text}"))
}

fn execs_leave_nothing_in_the_shim(bench: &Bench) {
    let usual = if bench.runtime.is_ours() { 1000 } else { 200 };
    let cycles =
        std::env::var("CORACLE_EXEC_CYCLES").ok().and_then(|text| text.parse().ok()).unwrap_or(usual);
    let shim = Shim::own(bench);
    let hand = shim.sleeping();
    let pid = shim.pid();
    let run = |from: u32, to: u32| {
        for number in from..to {
            let exec = format!("e{number}");
            assert_eq!(hand.exec_to_end(&exec, &["true"]).0, 0);
            fs::remove_file(hand.path(&exec)).expect("its output");
        }
    };
    let warm = cycles / 4;
    run(0, warm);
    let before = (descriptors(pid), kibibytes(pid, "RssAnon"));
    run(warm, cycles);
    assert!(
        eventually(|| descriptors(pid) <= before.0 + 3),
        "{} descriptors, then {}",
        before.0,
        descriptors(pid)
    );
    if bench.runtime.is_ours() {
        let after = kibibytes(pid, "RssAnon");
        assert!(after <= before.1 + 256, "{} KiB, then {after} KiB after {cycles} execs", before.1);
    }
    hand.end();
    shim.anchor().end();
}

fn containers_leave_nothing_in_the_shim(bench: &Bench) {
    let shim = Shim::own(bench);
    let pid = shim.pid();
    let run = |count: u32| {
        for _ in 0..count {
            let hand = shim.container(&["true"]).up();
            hand.exits(0);
            hand.delete();
        }
    };
    run(5);
    let before = descriptors(pid);
    run(25);
    // A few come and go with connections.
    let kept = || descriptors(pid) > before + 3;
    assert!(eventually(|| !kept()), "{before} descriptors, then {}", descriptors(pid));
    shim.anchor().end();
}

fn output_that_nobody_reads_stops_only_its_writer(bench: &Bench) {
    let shim = Shim::own(bench);
    let hand = shim.container(&["yes"]);
    let fifo = hand.fifo("fifo.out");
    // An end that is open and is not read.
    let options = || OpenOptions::new().read(true).clone();
    let mut reader = options().custom_flags(libc_nonblock()).open(&fifo).expect("opening a FIFO");
    let errors = hand.fifo("fifo.err");
    let other = options().custom_flags(libc_nonblock()).open(&errors).expect("opening a FIFO");
    let hand = hand.request(|request| {
        (request.stdout, request.stderr) = (fifo.display().to_string(), errors.display().to_string());
    });
    let hand = hand.up();
    let pid = shim.tasks.state(&hand.id, "").expect("State").pid.cast_signed();
    assert!(eventually(|| host::is_asleep(pid)), "the writer never waits");
    // Everything else goes on.
    assert_eq!(shim.tasks.state(&hand.id, "").map(|state| state.status), Ok(Status::Running as i32));
    assert_eq!(hand.exec_to_end("one", &["echo", "here"]), (0, "here\n".to_owned()));
    let side = shim.script("echo side").up();
    side.exits(0);
    side.delete();
    if bench.runtime.is_ours() {
        let memory = kibibytes(shim.pid(), "RssAnon");
        assert!(memory < 4 * 1024, "{memory} KiB");
    }
    shim.tasks.kill(&hand.id, "", Signal::KILL, false).expect("Kill");
    hand.exits(137);
    // What was written can still be read.
    let mut bytes = vec![0; 4096];
    assert!(reader.read(&mut bytes).is_ok_and(|length| length > 0 && bytes.starts_with(b"y\n")));
    drop((reader, other));
    hand.delete();
    shim.anchor().end();
}

fn libc_nonblock() -> i32 {
    rustix::fs::OFlags::NONBLOCK.bits().cast_signed()
}

fn nonsense_on_the_socket_harms_nobody(bench: &Bench) {
    let shim = Shim::own(bench);
    let hand = shim.sleeping();
    let path = shim.address.trim_start_matches("unix://");
    let nonsense: [&[u8]; 5] = [
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        // A header of a request with more bytes than there may be.
        &[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 1, 0],
        // A request that isn't one.
        &[0, 0, 0, 4, 0, 0, 0, 1, 1, 0, 0xff, 0xff, 0xff, 0xff],
        // A header that stops in the middle.
        &[0, 0, 0],
    ];
    let mut held = Vec::new();
    for bytes in nonsense {
        for stays in [false, true] {
            let mut stream = UnixStream::connect(path).expect("connecting");
            // The shim may have hung up already.
            let _ = stream.write_all(bytes);
            if stays {
                held.push(stream);
            }
        }
    }
    assert_eq!(shim.tasks.state(&hand.id, "").map(|state| state.status), Ok(Status::Running as i32));
    let failure = shim.tasks.call::<coracle_integration::engine::task::Waited>("Nonesuch", &Any::default());
    failure.expect_err("there is no such call");
    hand.end();
    drop(held);
    shim.anchor().end();
}

fn a_hundred_containers_are_made_at_once(bench: &Bench) {
    let shim = Shim::own(bench);
    let hands: Vec<_> = (0..100).map(|_| shim.sleeping_container()).collect();
    let together = |what: fn(&coracle_integration::engine::shim::Hand)| {
        std::thread::scope(|scope| {
            for hand in &hands {
                scope.spawn(move || what(hand));
            }
        });
    };
    together(|hand| {
        hand.tasks().create(&hand.request).expect("Create");
        hand.start();
    });
    let pids: std::collections::BTreeSet<u32> =
        hands.iter().map(|hand| hand.tasks().state(&hand.id, "").expect("State").pid).collect();
    assert_eq!(pids.len(), 100, "each has a process of its own");
    together(|hand| hand.end());
    shim.anchor().end();
}

fn a_logger_that_dies_stops_nobody(bench: &Bench) {
    let shim = Shim::own(bench);
    // More than any pipe holds, then a sign of life in the exit status.
    let hand = shim.script("dd if=/dev/zero bs=64k count=64 2>/dev/null; sleep 0.1; dd if=/dev/zero bs=64k count=64 2>/dev/null; exit 3");
    let logger = hand.path("logger");
    fs::write(&logger, "#!/bin/sh\nexec 5>&-\nexit 1\n").expect("writing the logger");
    fs::set_permissions(&logger, fs::Permissions::from_mode(0o755)).expect("chmod");
    let uri = format!("binary://{}", logger.display());
    let hand = hand.request(|request| (request.stdout, request.stderr) = (uri.clone(), uri)).up();
    hand.exits(3);
    hand.delete();
    shim.anchor().end();
}

fn much_output_costs_no_memory(bench: &Bench) {
    let shim = Shim::own(bench);
    let hand = shim.container(&["dd", "if=/dev/zero", "bs=1M", "count=1024"]);
    let (out, err) = (hand.fifo("fifo.out"), hand.fifo("fifo.err"));
    let read = |fifo: std::path::PathBuf| {
        std::thread::spawn(move || {
            let mut fifo = File::open(fifo).expect("opening a FIFO");
            std::io::copy(&mut fifo, &mut std::io::sink()).expect("reading a FIFO")
        })
    };
    let (stdout, stderr) = (read(out.clone()), read(err.clone()));
    let hand = hand.request(|request| {
        (request.stdout, request.stderr) = (out.display().to_string(), err.display().to_string());
    });
    let hand = hand.create();
    let pid = shim.pid();
    let before = kibibytes(pid, "VmHWM");
    hand.start();
    hand.exits(0);
    hand.delete();
    assert_eq!(stdout.join().ok(), Some(1 << 30));
    assert!(stderr.join().is_ok_and(|bytes| bytes > 0), "what dd says at the end");
    let after = kibibytes(pid, "VmHWM");
    assert!(after <= before + 1024, "at the most {before} KiB, then {after} KiB");
    shim.anchor().end();
}

fn events_wait_for_a_daemon_that_is_away(bench: &Bench) {
    let mut hand = ByHand::new(bench);
    let shared = Shim::shared(bench);
    let socket = hand.path("events");
    hand.events = socket.clone().into_os_string();
    let address = hand.start(&[]);
    let tasks = hand.tasks(&address);
    hand.run(&tasks, &shared, &["sh", "-c", "exit 5"]);
    assert_eq!(tasks.wait(&hand.id, "").map(|end| end.exit_status), Ok(5));
    tasks.delete(&hand.id, "").expect("Delete");
    // All of it has happened, and nobody was there to hear of it.
    let sink = EventSink::listen(&socket);
    let topics = || sink.received().into_iter().map(|event| event.topic).collect::<Vec<String>>();
    let all = ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"];
    assert!(eventually(|| topics() == all), "{:?}", topics());
    for event in sink.received() {
        assert_eq!(event.namespace, bench.engine.namespace());
        assert!(event.timestamp.is_some() && event.event.is_some(), "{event:?}");
    }
    tasks.shutdown(&hand.id).expect("Shutdown");
    assert!(eventually(|| hand.shims().is_empty()), "{:?}", hand.shims());
    assert!(leftovers::cgroups(&hand.id).is_empty());
}

/// A file system of its own, in a file; it is thawed and unmounted when dropped.
struct Disk {
    mount: std::path::PathBuf,
}

impl Disk {
    fn new(hand: &coracle_integration::engine::shim::Hand) -> Self {
        let (image, mount) = (hand.path("image"), hand.path("disk"));
        File::create(&image).and_then(|file| file.set_len(16 << 20)).expect("making an image");
        fs::create_dir(&mount).expect("making a directory");
        let disk = Self { mount };
        call("mkfs.ext2", &["-q", "-F", &image.display().to_string()]);
        call("mount", &["-o", "loop", &image.display().to_string(), &disk.path()]);
        disk
    }

    fn path(&self) -> String {
        self.mount.display().to_string()
    }
}

#[track_caller]
fn call(program: &str, words: &[&str]) {
    coracle_integration::command::run(coracle_integration::command::command(program, words)).ok();
}

impl Drop for Disk {
    fn drop(&mut self) {
        for (program, words) in [("fsfreeze", vec!["-u"]), ("umount", vec![])] {
            // It may be thawed already.
            let mut command = std::process::Command::new(program);
            let _ = command.args(words).arg(&self.mount).stderr(std::process::Stdio::null()).status();
        }
    }
}

fn a_disk_that_hangs_stops_only_who_writes_to_it(bench: &Bench) {
    let shim = Shim::own(bench);
    let hand = shim.script("echo before; read word; seq 20000; echo end");
    let disk = Disk::new(&hand);
    let log = disk.mount.join("log");
    let uri = format!("file://{}", log.display());
    let input = hand.fifo("fifo.in");
    let hand = hand.request(|request| {
        request.stdin = input.display().to_string();
        (request.stdout, request.stderr) = (uri.clone(), uri.clone());
    });
    let hand = hand.up();
    let read = || fs::read_to_string(&log).unwrap_or_default();
    assert!(eventually(|| read() == "before\n"), "{:?}", read());
    call("fsfreeze", &["-f", &disk.path()]);
    OpenOptions::new().write(true).open(&input).expect("opening a FIFO").write_all(b"go\n").expect("writing");
    let pid = shim.tasks.state(&hand.id, "").expect("State").pid.cast_signed();
    assert!(eventually(|| host::is_asleep(pid)), "the writer never waits");
    // Everything else goes on.
    assert_eq!(shim.tasks.state(&hand.id, "").map(|state| state.status), Ok(Status::Running as i32));
    assert_eq!(hand.exec_to_end("one", &["echo", "here"]), (0, "here\n".to_owned()));
    let side = shim.script("echo side").up();
    side.exits(0);
    side.delete();
    call("fsfreeze", &["-u", &disk.path()]);
    hand.exits(0);
    let all: String = (1..=20000).map(|number| format!("{number}\n")).chain(["end\n".to_owned()]).collect();
    assert!(eventually(|| read() == format!("before\n{all}")), "{} bytes", read().len());
    drop(disk);
    hand.delete();
    shim.anchor().end();
}

/// A lease on a file: whoever opens it waits until the lease ends (fcntl(2), "Leases"), as from a server that hangs. Says
/// `asked` when somebody does.
fn lease(file: &str) -> Running {
    let script = r#"
        use IO::Handle; STDOUT->autoflush(1);
        $SIG{IO} = sub { print "asked\n" };
        open(F, "<", shift) && fcntl(F, 1024, 1) or die "no lease: $!";
        print "leased\n";
        sleep 1 while 1;"#;
    let lease = Running::start(coracle_integration::command::command("perl", &["-e", script, file]));
    lease.wait_for_output("leased");
    lease
}

fn children(pid: i32) -> Vec<i32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

fn a_worker_that_is_killed_at_an_exec_leaves_no_process(bench: &Bench) {
    let shim = Shim::own(bench);
    let hand = shim.sleeping_container();
    let program = hand.path("held");
    fs::copy(shim.busybox().join("bin/busybox"), &program).expect("copying a program");
    let held = program.display().to_string();
    // The root filesystem is read-only; /dev is not.
    let hand = hand.config(|config| {
        coracle_integration::bundle::add_mount(config, "/dev/held/sleep", "bind", &held, &["bind"]);
    });
    let hand = hand.up();
    let lease = lease(&held);
    let before = children(shim.pid());
    shim.tasks.exec(&hand.exec_request("one", &["/dev/held/sleep", "1000"])).expect("Exec");
    std::thread::scope(|scope| {
        let starting = scope.spawn(|| shim.tasks.start(&hand.id, "one"));
        // Its process is there, and executes the program.
        lease.wait_for_output("asked");
        let worker =
            children(shim.pid()).into_iter().find(|pid| !before.contains(pid) && children(*pid).len() == 1);
        signal(worker.expect("the worker"), Signal::KILL);
        starting.join().expect("no panic").expect_err("what made it was killed");
    });
    lease.signal(Signal::KILL);
    lease.finish();
    let count = || shim.tasks.pids(&hand.id).expect("Pids").len();
    assert!(eventually(|| count() == 1), "{:?}", shim.tasks.pids(&hand.id));
    // The container is as it was.
    assert_eq!(hand.exec_to_end("two", &["echo", "here"]), (0, "here\n".to_owned()));
    hand.end();
    shim.anchor().end();
}
