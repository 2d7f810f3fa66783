//! The shim's own command line, called as containerd calls it, and the process that it leaves to serve.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use coracle_integration::command::eventually;
use coracle_integration::engine::bench::{Bench, Check};
use coracle_integration::engine::by_hand::ByHand;
use coracle_integration::engine::shim::Shim;
use coracle_integration::engine::task::{Any, Deleted, Exec, OPTIONS, Options, PROCESS, Tasks};
use coracle_integration::{host, leftovers, named};
use prost::Message;
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CoreSchedulingScope, core_scheduling_cookie};
use serde_json::{Value, json};

pub fn checks() -> Vec<(&'static str, Check)> {
    named![
        the_version_is_printed,
        start_prints_an_address_and_nothing_else,
        start_twice_gives_one_shim,
        start_replaces_a_socket_that_nobody_serves,
        delete_cleans_up_after_a_killed_shim,
        delete_of_what_was_never_made_is_no_error,
        a_shim_is_the_first_to_go_when_memory_is_short,
        shim_cgroup_is_joined,
        a_shim_has_a_core_scheduling_group_where_that_is_asked_for,
        an_unknown_action_is_an_error,
    ]
}

pub fn checks_of_ours() -> Vec<(&'static str, Check)> {
    named![
        info_tells_what_the_runtime_can,
        start_answers_bootstrap_params_with_version_3,
        start_takes_options_for_what_they_are,
        both_versions_of_the_service_are_served,
        the_socket_is_for_its_user_alone,
        a_shim_has_one_thread,
        a_dump_of_the_state_ends_nothing,
        delete_tells_the_exit_status_that_a_killed_shim_knew,
        a_low_soft_limit_of_descriptors_is_not_the_shims,
        delete_does_the_rest_when_the_runtime_fails,
        info_tells_what_another_runtime_can,
        the_directory_of_sockets_is_the_shims_own,
        another_user_is_refused_whatever_the_modes_are,
        a_shim_that_is_terminated_ends_in_order,
    ]
}

fn socket(address: &str) -> &Path {
    Path::new(address.strip_prefix("unix://").expect("a unix socket"))
}

fn the_version_is_printed(bench: &Bench) {
    let hand = ByHand::new(bench);
    let mut command = Command::new(hand.program());
    command.arg("-v");
    let printed = coracle_integration::command::run(command).ok();
    assert!(printed.stdout.contains("Version"), "{printed}");
}

fn an_unknown_action_is_an_error(bench: &Bench) {
    let hand = ByHand::new(bench);
    hand.call(&["--no-such-flag"], &[]).fails();
}

fn start_prints_an_address_and_nothing_else(bench: &Bench) {
    let hand = ByHand::new(bench);
    let address = hand.start(&[]);
    let socket = socket(&address);
    let metadata = fs::symlink_metadata(socket).expect("the socket is there");
    assert_eq!((metadata.uid(), metadata.permissions().mode() & 0o777), (0, 0o600), "{address}");
    let who = hand.tasks(&address).who(&hand.id).expect("Connect");
    assert!(hand.shims().iter().any(|(pid, _)| *pid == who.shim_pid.cast_signed()), "{who:?}");
    hand.tasks(&address).shutdown(&hand.id).expect("Shutdown");
    assert!(eventually(|| hand.shims().is_empty()), "{:?}", hand.shims());
    assert!(eventually(|| !socket.exists()), "{address}");
}

fn start_twice_gives_one_shim(bench: &Bench) {
    let hand = ByHand::new(bench);
    assert_eq!(hand.start(&[]), hand.start(&[]));
    assert_eq!(hand.shims().len(), 1);
}

fn start_replaces_a_socket_that_nobody_serves(bench: &Bench) {
    let hand = ByHand::new(bench);
    let address = hand.start(&[]);
    hand.kill_shim();
    assert!(socket(&address).exists(), "nobody could remove it");
    assert_eq!(hand.start(&[]), address);
    hand.tasks(&address).who(&hand.id).expect("Connect");
}

fn delete_cleans_up_after_a_killed_shim(bench: &Bench) {
    let hand = ByHand::new(bench);
    let shared = Shim::shared(bench);
    let address = hand.start(&[]);
    let pid = hand.run(&hand.tasks(&address), &shared, &["sleep", "1000"]);
    hand.kill_shim();
    let answer = hand.delete();
    let deleted = Deleted::decode(&*answer).expect("DeleteResponse");
    assert_eq!(deleted.exit_status, 137, "{deleted:?}");
    assert!(!host::is_alive(pid), "its process is still there");
    assert!(leftovers::cgroups(&hand.id).is_empty(), "{:?}", leftovers::cgroups(&hand.id));
    assert!(host::mounts_below(&hand.bundle()).is_empty(), "{:?}", host::mounts_below(&hand.bundle()));
    let state = Path::new("/run/containerd/runc").join(bench.engine.namespace()).join(&*hand.id);
    assert!(!state.exists(), "{}", state.display());
}

fn delete_of_what_was_never_made_is_no_error(bench: &Bench) {
    let hand = ByHand::new(bench);
    hand.delete();
}

fn a_shim_is_the_first_to_go_when_memory_is_short(bench: &Bench) {
    let shim = Shim::shared(bench);
    let score = |pid: i32| -> i32 {
        let text = fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).expect("the process is there");
        text.trim().parse().expect("a number")
    };
    let daemon = bench.engine.pid().expect("the daemon runs");
    assert_eq!(score(shim.pid()), score(daemon) + 1);
}

fn a_shim_has_a_core_scheduling_group_where_that_is_asked_for(bench: &Bench) {
    let hand = ByHand::new(bench);
    let cookie =
        |pid: i32| core_scheduling_cookie(Pid::from_raw(pid).expect("a pid"), CoreSchedulingScope::Thread);
    let own = std::process::id().cast_signed();
    let started = |asked: &str| {
        let mut command = hand.command(&["start"]);
        command.env("SCHED_CORE", asked);
        coracle_integration::command::run(command)
    };
    if cookie(own).is_err() {
        // This kernel has none: that is an error, and nothing stays.
        let refused = started("1").fails();
        assert!(refused.to_string().contains("core"), "{refused}");
        assert!(eventually(|| hand.shims().is_empty()), "{:?}", hand.shims());
    } else {
        started("1").ok();
        let (shim, _) = hand.shims().pop().expect("the shim");
        assert_ne!(cookie(shim), cookie(own));
        hand.kill_shim();
    }
    started("").ok();
}

fn shim_cgroup_is_joined(bench: &Bench) {
    let hand = ByHand::new(bench);
    let cgroup = format!("/{}/{}-shim", bench.engine.namespace(), &*hand.id);
    let directory = host::v1_hierarchy("memory").expect("a memory hierarchy").join(&cgroup[1..]);
    // containerd's own shim joins what is there.
    let controllers = ["memory", "cpu", "cpuacct", "pids", "freezer", "devices", "blkio", "cpuset"];
    for hierarchy in controllers.into_iter().filter_map(host::v1_hierarchy) {
        let mut made = hierarchy.clone();
        for name in cgroup[1..].split('/') {
            let above = made.clone();
            made.push(name);
            fs::create_dir_all(&made).expect("making a cgroup");
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if let Ok(set) = fs::read(above.join(file)) {
                    fs::write(made.join(file), set).expect("a cpuset takes what the one above has");
                }
            }
        }
    }
    let options = Any::of(OPTIONS, &Options { shim_cgroup: cgroup, ..Options::default() });
    let address = hand.start(&options.encode_to_vec());
    let pid = hand.tasks(&address).who(&hand.id).expect("Connect").shim_pid;
    let members = fs::read_to_string(directory.join("cgroup.procs")).expect("the cgroup is there");
    assert!(members.lines().any(|line| line == pid.to_string()), "{pid} is not in {}", directory.display());
    hand.kill_shim();
    leftovers::remove(&[format!("{}-shim", &*hand.id)], "no-such-mark", Path::new("/nowhere"));
}

/// `containerd.types.RuntimeInfo`, as far as it is looked at.
#[derive(Clone, PartialEq, Message)]
struct RuntimeInfo {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    version: Option<RuntimeVersion>,
    #[prost(message, optional, tag = "4")]
    features: Option<Any>,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct RuntimeVersion {
    #[prost(string, tag = "1")]
    version: String,
}

fn info_tells_what_the_runtime_can(bench: &Bench) {
    let hand = ByHand::new(bench);
    let info = RuntimeInfo::decode(&*hand.bytes(&["-info"], &[])).expect("RuntimeInfo");
    assert_eq!(info.name, "io.containerd.coracle.v2");
    assert!(info.version.is_some_and(|version| !version.version.is_empty()));
    let features = info.features.expect("features");
    assert_eq!(features.type_url, "types.containerd.io/opencontainers/runtime-spec/1/features/Features");
    let features: Value = serde_json::from_slice(&features.value).expect("features are JSON");
    assert!(
        features["ociVersionMax"].as_str().is_some_and(|version| version.starts_with("1.")),
        "{features}"
    );
}

fn info_tells_what_another_runtime_can(bench: &Bench) {
    let hand = ByHand::new(bench);
    let features = |binary: &Path| {
        let options = Options { binary_name: binary.display().to_string(), ..Options::default() };
        let answer = hand.bytes(&["-info"], &Any::of(OPTIONS, &options).encode_to_vec());
        RuntimeInfo::decode(&*answer).expect("RuntimeInfo").features.map(|features| features.value)
    };
    let other = hand.path("other");
    script(&other, "[ \"$*\" = features ] && echo '{\"ociVersionMax\":\"9.9.9\"}'");
    assert_eq!(features(&other).as_deref(), Some(&b"{\"ociVersionMax\":\"9.9.9\"}\n"[..]));
    script(&other, "echo features: no such command; exit 1");
    assert_eq!(features(&other), None, "it doesn't know the command");
    assert_eq!(features(&hand.path("nonesuch")), None, "it isn't there");
}

/// Writes a program for the shell.
fn script(path: &Path, text: &str) {
    fs::write(path, format!("#!/bin/sh\n{text}\n")).expect("writing a script");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("chmod");
}

/// `containerd.runtime.bootstrap.v1.BootstrapParams`, as far as it is needed.
#[derive(Clone, PartialEq, Eq, Message)]
struct BootstrapParams {
    #[prost(string, tag = "1")]
    instance_id: String,
    #[prost(string, tag = "2")]
    namespace: String,
    #[prost(string, tag = "4")]
    containerd_version: String,
    #[prost(string, tag = "5")]
    containerd_ttrpc_address: String,
    #[prost(string, tag = "6")]
    containerd_grpc_address: String,
    #[prost(string, tag = "9")]
    socket_dir: String,
}

/// `containerd.runtime.bootstrap.v1.BootstrapResult`, as far as it is looked at.
#[derive(Clone, PartialEq, Eq, Message)]
struct BootstrapResult {
    #[prost(int32, tag = "1")]
    version: i32,
    #[prost(string, tag = "2")]
    address: String,
    #[prost(string, tag = "3")]
    protocol: String,
}

/// The version, the address and the protocol in an answer in any of the forms that containerd reads.
#[track_caller]
fn answer(bytes: &[u8]) -> (i64, String, String) {
    if let Ok(json) = serde_json::from_slice::<Value>(bytes) {
        let text = |field: &str| json[field].as_str().unwrap_or_default().to_owned();
        return (json["version"].as_i64().expect("a version"), text("address"), text("protocol"));
    }
    if bytes.starts_with(b"unix://") {
        return (2, String::from_utf8_lossy(bytes).into_owned(), "ttrpc".to_owned());
    }
    let result = BootstrapResult::decode(bytes).expect("an answer");
    (result.version.into(), result.address, result.protocol)
}

/// What containerd 2.3 writes to `start`.
fn params(hand: &ByHand) -> BootstrapParams {
    let engine = hand.bench.engine;
    BootstrapParams {
        instance_id: hand.id.to_string(),
        namespace: engine.namespace().to_owned(),
        containerd_version: "2.3.0".into(),
        containerd_ttrpc_address: engine.path("sock.ttrpc").display().to_string(),
        containerd_grpc_address: engine.path("sock").display().to_string(),
        socket_dir: String::new(),
    }
}

fn start_answers_bootstrap_params_with_version_3(bench: &Bench) {
    let hand = ByHand::new(bench);
    let params = params(&hand);
    let (version, address, protocol) = answer(&hand.bytes(&["start"], &params.encode_to_vec()));
    assert_eq!((version, protocol.as_str()), (3, "ttrpc"));
    Tasks::connect(&address, 3).who(&hand.id).expect("Connect");
}

fn start_takes_options_for_what_they_are(bench: &Bench) {
    // By the encoding alone these could be BootstrapParams for an instance with the name of the type.
    let hand = ByHand::new(bench);
    let options = Any::of(OPTIONS, &Options { no_new_keyring: true, ..Options::default() });
    let (version, address, protocol) = answer(&hand.bytes(&["start"], &options.encode_to_vec()));
    assert_eq!((version, protocol.as_str()), (2, "ttrpc"));
    Tasks::connect(&address, 2).who(&hand.id).expect("Connect");
}

fn both_versions_of_the_service_are_served(bench: &Bench) {
    let shim = Shim::shared(bench);
    for version in [2, 3] {
        let tasks = Tasks::connect(&shim.address, version);
        assert_eq!(tasks.who(shim.anchor()).expect("Connect").shim_pid.cast_signed(), shim.pid());
    }
}

/// CVE-2020-15257: an abstract name has no owner and no mode.
fn the_socket_is_for_its_user_alone(bench: &Bench) {
    let shim = Shim::shared(bench);
    let path = socket(&shim.address);
    let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(path), 0o600);
    assert_eq!(mode(path.parent().expect("a directory")), 0o700);
    let asked = |uid: u32| Command::new("test").arg("-w").arg(path).uid(uid).status().expect("test(1)");
    assert!(asked(0).success() && !asked(4242).success(), "only root may call");
    // What the process itself listens on, by the inode of each of its sockets.
    let own: Vec<String> = fs::read_dir(format!("/proc/{}/fd", shim.pid()))
        .expect("its descriptors")
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok()?.to_str().map(str::to_owned))
        .filter_map(|link| Some(link.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let sockets = fs::read_to_string("/proc/net/unix").expect("the list of sockets");
    let is_own =
        |line: &&str| line.split_whitespace().nth(6).is_some_and(|inode| own.iter().any(|own| own == inode));
    for line in sockets.lines().filter(is_own) {
        assert!(!line.contains('@'), "an abstract name: {line}");
    }
}

fn a_shim_has_one_thread(bench: &Bench) {
    let shim = Shim::shared(bench);
    let hand = shim.sleeping();
    assert_eq!(hand.exec_to_end("one", &["true"]).0, 0);
    let threads = fs::read_dir(format!("/proc/{}/task", shim.pid())).expect("the shim is there").count();
    assert_eq!(threads, 1);
    hand.end();
}

fn a_dump_of_the_state_ends_nothing(bench: &Bench) {
    let shim = Shim::own(bench);
    let pid = shim.pid();
    kill_process(Pid::from_raw(pid).expect("a pid"), Signal::USR1).expect("signalling the shim");
    let told = || {
        let log = bench.engine.log();
        let mut lines = log.lines().filter(|line| line.contains(&format!("container {}:", &**shim.anchor())));
        // containerd copies the lines, so that they must have its own form.
        lines.any(|line| line.starts_with("time=\"20") && line.contains("Z\" level=info msg=\"container "))
    };
    assert!(eventually(told), "nothing about {} in the daemon's log", &**shim.anchor());
    assert_eq!(shim.pid(), pid);
    shim.anchor().end();
}

fn delete_tells_the_exit_status_that_a_killed_shim_knew(bench: &Bench) {
    let hand = ByHand::new(bench);
    let shared = Shim::shared(bench);
    let address = hand.start(&[]);
    let tasks = hand.tasks(&address);
    hand.run(&tasks, &shared, &["sh", "-c", "exit 23"]);
    assert_eq!(tasks.wait(&hand.id, "").map(|end| end.exit_status), Ok(23));
    hand.kill_shim();
    let answer = hand.delete();
    assert_eq!(Deleted::decode(&*answer).expect("DeleteResponse").exit_status, 23);
}

fn delete_does_the_rest_when_the_runtime_fails(bench: &Bench) {
    let hand = ByHand::new(bench);
    let shared = Shim::shared(bench);
    let (wrapper, fails) = (hand.path("wrapper"), hand.path("fails"));
    let runc = bench.engine.program("runc");
    script(
        &wrapper,
        &format!(
            "case \" $* \" in *' delete '*) [ -e {} ] && {{ echo broken >&2; exit 1; }};; esac\nexec {} \"$@\"",
            fails.display(),
            runc.display()
        ),
    );
    let address = hand.start(&[]);
    let tasks = hand.tasks(&address);
    let options = Options { binary_name: wrapper.display().to_string(), ..Options::default() };
    hand.run_with(&tasks, &shared, &["sh", "-c", "exit 23"], &options);
    assert_eq!(tasks.wait(&hand.id, "").map(|end| end.exit_status), Ok(23));
    hand.kill_shim();
    fs::write(&fails, "").expect("writing a file");
    let answer = hand.delete();
    assert_eq!(Deleted::decode(&*answer).expect("DeleteResponse").exit_status, 23);
    assert!(host::mounts_below(&hand.bundle()).is_empty(), "{:?}", host::mounts_below(&hand.bundle()));
    assert!(!socket(&address).exists(), "{address}");
    fs::remove_file(&fails).expect("removing a file");
    hand.delete();
    assert!(leftovers::cgroups(&hand.id).is_empty());
}

fn the_directory_of_sockets_is_the_shims_own(bench: &Bench) {
    let hand = ByHand::new(bench);
    let directory = hand.path("sockets");
    let params = BootstrapParams { socket_dir: directory.display().to_string(), ..params(&hand) };
    let (_, address, _) = answer(&hand.bytes(&["start"], &params.encode_to_vec()));
    assert_eq!(socket(&address).parent(), Some(&*directory));
    let metadata = fs::symlink_metadata(&directory).expect("the directory is there");
    assert_eq!((metadata.uid(), metadata.permissions().mode() & 0o777), (0, 0o700));
}

fn another_user_is_refused_whatever_the_modes_are(bench: &Bench) {
    let hand = ByHand::new(bench);
    let directory = hand.path("sockets");
    let params = BootstrapParams { socket_dir: directory.display().to_string(), ..params(&hand) };
    let (_, address, _) = answer(&hand.bytes(&["start"], &params.encode_to_vec()));
    let path = socket(&address);
    for (path, mode) in [(&*directory, 0o711), (path, 0o666)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
    }
    // A shim that takes the connection waits for a request, and this for its answer.
    let script = "chdir shift; $> = shift; alarm 10; \
        my $s = IO::Socket::UNIX->new(Peer => shift) or die qq(connect: $!); print defined(<$s>) ? 1 : q(closed)";
    let name = path.file_name().expect("a name").display().to_string();
    let words = ["-MIO::Socket::UNIX", "-e", script, &directory.display().to_string(), "4242", &name];
    let told = coracle_integration::command::run(coracle_integration::command::command("perl", &words)).ok();
    assert_eq!(told.out(), "closed");
    hand.tasks(&address).who(&hand.id).expect("the shim's own user is answered");
}

fn a_shim_that_is_terminated_ends_in_order(bench: &Bench) {
    let hand = ByHand::new(bench);
    let shared = Shim::shared(bench);
    let address = hand.start(&[]);
    let pid = hand.run(&hand.tasks(&address), &shared, &["sleep", "1000"]);
    let shim = hand.tasks(&address).who(&hand.id).expect("Connect").shim_pid.cast_signed();
    kill_process(Pid::from_raw(shim).expect("a pid"), Signal::TERM).expect("signalling the shim");
    assert!(eventually(|| hand.shims().is_empty()), "{:?}", hand.shims());
    assert!(!socket(&address).exists(), "{address}");
    assert!(host::is_alive(pid), "containers are containerd's to take away");
    hand.delete();
    assert!(!host::is_alive(pid));
}

fn a_low_soft_limit_of_descriptors_is_not_the_shims(bench: &Bench) {
    let mut hand = ByHand::new(bench);
    let shared = Shim::shared(bench);
    hand.wrapper = ["prlimit", "--nofile=128:4096"].map(str::to_owned).to_vec();
    let address = hand.start(&[]);
    let tasks = hand.tasks(&address);
    hand.run(&tasks, &shared, &["sleep", "1000"]);
    let limits = |pid: i32| {
        let text = fs::read_to_string(format!("/proc/{pid}/limits")).expect("the process is there");
        let line =
            text.lines().find(|line| line.starts_with("Max open files")).expect("the limit").to_owned();
        line.split_whitespace().skip(3).take(2).map(str::to_owned).collect::<Vec<_>>()
    };
    let fifo = hand.path("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("mkfifo");
    let _held = fs::OpenOptions::new().read(true).write(true).open(&fifo).expect("opening a FIFO");
    let process = json!({ "args": ["sleep", "1000"], "cwd": "/", "env": ["PATH=/bin"], "user": { "uid": 0, "gid": 0 } });
    // Each has more than three descriptors in the shim.
    for number in 0..40 {
        let request = Exec {
            id: hand.id.to_string(),
            exec_id: format!("e{number}"),
            stdout: fifo.display().to_string(),
            stderr: fifo.display().to_string(),
            spec: Some(Any::json(PROCESS, &process)),
            ..Exec::default()
        };
        tasks.exec(&request).expect("Exec");
        let pid = tasks.start(&hand.id, &request.exec_id).expect("Start").cast_signed();
        assert_eq!(limits(pid), ["128", "4096"], "it has what the shim was started with");
    }
    tasks.kill(&hand.id, "", Signal::KILL, false).expect("Kill");
    assert_eq!(tasks.wait(&hand.id, "").map(|end| end.exit_status), Ok(137));
    tasks.delete(&hand.id, "").expect("Delete");
}
